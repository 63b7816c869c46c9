/*
 * registry.h
 *		The registry of unfinished publishes.
 */
#ifndef MBUS_REGISTRY_H
#define MBUS_REGISTRY_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/ids.h"
#include "state/state.h"

/* What a publisher got: [first_id, first_id + rows) in one segment. */
typedef struct MbusReservation
{
	int64		first_id;
	int32		rows;
	int32		taken;			/* ids newly reserved for that */
	int32		series;			/* whose segment it is */
	int32		segment;
	Oid			leaf[MBUS_FAMILIES];
	TimestampTz created_at;
} MbusReservation;

extern void mbus_reserve(MbusDatabase *db, Oid schema, int32 series,
						 int32 channel_id, int32 rows, int64 bytes,
						 int64 longest_ttl_us, bool ordered,
						 MbusReservation *out);
extern void mbus_reserve_undo(MbusDatabase *db, int32 channel_id,
							  const MbusReservation *last, int32 used);
extern void mbus_registry_init(void);
extern void mbus_registry_forget(MbusDatabase *db);

#endif							/* MBUS_REGISTRY_H */
