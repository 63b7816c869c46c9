/*
 * scan_range.c
 *		The scan reads ranges of ids: those it has skipped, and what is fresh.
 *
 * An id that was given out since the server started (at or above check_below)
 * is new to the subscription when the scan comes to it, and taken at once.
 * One from before is a candidate; these are gathered, so that the tables are
 * asked for many at a time (mbus_facts).
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"

#include "base/ids.h"
#include "delivery/scan_range.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "state/range.h"

#define BLOCK_MIN	16			/* candidates looked up at a time */
#define BLOCK_MAX	1024
#define READ_MAX	200000		/* messages read over in one scan */

static bool range_read(MbusScan *scan, int64 from, int64 to, int64 *reached);
static bool leaf_read(MbusScan *scan, Relation leaf, int32 segment, int64 from, int64 to,
					  int64 *reached);
static int	block_size(int wanted);
static bool block_take(MbusScan *scan, HeapTuple *tuples, MbusScanRow *rows,
					   int n, int64 *reached);

/*
 * mbus_scan_skipped reads the skipped ranges whose publish has ended.
 */
void
mbus_scan_skipped(MbusScan *scan)
{
	for (int i = 0; i < scan->nskipped && !scan->full; i++)
	{
		MbusRange  *range = &scan->skipped[i];
		int64		reached = range->lo;

		if (mbus_scan_in_unfinished(scan, range->lo, range->hi))
			continue;
		(void) range_read(scan, range->lo, range->hi, &reached);
		range->lo = reached;
	}
}

/*
 * mbus_scan_fresh reads on from the cursor, leaving out unfinished ranges.
 */
void
mbus_scan_fresh(MbusScan *scan)
{
	int64		reached = scan->cursor + 1;

	if (scan->full || reached >= scan->limit)
		return;
	(void) range_read(scan, reached, scan->limit, &reached);
	scan->cursor = reached - 1;
}

/*
 * range_read takes messages with ids in [from, to) and sets *reached behind
 * the last one that is settled: taken, left out, or unfinished.  False if the
 * batch is full before the end.
 */
static bool
range_read(MbusScan *scan, int64 from, int64 to, int64 *reached)
{
	for (int i = 0; i < scan->nleaves; i++)
	{
		int32		segment = scan->leaves[i].segment;
		Relation	leaf;
		bool		all;
		int			before;

		if (segment < MbusSegmentOf(from) || MbusFirstId(segment) >= to)
			continue;
		leaf = mbus_leaf_open(scan->schema, segment, MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			continue;
		before = scan->nfound;
		all = leaf_read(scan, leaf, segment, from, to, reached);
		/* payloads of what was found may be in the TOAST table */
		table_close(leaf, scan->nfound > before ? NoLock : AccessShareLock);
		if (!all)
			return false;
	}
	*reached = to;
	return true;
}

static bool
leaf_read(MbusScan *scan, Relation leaf, int32 segment, int64 from, int64 to,
		  int64 *reached)
{
	Relation	index = mbus_leaf_index(leaf, MBUS_COL_CHANNEL_ID,
										MBUS_COL_ID, false);
	bool		events = mbus_scan_has_events(scan, segment);
	int			block = block_size(scan->batch - scan->nfound);
	HeapTuple  *tuples = NULL;
	MbusScanRow *rows = NULL;
	int			room = 0;
	int			n = 0;
	bool		all = true;
	ScanKeyData key[3];
	SysScanDesc desc;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], MBUS_COL_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(scan->channel_id));
	ScanKeyInit(&key[1], MBUS_COL_ID, BTGreaterEqualStrategyNumber,
				F_INT8GE, Int64GetDatum(from));
	ScanKeyInit(&key[2], MBUS_COL_ID, BTLessStrategyNumber, F_INT8LT,
				Int64GetDatum(to));
	desc = systable_beginscan_ordered(leaf, index, scan->snapshot, 3, key);
	while (all &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(desc,
															 ForwardScanDirection)))
	{
		MbusScanRow row;

		CHECK_FOR_INTERRUPTS();
		mbus_scan_row(scan, tuple, RelationGetDescr(leaf), events, &row);
		if (++scan->nread > READ_MAX && !scan->probe)
		{
			/* record how far it came; the claim goes on from there */
			if (n > 0)
				all = block_take(scan, tuples, rows, n, reached);
			n = 0;
			if (all)
			{
				*reached = row.id;
				scan->full = true;
				all = false;
			}
			continue;
		}
		if (!row.live || mbus_scan_is_later(scan, &row) ||
			mbus_scan_unfinished_end(scan, row.id) != 0)
			continue;
		if (row.id >= scan->sub.check_below)
		{
			if (n > 0)
				all = block_take(scan, tuples, rows, n, reached);
			n = 0;
			if (all && mbus_scan_take(scan, &row, tuple, NULL, MBUS_NONE,
									  1) == MBUS_SCAN_NO_ROOM)
			{
				*reached = row.id;
				all = false;
			}
			else if (all && scan->nfound >= scan->batch)
			{
				*reached = row.id + 1;
				scan->full = true;
				all = false;
			}
			continue;
		}
		if (tuples == NULL)
		{
			tuples = palloc(block * sizeof(HeapTuple));
			rows = palloc(block * sizeof(MbusScanRow));
			room = block;
		}
		else if (n == room)
		{
			room = block;
			tuples = repalloc(tuples, room * sizeof(HeapTuple));
			rows = repalloc(rows, room * sizeof(MbusScanRow));
		}
		tuples[n] = heap_copytuple(tuple);
		rows[n++] = row;
		if (n == block)
		{
			int			before = scan->nfound;

			all = block_take(scan, tuples, rows, n, reached);
			n = 0;
			/* few of these may be left to take: then read more at a time */
			block = scan->nfound > before ?
				block_size(2 * (scan->batch - scan->nfound)) :
				block_size(2 * block);
		}
	}
	if (all && n > 0)
		all = block_take(scan, tuples, rows, n, reached);
	if (tuples)
	{
		pfree(tuples);
		pfree(rows);
	}
	systable_endscan_ordered(desc);
	index_close(index, AccessShareLock);
	return all;
}

static int
block_size(int wanted)
{
	return Min(Max(wanted, BLOCK_MIN), BLOCK_MAX);
}

/*
 * block_take takes candidates of before the server's start, as many as the
 * batch has room for.
 */
static bool
block_take(MbusScan *scan, HeapTuple *tuples, MbusScanRow *rows, int n,
		   int64 *reached)
{
	MbusFacts  *facts = palloc0(n * sizeof(MbusFacts));
	bool		all = true;

	for (int i = 0; i < n; i++)
		facts[i].id = rows[i].id;
	mbus_facts(scan->schema, scan->sub.subscription_id,
			   scan->sub.since_lease, facts, n, scan->snapshot);
	for (int i = 0; i < n && all; i++)
	{
		/* failed ones of an unordered subscription are found by their time */
		if (mbus_scan_is_busy(scan, rows[i].id) ||
			(facts[i].failed && !scan->sub.ordered))
			continue;
		if (mbus_scan_take(scan, &rows[i], tuples[i], &facts[i], MBUS_NONE,
						   1) == MBUS_SCAN_NO_ROOM)
		{
			*reached = rows[i].id;
			all = false;
		}
	}
	if (all && scan->nfound >= scan->batch)
	{
		*reached = rows[n - 1].id + 1;
		scan->full = true;
		all = false;
	}
	for (int i = 0; i < n; i++)
		heap_freetuple(tuples[i]);
	pfree(facts);
	return all;
}
