/*
 * scan_expiring.c
 *		The scan reads what is about to expire: see rescue.c.
 *
 * It looks at all of the channel's messages, wherever the positions are, and
 * takes those that expire by a time, or have expired, and that the subscription
 * has not got: asked of memory and then of the tables, as with any candidate.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/rel.h"

#include "base/ids.h"
#include "delivery/scan_expiring.h"
#include "delivery/scan_facts.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "segment/channel_scan.h"
#include "segment/leaf.h"

#define BLOCK		256			/* candidates looked up at a time */

/* Candidates, by ascending id. */
typedef struct Block
{
	int			n;
	MbusScanRow row[BLOCK];
	MbusFacts	facts[BLOCK];
} Block;

static void leaf_expiring(MbusScan *scan, Relation leaf, int32 segment,
						  Block *block);
static bool is_expiring(const MbusScan *scan, const MbusScanRow *row);
static void block_take(MbusScan *scan, Block *block);
static void row_take(MbusScan *scan, const MbusScanRow *row, uint32 entry,
					 int attempt);

/*
 * mbus_scan_expiring takes what expires by scan->until, also what failed and
 * waits, is not due yet, or was passed over for its key.
 */
void
mbus_scan_expiring(MbusScan *scan)
{
	Block	   *block = palloc(sizeof(Block));

	for (int i = 0; i < scan->nready; i++)
	{
		const MbusWaiting *waiting = &scan->ready[i];
		MbusScanRow row;

		if (mbus_scan_by_id(scan, waiting->id, &row) != NULL &&
			is_expiring(scan, &row))
			row_take(scan, &row, waiting->entry, waiting->attempt);
	}
	block->n = 0;
	for (int i = 0; i < scan->nleaves && !scan->full; i++)
	{
		int32		segment = scan->leaves[i].segment;
		Relation	leaf;

		if (MbusFirstId(segment) >= scan->limit)
			continue;
		leaf = mbus_leaf_open(scan->schema, segment, MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			continue;
		leaf_expiring(scan, leaf, segment, block);
		table_close(leaf, AccessShareLock);
	}
	pfree(block);
}

/* Takes those of one segment. */
static void
leaf_expiring(MbusScan *scan, Relation leaf, int32 segment, Block *block)
{
	bool		events = mbus_scan_has_events(scan, segment);
	MbusChannelScan rows;
	HeapTuple	tuple;

	mbus_channel_scan_open(&rows, leaf, scan->channel_id);
	mbus_channel_scan_begin(&rows, scan->sub.start_id, scan->limit - 1,
							scan->snapshot);
	while (!scan->full && (tuple = mbus_channel_scan_next(&rows)) != NULL)
	{
		MbusScanRow *row = &block->row[block->n];

		mbus_scan_row(scan, tuple, RelationGetDescr(leaf), events, row);
		if (!is_expiring(scan, row) ||
			mbus_scan_in_unfinished(scan, row->id, row->id + 1))
			continue;
		if (++block->n == BLOCK)
			block_take(scan, block);
	}
	block_take(scan, block);
	mbus_channel_scan_close(&rows);
}

static bool
is_expiring(const MbusScan *scan, const MbusScanRow *row)
{
	return row->lost || (row->live && row->expires_at <= scan->until);
}

/* Takes those of a block that have no entry and are not done. */
static void
block_take(MbusScan *scan, Block *block)
{
	int			n;

	for (int i = 0; i < block->n; i++)
	{
		MemSet(&block->facts[i], 0, sizeof(MbusFacts));
		block->facts[i].id = block->row[i].id;
	}
	n = mbus_scan_facts(scan, block->facts, block->n);
	for (int i = 0, r = 0; i < n && !scan->full; i++)
	{
		while (block->row[r].id != block->facts[i].id)
			r++;
		if (!block->facts[i].done)
			row_take(scan, &block->row[r], MBUS_NONE,
					 block->facts[i].failed ? block->facts[i].attempt : 1);
	}
	block->n = 0;
}

static void
row_take(MbusScan *scan, const MbusScanRow *row, uint32 entry, int attempt)
{
	MbusScanRow taken = *row;

	taken.live = true;
	taken.key_hash = 0;
	(void) mbus_scan_take(scan, &taken, NULL, NULL, entry, attempt);
}
