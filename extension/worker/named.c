/*
 * named.c
 *		What is published stays above the ids that rows name.
 *
 * Nothing below a channel's purged_to, or a subscription's start_id, is
 * delivered.  purge() and seek() name what is published by then; a restore, or
 * an INSERT, may name ids that are still to be given out.  Publishers must go
 * on above these: COPY is looked at where it ends (segment/fill.c), all else in
 * a look here, when one of the tables was invalidated (names.c).
 *
 * Such an id may be above all segments, or only above what publishers of its
 * channel have reached: another channel's segment may be higher.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "storage/lwlock.h"

#include "base/ids.h"
#include "state/range.h"
#include "state/state.h"
#include "state/unfinished.h"
#include "worker/named.h"
#include "worker/names.h"
#include "worker/numbers.h"
#include "worker/task.h"

static MbusOutcome names_above(MbusWork *work, void *arg);
static void names_raise(MbusWork *work);
static bool names_roll(MbusWork *work);
static int32 lowest_open(MbusDatabase *db);

/*
 * mbus_named_look has what is open followed by segments above all that purges
 * and starts name, where these may be others than at the last look.
 */
void
mbus_named_look(MbusWork *work)
{
	if (!mbus_tasks_begin(work, MBUS_TASK_NAMES, false))
		return;
	(void) mbus_task_run(work, MBUS_TASK_NAMES, names_above, NULL,
						 "looking for ids that are named");
	mbus_tasks_end(work, MBUS_TASK_NAMES);
}

static MbusOutcome
names_above(MbusWork *work, void *arg)
{
	uint64		changes;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	changes = mbus_names_changes(work);
	if (changes != work->restore.names)
	{
		names_raise(work);
		if (names_roll(work))
			work->restore.names = changes;
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/* Above all segments. */
static void
names_raise(MbusWork *work)
{
	bool		isnull;
	int64		above;

	if (mbus_names_highest(work) < work->db->numbering.next_segment)
		return;
	above = mbus_sql_int64(&isnull, "SELECT (greatest("
						   "(SELECT max(purged_to) FROM message_bus.channel),"
						   "(SELECT max(start_id) - 1"
						   " FROM message_bus.subscription)) >> %d) + 1",
						   MBUS_ROW_BITS);
	if (isnull || above <= work->db->numbering.next_segment)
		return;
	mbus_task_number_check(above, MBUS_SEGMENT_MAX, "segment numbers");
	mbus_roll_below(work->db, above);
	mbus_numbering_raise(work->db, above);
	mbus_numbering_store(work->db);
}

/*
 * names_roll looks at what is not above all segments, but above what publishers
 * of its channel may get from one that is open.  What purge and seek name never
 * is.  False if nothing can be said yet.
 */
static bool
names_roll(MbusWork *work)
{
	MbusDatabase *db = work->db;
	int32		lowest = lowest_open(db);

	if (lowest == 0)
		return db->numbering.ready;
	if (SPI_execute(psprintf("SELECT channel_id, max(id) FROM"
							 " (SELECT channel_id, purged_to"
							 "  FROM message_bus.channel UNION ALL"
							 "  SELECT channel_id, start_id - 1"
							 "  FROM message_bus.subscription)"
							 " AS named (channel_id, id)"
							 " WHERE id >= " INT64_FORMAT
							 " GROUP BY channel_id", MbusFirstId(lowest)),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for ids that are named");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		int32		channel = DatumGetInt32(SPI_getbinval(row, desc, 1,
														  &isnull));
		int64		id = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
		MbusRange  *ranges;
		int			nranges;
		int64		limit = mbus_unfinished_copy(db, work->schema, channel,
												 &ranges, &nranges);

		pfree(ranges);
		if (limit < 0)
			return false;
		if (id >= limit && id >> MBUS_ROW_BITS < MBUS_SEGMENT_MAX)
			mbus_roll_below(db, MbusSegmentOf(id) + 1);
	}
	return true;
}

/* The lowest segment that is open; 0: none is. */
static int32
lowest_open(MbusDatabase *db)
{
	int32		lowest = 0;

	LWLockAcquire(&db->lock, LW_SHARED);
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		int32		open = db->series[s].open_segment;

		if (open != 0 && (lowest == 0 || open < lowest))
			lowest = open;
	}
	LWLockRelease(&db->lock);
	return lowest;
}
