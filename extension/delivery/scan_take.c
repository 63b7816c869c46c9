/*
 * scan_take.c
 *		The reading part of a scan: what is taken and what is left out.  The
 *		sources are here (what waits in memory), in scan_range.c and
 *		scan_due.c.
 *
 * Each source finds messages by its index, in the scan's snapshot, and hands
 * them to mbus_scan_take(), which leaves out what has expired, was deleted or
 * purged, is not wanted, is not due yet, or has to wait for its key.  What
 * comes from a time index, or from ids given out before the server started,
 * is only a candidate; what has become of it, mbus_scan_facts tells.
 *
 * A source stops when the batch is full, and says in the scan how far it got.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "channel/purged.h"
#include "delivery/pool.h"
#include "delivery/scan_facts.h"
#include "delivery/scan_key.h"
#include "delivery/scan_room.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "facts/facts.h"
#include "message/stored.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

static MbusFound *found_add(MbusScan *scan, const MbusScanRow *row,
							HeapTuple tuple, uint32 entry, int attempt);
static void waiting_take(MbusScan *scan, const MbusWaiting *waiting);
static bool next_find(MbusScan *scan, const MbusWaiting *next);
static bool next_leaf(MbusScan *scan, Relation leaf, int32 segment,
					  const MbusWaiting *next, bool *ended);

/*
 * mbus_scan_row reads what of a message's row decides.  "live" says that the
 * subscription can still get it: not expired, not purged, not deleted (looked
 * for only with "events": there are some in the segment), not from before its
 * start.  "lost" is told for who looks for what expires (scan->until).
 */
void
mbus_scan_row(MbusScan *scan, HeapTuple tuple, TupleDesc desc, bool events,
			  MbusScanRow *row)
{
	bool		isnull;
	TimestampTz created_at;
	Datum		value;

	row->id = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc, &isnull));
	created_at = DatumGetTimestampTz(heap_getattr(tuple, MBUS_COL_CREATED_AT,
												  desc, &isnull));
	row->expires_at = DatumGetTimestampTz(heap_getattr(tuple,
													   MBUS_COL_EXPIRES_AT,
													   desc, &isnull));
	/* nearly always behind the row's end */
	value = heap_getattr(tuple, MBUS_COL_AVAILABLE_AT, desc, &isnull);
	row->available_at = isnull ? PG_INT64_MIN : DatumGetTimestampTz(value);
	row->size = DatumGetInt64(heap_getattr(tuple, MBUS_COL_SIZE, desc,
										   &isnull));
	row->size = Max(row->size, 0);	/* it may be damaged */
	row->key_hash = 0;
	if (scan->sub.ordered)
	{
		value = heap_getattr(tuple, MBUS_COL_KEY_HASH, desc, &isnull);
		row->key_hash = isnull ? 0 : DatumGetInt64(value);
	}
	row->live = row->lost = false;
	if (row->id < scan->sub.start_id || created_at < scan->sub.start_at ||
		mbus_channel_purged(&scan->policy, row->id))
		return;
	if (row->expires_at <= scan->now)
	{
		scan->expired_low = Min(scan->expired_low, row->id);
		if (scan->until == 0)
			return;
	}
	if (events && mbus_message_deleted_for_good(scan->schema, row->id))
		return;
	row->live = row->expires_at > scan->now;
	row->lost = !row->live && row->expires_at > scan->wanted_at;
}

/* Whether something in the segment may have been deleted. */
bool
mbus_scan_has_events(MbusScan *scan, int32 segment)
{
	Relation	leaf = mbus_leaf_open_written(scan->schema, segment,
											  MBUS_EVENT);

	if (leaf)
		table_close(leaf, AccessShareLock);
	return leaf != NULL;
}

/*
 * mbus_scan_take puts a message into the batch, if it is to be had now.
 */
MbusScanTaken
mbus_scan_take(MbusScan *scan, const MbusScanRow *row, HeapTuple tuple,
			   const MbusFacts *facts, uint32 entry, int attempt)
{
	MbusFound  *found;

	if (!row->live || (facts && facts->done))
		return MBUS_SCAN_LEFT_OUT;
	if (facts && facts->failed && facts->retry_at > scan->now)
		return MBUS_SCAN_LEFT_OUT;	/* found by its time */
	if (scan->nfound >= scan->batch ||
		(entry == MBUS_NONE && scan->room <= 0 && !mbus_scan_room_grow(scan)))
	{
		scan->full = true;
		return MBUS_SCAN_NO_ROOM;
	}
	if (scan->nfound > 0 && row->size > scan->max_bytes - scan->bytes)
	{
		scan->full = true;
		return MBUS_SCAN_NO_ROOM;
	}
	if (entry == MBUS_NONE && row->key_hash != 0)
	{
		if (mbus_scan_key_blocked(scan, row->key_hash, row->id,
								  facts && facts->failed &&
								  facts->attempt > 1))
			return MBUS_SCAN_LEFT_OUT;
		mbus_scan_key_taken(scan, row->key_hash);
	}
	found = found_add(scan, row, tuple, entry,
					  facts && facts->failed ? facts->attempt : attempt);
	found->failed = facts && facts->failed;
	/* of its key, others may have been passed over while it waited */
	if (facts && facts->failed && row->key_hash != 0)
		found->passed = mbus_scan_key_behind(scan, row->id);
	scan->bytes += Min(row->size, scan->max_bytes - scan->bytes);
	return MBUS_SCAN_TAKEN;
}

/*
 * mbus_scan_key_on has a key go on whose message was to be retried, and is no
 * more: what was passed over for it is its key's next.  False if there is no
 * room for that.
 */
bool
mbus_scan_key_on(MbusScan *scan, const MbusScanRow *row)
{
	MbusScanRow next = *row;
	bool		may_wait;

	next.id = mbus_scan_key_behind(scan, row->id);
	if (row->key_hash == 0 ||
		mbus_scan_key_pass(scan, row->key_hash, next.id, &may_wait))
		return true;
	if (scan->nfound >= scan->batch ||
		(scan->room <= 0 && !mbus_scan_room_grow(scan)))
	{
		scan->full = true;
		return false;
	}
	mbus_scan_key_taken(scan, row->key_hash);
	found_add(scan, &next, NULL, MBUS_NONE, 1)->next = true;
	return true;
}

/*
 * mbus_scan_left_to_retry tells whether a message that failed is left to the
 * source that reads retries: by its time, unless that was looked at before,
 * and the message passed over for another of its key.
 */
bool
mbus_scan_left_to_retry(const MbusScan *scan, const MbusFacts *facts)
{
	return facts->failed &&
		(!scan->sub.ordered ||
		 mbus_moment_order(mbus_moment(facts->retry_at, facts->id),
						   scan->sub.retry_position) >= 0);
}

/*
 * Adds a message to what the scan takes; the caller has made sure of room.  A
 * probe needs no copy of the row.
 */
static MbusFound *
found_add(MbusScan *scan, const MbusScanRow *row, HeapTuple tuple,
		  uint32 entry, int attempt)
{
	MbusFound  *found;

	if (scan->nfound >= scan->maxfound)
	{
		scan->maxfound = scan->maxfound == 0 ?
			Min(Max(scan->batch, 1), 128) : scan->maxfound * 2;
		if (scan->found == NULL)
			scan->found = palloc(scan->maxfound * sizeof(MbusFound));
		else
			scan->found = repalloc(scan->found,
								   scan->maxfound * sizeof(MbusFound));
	}
	found = &scan->found[scan->nfound++];
	MemSet(found, 0, sizeof(*found));
	found->id = row->id;
	found->key_hash = row->key_hash;
	found->expires_at = row->expires_at;
	found->entry = entry;
	found->attempt = attempt;
	found->tuple = scan->probe || tuple == NULL ? NULL : heap_copytuple(tuple);
	if (entry == MBUS_NONE)
		scan->room--;
	return found;
}

/* A message by its id, or NULL. */
HeapTuple
mbus_scan_by_id(MbusScan *scan, int64 id, MbusScanRow *row)
{
	Relation	leaf = mbus_leaf_open(scan->schema, MbusSegmentOf(id),
									  MBUS_MESSAGE, AccessShareLock);
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (leaf == NULL)
		return NULL;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	mbus_leaf_scan_begin(&rows, scan->snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (HeapTupleIsValid(tuple))
	{
		tuple = heap_copytuple(tuple);
		mbus_scan_row(scan, tuple, RelationGetDescr(leaf), true, row);
	}
	mbus_leaf_scan_close(&rows);
	/* its payload may be in the TOAST table: a found one stays locked */
	table_close(leaf, HeapTupleIsValid(tuple) ? NoLock : AccessShareLock);
	return tuple;
}

/*
 * mbus_scan_ready takes what claims that were rolled back gave back.
 */
void
mbus_scan_ready(MbusScan *scan)
{
	for (int i = 0; i < scan->nready; i++)
		waiting_take(scan, &scan->ready[i]);
}

/* Takes an entry that waits; one whose message is no more is noted as gone. */
static void
waiting_take(MbusScan *scan, const MbusWaiting *waiting)
{
	MbusScanRow row;
	HeapTuple	tuple;

	if (scan->full || scan->nfound >= scan->batch)
		return;
	tuple = mbus_scan_by_id(scan, waiting->id, &row);
	if (tuple == NULL || !row.live)
	{
		scan->gone[scan->ngone++] = waiting->entry;
		return;
	}
	row.key_hash = waiting->key_hash;
	(void) mbus_scan_take(scan, &row, tuple, NULL, waiting->entry,
						  waiting->attempt);
}

/*
 * mbus_scan_nexts looks for the next messages of keys that have become free.
 */
void
mbus_scan_nexts(MbusScan *scan)
{
	for (int i = 0; i < scan->nnexts && !scan->full; i++)
	{
		if (scan->nfound >= scan->batch)
			return;
		if (!next_find(scan, &scan->nexts[i]) && !scan->full)
			scan->gone[scan->ngone++] = scan->nexts[i].entry;
	}
}

/* Searches the segments from that of the first message passed over on. */
static bool
next_find(MbusScan *scan, const MbusWaiting *next)
{
	bool		ended = false;

	for (int i = 0; i < scan->nleaves && !ended; i++)
	{
		Relation	leaf;
		bool		found;

		if (scan->leaves[i].segment < MbusSegmentOf(next->id) ||
			MbusFirstId(scan->leaves[i].segment) > scan->sub.cursor)
			continue;
		leaf = mbus_leaf_open(scan->schema, scan->leaves[i].segment,
							  MBUS_MESSAGE, AccessShareLock);
		if (leaf == NULL)
			continue;
		found = next_leaf(scan, leaf, scan->leaves[i].segment, next, &ended);
		table_close(leaf, found ? NoLock : AccessShareLock);
		if (found || scan->full)
			return found;
	}
	return false;
}

/*
 * next_leaf looks in one segment for the first message of a key, from "next"
 * on and at or below the cursor, that is not done, not out and not left to
 * another source, and takes it with the key's entry.  One that waits for a
 * retry ends the search: what is behind it is looked for when it is delivered.
 */
static bool
next_leaf(MbusScan *scan, Relation leaf, int32 segment,
		  const MbusWaiting *next, bool *ended)
{
	bool		events = mbus_scan_has_events(scan, segment);
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		found = false;

	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_CHANNEL_ID, MBUS_COL_KEY_HASH,
						true);
	mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, scan->channel_id);
	mbus_leaf_scan_int8(&rows, MBUS_COL_KEY_HASH, next->key_hash,
						next->key_hash);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, next->id, scan->sub.cursor);
	mbus_leaf_scan_begin(&rows, scan->snapshot);
	while (!found && !scan->full && !*ended &&
		   (tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		MbusFacts	facts = {0};
		MbusScanRow row;

		mbus_scan_row(scan, tuple, RelationGetDescr(leaf), events, &row);
		if (!row.live || mbus_scan_is_later(scan, &row) ||
			mbus_scan_in_skipped(scan, row.id))
			continue;
		facts.id = row.id;
		if (mbus_scan_facts(scan, &facts, 1) == 0)
			continue;
		*ended = facts.failed && !facts.done && facts.retry_at > scan->now;
		if (!*ended &&
			mbus_scan_take(scan, &row, tuple, &facts, next->entry, 1) ==
			MBUS_SCAN_TAKEN)
		{
			/* there may be more behind it */
			scan->found[scan->nfound - 1].passed = row.id + 1;
			found = true;
		}
	}
	mbus_leaf_scan_close(&rows);
	return found;
}

/*
 * mbus_scan_range_after returns the first of some ranges, which ascend and do
 * not meet, that ends behind an id; n if there is none.
 */
int
mbus_scan_range_after(const MbusRange *ranges, int n, int64 id)
{
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (ranges[middle].hi <= id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

/* Whether an id from lo on and before hi is of a publish that has not ended. */
bool
mbus_scan_in_unfinished(MbusScan *scan, int64 lo, int64 hi)
{
	int			i = mbus_scan_range_after(scan->unfinished,
										  scan->nunfinished, lo);

	return i < scan->nunfinished && scan->unfinished[i].lo < hi;
}

/* Whether what is left of a skipped range has an id. */
bool
mbus_scan_in_skipped(MbusScan *scan, int64 id)
{
	int			i = mbus_scan_range_after(scan->skipped, scan->nskipped, id);

	return i < scan->nskipped && scan->skipped[i].lo <= id;
}

/*
 * mbus_scan_is_later tells whether a message is left to a later due scan, by
 * its time: never one without a delay, wherever the due position is.
 */
bool
mbus_scan_is_later(MbusScan *scan, const MbusScanRow *row)
{
	if (row->available_at == PG_INT64_MIN)
		return false;
	return mbus_moment_order(mbus_moment(row->available_at, row->id),
							 scan->due_position) >= 0;
}
