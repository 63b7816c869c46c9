/*
 * state_internal.h
 *		What the files of this room share; nobody else includes this.
 */
#ifndef MBUS_STATE_INTERNAL_H
#define MBUS_STATE_INTERNAL_H

#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/hsearch.h"

#include "base/ids.h"
#include "state/range.h"
#include "state/state.h"

/*
 * A backend's unfinished ranges of ids, see own_ranges.c, and of numbers of
 * facts, see fact_number.c; protected by its database's lock, written by the
 * backend.
 */
typedef struct MbusBackend
{
	Oid			database;
	Oid			schema;
	int32		nranges;
	MbusRange	range[MBUS_RANGES_PER_BACKEND];
	MbusRange	overflow;		/* hi 0: empty; its channels are in the
								 * backend's filter */
	pg_atomic_uint32 nfacts;	/* set to 0 without the lock */
	MbusFactRange fact[MBUS_FACT_CHUNKS];
} MbusBackend;

typedef struct MbusChannelKey
{
	Oid			database;
	int32		channel_id;
} MbusChannelKey;

/*
 * What is known of a channel that was published to lately; protected by
 * channel_lock, and what is in it by the database's lock.
 */
typedef struct MbusChannelSlot
{
	MbusChannelKey key;
	int32		series;			/* that it was published to last */
	int64		last_id;		/* newest id reserved, if it was not given
								 * back: see mbus_channel_last() */
} MbusChannelSlot;

typedef struct MbusShared
{
	LWLock		slot_lock;
	LWLock		channel_lock;
	int32		channels_beyond;	/* slots beyond MBUS_CHANNEL_SHARE of
									 * their database; channel_lock */
	int32		nbackends;
	TimestampTz made_at;		/* never changed */
	pg_atomic_uint32 highest_epoch; /* of leases, of any database; outlives
									 * DROP EXTENSION and DROP DATABASE */
	MbusDatabase db[MBUS_MAX_DATABASES];
	MbusBackend backend[FLEXIBLE_ARRAY_MEMBER];
} MbusShared;

extern MbusShared *mbus_shared;
extern HTAB *mbus_channels;

/* registry.c: under the state lock */
extern void mbus_backend_enter(MbusDatabase *db, Oid schema);

/* fact_number.c */
extern void mbus_fact_numbers_end(MbusBackend *me);

/* channel_slot.c: all under the state lock */
extern MbusChannelSlot *mbus_channel_slot_find(MbusDatabase *db,
											   int32 channel_id);
extern MbusChannelSlot *mbus_channel_slot(MbusDatabase *db, int32 channel_id);
extern int64 mbus_channel_last(MbusDatabase *db, const MbusChannelSlot *slot);
extern int64 mbus_channel_settled(MbusDatabase *db);
extern int32 mbus_lowest_segment(MbusDatabase *db, int32 from);

/* pace.c: likewise */
extern int32 mbus_series_place(MbusDatabase *db, const MbusChannelSlot *slot,
							   int32 series_no, int32 least);

#endif							/* MBUS_STATE_INTERNAL_H */
