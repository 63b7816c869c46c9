/*
 * fact_retry.c
 *		Failures whose time to be tried again has come.
 *
 * Each segment's table of failures has an index on (subscription, retry_at).
 * A scan reads the earliest few of each segment, keeps the earliest of all,
 * and says up to which time it has them all.  Another index, of failures that
 * have a key, tells which message of a key waits.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

/* What is looked for, and the segment's table at hand. */
typedef struct RetrySearch
{
	int32		subscription_id;
	int64		since_lease;
	Snapshot	snapshot;
	Relation	leaf;
	MbusLeafScan rows;
} RetrySearch;

/* A failure that is to be retried. */
typedef struct Retry
{
	TimestampTz at;
	int64		id;
} Retry;

typedef struct Retries
{
	int			n;
	int			room;
	Retry	   *retry;
} Retries;

static void segment_retries(RetrySearch *search, TimestampTz from,
							TimestampTz to, int most, Retries *retries,
							TimestampTz *reached);
static TimestampTz segment_next_retry(RetrySearch *search, TimestampTz after);
static void retry_scan(RetrySearch *search, TimestampTz from);
static int	retries_cut(Retries *retries, int most, TimestampTz *reached,
						int64 **ids);
static int	retry_compare(const void *a, const void *b);
static int64 leaf_waiting(Oid schema, const RetrySearch *search,
						  int64 key_hash, TimestampTz from);
static int	waiting_ids(const RetrySearch *search, int64 key_hash,
						TimestampTz from, MbusFacts **facts);

/*
 * mbus_facts_retries finds ids whose retry_at lies in [from, to]: about the
 * "most" earliest.  It returns how many, sets *ids to them (ascending,
 * distinct, in the caller's memory context), and *reached to the time up to
 * which, inclusive, there are no others: go on behind it.  Where many have
 * the same time there are more than "most".  *next is the earliest retry_at
 * behind "to", PG_INT64_MAX if there is none.
 *
 * They are candidates: what has become of them since, mbus_facts() tells.
 */
int
mbus_facts_retries(Oid schema, int32 subscription_id, int64 since_lease,
				   TimestampTz from, TimestampTz to, int most,
				   Snapshot snapshot, int64 **ids, TimestampTz *reached,
				   TimestampTz *next)
{
	Retries		retries = {0};
	RetrySearch search;
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(schema, &leaves);
	int			n;

	MemSet(&search, 0, sizeof(search));
	search.subscription_id = subscription_id;
	search.since_lease = since_lease;
	search.snapshot = snapshot;
	*reached = to;
	*next = PG_INT64_MAX;
	for (int i = 0; i < nleaves; i++)
	{
		search.leaf = mbus_leaf_open_written(schema, leaves[i].segment,
											 MBUS_FAILURE);
		if (search.leaf == NULL)
			continue;
		mbus_leaf_scan_open(&search.rows, search.leaf,
							MBUS_FAILURE_SUBSCRIPTION_ID,
							MBUS_FAILURE_RETRY_AT, true);
		/* behind what was reached in another segment there is no use */
		segment_retries(&search, from, *reached, most, &retries, reached);
		*next = Min(*next, segment_next_retry(&search, to));
		mbus_leaf_scan_close(&search.rows);
		table_close(search.leaf, AccessShareLock);
	}
	n = retries_cut(&retries, most, reached, ids);
	if (retries.retry)
		pfree(retries.retry);
	pfree(leaves);
	return n;
}

/*
 * segment_retries adds a segment's, and sets *reached if it did not read all
 * up to "to".
 */
static void
segment_retries(RetrySearch *search, TimestampTz from, TimestampTz to,
				int most, Retries *retries, TimestampTz *reached)
{
	TupleDesc	desc = RelationGetDescr(search->leaf);
	HeapTuple	tuple;
	int			found = 0;

	retry_scan(search, from);
	while ((tuple = mbus_leaf_scan_next(&search->rows)) != NULL)
	{
		bool		isnull;
		Retry		retry;

		retry.at = DatumGetTimestampTz(heap_getattr(tuple,
													MBUS_FAILURE_RETRY_AT,
													desc, &isnull));
		if (retry.at > to)
			break;
		if (found >= most && retry.at > retries->retry[retries->n - 1].at)
		{
			*reached = retries->retry[retries->n - 1].at;
			break;
		}
		if (DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE, desc,
									   &isnull)) < search->since_lease)
			continue;
		retry.id = DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_MESSAGE_ID,
											  desc, &isnull));
		if (retries->n >= retries->room)
		{
			retries->room = Max(128, retries->room * 2);
			retries->retry = retries->retry ?
				repalloc_huge(retries->retry,
							  retries->room * sizeof(Retry)) :
				palloc(retries->room * sizeof(Retry));
		}
		retries->retry[retries->n++] = retry;
		found++;
	}
	mbus_leaf_scan_end(&search->rows);
}

/* The earliest retry_at behind a time; PG_INT64_MAX if there is none. */
static TimestampTz
segment_next_retry(RetrySearch *search, TimestampTz after)
{
	TupleDesc	desc = RelationGetDescr(search->leaf);
	TimestampTz at = PG_INT64_MAX;
	HeapTuple	tuple;

	if (after == PG_INT64_MAX)
		return PG_INT64_MAX;
	retry_scan(search, after + 1);
	while (at == PG_INT64_MAX &&
		   (tuple = mbus_leaf_scan_next(&search->rows)) != NULL)
	{
		bool		isnull;

		if (DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE, desc,
									   &isnull)) >= search->since_lease)
			at = DatumGetTimestampTz(heap_getattr(tuple,
												  MBUS_FAILURE_RETRY_AT,
												  desc, &isnull));
	}
	mbus_leaf_scan_end(&search->rows);
	return at;
}

/* By ascending time. */
static void
retry_scan(RetrySearch *search, TimestampTz from)
{
	mbus_leaf_scan_int4(&search->rows, MBUS_FAILURE_SUBSCRIPTION_ID,
						search->subscription_id);
	mbus_leaf_scan_time(&search->rows, MBUS_FAILURE_RETRY_AT, from,
						PG_INT64_MAX);
	mbus_leaf_scan_begin(&search->rows, search->snapshot);
}

/*
 * retries_cut keeps the earliest up to *reached, and the "most" of them with
 * those of the last one's time; then *reached is that.
 */
static int
retries_cut(Retries *retries, int most, TimestampTz *reached, int64 **ids)
{
	int			total = 0;
	int			n = 0;

	if (retries->n > 1)
		qsort(retries->retry, retries->n, sizeof(Retry), retry_compare);
	while (total < retries->n && retries->retry[total].at <= *reached)
	{
		if (total >= most &&
			retries->retry[total].at > retries->retry[total - 1].at)
		{
			*reached = retries->retry[total - 1].at;
			break;
		}
		total++;
	}
	*ids = palloc_extended(Max(total, 1) * sizeof(int64), MCXT_ALLOC_HUGE);
	for (int i = 0; i < total; i++)
		(*ids)[i] = retries->retry[i].id;
	if (total > 1)
		qsort(*ids, total, sizeof(int64), mbus_int64_compare);
	for (int i = 0; i < total; i++)
	{
		if (n == 0 || (*ids)[i] != (*ids)[n - 1])
			(*ids)[n++] = (*ids)[i];
	}
	return n;
}

static int
retry_compare(const void *a, const void *b)
{
	return mbus_order(((const Retry *) a)->at,
					  ((const Retry *) b)->at);
}

/*
 * mbus_facts_waiting returns the lowest id of a key whose latest failure is to
 * be retried at "from" or later; 0 if there is none.  Redriven ones do not
 * count.
 */
int64
mbus_facts_waiting(Oid schema, int32 subscription_id, int64 since_lease,
				   int64 key_hash, TimestampTz from, Snapshot snapshot)
{
	RetrySearch search;
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(schema, &leaves);
	int64		id = 0;

	MemSet(&search, 0, sizeof(search));
	search.subscription_id = subscription_id;
	search.since_lease = since_lease;
	search.snapshot = snapshot;
	for (int i = 0; i < nleaves && id == 0; i++)
	{
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
leaf_waiting(Oid schema, const RetrySearch *search, int64 key_hash,
			 TimestampTz from)
{
	MbusFacts  *facts;
	int			n = waiting_ids(search, key_hash, from, &facts);
	int64		id = 0;

	if (n > 0)
		mbus_facts(schema, search->subscription_id, search->since_lease,
				   facts, n, search->snapshot);
	for (int i = 0; i < n && id == 0; i++)
	{
		if (facts[i].failed && !facts[i].done && facts[i].retry_at >= from)
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
waiting_ids(const RetrySearch *search, int64 key_hash, TimestampTz from,
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

		if (isnull || DatumGetTimestampTz(at) < from ||
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
