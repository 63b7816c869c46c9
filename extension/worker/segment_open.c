/*
 * segment_open.c
 *		Numbers segments, opens the ones that publishers want, and rolls the
 *		ones that are old or full.
 *
 * A segment n is one table of each family, message_bus.message_<n>, event_<n>,
 * ack_<n> and failure_<n>, with the ids [n << 24, (n + 1) << 24), attached to
 * their parents, a secret (segment_secret.c), and a row in
 * message_bus.segment.  All of that is made in one transaction, made durable
 * with ForceSyncCommit(), and only then shown to publishers in shared memory.
 *
 * Numbering.  An id must never be given out twice, so a number is never
 * used twice:
 *
 *	- a worker that finds no numbering in shared memory (the server started,
 *	  or the extension is new) takes the highest of what server_state says,
 *	  of the rows of message_bus.segment, of the tables that exist, and of the
 *	  ids that are named elsewhere; no segment that existed before is written
 *	  again
 *	- each is the next that is this node's (base/ids.h)
 *	- on another timeline than the last segment was opened on (a promotion,
 *	  a recovery to a point in time) it skips 256 ordinals, which the old
 *	  timeline may have used after what we know of it
 *	- each opening looks once more at what can have changed of that (names.c):
 *	  a pg_restore may have brought some while we run.  What is not settled yet
 *	  of that is hidden in the same transaction (restore.c)
 *	- the number is taken in shared memory before the tables can be seen: until
 *	  it is open readers end below it
 *
 * Locks.  The tables are made aside and attached: ShareUpdateExclusive on
 * the parents, for which no reader and no writer waits.  Where it is not to be
 * had at once (ANALYZE holds it, too) the segment is opened without, and
 * attached later (segment_attach.c).  The extension is share-locked, so that DROP
 * EXTENSION comes before or after the whole.  The parents are locked in the
 * order of MbusFamily everywhere.
 *
 * The tables belong to the parents' owner.  They have row security and no
 * grants, like their parents: neither is inherited, and default privileges
 * might give a table to everybody.  Each depends on the extension
 * (DEPENDENCY_AUTO), so that DROP EXTENSION takes it along after it has been
 * detached too; pg_dump dumps it as any other table.
 *
 * Ends in the middle:
 *
 *	- before the commit: nothing happened; the number is given back
 *	- between the commit and shared memory: the segment is in the catalog
 *	  and not open; mbus_segments_close_lost() closes it, it is empty, and it
 *	  is retired.  Its number is below server_state.next_segment
 *	- after shared memory has the new one, before the old one's row says that
 *	  it is closed: mbus_segments_close_lost() finds its last expiry by
 *	  reading the table
 *
 * Nothing is opened before a publisher wants it.  A segment that is old is
 * followed by a new one only if its series is still being published to;
 * else it is closed, and the next publisher waits the 20 ms that opening
 * takes.  So is one in which all has been expired for a while, before its
 * window is over, if its space is worth a number.  None that is not full is
 * closed while it is young (state/pace.c).  On a full disk nothing is opened:
 * what is old or full is closed without a successor.
 *
 * The series above those of the TTLs each belong to one channel with retention
 * "acked".  Their segments are smaller, and know their channel, so that they
 * can be retired when all in them is acknowledged (acked.c).  Their window is
 * that of the channel's TTL; when the channel is idle and all in its segment
 * is acknowledged, that is closed sooner.
 *
 * Numbering also begins an epoch of leases and of numbers of facts; see epoch.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "channel/series.h"
#include "segment/leaf.h"
#include "state/ahead.h"
#include "state/clock.h"
#include "state/pace.h"
#include "state/state.h"
#include "worker/epoch.h"
#include "worker/foreign.h"
#include "worker/names.h"
#include "worker/numbers.h"
#include "worker/restore.h"
#include "worker/segment_attach.h"
#include "worker/segment_catalog.h"
#include "worker/segment_close.h"
#include "worker/segment_open.h"
#include "worker/segment_secret.h"
#include "worker/store_open.h"
#include "worker/task.h"

#define TIMELINE_SKIP		256 /* ordinals */
#define RESTORE_SKIP		4096	/* ordinals left to one that is at work */
#define OWN_SERIES_ROWS		(1024 * 1024)	/* an own series' segment of so
											 * many rolls when it may */
#define EXPIRED_MS			15000	/* a segment whose messages all expired
									 * that long ago is closed, */
#define WORTH_PART			64	/* if it has this part of what one may hold */
#define BUSY_MS				60000	/* a series that grew lately gets its next
									 * segment ahead */

/* the range column of each family */
static const char *const range_column[MBUS_FAMILIES] = {
	[MBUS_MESSAGE] = "id",
	[MBUS_EVENT] = "message_id",
	[MBUS_ACK] = "lo",
	[MBUS_FAILURE] = "message_id",
};

/*
 * What is personal in each family is not in statistics, as in the parents:
 * their old rows stay in pg_statistic long after a segment has gone.
 */
#define UNSAMPLED(column) "ALTER " column " SET STATISTICS 0"

static const char *const unsampled[MBUS_FAMILIES] = {
	[MBUS_MESSAGE] = UNSAMPLED("sha256") ", " UNSAMPLED("payload") ", "
	UNSAMPLED("session") ", " UNSAMPLED("subject") ", " UNSAMPLED("key") ", "
	UNSAMPLED("key_hash") ", " UNSAMPLED("transaction_id") ", "
	UNSAMPLED("headers") ", " UNSAMPLED("recipient"),
	[MBUS_EVENT] = UNSAMPLED("session") ", " UNSAMPLED("subject"),
	[MBUS_ACK] = UNSAMPLED("session") ", " UNSAMPLED("subject"),
	[MBUS_FAILURE] = UNSAMPLED("session") ", " UNSAMPLED("key_hash") ", "
	UNSAMPLED("subject") ", " UNSAMPLED("reason") ", " UNSAMPLED("not_moved"),
};

/* What a numbering begins with. */
typedef struct NumberingStart
{
	int32		next;			/* segment */
	int32		next_store;
	int64		epoch;			/* of leases */
	bool		known;			/* it follows one that is known */
} NumberingStart;

/* What is done about a series in this pass. */
typedef enum Need
{
	NEED_NOTHING,
	NEED_SEGMENT,
	NEED_CLOSE
} Need;

typedef struct Opening
{
	int32		series;
	int32		at_least;		/* lowest number that serves the waiters */
	int32		segment;		/* out */
	Oid			leaf[MBUS_FAMILIES];	/* out */
} Opening;

static MbusOutcome segments_number(MbusWork *work, void *arg);
static Need series_need(MbusWork *work, int32 series_no, Opening *opening);
static Need young_past_need(MbusWork *work, int32 series_no, bool busy);
static bool series_busy(MbusWork *work, int32 series_no);
static bool series_changed(MbusWork *work, int32 series_no);
static int64 series_window(MbusSeries *series, int32 series_no);
static MbusOutcome segment_open(MbusWork *work, void *arg);
static int64 number_choose(MbusWork *work, int64 at_least);
static void number_take(MbusDatabase *db, int32 segment);
static void number_return(MbusDatabase *db);
static Oid	leaf_create(MbusWork *work, MbusFamily family, int32 segment);
static void leaf_index(MbusFamily family, const char *name);
static void number_index(const char *name);
static void message_index(const char *name);
static void segment_publish(MbusWork *work, Opening *opening);

/* ------------------------------------------------------------------------
 * Numbering
 * ------------------------------------------------------------------------
 */

/*
 * mbus_segments_number finds the number of the next segment and lets
 * publishing and claiming begin.  Where it fails, these go on waiting.
 */
void
mbus_segments_number(MbusWork *work)
{
	MbusDatabase *db = work->db;
	NumberingStart numbering = {0};
	MbusOutcome outcome;

	if (!mbus_tasks_begin(work, MBUS_TASK_NUMBER, false))
		return;
	outcome = mbus_task_run(work, MBUS_TASK_NUMBER, segments_number,
							&numbering, "numbering segments");
	mbus_tasks_end(work, MBUS_TASK_NUMBER);
	if (outcome != MBUS_DONE)
		return;

	work->numbered_at = mbus_now();
	work->load.epoch_is_new = numbering.known;
	work->load.unasked = true;
	mbus_epoch_wait(numbering.epoch);
	mbus_epoch_begin(db, numbering.epoch);
	mbus_numbering_raise(db, numbering.next);
	mbus_restore_look(work);
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->stores.next_store = numbering.next_store;
	db->numbering.ready = true;
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
}

/*
 * segments_number finds the next segment's number and the next epoch of
 * leases, as the top of this file says, and makes both durable.
 */
static MbusOutcome
segments_number(MbusWork *work, void *arg)
{
	NumberingStart *numbering = arg;
	int64		timeline = GetWALInsertionTimeLine();
	int64		last_timeline;
	int64		next;
	int64		highest;
	int64		skip = 0;
	int64		epoch;
	bool		restored;
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_node_check(work);
	(void) mbus_restore_hide(work);
	next = mbus_sql_int64(&isnull, "SELECT next_segment::int8"
						  " FROM message_bus.server_state");
	highest = mbus_highest_segment();
	restored = highest >= next;
	next = Max(next, highest + 1);
	last_timeline = mbus_sql_int64(&isnull, "SELECT timeline"
								   " FROM message_bus.server_state");
	if (last_timeline != 0 && last_timeline != timeline)
		skip = MbusOrdinals(TIMELINE_SKIP);
	next += skip;
	mbus_task_number_check(next, MBUS_SEGMENT_MAX, "segment numbers");
	/* one that a restore has brought is found when that is settled */
	epoch = mbus_epoch_next(work->db,
							mbus_sql_int64(&isnull, "SELECT epoch::int8"
										   " FROM message_bus.server_state"),
							last_timeline != 0, last_timeline != timeline);
	mbus_task_number_check(epoch, MBUS_EPOCH_MAX, "lease epochs");

	mbus_sql("INSERT INTO message_bus.server_state"
			 " (timeline, next_segment, epoch)"
			 " VALUES (" INT64_FORMAT ", " INT64_FORMAT ", " INT64_FORMAT ")"
			 " ON CONFLICT (only_row) DO UPDATE SET"
			 " timeline = EXCLUDED.timeline,"
			 " next_segment = EXCLUDED.next_segment,"
			 " epoch = EXCLUDED.epoch",
			 timeline, next, epoch);
	numbering->next_store = mbus_stores_number(skip);
	ForceSyncCommit();
	mbus_task_commit();
	numbering->next = (int32) next;
	numbering->epoch = epoch;
	numbering->known = last_timeline != 0 && !restored;
	return MBUS_DONE;
}

/* ------------------------------------------------------------------------
 * Opening and rolling
 * ------------------------------------------------------------------------
 */

/*
 * mbus_segments_open opens what publishers want and rolls what is old or
 * full.  Cheap if there is nothing to do: other tasks call it in between.
 */
void
mbus_segments_open(MbusWork *work)
{
	if (!mbus_tasks_begin(work, MBUS_TASK_OPEN, false))
		return;
	for (int32 series = 1; series <= MBUS_MAX_SERIES; series++)
	{
		Opening		opening = {series};

		switch (series_need(work, series, &opening))
		{
			case NEED_NOTHING:
				break;
			case NEED_CLOSE:
				mbus_series_close(work, series);
				break;
			case NEED_SEGMENT:
				mbus_restore_look(work);
				if (mbus_task_run(work, MBUS_TASK_OPEN, segment_open,
								  &opening, "opening a segment of series %d",
								  series) == MBUS_DONE)
					segment_publish(work, &opening);
				else
					number_return(work->db);
				break;
		}
	}
	mbus_tasks_end(work, MBUS_TASK_OPEN);
}

/*
 * series_need decides what is to be done about a series.  A segment in which
 * nothing has been reserved has not begun: its window starts anew.
 */
static Need
series_need(MbusWork *work, int32 series_no, Opening *opening)
{
	MbusSeries *series = &work->db->series[series_no];
	TimestampTz now = mbus_now();
	bool		busy;
	Need		need = NEED_NOTHING;

	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	busy = series_busy(work, series_no);
	if (work->disk.full)
	{
		busy = false;
		series->wanted = 0;		/* who waits is refused */
	}
	if (series->wanted > series->open_segment)
		need = NEED_SEGMENT;
	else if (series->open_segment == 0)
		need = NEED_NOTHING;
	else if (series->open_segment < work->db->numbering.roll_below)
		need = busy ? NEED_SEGMENT : NEED_CLOSE;
	else if (series->max_expires_at == 0)
		series->opened_at = now;
	else if (series->next_row > series->max_rows / 4 * 3 ||
			 series->bytes > (int64) mbus_segment_max_mb * 1024 * 1024)
		need = NEED_SEGMENT;
	else if (!mbus_series_young(work->db, series_no))
		need = young_past_need(work, series_no, busy);
	if (work->disk.full && need == NEED_SEGMENT)
		need = NEED_CLOSE;
	opening->at_least = Max(series->wanted, work->db->numbering.next_segment);
	/* or it would be followed by another one at once */
	opening->at_least = Max(opening->at_least, work->db->numbering.roll_below);
	LWLockRelease(&work->db->lock);
	return need;
}

/*
 * young_past_need decides about a segment that is neither full nor young;
 * caller holds the state lock.
 */
static Need
young_past_need(MbusWork *work, int32 series_no, bool busy)
{
	MbusSeries *series = &work->db->series[series_no];
	TimestampTz now = mbus_now();
	int64		bytes = (int64) mbus_segment_max_mb * 1024 * 1024;

	if ((series->own && series->next_row > OWN_SERIES_ROWS) ||
		now - series->opened_at > series_window(series, series_no))
		return busy ? NEED_SEGMENT : NEED_CLOSE;
	if (now - series->max_expires_at > EXPIRED_MS * INT64CONST(1000) &&
		(series->next_row > series->max_rows / WORTH_PART ||
		 series->bytes > bytes / WORTH_PART))
		return NEED_CLOSE;
	return NEED_NOTHING;
}

/*
 * series_busy tells whether something was reserved in the series lately;
 * caller holds the state lock.
 */
static bool
series_busy(MbusWork *work, int32 series_no)
{
	return series_changed(work, series_no) ||
		mbus_now() - work->growth[series_no].at <
		BUSY_MS * INT64CONST(1000);
}

/* Whether it was since the last call, and takes note. */
static bool
series_changed(MbusWork *work, int32 series_no)
{
	const MbusSeries *series = &work->db->series[series_no];
	MbusGrowth *growth = &work->growth[series_no];

	if (series->open_segment == growth->segment &&
		series->next_row == growth->row)
		return false;
	growth->segment = series->open_segment;
	growth->row = series->next_row;
	growth->at = mbus_now();
	return true;
}

/*
 * series_window returns for how long a segment takes messages; caller holds
 * the state lock.  An own series' TTL shows in what is in the segment.
 */
static int64
series_window(MbusSeries *series, int32 series_no)
{
	int64		window = mbus_series_window_us(series_no);

	if (series_no < mbus_own_series())
		return window;
	return Max(window,
			   mbus_series_window_us(mbus_series_for_ttl(series->max_expires_at -
														 series->opened_at)));
}

/*
 * mbus_series_idle tells whether nothing has been reserved for a while in a
 * segment that is open: worth to be closed if nothing in it is wanted.
 */
bool
mbus_series_idle(MbusWork *work, int32 series_no, int32 segment)
{
	MbusSeries *series = &work->db->series[series_no];
	bool		idle;

	LWLockAcquire(&work->db->lock, LW_SHARED);
	idle = series->open_segment == segment && series->next_row > 0 &&
		!mbus_series_young(work->db, series_no) &&
		!series_changed(work, series_no) &&
		TimestampDifferenceExceeds(work->growth[series_no].at,
								   mbus_now(),
								   mbus_acked_idle * 1000);
	LWLockRelease(&work->db->lock);
	return idle;
}

/*
 * segment_open makes a segment's tables and its row, in one transaction.
 */
static MbusOutcome
segment_open(MbusWork *work, void *arg)
{
	Opening    *opening = arg;
	int64		number;
	bool		attach;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	number = number_choose(work, opening->at_least);
	mbus_task_number_check(number, MBUS_SEGMENT_MAX, "segment numbers");
	opening->segment = (int32) number;
	number_take(work->db, opening->segment);
	mbus_task_become_owner(work);
	attach = mbus_parents_lock(work);
	for (int f = 0; f < MBUS_FAMILIES; f++)
		opening->leaf[f] = leaf_create(work, (MbusFamily) f,
									   opening->segment);
	mbus_secret_create(work, opening->segment);
	if (attach)
		mbus_leaves_attach(opening->segment);
	else
		mbus_leaves_set_aside(work, opening->segment);
	mbus_sql("INSERT INTO message_bus.segment"
			 " (segment_no, series, channel_id, opened_at)"
			 " VALUES (%d, %d, (SELECT max(channel_id)"
			 " FROM message_bus.channel WHERE series = %d AND series >= %d),"
			 " message_bus.clock())",
			 opening->segment, opening->series, opening->series,
			 mbus_own_series());
	mbus_numbering_store(work->db);
	mbus_node_record();
	ForceSyncCommit();
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * number_choose returns the number of the next segment, that is this node's and
 * at least the given one.  The next one of all is free mostly, and nothing else is read
 * then; before numbers are left out all is.
 */
static int64
number_choose(MbusWork *work, int64 at_least)
{
	int64		least = Max(at_least, mbus_names_highest(work) + 1);
	int64		number = mbus_segment_above(least, mbus_node);
	int32		next = work->db->numbering.next_segment;
	bool		hidden;

	if (least == next && mbus_names_free(work, least, number))
		return number;
	least = Max(least, mbus_highest_segment() + 1);
	hidden = least > next && mbus_restore_hide(work);
	if (hidden && least > at_least)
		least += MbusOrdinals(RESTORE_SKIP);
	return mbus_segment_above(least, mbus_node);
}

/*
 * number_take makes a number that of the segment that is being made: from
 * here on the tables may be seen, and no reader may pass them.
 */
static void
number_take(MbusDatabase *db, int32 segment)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->numbering.opening = segment;
	LWLockRelease(&db->lock);
	mbus_numbering_raise(db, segment + 1);
}

/*
 * number_return gives back the number of a segment that was not made; should
 * the tables be there all the same, they are empty, and the next number is
 * above.
 */
static void
number_return(MbusDatabase *db)
{
	MbusNumbering *numbering = &db->numbering;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (numbering->opening != 0 &&
		numbering->next_segment == numbering->opening + 1)
	{
		numbering->next_segment = numbering->opening;
		pg_atomic_write_u32(&numbering->known, numbering->opening);
	}
	numbering->opening = 0;
	LWLockRelease(&db->lock);
}

/*
 * leaf_create makes one table of a segment and returns its oid.  The CHECK
 * constraint implies the partition's, so that neither attaching nor
 * detaching reads or changes the table; its name tells the bus (foreign.c).
 */
static Oid
leaf_create(MbusWork *work, MbusFamily family, int32 segment)
{
	const char *parent = mbus_family_name(family);
	char	   *name = psprintf("%s_%d", parent, segment);
	int64		lo = MbusFirstId(segment);
	int64		hi = MbusFirstId((int64) segment + 1);
	Oid			leaf;

	mbus_sql("CREATE TABLE message_bus.%s (LIKE message_bus.%s"
			 " INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION,"
			 " CONSTRAINT %s"
			 " CHECK (%s >= " INT64_FORMAT " AND %s < " INT64_FORMAT "))"
			 " USING heap"
			 " WITH (autovacuum_vacuum_insert_threshold = -1,"
			 " toast.autovacuum_vacuum_insert_threshold = -1)",
			 name, parent, mbus_bus_mark(), range_column[family], lo,
			 range_column[family], hi);
	leaf = get_relname_relid(name, work->schema);
	if (!OidIsValid(leaf))
		elog(ERROR, "table \"message_bus.%s\" was not created", name);

	mbus_sql("ALTER TABLE message_bus.%s %s", name, unsampled[family]);
	leaf_index(family, name);
	mbus_segment_revoke(name, leaf);
	mbus_sql("ALTER TABLE message_bus.%s ENABLE ROW LEVEL SECURITY", name);
	mbus_segment_depend(leaf, work->extension);
	return leaf;
}

/*
 * leaf_index makes the indexes of a segment's table.  The parents have none:
 * attaching a table to a parent with indexes makes them by itself, and then
 * pg_restore, which attaches first, fails to create those of the dump.
 */
static void
leaf_index(MbusFamily family, const char *name)
{
	switch (family)
	{
		case MBUS_EVENT:
			mbus_sql("CREATE INDEX %s_message_id_idx"
					 " ON message_bus.%s (message_id)", name, name);
			mbus_sql("CREATE INDEX %s_deleted_idx ON message_bus.%s"
					 " (message_id) WHERE kind = 'deleted'", name, name);
			number_index(name);
			break;
		case MBUS_ACK:
			mbus_sql("CREATE INDEX %s_lease_idx"
					 " ON message_bus.%s (lease)", name, name);
			mbus_sql("CREATE INDEX %s_subscription_id_lo_idx"
					 " ON message_bus.%s (subscription_id, lo)", name, name);
			mbus_sql("CREATE INDEX %s_subscription_id_lo_hi_idx"
					 " ON message_bus.%s (subscription_id, lo, hi)"
					 " WHERE hi > lo", name, name);
			number_index(name);
			break;
		case MBUS_FAILURE:
			mbus_sql("CREATE INDEX %s_subscription_id_message_id_idx"
					 " ON message_bus.%s (subscription_id, message_id)",
					 name, name);
			mbus_sql("CREATE INDEX %s_retry_at_idx"
					 " ON message_bus.%s"
					 " (subscription_id, retry_at, message_id)"
					 " WHERE retry_at IS NOT NULL", name, name);
			mbus_sql("CREATE INDEX %s_key_hash_idx ON message_bus.%s"
					 " (subscription_id, key_hash, message_id)"
					 " WHERE key_hash IS NOT NULL", name, name);
			number_index(name);
			break;
		default:
			message_index(name);
			break;
	}
}

/*
 * The index of facts by their numbers.  It is made last: who looks for another
 * one opens it last.
 */
static void
number_index(const char *name)
{
	mbus_sql("CREATE INDEX %s_no_idx ON message_bus.%s (no)", name, name);
}

/* Indexes of a segment's messages. */
static void
message_index(const char *name)
{
	mbus_sql("CREATE UNIQUE INDEX %s_id_idx ON message_bus.%s (id)",
			 name, name);
	mbus_sql("CREATE INDEX %s_channel_id_id_idx"
			 " ON message_bus.%s (channel_id, id) WHERE run > 0", name, name);
	mbus_sql("CREATE INDEX %s_available_at_idx"
			 " ON message_bus.%s (channel_id, available_at, id)"
			 " WHERE available_at IS NOT NULL", name, name);
	mbus_sql("CREATE INDEX %s_key_hash_idx"
			 " ON message_bus.%s (channel_id, key_hash, id)"
			 " WHERE key_hash IS NOT NULL", name, name);
	mbus_sql("CREATE UNIQUE INDEX %s_transaction_id_idx"
			 " ON message_bus.%s (channel_id, transaction_id)"
			 " WHERE transaction_id IS NOT NULL", name, name);
}

/*
 * segment_publish shows a new segment to publishers, and closes the one it
 * follows: nobody reserves in that from here on, so that what it says of its
 * last expiry under the lock is final.
 */
static void
segment_publish(MbusWork *work, Opening *opening)
{
	MbusDatabase *db = work->db;
	MbusSeries *series = &db->series[opening->series];
	MbusSeries	old;

	mbus_names_made(work, opening->leaf[MBUS_MESSAGE]);
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	old = *series;
	series->open_segment = opening->segment;
	memcpy(series->leaf, opening->leaf, sizeof(series->leaf));
	series->next_row = 0;
	series->max_rows = Min(mbus_segment_max_rows, MBUS_ROWS_LIMIT);
	series->own = opening->series >= mbus_own_series();
	series->bytes = 0;
	MemSet(series->channels, 0, sizeof(series->channels));
	mbus_ahead_forget(db, opening->series);
	series->opened_at = mbus_now();
	series->max_expires_at = 0;
	if (series->wanted <= opening->segment)
		series->wanted = 0;
	db->numbering.opening = 0;
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
	pg_atomic_fetch_add_u64(&db->counter[MBUS_C_SEGMENTS_OPENED], 1);

	if (old.open_segment != 0)
		mbus_segment_closed(work, old.open_segment, old.max_expires_at);
}
