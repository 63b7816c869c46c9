/*
 * fact_retry.c
 *		Failures whose time to be tried again has come.
 *
 * Each segment's table of failures has an index on (subscription, retry_at).
 * A scan reads the earliest few of each segment, keeps the earliest of all,
 * and says up to which time it has them all.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "facts/facts.h"
#include "segment/leaf.h"

/* What is looked for, and the segment's table at hand. */
typedef struct RetrySearch
{
	int32		subscription_id;
	int64		since_lease;
	Snapshot	snapshot;
	Relation	leaf;
	Relation	index;
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
static SysScanDesc retry_scan(RetrySearch *search, StrategyNumber strategy,
							  TimestampTz from);
static int	retries_cut(Retries *retries, int most, TimestampTz *reached,
						int64 **ids);
static int	retry_compare(const void *a, const void *b);

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
		search.index = mbus_leaf_index(search.leaf,
									   MBUS_FAILURE_SUBSCRIPTION_ID,
									   MBUS_FAILURE_RETRY_AT, true);
		/* behind what was reached in another segment there is no use */
		segment_retries(&search, from, *reached, most, &retries, reached);
		*next = Min(*next, segment_next_retry(&search, to));
		index_close(search.index, AccessShareLock);
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
	SysScanDesc scan;
	HeapTuple	tuple;
	int			found = 0;

	scan = retry_scan(search, BTGreaterEqualStrategyNumber, from);
	while (HeapTupleIsValid(tuple = systable_getnext_ordered(scan,
															 ForwardScanDirection)))
	{
		bool		isnull;
		Retry		retry;

		CHECK_FOR_INTERRUPTS();
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
	systable_endscan_ordered(scan);
}

/* The earliest retry_at behind a time; PG_INT64_MAX if there is none. */
static TimestampTz
segment_next_retry(RetrySearch *search, TimestampTz after)
{
	TupleDesc	desc = RelationGetDescr(search->leaf);
	TimestampTz at = PG_INT64_MAX;
	SysScanDesc scan;
	HeapTuple	tuple;

	scan = retry_scan(search, BTGreaterStrategyNumber, after);
	while (at == PG_INT64_MAX &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(scan,
															 ForwardScanDirection)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE, desc,
									   &isnull)) >= search->since_lease)
			at = DatumGetTimestampTz(heap_getattr(tuple,
												  MBUS_FAILURE_RETRY_AT,
												  desc, &isnull));
	}
	systable_endscan_ordered(scan);
	return at;
}

/* By ascending time. */
static SysScanDesc
retry_scan(RetrySearch *search, StrategyNumber strategy, TimestampTz from)
{
	ScanKeyData key[2];

	ScanKeyInit(&key[0], MBUS_FAILURE_SUBSCRIPTION_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(search->subscription_id));
	ScanKeyInit(&key[1], MBUS_FAILURE_RETRY_AT, strategy,
				strategy == BTGreaterStrategyNumber ?
				F_TIMESTAMPTZ_GT : F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	return systable_beginscan_ordered(search->leaf, search->index,
									  search->snapshot, 2, key);
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
	TimestampTz x = ((const Retry *) a)->at;
	TimestampTz y = ((const Retry *) b)->at;

	return x < y ? -1 : x > y;
}
