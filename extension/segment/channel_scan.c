/*
 * channel_scan.c
 *		A channel's messages in a leaf, by ascending id.
 *
 * A call that publishes many messages gives them ids without a gap: a run.
 * The index on (channel_id, id) has only the first row of each, whose column
 * "run" says how many ids the run has; that of its other rows is 0.  These are
 * read through the index on id.  So a batch costs one entry of the index by
 * channel, whose last page would else be what all publishers wait for.
 *
 * A run is of one channel, and of one statement: if a snapshot shows its first
 * row it shows all, and runs of a channel do not overlap.  The ids of other
 * channels lie between runs only.
 *
 *		mbus_channel_scan_open(&rows, leaf, channel_id);
 *		mbus_channel_scan_begin(&rows, from, to, snapshot);
 *		while ((tuple = mbus_channel_scan_next(&rows)) != NULL)
 *			...
 *		mbus_channel_scan_close(&rows);
 *
 * Who reads several times ends each reading and begins the next.  Errors leave
 * nothing that the end of the transaction does not see to.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "utils/rel.h"

#include "segment/channel_scan.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

static void run_find(MbusChannelScan *scan, int64 lo);
static HeapTuple run_next(MbusChannelScan *scan);
static int64 run_read(const MbusChannelScan *scan, HeapTuple tuple,
					  int64 *last);

/*
 * mbus_channel_scan_open opens the leaf's indexes.
 */
void
mbus_channel_scan_open(MbusChannelScan *scan, Relation leaf, int32 channel_id)
{
	scan->channel_id = channel_id;
	mbus_leaf_scan_open(&scan->runs, leaf, MBUS_COL_CHANNEL_ID, MBUS_COL_ID,
						true);
	mbus_leaf_scan_open(&scan->rows, leaf, MBUS_COL_ID, 0, false);
}

/*
 * mbus_channel_scan_begin starts to read the channel's messages with ids from
 * lo to hi, inclusive; the snapshot is the caller's, as long as it reads.
 */
void
mbus_channel_scan_begin(MbusChannelScan *scan, int64 lo, int64 hi,
						Snapshot snapshot)
{
	scan->snapshot = snapshot;
	scan->hi = hi;
	scan->next = 0;
	scan->last = -1;
	run_find(scan, lo);
	mbus_leaf_scan_int4(&scan->runs, MBUS_COL_CHANNEL_ID, scan->channel_id);
	mbus_leaf_scan_int8(&scan->runs, MBUS_COL_ID, lo, hi);
	mbus_leaf_scan_begin(&scan->runs, snapshot);
}

/*
 * run_find looks for a run that has begun before "lo", and goes on behind it.
 */
static void
run_find(MbusChannelScan *scan, int64 lo)
{
	HeapTuple	tuple;

	mbus_leaf_scan_int4(&scan->runs, MBUS_COL_CHANNEL_ID, scan->channel_id);
	mbus_leaf_scan_int8(&scan->runs, MBUS_COL_ID, PG_INT64_MIN, lo - 1);
	mbus_leaf_scan_begin(&scan->runs, scan->snapshot);
	tuple = systable_getnext_ordered(scan->runs.rows, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		(void) run_read(scan, tuple, &scan->last);
		scan->next = lo;
	}
	mbus_leaf_scan_end(&scan->runs);
}

/*
 * mbus_channel_scan_last returns the channel's last id in the leaf that is at
 * most hi, -1 if there is none.  To be called while nothing is read.
 */
int64
mbus_channel_scan_last(MbusChannelScan *scan, int64 hi, Snapshot snapshot)
{
	scan->snapshot = snapshot;
	scan->last = -1;
	run_find(scan, hi == PG_INT64_MAX ? hi : hi + 1);
	return Min(scan->last, hi);
}

/*
 * mbus_channel_scan_next returns the next row, good until the call after, or
 * NULL.
 */
HeapTuple
mbus_channel_scan_next(MbusChannelScan *scan)
{
	HeapTuple	tuple = NULL;

	if (scan->rows.rows == NULL && scan->next <= Min(scan->last, scan->hi))
	{
		mbus_leaf_scan_int8(&scan->rows, MBUS_COL_ID, scan->next,
							Min(scan->last, scan->hi));
		mbus_leaf_scan_begin(&scan->rows, scan->snapshot);
		scan->last = -1;
	}
	if (scan->rows.rows)
		tuple = mbus_leaf_scan_next(&scan->rows);
	if (HeapTupleIsValid(tuple))
		return tuple;
	if (scan->rows.rows)
		mbus_leaf_scan_end(&scan->rows);
	return run_next(scan);
}

/* The first row of the next run; the others come after it. */
static HeapTuple
run_next(MbusChannelScan *scan)
{
	HeapTuple	tuple = mbus_leaf_scan_next(&scan->runs);

	if (HeapTupleIsValid(tuple))
		scan->next = run_read(scan, tuple, &scan->last) + 1;
	return tuple;
}

/* Reads the first and the last id of a run. */
static int64
run_read(const MbusChannelScan *scan, HeapTuple tuple, int64 *last)
{
	TupleDesc	desc = RelationGetDescr(scan->runs.leaf);
	bool		isnull;
	int64		first;

	first = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc, &isnull));
	*last = first - 1 +
		DatumGetInt16(heap_getattr(tuple, MBUS_COL_RUN, desc, &isnull));
	return first;
}

/*
 * mbus_channel_scan_end stops reading; it can begin again.
 */
void
mbus_channel_scan_end(MbusChannelScan *scan)
{
	if (scan->rows.rows)
		mbus_leaf_scan_end(&scan->rows);
	if (scan->runs.rows)
		mbus_leaf_scan_end(&scan->runs);
}

/*
 * mbus_channel_scan_close stops reading and closes the indexes.
 */
void
mbus_channel_scan_close(MbusChannelScan *scan)
{
	mbus_channel_scan_end(scan);
	mbus_leaf_scan_close(&scan->rows);
	mbus_leaf_scan_close(&scan->runs);
}
