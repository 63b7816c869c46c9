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

#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "base/ids.h"
#include "delivery/pool.h"
#include "delivery/scan_facts.h"
#include "delivery/scan_range.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/channel_scan.h"
#include "state/range.h"

#define BLOCK_MIN	16			/* candidates looked up at a time */
#define BLOCK_MAX	1024
#define READ_MAX	200000		/* messages read over in one scan */

/*
 * Candidates of before the server's start: facts may say that they are done,
 * and are looked up for a block of them at a time.
 */
typedef struct Block
{
	HeapTuple  *tuples;			/* copies */
	MbusScanRow *rows;
	int			n;
	int			size;			/* looked up when there are so many */
} Block;

static bool range_read(MbusScan *scan, int64 from, int64 to, int64 *reached);
static bool leaf_read(MbusScan *scan, Relation leaf, int32 segment,
					  int64 from, int64 to, int64 *reached);
static bool row_read(MbusScan *scan, Block *block, HeapTuple tuple,
					 const MbusScanRow *row, int64 *reached);
static bool candidate_read(MbusScan *scan, Block *block, HeapTuple tuple,
						   const MbusScanRow *row, int64 *reached);
static void later_note(MbusScan *scan, const MbusScanRow *row);
static bool fresh_take(MbusScan *scan, HeapTuple tuple,
					   const MbusScanRow *row, int64 *reached);
static bool block_add(MbusScan *scan, Block *block, HeapTuple tuple,
					  const MbusScanRow *row, int64 *reached);
static bool block_flush(MbusScan *scan, Block *block, int64 *reached);
static bool block_take(MbusScan *scan, const Block *block,
					   const MbusFacts *facts, int nfacts, int64 *reached);
static bool batch_goes_on(MbusScan *scan, int64 behind, int64 *reached);
static int	block_size(int wanted);

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

/*
 * leaf_read does so in one leaf; *reached is set if it ends before "to".
 */
static bool
leaf_read(MbusScan *scan, Relation leaf, int32 segment, int64 from, int64 to,
		  int64 *reached)
{
	bool		events = mbus_scan_has_events(scan, segment);
	Block		block = {NULL};
	bool		all = true;
	MbusChannelScan rows;
	HeapTuple	tuple;

	block.size = block_size(scan->batch - scan->nfound);
	mbus_channel_scan_open(&rows, leaf, scan->channel_id);
	mbus_channel_scan_begin(&rows, from, to - 1, scan->snapshot);
	while (all && (tuple = mbus_channel_scan_next(&rows)) != NULL)
	{
		MbusScanRow row;

		mbus_scan_row(scan, tuple, RelationGetDescr(leaf), events, &row);
		all = row_read(scan, &block, tuple, &row, reached);
	}
	if (all)
		all = block_flush(scan, &block, reached);
	mbus_channel_scan_close(&rows);
	return all;
}

/*
 * row_read takes a message, leaves it out, or keeps it for a look at its
 * facts.  False if no more is to be read, and *reached is where that is.
 */
static bool
row_read(MbusScan *scan, Block *block, HeapTuple tuple,
		 const MbusScanRow *row, int64 *reached)
{
	scan->quiet_from = Max(scan->quiet_from, row->id + 1);
	if (++scan->nread > READ_MAX && !scan->probe)
	{
		/* record how far it came; the claim goes on from there */
		if (block_flush(scan, block, reached))
		{
			*reached = row->id;
			scan->full = true;
		}
		return false;
	}
	if (mbus_scan_in_unfinished(scan, row->id, row->id + 1))
		return true;
	/* also one that is not live by what this transaction may yet undo */
	if (mbus_scan_is_later(scan, row))
		later_note(scan, row);
	else if (row->live)
		return candidate_read(scan, block, tuple, row, reached);
	return true;
}

/* Keeps one of before the server's start, or takes it. */
static bool
candidate_read(MbusScan *scan, Block *block, HeapTuple tuple,
			   const MbusScanRow *row, int64 *reached)
{
	if (row->id < scan->sub.check_below)
		return block_add(scan, block, tuple, row, reached);
	/* by ascending id: first those that are kept */
	return block_flush(scan, block, reached) &&
		fresh_take(scan, tuple, row, reached);
}

/* The cursor passes a message that is left to a scan of its time. */
static void
later_note(MbusScan *scan, const MbusScanRow *row)
{
	int32		segment = MbusSegmentOf(row->id);

	mbus_set_add(&scan->due_in, segment, segment);
	scan->next_due = Min(scan->next_due, row->available_at);
}

/*
 * fresh_take takes a message that nobody has been given before.
 */
static bool
fresh_take(MbusScan *scan, HeapTuple tuple, const MbusScanRow *row,
		   int64 *reached)
{
	if (mbus_scan_take(scan, row, tuple, NULL, MBUS_NONE,
					   1) == MBUS_SCAN_NO_ROOM)
	{
		*reached = row->id;
		return false;
	}
	return batch_goes_on(scan, row->id + 1, reached);
}

/*
 * block_add keeps a candidate, and takes of the block what is to be had when
 * it has its size.
 */
static bool
block_add(MbusScan *scan, Block *block, HeapTuple tuple,
		  const MbusScanRow *row, int64 *reached)
{
	int			before = scan->nfound;

	if (block->n == 0)
	{
		block->tuples = palloc(block->size * sizeof(HeapTuple));
		block->rows = palloc(block->size * sizeof(MbusScanRow));
	}
	block->tuples[block->n] = heap_copytuple(tuple);
	block->rows[block->n++] = *row;
	if (block->n < block->size)
		return true;
	if (!block_flush(scan, block, reached))
		return false;
	/* few of these may be left to take: then read more at a time */
	block->size = block_size(2 * (scan->nfound > before ?
								  scan->batch - scan->nfound : block->size));
	return true;
}

/*
 * block_flush looks up the facts of the candidates, takes as many as the batch
 * has room for and empties the block.
 */
static bool
block_flush(MbusScan *scan, Block *block, int64 *reached)
{
	MbusFacts  *facts;
	int			nfacts;
	bool		all;

	if (block->n == 0)
		return true;
	facts = palloc0(block->n * sizeof(MbusFacts));
	for (int i = 0; i < block->n; i++)
		facts[i].id = block->rows[i].id;
	nfacts = mbus_scan_facts(scan, facts, block->n);
	all = block_take(scan, block, facts, nfacts, reached);
	for (int i = 0; i < block->n; i++)
		heap_freetuple(block->tuples[i]);
	pfree(block->tuples);
	pfree(block->rows);
	pfree(facts);
	block->n = 0;
	return all;
}

/* Takes those candidates that are not out, done or waiting for their time. */
static bool
block_take(MbusScan *scan, const Block *block, const MbusFacts *facts,
		   int nfacts, int64 *reached)
{
	for (int i = 0; i < block->n; i++)
	{
		const MbusScanRow *row = &block->rows[i];
		const MbusFacts *told = mbus_facts_search(facts, nfacts, row->id);

		if (told == NULL || mbus_scan_left_to_retry(scan, told))
			continue;
		if (mbus_scan_take(scan, row, block->tuples[i], told, MBUS_NONE,
						   1) == MBUS_SCAN_NO_ROOM)
		{
			*reached = row->id;
			return false;
		}
	}
	return batch_goes_on(scan, block->rows[block->n - 1].id + 1, reached);
}

/*
 * batch_goes_on tells whether the batch has room; if not, the scan has got as
 * far as "behind".
 */
static bool
batch_goes_on(MbusScan *scan, int64 behind, int64 *reached)
{
	if (scan->nfound < scan->batch)
		return true;
	*reached = behind;
	scan->full = true;
	return false;
}

static int
block_size(int wanted)
{
	return Min(Max(wanted, BLOCK_MIN), BLOCK_MAX);
}
