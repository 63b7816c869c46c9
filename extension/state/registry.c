/*
 * registry.c
 *		The registry of unfinished publishes: ids reserved and released.
 *
 * Ids are reserved before commit, so rows become visible out of order.  A
 * publisher therefore reserves ids and registers them as unfinished in one
 * step (mbus_reserve), before it inserts; its transaction callback removes
 * them after the commit has become visible or the abort is done, and then
 * wakes who waits for the channels.  The callback allocates nothing and
 * cannot fail.  Ranges are hints, rows are the truth: an id of a rolled-back
 * savepoint is simply not found.  How readers ask is in unfinished.c.
 *
 * A transaction that publishes again and again while others do too gets its
 * ids in growing chunks, so that its array of ranges is never used up by
 * messages without a key.  A chunk's rest is used while its segment is open;
 * for a message with a key only if nobody else has published to the channel
 * meanwhile, so that what was committed before comes before.
 *
 * Each backend has an array of ranges, written by nobody else, under the
 * state lock (MbusDatabase.lock) of its database; others read it under that
 * lock.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "state/clock.h"
#include "state/range.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/state_internal.h"
#include "state/waiter.h"

#define MBUS_CHUNK_MAX_BITS 16

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
		slot = mbus_channel_slot_find(db, me->range[i].channel_id);
		if (slot)
			slot->delays = ++db->delays.last;
		else
			db->delays.purged = ++db->delays.last;
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
		if (db->numbering.ready && db->schema == schema)
		{
			slot = mbus_channel_slot(db, channel_id);
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
			mbus_count(MBUS_C_SEGMENT_WAITS, 1);
			ConditionVariablePrepareToSleep(&db->changed);
		}
		mbus_worker_wait(db, &started, NULL);
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

	out->created_at = mbus_now();
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
