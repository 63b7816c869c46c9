/*
 * segment_close.c
 *		Closes segments: they take no more messages, and when the last of
 *		these expires is written to their rows.
 *
 * Who closes a segment in shared memory knows its last expiry and writes it
 * to the segment's row.  Rows that are not closed and belong to no open
 * segment are left by a restart, by a failure in between, or come from a
 * restore: their tables are read for the last expiry, once, in pieces of
 * about READ_MS between which the worker serves others.  Each piece has a
 * snapshot of its own: nobody publishes to such a segment any more, and rows
 * do not move.  A worker that ends while it reads begins anew.  A table that a
 * restore has not finished (it lacks indexes or row security, which come
 * after the rows) is neither closed nor retired.
 *
 * A worker that ends between shared memory and the row leaves a row that is
 * not closed; all else is one transaction.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "state/clock.h"
#include "state/pace.h"
#include "state/state.h"
#include "state/unfinished.h"
#include "worker/segment_catalog.h"
#include "worker/segment_close.h"
#include "worker/task.h"

#define READ_MS				20
#define READ_BLOCKS			256 /* in the first piece */
#define READ_BLOCKS_MAX		65536

typedef struct Closing
{
	int32		segment;
	TimestampTz expires_at;		/* 0: nothing was ever reserved in it */
} Closing;

/* A table that is read for its last expiry. */
typedef struct Reading
{
	Closing		closing;
	BlockNumber next;			/* block */
	BlockNumber piece;			/* blocks of the next piece */
	bool		complete;
} Reading;

static MbusOutcome segment_close(MbusWork *work, void *arg);
static MbusOutcome segments_unclosed(MbusWork *work, void *arg);
static void segment_close_lost(MbusWork *work, int32 segment);
static MbusOutcome segment_read(MbusWork *work, void *arg);
static void piece_read(Reading *reading, Oid leaf);
static BlockNumber piece_next(BlockNumber piece, TimestampTz started);
static bool segment_is_open(MbusDatabase *db, int32 segment);

/*
 * mbus_segment_closed records that a segment which shared memory has closed
 * takes no more messages, and when the last of them expires.
 */
void
mbus_segment_closed(MbusWork *work, int32 segment, TimestampTz expires_at)
{
	Closing		closing = {segment, expires_at};

	(void) mbus_task_run(work, MBUS_TASK_CLOSE, segment_close, &closing,
						 "closing segment %d", segment);
}

/*
 * segment_close writes to a segment's row that it takes no more messages.
 */
static MbusOutcome
segment_close(MbusWork *work, void *arg)
{
	Closing    *closing = arg;
	Oid			types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {Int32GetDatum(closing->segment),
	TimestampTzGetDatum(closing->expires_at)};

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (SPI_execute_with_args("UPDATE message_bus.segment"
							  " SET closed_at = message_bus.clock(),"
							  " expires_at = coalesce($2, message_bus.clock())"
							  " WHERE segment_no = $1 AND closed_at IS NULL",
							  2, types, values,
							  closing->expires_at == 0 ? " n" : NULL,
							  false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update message_bus.segment");
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * mbus_segments_close_expired closes, for expire(), the open segments in
 * which every message has expired, as far as the pace allows (state/pace.c).  A
 * publisher who comes meanwhile gets a new one.
 */
void
mbus_segments_close_expired(MbusWork *work)
{
	MbusDatabase *db = work->db;

	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		MbusSeries *series = &db->series[s];
		Closing		closing = {0};

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (series->open_segment != 0 && series->max_expires_at != 0 &&
			series->max_expires_at < mbus_now() &&
			(!mbus_series_young(db, s) || mbus_pace_take(db)))
		{
			int32		wanted = series->wanted;

			closing.segment = series->open_segment;
			closing.expires_at = series->max_expires_at;
			MemSet(series, 0, sizeof(*series));
			series->wanted = wanted;
		}
		LWLockRelease(&db->lock);
		if (closing.segment != 0)
			mbus_segment_closed(work, closing.segment, closing.expires_at);
	}
}

/*
 * mbus_segments_close_lost closes the segments that are not open and whose
 * row does not say so.
 */
void
mbus_segments_close_lost(MbusWork *work)
{
	MbusNumbers unclosed = {.context = CurrentMemoryContext};

	if (!mbus_tasks_begin(work, MBUS_TASK_CLOSE, false))
		return;
	(void) mbus_task_run(work, MBUS_TASK_CLOSE, segments_unclosed, &unclosed,
						 "looking for segments to close");
	for (int i = 0; i < unclosed.n; i++)
	{
		work->serve(work);
		if (!segment_is_open(work->db, unclosed.number[i]))
			segment_close_lost(work, unclosed.number[i]);
	}
	mbus_tasks_end(work, MBUS_TASK_CLOSE);
}

static MbusOutcome
segments_unclosed(MbusWork *work, void *arg)
{
	mbus_segments_query(work, arg, "SELECT segment_no FROM message_bus.segment"
						" WHERE closed_at IS NULL ORDER BY segment_no");
	return MBUS_DONE;
}

/*
 * segment_close_lost closes one such segment when it has been read.
 */
static void
segment_close_lost(MbusWork *work, int32 segment)
{
	Reading		reading = {{segment}, 0, READ_BLOCKS, false};

	while (!reading.complete)
	{
		if (mbus_task_run(work, MBUS_TASK_CLOSE, segment_read, &reading,
						  "reading segment %d", segment) != MBUS_DONE)
			return;
		work->serve(work);
	}
	mbus_segment_closed(work, segment, reading.closing.expires_at);
}

/*
 * segment_read reads a piece of a segment's messages.  Blocked while a publish
 * in it is unfinished, or a restore is at work.
 */
static MbusOutcome
segment_read(MbusWork *work, void *arg)
{
	Reading    *reading = arg;
	int32		segment = reading->closing.segment;
	TimestampTz started = mbus_now();
	MbusOutcome outcome = MBUS_DONE;
	Oid			leaf;

	/*
	 * First the registry, then the snapshot: once it says that nothing is
	 * unfinished, all rows there will ever be are visible.
	 */
	if (mbus_segment_unfinished(work->db, segment))
		return MBUS_BLOCKED;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	switch (mbus_leaf_state(work, MBUS_MESSAGE, segment, &leaf))
	{
		case MBUS_LEAF_UNFINISHED:
			outcome = MBUS_BLOCKED;
			break;
		case MBUS_LEAF_GONE:
			reading->complete = true;
			break;
		default:
			piece_read(reading, leaf);
			break;
	}
	mbus_task_commit();
	reading->piece = piece_next(reading->piece, started);
	return outcome;
}

/* Reads the next blocks of a table. */
static void
piece_read(Reading *reading, Oid leaf)
{
	bool		isnull;
	int64		end = (int64) reading->next + reading->piece;
	int64		blocks = mbus_sql_int64(&isnull, "SELECT pg_relation_size(%u)"
										" / current_setting('block_size')::int8",
										leaf);
	TimestampTz expires_at;

	end = Min(end, blocks);
	if (end > reading->next)
	{
		expires_at = mbus_sql_int64(&isnull, "SELECT max(expires_at)"
									" FROM message_bus.message_%d"
									" WHERE ctid >= '(%u,0)'::tid"
									" AND ctid < '(%u,0)'::tid",
									reading->closing.segment, reading->next,
									(uint32) end);
		if (!isnull)
			reading->closing.expires_at =
				Max(reading->closing.expires_at, expires_at);
		reading->next = (BlockNumber) end;
	}
	reading->complete = end >= blocks;
}

/* How much to read at once, by how long the last piece took. */
static BlockNumber
piece_next(BlockNumber piece, TimestampTz started)
{
	TimestampTz now = mbus_now();

	if (TimestampDifferenceExceeds(started, now, READ_MS * 2))
		return Max(piece / 2, 1);
	if (!TimestampDifferenceExceeds(started, now, READ_MS))
		return Min(piece * 2, READ_BLOCKS_MAX);
	return piece;
}

/* Whether publishers may reserve ids in a segment. */
static bool
segment_is_open(MbusDatabase *db, int32 segment)
{
	bool		open = false;

	LWLockAcquire(&db->lock, LW_SHARED);
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		if (db->series[s].open_segment == segment)
			open = true;
	}
	LWLockRelease(&db->lock);
	return open;
}

/*
 * mbus_series_close closes a series' segment without a successor, unless
 * somebody wants one by now.
 */
void
mbus_series_close(MbusWork *work, int32 series_no)
{
	MbusDatabase *db = work->db;
	MbusSeries *series = &db->series[series_no];
	MbusSeries	old = {0};

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (series->wanted <= series->open_segment && series->open_segment != 0)
	{
		old = *series;
		MemSet(series, 0, sizeof(*series));
	}
	LWLockRelease(&db->lock);
	if (old.open_segment != 0)
		mbus_segment_closed(work, old.open_segment, old.max_expires_at);
}

/*
 * mbus_series_close_orphan does that to a series whose channel has gone, as
 * far as the pace allows.
 */
void
mbus_series_close_orphan(MbusWork *work, int32 series_no)
{
	MbusDatabase *db = work->db;
	bool		may;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	may = db->series[series_no].open_segment != 0 &&
		(!mbus_series_young(db, series_no) || mbus_pace_take(db));
	LWLockRelease(&db->lock);
	if (may)
		mbus_series_close(work, series_no);
}
