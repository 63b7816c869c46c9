/*
 * own_ranges.h
 *		The unfinished ranges of this backend.
 */
#ifndef MBUS_OWN_RANGES_H
#define MBUS_OWN_RANGES_H

#include "postgres.h"

#include "state/state_internal.h"

/* What a publisher wants. */
typedef struct MbusWant
{
	int32		channel_id;
	int32		segment;		/* open for it */
	int64		last_id;		/* newest id reserved of the channel */
	int32		rows;			/* at most so many ids */
	bool		ordered;		/* a message has a key */
} MbusWant;

extern int32 mbus_own_rest(MbusBackend *me, const MbusWant *want,
						   int64 *first);
extern int64 mbus_own_add(MbusBackend *me, const MbusWant *want, int64 first,
						  int32 left, int32 *got);
extern void mbus_own_return(MbusBackend *me, int32 channel_id, int64 first,
							int64 end);

#endif							/* MBUS_OWN_RANGES_H */
