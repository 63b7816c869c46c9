/*
 * era_enter.c
 *		Enters the transaction ids of closed segments into eras, and empties
 *		the eras of which no segment is left.
 *
 * What an era is for is told in segment/era.c.  An era takes the segments
 * whose messages live about as long, for half of that time; so of each range
 * of times to live three are in use, or fewer.  When the last of its segments
 * has been retired it is truncated, and free for others.
 *
 * A segment is entered when it is closed and no publish in it is unfinished:
 * first the registry is asked, then the snapshot is taken, so all rows that
 * there will ever be are read.  A table that a restore has not finished is
 * left alone; one that somebody fills later is entered anew, from its begin
 * (segment/fill.c).  The rows are read by ascending id, a few milliseconds' worth in
 * a transaction; how far it came is known to this process only.  The row of
 * segment_era is written with the last of them, and tells all backends by an
 * invalidation.
 *
 * The tables are unlogged: they cost no WAL, a publication of all tables does
 * not have them, and after a crash they are empty together, with segment_era;
 * all is entered anew then.  They are made with the extension, not by the
 * worker, so that no dump has them.
 *
 * Ends in the middle: rows that were entered twice, or of a segment that is
 * entered into another era later, name a segment that is looked into once for
 * nothing.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "base/ids.h"
#include "base/schema.h"
#include "base/settings.h"
#include "channel/series.h"
#include "segment/era.h"
#include "segment/inserter.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/clock.h"
#include "state/unfinished.h"
#include "worker/era_enter.h"
#include "worker/segment_catalog.h"

#define PASSES			5		/* of the worker between two looks */
#define PASS_MS			100		/* entered at most that long in a pass, ... */
#define TASK_MS			20		/* ... and in a transaction */
#define LOOK_ROWS		64		/* read between two looks at the clock */
#define CLEAN_EVERY_MS	60000
#define ERA_WINDOWS		4		/* of its segments an era takes; a window is
								 * an eighth of the time to live */


/* A segment that is to be entered. */
typedef struct Unentered
{
	int32		segment;
	int32		series;			/* of TTLs such as its messages have */
} Unentered;

typedef struct UnenteredList
{
	MemoryContext context;
	int			n;
	Unentered  *segment;
} UnenteredList;

static MbusOutcome unentered_find(MbusWork *work, void *arg);
static bool segments_enter(MbusWork *work, UnenteredList *list,
						   TimestampTz started);
static MbusOutcome segment_enter(MbusWork *work, void *arg);
static bool leaf_has(Oid leaf, AttrNumber column, Snapshot snapshot);
static Oid	era_for(MbusWork *work, int32 series);
static bool ids_enter(MbusEntering *entering, Snapshot snapshot);
static void row_enter(MbusEntering *entering, MbusInserter *inserter,
					  HeapTuple tuple, TupleDesc desc);
static void segment_entered(MbusWork *work, const MbusEntering *entering);
static MbusOutcome eras_clean(MbusWork *work, void *arg);

/*
 * mbus_segments_enter enters what there is to enter, for PASS_MS; what is left
 * then is gone on with in the next pass, which comes at once.
 */
void
mbus_segments_enter(MbusWork *work)
{
	MbusEntering *entering = &work->entering;
	TimestampTz started = mbus_now();
	UnenteredList list = {.context = CurrentMemoryContext};
	bool		due;

	due = entering->more ||
		TimestampDifferenceExceeds(entering->looked_at, started,
								   PASSES * mbus_worker_interval);
	entering->more = false;
	if (!due || !mbus_tasks_begin(work, MBUS_TASK_ENTER, false))
		return;
	entering->looked_at = started;
	if (entering->retired ||
		TimestampDifferenceExceeds(entering->cleaned_at, started,
								   CLEAN_EVERY_MS))
	{
		entering->retired = false;
		entering->cleaned_at = started;
		(void) mbus_task_run(work, MBUS_TASK_ENTER, eras_clean, NULL,
							 "looking for eras that are over");
	}
	if (mbus_task_run(work, MBUS_TASK_ENTER, unentered_find, &list,
					  "looking for segments to enter") == MBUS_DONE)
		entering->more = segments_enter(work, &list, started);
	mbus_tasks_end(work, MBUS_TASK_ENTER);
}

/* Lists the segments that are closed and not entered. */
static MbusOutcome
unentered_find(MbusWork *work, void *arg)
{
	UnenteredList *list = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (SPI_execute("SELECT s.segment_no, (extract(epoch FROM"
					" s.expires_at - s.opened_at) * 1000000)::int8"
					" FROM message_bus.segment s"
					" WHERE s.closed_at IS NOT NULL AND NOT s.detached"
					" AND s.expires_at > message_bus.clock()"
					" AND NOT EXISTS (SELECT FROM message_bus.segment_era e"
					"  WHERE e.segment_no = s.segment_no)"
					" ORDER BY s.segment_no", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.segment");
	list->segment = MemoryContextAlloc(list->context, (SPI_processed + 1) *
									   sizeof(Unentered));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Unentered  *found = &list->segment[list->n++];
		bool		isnull;

		found->segment = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		found->series = mbus_series_for_ttl(DatumGetInt64(SPI_getbinval(row,
																		desc,
																		2,
																		&isnull)));
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * segments_enter enters segments until the time is up; true if it is, and
 * something came of it: who has only such to do that is in somebody's way
 * waits for the next look.
 */
static bool
segments_enter(MbusWork *work, UnenteredList *list, TimestampTz started)
{
	bool		progress = false;

	for (int i = 0; i < list->n; i++)
	{
		MbusOutcome outcome;

		do
		{
			work->serve(work);
			if (TimestampDifferenceExceeds(started, mbus_now(),
										   PASS_MS))
				return progress;
			outcome = mbus_task_run(work, MBUS_TASK_ENTER, segment_enter,
									&list->segment[i], "entering segment %d",
									list->segment[i].segment);
			progress |= outcome == MBUS_DONE;
		} while (outcome == MBUS_DONE && work->entering.segment != 0);
	}
	return false;
}

/*
 * segment_enter enters the next ids of a segment, for TASK_MS; the one that is
 * being entered is in work->entering, until all its ids are.
 */
static MbusOutcome
segment_enter(MbusWork *work, void *arg)
{
	const Unentered *unentered = arg;
	MbusEntering entering = work->entering;
	Snapshot	snapshot;
	uint32		fills;
	Oid			leaf;

	/* first the registry, then the snapshot */
	if (mbus_segment_unfinished(work->db, unentered->segment))
		return MBUS_BLOCKED;
	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (mbus_leaf_state(work, MBUS_MESSAGE, unentered->segment,
						&leaf) != MBUS_LEAF_ATTACHED ||
		!ConditionalLockRelationOid(leaf, ShareLock))
	{
		mbus_task_commit();
		return MBUS_BLOCKED;
	}
	/* nobody is writing to it */
	fills = pg_atomic_read_u32(&work->db->numbering.fills);
	mbus_task_become_owner(work);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (entering.segment != unentered->segment || entering.leaf != leaf ||
		entering.fills != fills)
	{
		entering.segment = unentered->segment;
		entering.leaf = leaf;
		entering.fills = fills;
		entering.reached = MbusFirstId(unentered->segment);
		entering.era = leaf_has(leaf, MBUS_COL_TRANSACTION_ID, snapshot) ?
			era_for(work, unentered->series) : InvalidOid;
		entering.delayed = leaf_has(leaf, MBUS_COL_AVAILABLE_AT, snapshot);
	}
	if (!OidIsValid(entering.era) || ids_enter(&entering, snapshot))
	{
		segment_entered(work, &entering);
		entering.segment = 0;
		entering.era = InvalidOid;
	}
	UnregisterSnapshot(snapshot);
	mbus_task_commit();
	work->entering = entering;
	return MBUS_DONE;
}

/* Whether a leaf has a message that is in its partial index on a column. */
static bool
leaf_has(Oid leaf, AttrNumber column, Snapshot snapshot)
{
	Relation	rel = table_open(leaf, AccessShareLock);
	MbusLeafScan rows;
	bool		has;

	mbus_leaf_scan_open(&rows, rel, MBUS_COL_CHANNEL_ID, column, true);
	mbus_leaf_scan_begin(&rows, snapshot);
	has = mbus_leaf_scan_next(&rows) != NULL;
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return has;
}

/*
 * era_for returns the era for segments of a series: the one that takes such
 * still, or one that is free.  If none is, one that is over goes on.
 */
static Oid
era_for(MbusWork *work, int32 series)
{
	int64		window = mbus_series_window_us(series) / USECS_PER_SEC;
	bool		none;
	int64		number;

	number = mbus_sql_int64(&none, "SELECT max(era_no)::int8"
							" FROM message_bus.era WHERE series = %d"
							" AND opened_at > message_bus.clock()"
							" - interval '1 second' * " INT64_FORMAT,
							series, ERA_WINDOWS * window);
	if (none)
	{
		number = mbus_sql_int64(&none, "SELECT min(n)::int8"
								" FROM generate_series(1, %d) AS t (n)"
								" WHERE n NOT IN"
								" (SELECT era_no FROM message_bus.era)",
								MBUS_ERAS);
		if (!none)
			mbus_sql("INSERT INTO message_bus.era (era_no, series, opened_at)"
					 " VALUES (%d, %d, message_bus.clock())", (int) number,
					 series);
	}
	if (none)
		number = mbus_sql_int64(&none, "SELECT era_no::int8"
								" FROM message_bus.era"
								" ORDER BY series = %d DESC, opened_at DESC"
								" LIMIT 1", series);
	return mbus_relation(work->schema, psprintf("era_%d", (int) number));
}

/*
 * ids_enter enters ids from where the last transaction ended; true if it came
 * to the end of the segment.
 */
static bool
ids_enter(MbusEntering *entering, Snapshot snapshot)
{
	TimestampTz started = mbus_now();
	Relation	rel = table_open(entering->leaf, AccessShareLock);
	MbusInserter *inserter = mbus_inserter_open(entering->era,
												MBUS_ERA_COLUMNS, false);
	bool		ended = true;
	int			n = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, rel, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, entering->reached, PG_INT64_MAX);
	mbus_leaf_scan_begin(&rows, snapshot);
	while (ended && (tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		row_enter(entering, inserter, tuple, RelationGetDescr(rel));
		if (++n % LOOK_ROWS == 0)
			ended = !TimestampDifferenceExceeds(started,
												mbus_now(),
												TASK_MS);
	}
	mbus_leaf_scan_close(&rows);
	mbus_inserter_close(inserter);
	table_close(rel, AccessShareLock);
	return ended;
}

/* Enters one message, if it has a transaction id. */
static void
row_enter(MbusEntering *entering, MbusInserter *inserter, HeapTuple tuple,
		  TupleDesc desc)
{
	Datum		channel_id;
	Datum		transaction_id;
	bool		isnull;
	text	   *id;
	TupleTableSlot *slot;

	entering->reached = 1 +
		DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc, &isnull));
	transaction_id = heap_getattr(tuple, MBUS_COL_TRANSACTION_ID, desc,
								  &isnull);
	if (isnull)
		return;
	channel_id = heap_getattr(tuple, MBUS_COL_CHANNEL_ID, desc, &isnull);
	id = DatumGetTextPP(transaction_id);
	slot = mbus_inserter_slot(inserter);
	slot->tts_values[MBUS_ERA_HASH - 1] =
		Int32GetDatum(mbus_era_hash(DatumGetInt32(channel_id), id));
	slot->tts_values[MBUS_ERA_SEGMENT - 1] = Int32GetDatum(entering->segment);
	mbus_inserter_put(inserter);
	if ((Pointer) id != DatumGetPointer(transaction_id))
		pfree(id);
}

/* Writes down that a segment is entered, and tells the backends. */
static void
segment_entered(MbusWork *work, const MbusEntering *entering)
{
	mbus_sql("INSERT INTO message_bus.segment_era"
			 " (segment_no, leaf, era, delayed) VALUES (%d, %u, %u, %s)",
			 entering->segment, entering->leaf, entering->era,
			 entering->delayed ? "true" : "false");
	CacheInvalidateRelcacheByRelid(mbus_relation(work->schema,
												 "segment_era"));
}

/*
 * eras_clean forgets segments whose table is gone or another one, and empties
 * the eras of which no segment is left.
 */
static MbusOutcome
eras_clean(MbusWork *work, void *arg)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_become_owner(work);
	mbus_sql("DELETE FROM message_bus.segment_era e WHERE NOT EXISTS"
			 " (SELECT FROM pg_class c WHERE c.oid = e.leaf)");
	for (int number = 1; number <= MBUS_ERAS; number++)
	{
		Oid			era = mbus_relation(work->schema,
										psprintf("era_%d", number));
		bool		none;

		(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM message_bus.era"
							  " WHERE era_no = %d AND NOT EXISTS"
							  " (SELECT FROM message_bus.segment_era"
							  "  WHERE era = %u)", number, era);
		if (none || era == work->entering.era ||
			!ConditionalLockRelationOid(era, AccessExclusiveLock))
			continue;
		mbus_sql("TRUNCATE message_bus.era_%d", number);
		mbus_sql("DELETE FROM message_bus.era WHERE era_no = %d", number);
	}
	mbus_task_commit();
	return MBUS_DONE;
}
