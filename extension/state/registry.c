/*
 * registry.c
 *		The registry of unfinished publishes.
 *
 * Ids are reserved before commit, so rows become visible out of order.  A
 * publisher therefore reserves ids and registers them as unfinished in one
 * step (mbus_reserve), before it inserts; its transaction callback removes
 * them after the commit has become visible or the abort is done, and then
 * wakes who waits for the channels.  The callback allocates nothing and
 * cannot fail.  Ranges are hints, rows are the truth: an id of a rolled-back
 * savepoint is simply not found.
 *
 * A reader that wants no gaps first asks mbus_published_limit() for the
 * first id that is unreserved or unfinished, and THEN takes its snapshot.
 * The other order loses messages.  One that goes on behind unfinished ranges
 * asks mbus_unfinished_copy() for the first unreserved id and the ranges, and
 * then takes its snapshot.
 *
 * A transaction that publishes again and again while others do too gets its
 * ids in growing chunks, so that its array of ranges is never used up by
 * messages without a key.  A chunk's rest is used while its segment is open;
 * for a message with a key only if nobody else has published to the channel
 * meanwhile, so that what was committed before comes before.
 *
 * Each backend has an array of ranges, written by nobody else, under the
 * state lock (MbusDatabase.lock) of its database; others read it under that
 * lock.  The slots of channels live in a hash of all databases under
 * channel_lock, which is taken after the state lock.  A slot is made by the
 * first publish to the channel and purged, when the table is full, once all
 * that the channel holds lies below what is open.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "state/range.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/state_internal.h"
#include "state/unfinished.h"
#include "state/waiter.h"

#define MBUS_CHUNK_MAX_BITS 16
#define MBUS_RANGES_GUESS	32

/* A walk over the unfinished ranges of a database. */
typedef struct RangeScan
{
	MbusDatabase *db;
	int32		channel_id;		/* 0: of any */
	int			backend;
	int			range;			/* next to look at */
} RangeScan;

/* First unused id of each of this backend's ranges. */
static int64 my_next[MBUS_RANGES_PER_BACKEND];

static void registry_xact_callback(XactEvent event, void *arg);
static void ranges_end(MbusDatabase *db, MbusBackend *me, bool committed);
static bool reserve(MbusDatabase *db, int32 series_no,
					MbusChannelSlot *slot, int32 rows, bool ordered,
					bool delayed, bool *full, MbusReservation *out);
static bool reserve_from_rest(MbusSeries *series, MbusChannelSlot *slot,
							  int32 rows, bool ordered, bool delayed,
							  MbusReservation *out);
static void reserve_from_series(MbusSeries *series, MbusChannelSlot *slot,
								int32 rows, bool delayed,
								MbusReservation *out);
static void backend_enter(MbusDatabase *db, Oid schema);
pg_noreturn static void ranges_used_up(void);
pg_noreturn static void channels_used_up(void);
static void range_scan(RangeScan *scan, MbusDatabase *db, int32 channel_id);
static const MbusRange *range_next(RangeScan *scan);
static int64 unreserved(MbusDatabase *db, int32 channel_id,
						int32 highest_leaf);
static int	range_compare(const void *a, const void *b);
static MbusChannelSlot *channel_find(MbusDatabase *db, int32 channel_id);
static MbusChannelSlot *channel_slot(MbusDatabase *db, int32 channel_id);
static void channel_slots_purge(MbusDatabase *db);
static int32 oldest_open_segment(MbusDatabase *db);
static bool segment_wanted(MbusDatabase *db);

/*
 * mbus_registry_init registers the callback; from _PG_init while the server
 * preloads libraries.
 */
void
mbus_registry_init(void)
{
	RegisterXactCallback(registry_xact_callback, NULL);
}

/*
 * registry_xact_callback ends this backend's unfinished publishes.  After a
 * commit it runs when the rows are visible to every new snapshot.  Nothing in
 * it can fail.
 */
static void
registry_xact_callback(XactEvent event, void *arg)
{
	MbusDatabase *db;
	MbusBackend *me;

	if (mbus_shared == NULL || MyProc == NULL)
		return;
	me = &mbus_shared->backend[MbusMyProcno()];
	if (me->nranges == 0 || me->database != MyDatabaseId)
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			/* it has reserved, so this looks up nothing */
			db = mbus_database_or_null();
			if (db)
				ranges_end(db, me, event == XACT_EVENT_COMMIT);
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has published messages"),
					 errhint("Use COMMIT.")));
			break;
		default:
			break;
	}
}

/*
 * ranges_end takes this backend's ranges out of the registry and wakes who
 * waits for their channels, also after an abort: what comes behind them may
 * have waited.
 */
static void
ranges_end(MbusDatabase *db, MbusBackend *me, bool committed)
{
	int			nranges = me->nranges;
	int32		woken = 0;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	for (int i = 0; i < nranges && committed; i++)
	{
		MbusChannelSlot *slot;

		if (!me->range[i].delayed)
			continue;
		slot = channel_find(db, me->range[i].channel_id);
		if (slot)
			slot->delays = ++db->delays;
		else
			db->delays_purged = ++db->delays;
	}
	me->nranges = 0;
	LWLockRelease(&db->lock);

	/* nobody else writes the array: what it held is still there */
	for (int i = 0; i < nranges; i++)
	{
		if (me->range[i].channel_id != woken)
			mbus_wake_channel(db->database, me->range[i].channel_id);
		woken = me->range[i].channel_id;
	}
}

/* ------------------------------------------------------------------------
 * Reserving
 * ------------------------------------------------------------------------
 */

/*
 * mbus_reserve reserves ids for at most "rows" messages of a channel and
 * registers them as unfinished until the transaction ends.
 *
 * It may give fewer (at least one): the caller asks again for the rest.  All
 * it gives lie in one open segment.  "bytes" and "longest_ttl_us" (of all
 * rows) feed the segment's size and expiry; "ordered" says that a message has
 * a key, "delayed" that one has a delay.  Waits for the worker where no
 * segment is open; errors with 55000 if that takes too long, 54000 if this
 * transaction has used up its ranges, 53400 if the table of channels is full.
 */
void
mbus_reserve(MbusDatabase *db, Oid schema, int32 series_no, int32 channel_id,
			 int32 rows, int64 bytes, int64 longest_ttl_us, bool ordered,
			 bool delayed, MbusReservation *out)
{
	MbusSeries *series = &db->series[series_no];
	TimestampTz started = 0;

	Assert(rows > 0 && series_no >= 1 && series_no <= MBUS_MAX_SERIES);

	for (;;)
	{
		MbusChannelSlot *slot;
		bool		full = false;
		bool		wake = true;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (db->ready && db->schema == schema)
		{
			slot = channel_slot(db, channel_id);
			if (slot == NULL)
			{
				LWLockRelease(&db->lock);
				channels_used_up();
			}
			backend_enter(db, schema);
			if (reserve(db, series_no, slot, rows, ordered, delayed, &full,
						out))
			{
				series->bytes += bytes;
				series->max_expires_at = Max(series->max_expires_at,
											 out->created_at + longest_ttl_us);
				wake = series->next_row > series->max_rows / 4 * 3 &&
					series->wanted <= series->open_segment;
				LWLockRelease(&db->lock);
				ConditionVariableCancelSleep();
				if (wake)
					mbus_wake_worker(db);
				return;
			}
		}
		LWLockRelease(&db->lock);

		if (full)
			ranges_used_up();
		if (started == 0)
		{
			started = GetCurrentTimestamp();
			mbus_count(MBUS_C_SEGMENT_WAITS, 1);
			ConditionVariablePrepareToSleep(&db->changed);
		}
		mbus_wake_worker(db);
		mbus_wait_for_worker(db, started);
	}
}

/*
 * reserve takes ids if it can; else "full" says that the backend's array of
 * ranges is, or a segment is asked for.  Caller holds the database's lock
 * exclusively.
 */
static bool
reserve(MbusDatabase *db, int32 series_no, MbusChannelSlot *slot, int32 rows,
		bool ordered, bool delayed, bool *full, MbusReservation *out)
{
	MbusSeries *series = &db->series[series_no];
	bool		open;

	open = series->open_segment != 0 &&
		series->open_segment >= MbusSegmentOf(slot->last_id);
	out->rows = 0;
	if (open && reserve_from_rest(series, slot, rows, ordered, delayed, out))
		 /* had some left */ ;
	else if (open && series->next_row < series->max_rows)
	{
		reserve_from_series(series, slot, rows, delayed, out);
		*full = (out->rows == 0);
	}
	else
		series->wanted = Max(series->wanted,
							 Max(series->open_segment + 1,
								 MbusSegmentOf(slot->last_id)));
	if (out->rows == 0)
		return false;

	out->created_at = GetCurrentTimestamp();
	out->segment = series->open_segment;
	memcpy(out->leaf, series->leaf, sizeof(out->leaf));
	return true;
}

/*
 * reserve_from_rest takes ids that this transaction has reserved for the
 * channel before and not used.  Caller holds the database's lock.
 */
static bool
reserve_from_rest(MbusSeries *series, MbusChannelSlot *slot, int32 rows,
				  bool ordered, bool delayed, MbusReservation *out)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];

	for (int i = me->nranges - 1; i >= 0; i--)
	{
		MbusRange  *range = &me->range[i];

		if (range->channel_id != slot->key.channel_id ||
			my_next[i] >= range->hi ||
			MbusSegmentOf(range->lo) != series->open_segment)
			continue;
		if (ordered && slot->last_id != range->hi - 1)
			continue;
		out->first_id = my_next[i];
		out->rows = (int32) Min((int64) rows, range->hi - my_next[i]);
		my_next[i] += out->rows;
		range->delayed |= delayed;
		return true;
	}
	return false;
}

/*
 * reserve_from_series takes the next ids of the open segment and registers
 * them; out->rows stays 0 if this backend's array of ranges is full.  Caller
 * holds the database's lock and has seen that ids are left.
 */
static void
reserve_from_series(MbusSeries *series, MbusChannelSlot *slot, int32 rows,
					bool delayed, MbusReservation *out)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];
	int64		first = MbusFirstId(series->open_segment) + series->next_row;
	int32		left = series->max_rows - series->next_row;
	int32		take = Min(rows, left);
	MbusRange  *last;

	last = me->nranges > 0 ? &me->range[me->nranges - 1] : NULL;
	if (last && last->hi == first &&
		last->channel_id == slot->key.channel_id &&
		MbusSegmentOf(last->lo) == series->open_segment)
	{
		/* nobody came between: the range just grows */
		last->hi += take;
		last->delayed |= delayed;
		my_next[me->nranges - 1] = last->hi;
	}
	else
	{
		int32		chunk;

		if (me->nranges >= MBUS_RANGES_PER_BACKEND)
			return;
		chunk = 1 << Min(me->nranges, MBUS_CHUNK_MAX_BITS);
		chunk = Min(Max(chunk, take), left);
		last = &me->range[me->nranges];
		last->channel_id = slot->key.channel_id;
		last->delayed = delayed;
		last->lo = first;
		last->hi = first + chunk;
		my_next[me->nranges] = first + take;
		me->nranges++;
	}
	out->first_id = first;
	out->rows = take;
	series->next_row = (int32) (last->hi -
								MbusFirstId(series->open_segment));
	slot->last_id = last->hi - 1;
}

/*
 * backend_enter makes this backend's array that of the extension.  Caller
 * holds the database's lock exclusively.
 */
static void
backend_enter(MbusDatabase *db, Oid schema)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];

	if (me->database == db->database && me->schema == schema)
		return;
	/* only ever with nranges 0, or after DROP EXTENSION */
	me->nranges = 0;
	me->schema = schema;
	me->database = db->database;
}

static void
ranges_used_up(void)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("too many publishes in one transaction"),
			 errdetail("A transaction that publishes messages with a key while others publish to the same channel, or to many channels, can do so %d times.",
					   MBUS_RANGES_PER_BACKEND),
			 errhint("Use message_bus.publish_batch(), or commit more often.")));
}

static void
channels_used_up(void)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many channels are in use"),
			 errdetail("The server follows at most %d channels that were published to lately.",
					   MBUS_CHANNEL_SLOTS)));
}

/* ------------------------------------------------------------------------
 * What is unfinished
 * ------------------------------------------------------------------------
 */

/*
 * range_scan begins a walk over the unfinished ranges of the database's
 * extension, those of one channel or of all (0).  Caller holds the database's
 * lock until the walk is over.
 */
static void
range_scan(RangeScan *scan, MbusDatabase *db, int32 channel_id)
{
	scan->db = db;
	scan->channel_id = channel_id;
	scan->backend = 0;
	scan->range = 0;
}

/* The next range, NULL if there are no more. */
static const MbusRange *
range_next(RangeScan *scan)
{
	for (; scan->backend < mbus_shared->nbackends; scan->backend++)
	{
		const MbusBackend *b = &mbus_shared->backend[scan->backend];

		if (b->nranges > 0 && b->database == scan->db->database &&
			b->schema == scan->db->schema)
		{
			while (scan->range < b->nranges)
			{
				const MbusRange *range = &b->range[scan->range++];

				if (scan->channel_id == 0 ||
					range->channel_id == scan->channel_id)
					return range;
			}
		}
		scan->range = 0;
	}
	return NULL;
}

/*
 * mbus_published_limit returns the first id of a channel that is not
 * reserved yet or belongs to a publish that has not ended.  Every message of
 * the channel below it is settled; take the snapshot AFTER this call.
 *
 * "highest_leaf" is the highest segment the caller knew before the call: with
 * none open and none about to be, segments above our numbering are those that
 * a restore has brought.
 */
int64
mbus_published_limit(MbusDatabase *db, Oid schema, int32 channel_id,
					 int32 highest_leaf)
{
	RangeScan	scan;
	const MbusRange *range;
	int64		limit = PG_INT64_MAX;

	LWLockAcquire(&db->lock, LW_SHARED);
	/* if not ready, no publish of this extension can have begun */
	if (db->ready && db->schema == schema)
	{
		limit = unreserved(db, channel_id, highest_leaf);
		range_scan(&scan, db, channel_id);
		while ((range = range_next(&scan)) != NULL)
			limit = Min(limit, range->lo);
	}
	LWLockRelease(&db->lock);
	return limit;
}

/*
 * mbus_unfinished_copy returns the first id of a channel that is not reserved
 * yet, and sets *ranges to the channel's unfinished ranges, by ascending id;
 * take the snapshot AFTER this call.  The array is the caller's, in the
 * current memory context; "highest_leaf" as above.  Returns -1, and no
 * ranges, while the worker is not ready: nothing can be said.
 */
int64
mbus_unfinished_copy(MbusDatabase *db, Oid schema, int32 channel_id,
					 int32 highest_leaf, MbusRange **ranges, int *nranges)
{
	int			room = MBUS_RANGES_GUESS;
	int64		limit = -1;
	int			n;

	for (;;)
	{
		RangeScan	scan;
		const MbusRange *range;

		*ranges = palloc(room * sizeof(MbusRange));
		n = 0;
		LWLockAcquire(&db->lock, LW_SHARED);
		if (db->ready && db->schema == schema)
		{
			limit = unreserved(db, channel_id, highest_leaf);
			range_scan(&scan, db, channel_id);
			while ((range = range_next(&scan)) != NULL)
			{
				if (n < room)
					(*ranges)[n] = *range;
				n++;
			}
		}
		LWLockRelease(&db->lock);
		if (n <= room)
			break;
		pfree(*ranges);
		room = n + MBUS_RANGES_GUESS;
		limit = -1;
	}
	*nranges = n;
	if (n > 1)
		qsort(*ranges, n, sizeof(MbusRange), range_compare);
	return limit;
}

static int
range_compare(const void *a, const void *b)
{
	int64		x = ((const MbusRange *) a)->lo;
	int64		y = ((const MbusRange *) b)->lo;

	return x < y ? -1 : x > y;
}

/*
 * unreserved returns the first id of a channel that is not reserved.  Caller
 * holds the database's lock.
 */
static int64
unreserved(MbusDatabase *db, int32 channel_id, int32 highest_leaf)
{
	MbusChannelSlot *slot = channel_find(db, channel_id);
	int64		limit;
	int32		oldest;

	if (slot)
		return slot->last_id + 1;

	/*
	 * Nothing was published to it since the server started, or its slot was
	 * purged: its messages lie below all that is open.
	 */
	oldest = oldest_open_segment(db);
	limit = MbusFirstId(oldest ? oldest : db->next_segment);
	if (oldest == 0 && !segment_wanted(db))
		limit = Max(limit, MbusFirstId((int64) highest_leaf + 1));
	return limit;
}

/*
 * mbus_delays returns a number that is another one after each publish with a
 * delay to the channel that has become visible; it never comes back to one
 * that it was.  Other causes may change it too.
 */
uint64
mbus_delays(MbusDatabase *db, int32 channel_id)
{
	MbusChannelSlot *slot;
	uint64		delays;

	LWLockAcquire(&db->lock, LW_SHARED);
	slot = channel_find(db, channel_id);
	delays = slot ? slot->delays : db->delays_purged;
	LWLockRelease(&db->lock);
	return delays;
}

/*
 * mbus_unfinished_elsewhere tells whether a publish to the channel into
 * another segment than this one has not ended.
 */
bool
mbus_unfinished_elsewhere(MbusDatabase *db, int32 channel_id, int32 segment)
{
	RangeScan	scan;
	const MbusRange *range;

	LWLockAcquire(&db->lock, LW_SHARED);
	range_scan(&scan, db, channel_id);
	do
		range = range_next(&scan);
	while (range && MbusSegmentOf(range->lo) == segment);
	LWLockRelease(&db->lock);
	return range != NULL;
}

/*
 * mbus_reserved_above tells whether ids of the channel may have been reserved
 * in a segment above this one, by a publish that has ended or not.
 */
bool
mbus_reserved_above(MbusDatabase *db, int32 channel_id, int32 segment)
{
	MbusChannelSlot *slot;
	bool		above;

	LWLockAcquire(&db->lock, LW_SHARED);
	slot = channel_find(db, channel_id);
	/* a slot that was purged may have said so */
	above = slot == NULL || MbusSegmentOf(slot->last_id) > segment;
	LWLockRelease(&db->lock);
	return above;
}

/*
 * mbus_segment_unfinished tells whether a publish into a segment has not
 * ended.  No new one can begin in a segment that is closed.
 */
bool
mbus_segment_unfinished(MbusDatabase *db, int32 segment)
{
	RangeScan	scan;
	const MbusRange *range;

	LWLockAcquire(&db->lock, LW_SHARED);
	range_scan(&scan, db, 0);
	do
		range = range_next(&scan);
	while (range && MbusSegmentOf(range->lo) != segment);
	LWLockRelease(&db->lock);
	return range != NULL;
}

/*
 * mbus_unfinished_ranges counts the registered ranges of a database.
 */
int
mbus_unfinished_ranges(MbusDatabase *db)
{
	RangeScan	scan;
	int			n = 0;

	LWLockAcquire(&db->lock, LW_SHARED);
	range_scan(&scan, db, 0);
	while (range_next(&scan) != NULL)
		n++;
	LWLockRelease(&db->lock);
	return n;
}

/* ------------------------------------------------------------------------
 * Channels
 * ------------------------------------------------------------------------
 */

/*
 * channel_find returns the slot of a channel, or NULL.  Caller holds the
 * database's lock, which is what protects the slot that is returned: the
 * purge of another database never touches it.  Cannot fail.
 */
static MbusChannelSlot *
channel_find(MbusDatabase *db, int32 channel_id)
{
	MbusChannelKey key;
	MbusChannelSlot *slot;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;

	LWLockAcquire(&mbus_shared->channel_lock, LW_SHARED);
	slot = hash_search(mbus_channels, &key, HASH_FIND, NULL);
	LWLockRelease(&mbus_shared->channel_lock);
	return slot;
}

/*
 * channel_slot finds or makes the slot of a channel; NULL if the table is
 * full of slots that are needed.  Caller holds the database's lock
 * exclusively.
 */
static MbusChannelSlot *
channel_slot(MbusDatabase *db, int32 channel_id)
{
	MbusChannelSlot *slot = channel_find(db, channel_id);
	MbusChannelKey key;
	int32		oldest;

	if (slot)
		return slot;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;

	LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
	if (hash_get_num_entries(mbus_channels) >= MBUS_CHANNEL_SLOTS)
		channel_slots_purge(db);
	if (hash_get_num_entries(mbus_channels) < MBUS_CHANNEL_SLOTS)
		slot = hash_search(mbus_channels, &key, HASH_ENTER_NULL, NULL);
	if (slot)
	{
		/*
		 * All that the channel holds lies below what is open now, so that a
		 * purged slot can start anew from there.
		 */
		oldest = oldest_open_segment(db);
		slot->last_id = MbusFirstId(oldest ? oldest : db->next_segment) - 1;
		slot->delays = db->delays_purged;
	}
	LWLockRelease(&mbus_shared->channel_lock);
	return slot;
}

/*
 * channel_slots_purge drops the slots of this database whose channels hold
 * nothing in or above the oldest open segment: an id reserved later is above
 * all of theirs anyway.  Caller holds both locks exclusively.
 */
static void
channel_slots_purge(MbusDatabase *db)
{
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;
	int32		oldest = oldest_open_segment(db);

	if (oldest == 0)
		oldest = db->next_segment;
	/* no channel may come back to a number that it had */
	db->delays_purged = ++db->delays;
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database &&
			MbusSegmentOf(slot->last_id) < oldest)
			(void) hash_search(mbus_channels, &slot->key, HASH_REMOVE, NULL);
	}
}

/*
 * mbus_registry_forget drops all slots of a database whose extension is new.
 * Takes the state lock and channel_lock.
 */
void
mbus_registry_forget(MbusDatabase *db)
{
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
	db->delays_purged = ++db->delays;
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database)
			(void) hash_search(mbus_channels, &slot->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(&mbus_shared->channel_lock);
	LWLockRelease(&db->lock);
}

/*
 * oldest_open_segment returns the lowest number of an open segment, 0 if none
 * is open.  Caller holds the database's lock.
 */
static int32
oldest_open_segment(MbusDatabase *db)
{
	int32		oldest = 0;

	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		int32		open = db->series[s].open_segment;

		if (open != 0 && (oldest == 0 || open < oldest))
			oldest = open;
	}
	return oldest;
}

/*
 * segment_wanted tells whether a publisher waits for a segment.  Caller holds
 * the database's lock.
 */
static bool
segment_wanted(MbusDatabase *db)
{
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		if (db->series[s].wanted > db->series[s].open_segment)
			return true;
	}
	return false;
}
