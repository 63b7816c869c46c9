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
 * Each backend has an array of ranges, written by nobody else, under the
 * state lock (MbusDatabase.lock) of its database; others read it under that
 * lock.  How a transaction's ranges stay few is in own_ranges.c: none fails
 * because of how many messages or channels it publishes to.
 *
 * What is reserved and not used goes back when the transaction ends.  A run is
 * what this backend has reserved of a series without anybody between.  If it
 * is still the end of what is reserved of the open segment, its ids behind the
 * last one used are given out again, after an abort all of them: their rows
 * are dead to every snapshot, also to a dirty one.  But a reader that was told
 * an id as its limit has passed what is below it, and would never see it
 * filled.  So readers raise the series' mark "told" as they ask, and nothing
 * below it goes back; nor below the floor of the channels without a slot
 * (channel_slot.c), from which publishes to these go on.  The newest id of a
 * channel may then be above what is reserved: mbus_channel_last().
 *
 * What does not go back: ids that somebody else has reserved behind, ids of
 * savepoints that were rolled back, and those a reader was told of.  The
 * metrics ids_reserved_total and ids_returned_total count.
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
#include "state/disk.h"
#include "state/own_ranges.h"
#include "state/pace.h"
#include "state/range.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/state_internal.h"
#include "state/unfinished.h"
#include "state/waiter.h"

/* Ids reserved of a series one after the other, up to now. */
typedef struct Run
{
	int64		lo;
	int64		used;			/* behind the last one used */
	int64		hi;				/* behind the last one; 0: none */
} Run;

static Run	runs[MBUS_MAX_SERIES + 1];	/* of this transaction */

static void registry_xact_callback(XactEvent event, void *arg);
static void ranges_end(MbusDatabase *db, MbusBackend *me, bool committed);
static int64 runs_return(MbusDatabase *db, const MbusBackend *me,
						 bool committed);
static bool reserve(MbusDatabase *db, int32 series_no, MbusChannelSlot *slot,
					MbusWant *want, MbusReservation *out);
static void reserve_from_series(MbusDatabase *db, MbusChannelSlot *slot,
								const MbusWant *want, MbusReservation *out);
static void run_used(Run *run, const MbusReservation *out);

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
 * registry_xact_callback ends this backend's unfinished publishes and facts.  After a
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
	if ((me->nranges == 0 && pg_atomic_read_u32(&me->nfacts) == 0) ||
		me->database != MyDatabaseId)
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			/* it has reserved, so this looks up nothing */
			db = mbus_database_or_null();
			if (db && me->nranges > 0)
				ranges_end(db, me, event == XACT_EVENT_COMMIT);
			mbus_fact_numbers_end(me);
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 me->nranges > 0 ?
					 errmsg("cannot PREPARE a transaction that has published messages") :
					 errmsg("cannot PREPARE a transaction that has acknowledged, given back or deleted messages, or changed channels or keys"),
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
	bool		overflow = me->overflow.hi != 0;
	int32		woken = 0;
	int64		returned = 0;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (db->numbering.ready && db->schema == me->schema)
		returned = runs_return(db, me, committed);
	me->nranges = 0;
	me->overflow.hi = 0;
	LWLockRelease(&db->lock);
	memset(runs, 0, sizeof(runs));
	mbus_count(MBUS_C_IDS_RETURNED, returned);

	if (overflow)
	{
		mbus_wake_all(db->database);
		return;
	}
	/* nobody else writes the array: what it held is still there */
	for (int i = 0; i < nranges; i++)
	{
		if (me->range[i].channel_id != woken)
			mbus_wake_channel(db->database, me->range[i].channel_id);
		woken = me->range[i].channel_id;
	}
}

/*
 * runs_return gives back what can be; returns how many ids.  Under the lock.
 */
static int64
runs_return(MbusDatabase *db, const MbusBackend *me, bool committed)
{
	int64		returned = 0;

	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		MbusSeries *series = &db->series[s];
		const Run  *run = &runs[s];
		int64		first = MbusFirstId(series->open_segment);
		int64		end = committed ? run->used : run->lo;

		if (run->hi == 0 || MbusSegmentOf(run->lo) != series->open_segment ||
			first + series->next_row != run->hi)
			continue;
		end = Max(end, (int64) pg_atomic_read_u64(&db->told[s]));
		end = Max(end, db->channels.floor + 1);
		if (end >= run->hi)
			continue;
		returned += run->hi - end;
		series->next_row = (int32) (end - first);
	}
	return returned;
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
 * it gives lie in one open segment, which is another series' where pace.c
 * says so.  "bytes" and "longest_ttl_us" (of all
 * rows) feed the segment's size and expiry; "ordered" says that a message has
 * a key, "delayed" that one has a delay.  Waits for the worker where no
 * segment is open; errors with 55000 if that takes too long, and with 53100 if
 * the disk is full.
 */
void
mbus_reserve(MbusDatabase *db, Oid schema, int32 series_no, int32 channel_id,
			 int32 rows, int64 bytes, int64 longest_ttl_us, bool ordered,
			 MbusReservation *out)
{
	MbusWant	want = {
		.channel_id = channel_id,
		.rows = rows,
		.ordered = ordered
	};
	TimestampTz started = 0;

	Assert(rows > 0 && series_no >= 1 && series_no <= MBUS_MAX_SERIES);

	for (;;)
	{
		MbusChannelSlot *slot;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (db->numbering.ready && db->schema == schema)
		{
			slot = mbus_channel_slot(db, channel_id);
			mbus_backend_enter(db, schema);
			if (slot && reserve(db, series_no, slot, &want, out))
			{
				MbusSeries *series = &db->series[out->series];
				bool		wake;

				mbus_series_mark(series, channel_id);
				series->bytes += bytes;
				series->max_expires_at = Max(series->max_expires_at,
											 out->created_at + longest_ttl_us);
				wake = series->next_row > series->max_rows / 4 * 3 &&
					series->wanted <= series->open_segment;
				LWLockRelease(&db->lock);
				ConditionVariableCancelSleep();
				mbus_count(MBUS_C_IDS_RESERVED, out->taken);
				if (wake)
					mbus_wake_worker(db);
				return;
			}
		}
		LWLockRelease(&db->lock);

		/* none is opened then; the worker itself gives up, too */
		if (db->worker.pid != MyProcPid)
			mbus_disk_check(db);
		if (started == 0)
		{
			mbus_count(MBUS_C_SEGMENT_WAITS, 1);
			ConditionVariablePrepareToSleep(&db->changed);
		}
		mbus_worker_wait(db, &started, NULL);
	}
}

/*
 * reserve takes ids if it can; else a segment is asked for.  Caller holds the
 * database's lock exclusively.
 */
static bool
reserve(MbusDatabase *db, int32 series_no, MbusChannelSlot *slot,
		MbusWant *want, MbusReservation *out)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];
	MbusSeries *series;
	int32		least;

	want->last_id = mbus_channel_last(db, slot);
	least = Max(MbusSegmentOf(want->last_id + 1), db->numbering.roll_below);
	out->series = mbus_series_place(db, slot, series_no, least);
	series = &db->series[out->series];
	want->segment = series->open_segment;
	out->rows = 0;
	out->taken = 0;
	if (want->segment != 0 && want->segment >= least)
	{
		out->rows = mbus_own_rest(me, want, &out->first_id);
		if (out->rows == 0 && series->next_row < series->max_rows)
			reserve_from_series(db, slot, want, out);
	}
	if (out->rows == 0)
	{
		series->wanted = Max(series->wanted,
							 Max(series->open_segment + 1, least));
		return false;
	}
	run_used(&runs[out->series], out);
	out->created_at = mbus_now();
	out->segment = series->open_segment;
	memcpy(out->leaf, series->leaf, sizeof(out->leaf));
	return true;
}

/*
 * reserve_from_series takes the next ids of the open segment and registers
 * them.  Caller holds the database's lock and has seen that ids are left.
 */
static void
reserve_from_series(MbusDatabase *db, MbusChannelSlot *slot,
					const MbusWant *want, MbusReservation *out)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];
	MbusSeries *series = &db->series[out->series];
	Run		   *run = &runs[out->series];
	int64		first = MbusFirstId(want->segment) + series->next_row;
	int64		end;

	end = mbus_own_add(me, want, first, series->max_rows - series->next_row,
					   &out->rows);
	if (run->hi != first)
		run->lo = first;
	run->hi = end;
	out->first_id = first;
	out->taken = (int32) (end - first);
	series->next_row += out->taken;
	slot->series = out->series;
	slot->last_id = end - 1;
}

/* What is used of a run ends behind the highest id that was given out. */
static void
run_used(Run *run, const MbusReservation *out)
{
	run->used = Max(Max(run->used, run->lo), out->first_id + out->rows);
}

/*
 * mbus_reserve_undo gives back, to this transaction, what it has not used of
 * its last reservation: all but the first "used" ids.  Takes the state lock.
 */
void
mbus_reserve_undo(MbusDatabase *db, int32 channel_id,
				  const MbusReservation *last, int32 used)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];
	Run		   *run = &runs[last->series];
	int64		first = last->first_id + used;
	int64		end = last->first_id + last->rows;

	if (first == end)
		return;
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	mbus_own_return(me, channel_id, first, end);
	LWLockRelease(&db->lock);
	if (run->used == end)
		run->used = Max(run->lo, first);
}

/*
 * mbus_backend_enter makes this backend's ranges those of the extension.
 * Caller holds the database's lock exclusively.
 */
void
mbus_backend_enter(MbusDatabase *db, Oid schema)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];

	if (me->database == db->database && me->schema == schema)
		return;
	/* only ever with no ranges, or after DROP EXTENSION */
	memset(runs, 0, sizeof(runs));
	mbus_fact_numbers_end(me);
	me->nranges = 0;
	me->overflow.hi = 0;
	me->schema = schema;
	me->database = db->database;
}
