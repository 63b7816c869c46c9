/*
 * backlog_set.c
 *		Sets of ids for who counts how far a subscription is behind, and which
 *		messages of a segment were deleted.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/rel.h"

#include "audit/backlog_internal.h"
#include "base/ids.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

#define READ_AT_ONCE	1000	/* deletions, if the count is bounded */

static void deleted_read(Count *count);
static bool deleted_find(Count *count, int64 lo, int64 hi, int most);

/*
 * mbus_backlog_deleted tells whether a message of the segment that is being
 * read was deleted.  Deletions are read once; if the count is bounded, so many
 * of those above the cursor, and others are looked up one by one.
 */
bool
mbus_backlog_deleted(Count *count, int64 id)
{
	if (!count->deleted_read)
		deleted_read(count);
	if (id < count->deleted_from || id > count->deleted_to)
		return deleted_find(count, id, id, 0);
	return mbus_ids_have(&count->deleted, id);
}

/* Reads the ids of this segment that were deleted. */
static void
deleted_read(Count *count)
{
	count->deleted_read = true;
	count->deleted_from = count->bounded ? count->sub->cursor + 1 : 0;
	count->deleted_to = PG_INT64_MAX;
	if (deleted_find(count, count->deleted_from, count->deleted_to,
					 count->bounded ? READ_AT_ONCE : PG_INT32_MAX))
		count->deleted_to = count->deleted.id[count->deleted.n - 1];
}

/*
 * deleted_find adds up to "most" ids from lo to hi that were deleted, and tells
 * whether there are more.
 */
static bool
deleted_find(Count *count, int64 lo, int64 hi, int most)
{
	Relation	leaf = mbus_leaf_open_written(count->schema, count->segment,
											  MBUS_EVENT);
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;

	if (leaf == NULL)
		return false;
	/* the partial index has only deletions */
	mbus_leaf_scan_open(&rows, leaf, MBUS_EVENT_MESSAGE_ID, 0, true);
	mbus_leaf_scan_int8(&rows, MBUS_EVENT_MESSAGE_ID, lo, hi);
	mbus_leaf_scan_begin(&rows, count->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL && most-- > 0)
		mbus_ids_add(&count->deleted,
					 DatumGetInt64(heap_getattr(tuple, MBUS_EVENT_MESSAGE_ID,
												RelationGetDescr(leaf),
												&isnull)));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return tuple != NULL;
}

/*
 * mbus_ids_add adds an id; they come in ascending order.
 */
void
mbus_ids_add(Ids *ids, int64 id)
{
	if (ids->n == ids->room)
	{
		ids->room = ids->room ? ids->room * 2 : 64;
		ids->id = ids->id ?
			repalloc_huge(ids->id, ids->room * sizeof(int64)) :
			palloc(ids->room * sizeof(int64));
	}
	ids->id[ids->n++] = id;
}

/*
 * mbus_ids_find returns the place of the first that is not below an id.
 */
int
mbus_ids_find(const Ids *ids, int64 id)
{
	int			lo = 0;
	int			hi = ids->n;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (ids->id[middle] < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

/*
 * mbus_ids_have tells whether an id is there.
 */
bool
mbus_ids_have(const Ids *ids, int64 id)
{
	int			i = mbus_ids_find(ids, id);

	return i < ids->n && ids->id[i] == id;
}

/*
 * mbus_backlog_skipped tells whether an id is in a skipped range.
 */
bool
mbus_backlog_skipped(const Count *count, int64 id)
{
	const MbusSkip *skip = count->copy->skip;
	int			lo = 0;
	int			hi = count->copy->nskips;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (skip[middle].hi <= id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo < count->copy->nskips && skip[lo].lo <= id;
}
