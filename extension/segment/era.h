/*
 * era.h
 *		Which segments may have a transaction id.
 */
#ifndef MBUS_ERA_H
#define MBUS_ERA_H

#include "postgres.h"

#include "segment/leaf.h"

#define MBUS_ERAS	32			/* tables era_<n> that the extension has */

/* columns of the tables era_<n> */
enum
{
	MBUS_ERA_HASH = 1,
	MBUS_ERA_SEGMENT,
	MBUS_ERA_COLUMNS = MBUS_ERA_SEGMENT
};

extern void mbus_era_init(void);
extern int32 mbus_era_hash(int32 channel_id, const text *transaction_id);
extern int	mbus_segments_with(Oid schema, int32 channel_id,
							   const text *transaction_id,
							   int32 **segments);
extern bool mbus_segment_undelayed(Oid schema, const MbusLeaf *leaf);

#endif							/* MBUS_ERA_H */
