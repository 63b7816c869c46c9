/*
 * fact_key.c
 *		Which message of a key waits for a retry.
 *
 * Each segment's table of failures has an index on (subscription, key hash,
 * message id), of those that have a key.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/moment.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

/* What is looked for, and the segment's table at hand. */
typedef struct KeySearch
{
	int32		subscription_id;
	int64		since_lease;
	Snapshot	snapshot;
	Relation	leaf;
} KeySearch;

static int64 leaf_waiting(Oid schema, const KeySearch *search,
						  int64 key_hash, MbusMoment from);
static int	waiting_ids(const KeySearch *search, int64 key_hash,
						MbusMoment from, MbusFacts **facts);

/*
 * mbus_facts_key_waits returns the lowest id of a key whose latest failure is to
 * be retried at "from" or later; 0 if there is none.  Redriven ones do not
 * count.  All that are lie in the segments "among".
 */
int64
mbus_facts_key_waits(Oid schema, int32 subscription_id, int64 since_lease,
					 int64 key_hash, MbusMoment from,
					 const MbusSegmentSet *among, Snapshot snapshot)
{
	KeySearch	search;
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(schema, &leaves);
	int64		id = 0;

	MemSet(&search, 0, sizeof(search));
	search.subscription_id = subscription_id;
	search.since_lease = since_lease;
	search.snapshot = snapshot;
	for (int i = 0; i < nleaves && id == 0; i++)
	{
		if (!mbus_set_has(among, leaves[i].segment))
			continue;
		search.leaf = mbus_leaf_open_written(schema, leaves[i].segment,
											 MBUS_FAILURE);
		if (search.leaf == NULL)
			continue;
		id = leaf_waiting(schema, &search, key_hash, from);
		table_close(search.leaf, AccessShareLock);
	}
	pfree(leaves);
	return id;
}

/* Does so in one segment. */
static int64
leaf_waiting(Oid schema, const KeySearch *search, int64 key_hash,
			 MbusMoment from)
{
	MbusFacts  *facts;
	int			n = waiting_ids(search, key_hash, from, &facts);
	int64		id = 0;

	if (n > 0)
		mbus_facts(schema, search->subscription_id, search->since_lease,
				   facts, n, search->snapshot);
	for (int i = 0; i < n && id == 0; i++)
	{
		if (facts[i].failed && !facts[i].done &&
			mbus_moment_order(mbus_moment(facts[i].retry_at, facts[i].id),
							  from) >= 0)
			id = facts[i].id;
	}
	if (facts)
		pfree(facts);
	return id;
}

/*
 * Lists ids that a failure of the key says are to be retried at "from" or
 * later; ascending, distinct.
 */
static int
waiting_ids(const KeySearch *search, int64 key_hash, MbusMoment from,
			MbusFacts **facts)
{
	TupleDesc	desc = RelationGetDescr(search->leaf);
	int			n = 0;
	int			room = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;

	*facts = NULL;
	mbus_leaf_scan_open(&rows, search->leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_KEY_HASH, true);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID,
						search->subscription_id);
	mbus_leaf_scan_int8(&rows, MBUS_FAILURE_KEY_HASH, key_hash, key_hash);
	mbus_leaf_scan_begin(&rows, search->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		bool		isnull;
		int64		id;
		Datum		at = heap_getattr(tuple, MBUS_FAILURE_RETRY_AT, desc,
									  &isnull);

		if (isnull || DatumGetTimestampTz(at) < from.at ||
			DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE, desc,
									   &isnull)) < search->since_lease)
			continue;
		id = DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_MESSAGE_ID, desc,
										&isnull));
		if (n > 0 && (*facts)[n - 1].id == id)
			continue;
		if (n >= room)
		{
			room = Max(8, room * 2);
			*facts = *facts ? repalloc(*facts, room * sizeof(MbusFacts)) :
				palloc(room * sizeof(MbusFacts));
		}
		MemSet(&(*facts)[n], 0, sizeof(MbusFacts));
		(*facts)[n++].id = id;
	}
	mbus_leaf_scan_close(&rows);
	return n;
}
