/*
 * scan_due.c
 *		The scan reads by time: what is to be tried again, what was delayed.
 *
 * Both sources begin at a position in time that the subscription keeps, read
 * up to now, and say how far they got; what they find are candidates.  A
 * position may be too low, never too high: where the batch has no room for
 * all, it stays at the first that was left.
 *
 * A message of a key that was to be tried again, and is no more, has its key
 * go on (scan_take.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "delivery/pool.h"
#include "delivery/scan_due.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

#define DUE_MAX		8192		/* delayed messages looked at at a time */

/* A delayed message, or a due position: what comes before it is settled. */
typedef struct Due
{
	TimestampTz at;
	int64		id;
} Due;

static int	retries_passed(MbusScan *scan, int64 *ids, int n);
static void due_position(MbusScan *scan, const Due *due, int n, int64 left);
static bool candidates_take(MbusScan *scan, int64 *ids, int n, int most,
							bool retries, TimestampTz from, TimestampTz to,
							int64 *left);
static Due *due_read(MbusScan *scan, int most, int *n, Due *reached);
static int	due_leaf(MbusScan *scan, Relation leaf, Due *due, int most,
					 TimestampTz *next);
static int	due_rows(MbusScan *scan, MbusLeafScan *rows, Due *due, int most,
					 TimestampTz *next);
static int	due_compare(const void *a, const void *b);

/*
 * mbus_scan_retries takes messages that failed and are to be tried again now.
 */
void
mbus_scan_retries(MbusScan *scan, int most)
{
	TimestampTz from = scan->sub.retry_at;
	int			before = scan->nfound;

	if (!scan->read_retries || scan->full)
		return;
	for (;;)
	{
		int64	   *ids;
		TimestampTz reached;
		TimestampTz next;
		int64		left;
		bool		all;
		int			n;

		CHECK_FOR_INTERRUPTS();
		n = mbus_facts_retries(scan->schema, scan->sub.subscription_id,
							   scan->sub.since_lease, from, scan->now,
							   most + 16, scan->snapshot, &ids, &reached,
							   &next);
		n = retries_passed(scan, ids, n);
		qsort(ids, n, sizeof(int64), mbus_int64_compare);
		all = candidates_take(scan, ids, n, most - (scan->nfound - before),
							  true,
							  from == scan->sub.retry_at ? PG_INT64_MIN : from,
							  reached, &left);
		pfree(ids);
		if (!all)
		{
			/* some have to wait for the next claim, which begins here again */
			scan->retry_at = from;
			scan->next_retry = PG_INT64_MIN;
			return;
		}
		if (reached >= scan->now)
		{
			scan->retry_at = scan->now;
			scan->next_retry = next;
			return;
		}
		from = reached + 1;
	}
}

/*
 * retries_passed keeps the ids that the cursor has passed.  One above it, of a
 * dead letter that was redriven after a seek, comes when the cursor gets
 * there; unless it is of before the server's start: then the other source
 * leaves it to this one.
 */
static int
retries_passed(MbusScan *scan, int64 *ids, int n)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		if (ids[i] <= scan->sub.cursor || ids[i] < scan->sub.check_below)
			ids[kept++] = ids[i];
	}
	return kept;
}

/*
 * mbus_scan_due takes delayed messages whose time has come.
 */
void
mbus_scan_due(MbusScan *scan, int most)
{
	int			before = scan->nfound;
	int			want = most + 16;

	if (!scan->read_due)
		return;
	if (scan->full || scan->nfound >= scan->batch)
	{
		scan->read_due = false;
		return;
	}
	for (;;)
	{
		Due			reached;
		bool		all;
		int64		left = 0;
		Due		   *due;
		int64	   *ids;
		int			nread;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		due = due_read(scan, want, &nread, &reached);
		ids = palloc(Max(nread, 1) * sizeof(int64));
		for (int i = 0; i < nread; i++)
		{
			/* the cursor of now: the last scan of four reads fresh ones first */
			if (due[i].id <= scan->cursor &&
				!mbus_scan_in_unfinished(scan, due[i].id, due[i].id + 1) &&
				!mbus_scan_in_skipped(scan, due[i].id))
			{
				due[n] = due[i];
				ids[n++] = due[i].id;
			}
		}
		qsort(ids, n, sizeof(int64), mbus_int64_compare);
		all = candidates_take(scan, ids, n, most - (scan->nfound - before),
							  false, PG_INT64_MIN, scan->now, &left);
		if (all)
		{
			scan->due_at = reached.at;
			scan->due_id = reached.id;
		}
		else
		{
			due_position(scan, due, n, left);
			scan->next_due = PG_INT64_MIN;
		}
		pfree(due);
		pfree(ids);
		if (!all || reached.at > scan->now)
			return;
		want = Min(2 * want, DUE_MAX);
	}
}

/*
 * due_position moves the due position to the first message that there was no
 * room for: taken were those with an id below "left".
 */
static void
due_position(MbusScan *scan, const Due *due, int n, int64 left)
{
	for (int i = 0; i < n; i++)
	{
		if (due[i].id >= left)
		{
			scan->due_at = due[i].at;
			scan->due_id = due[i].id;
			return;
		}
	}
}

/*
 * candidates_take takes those of some messages, by ascending id, that are not
 * busy, done or waiting; false if there was no room for all: none from *left
 * on was taken.  One whose latest failure is not to be retried from "from" to
 * "to" was found by an older failure, and is found again by that.
 */
static bool
candidates_take(MbusScan *scan, int64 *ids, int n, int most, bool retries,
				TimestampTz from, TimestampTz to, int64 *left)
{
	MbusFacts  *facts = palloc0(Max(n, 1) * sizeof(MbusFacts));
	int			nfacts = 0;
	int			before = scan->nfound;
	bool		all = true;

	for (int i = 0; i < n; i++)
	{
		if (!mbus_scan_is_busy(scan, ids[i]))
			facts[nfacts++].id = ids[i];
	}
	mbus_facts(scan->schema, scan->sub.subscription_id,
			   scan->sub.since_lease, facts, nfacts, scan->snapshot);
	for (int i = 0; i < nfacts && all; i++)
	{
		HeapTuple	tuple;
		MbusScanRow row;

		if (facts[i].done || (retries && (!facts[i].failed ||
										  facts[i].retry_at < from ||
										  facts[i].retry_at > to)) ||
			(!retries && mbus_scan_left_to_retry(scan, &facts[i])))
			continue;
		tuple = mbus_scan_by_id(scan, facts[i].id, &row);
		if (tuple == NULL)
			continue;
		if (!row.live)
			all = !retries || mbus_scan_key_on(scan, &row);
		else
			all = scan->nfound - before < most &&
				mbus_scan_take(scan, &row, tuple, &facts[i], MBUS_NONE,
							   1) != MBUS_SCAN_NO_ROOM;
		if (!all)
			*left = facts[i].id;
		heap_freetuple(tuple);	/* found_add has copied it */
	}
	pfree(facts);
	return all;
}

/*
 * due_read returns the earliest delayed messages from the due position to
 * now, by time and id, and the due position behind them.
 */
static Due *
due_read(MbusScan *scan, int most, int *n, Due *reached)
{
	int			max = most;
	Due		   *due = palloc(max * sizeof(Due));

	*n = 0;
	reached->at = scan->now + 1;
	reached->id = 0;
	scan->next_due = PG_INT64_MAX;
	for (int i = 0; i < scan->nleaves; i++)
	{
		Relation	leaf;
		TimestampTz next = PG_INT64_MAX;
		int			got;

		leaf = mbus_leaf_open(scan->schema, scan->leaves[i].segment,
							  MBUS_MESSAGE, AccessShareLock);
		if (leaf == NULL)
			continue;
		if (*n + most > max)
		{
			max = Max(2 * max, *n + most);
			due = repalloc(due, max * sizeof(Due));
		}
		got = due_leaf(scan, leaf, due + *n, most, &next);
		/* a leaf with more: nothing behind its last one is known */
		if (got == most && due_compare(&due[*n + got - 1], reached) < 0)
		{
			reached->at = due[*n + got - 1].at;
			reached->id = due[*n + got - 1].id + 1;
		}
		*n += got;
		scan->next_due = Min(scan->next_due, next);
		table_close(leaf, AccessShareLock);
	}
	qsort(due, *n, sizeof(Due), due_compare);
	while (*n > 0 && due_compare(&due[*n - 1], reached) >= 0)
		(*n)--;
	return due;
}

/*
 * Reads a leaf from the due position on; returns how many are due.  First what
 * has the position's time, from its id on, then what is later.
 */
static int
due_leaf(MbusScan *scan, Relation leaf, Due *due, int most, TimestampTz *next)
{
	MbusLeafScan rows;
	int			n;

	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_CHANNEL_ID,
						MBUS_COL_AVAILABLE_AT, true);
	mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, scan->channel_id);
	mbus_leaf_scan_time(&rows, MBUS_COL_AVAILABLE_AT, scan->due_at,
						scan->due_at);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, scan->due_id, PG_INT64_MAX);
	n = due_rows(scan, &rows, due, most, next);
	if (n < most)
	{
		mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, scan->channel_id);
		mbus_leaf_scan_time(&rows, MBUS_COL_AVAILABLE_AT, scan->due_at + 1,
							PG_INT64_MAX);
		n += due_rows(scan, &rows, due + n, most - n, next);
	}
	mbus_leaf_scan_close(&rows);
	return n;
}

/* Reads up to "most" that are due, and when the next one behind them is. */
static int
due_rows(MbusScan *scan, MbusLeafScan *rows, Due *due, int most,
		 TimestampTz *next)
{
	TupleDesc	desc = RelationGetDescr(rows->leaf);
	HeapTuple	tuple;
	int			n = 0;

	mbus_leaf_scan_begin(rows, scan->snapshot);
	while (n < most && (tuple = mbus_leaf_scan_next(rows)) != NULL)
	{
		bool		isnull;

		due[n].at = DatumGetTimestampTz(heap_getattr(tuple,
													 MBUS_COL_AVAILABLE_AT,
													 desc, &isnull));
		due[n].id = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc,
											   &isnull));
		if (due[n].at > scan->now)
		{
			*next = Min(*next, due[n].at);
			break;
		}
		n++;
	}
	mbus_leaf_scan_end(rows);
	return n;
}

static int
due_compare(const void *a, const void *b)
{
	const Due  *x = a;
	const Due  *y = b;

	if (x->at != y->at)
		return mbus_order(x->at, y->at);
	return mbus_order(x->id, y->id);
}
