/*
 * facts.c
 *		What the tables say of deliveries.
 *
 * A row of ack_<n> says that a subscription is done with ids: with all from
 * lo to hi, or with the runs of consecutive ids within.  It lies in the
 * segment of its ids and covers less than MBUS_ACK_SPAN of them, so that one
 * who asks about an id need only look at rows that begin that far below.  Of
 * those only the rows that hold more than one id matter; they have an index
 * of their own, which rows of one id are not in.
 *
 * A row of failure_<n> says that a delivery failed: try again at retry_at, or
 * never (NULL).  A row of kind 'redriven' (attempt 0) is not a failure but a
 * new start: no ack at or below its lease counts.
 *
 * Rows are compared by lease, never by time.  One whose lease is below the
 * subscription's since_lease does not count: a seek came between.
 *
 * Leaves are opened by their OIDs, with no right asked for.  A segment that is
 * gone has nothing to say; a leaf that was never written to is left at once.
 * What writes the rows is fact_insert.c; retries are looked for in
 * fact_retry.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

#define FACTS_GAP		64		/* ids that a scan for single ids reads over */

/* What is known of a message while its rows are read. */
typedef struct Newest
{
	int64		lease;			/* of the newest failure; 0: none */
	int64		redriven;		/* lease of the last redrive; 0: none */
} Newest;

/* One segment's share of a question. */
typedef struct Question
{
	int32		subscription_id;
	int64		since_lease;
	Snapshot	snapshot;
	Relation	leaf;
	MbusFacts  *facts;
	Newest	   *newest;
	int			n;
} Question;

/* A way to find rows by their ids, and what to do with one. */
typedef struct Reading
{
	AttrNumber	subscription;	/* columns of the index */
	AttrNumber	id;
	bool		wide;			/* also rows that begin below the ids */
	int64		gap;			/* one scan for ids less than that apart */
	void		(*row) (Question *q, HeapTuple tuple, int first, int n);
} Reading;

/* The runs of a row of acks: n pairs of an offset and a length. */
typedef struct Runs
{
	int			n;
	const int32 *pair;			/* NULL: all ids */
	ArrayType  *copy;			/* or NULL */
} Runs;

static void segment_facts(Oid schema, int32 segment, Question *q);
static void leaf_read(Question *q, const Reading *reading);
static void cluster_read(Question *q, const Reading *reading,
						 MbusLeafScan *rows, int first, int n);
static void failure_read(Question *q, HeapTuple tuple, int first, int n);
static void ack_read(Question *q, HeapTuple tuple, int first, int n);
static int	facts_search(const MbusFacts *facts, int first, int n, int64 id);
static int	segment_repeated(Relation leaf, int64 lease, int nids,
							 const int64 *ids, MbusAckBy by, bool *found,
							 int32 *subscription_id);
static bool row_by(HeapTuple tuple, TupleDesc desc, MbusAckBy by);
static int	row_repeated(HeapTuple tuple, TupleDesc desc, int nids,
						 const int64 *ids, bool *found);
static void runs_read(Datum value, bool isnull, Runs *runs);
static void runs_free(Runs *runs);
static bool runs_have(const Runs *runs, int64 offset);

static const Reading failures = {
	MBUS_FAILURE_SUBSCRIPTION_ID, MBUS_FAILURE_MESSAGE_ID, false, FACTS_GAP,
	failure_read
};

/* rows that begin at one of the ids, and so all that hold one id only */
static const Reading acks = {
	MBUS_ACK_SUBSCRIPTION_ID, MBUS_ACK_LO, false, FACTS_GAP, ack_read
};

/* rows of several ids */
static const Reading wide_acks = {
	MBUS_ACK_SUBSCRIPTION_ID, MBUS_ACK_LO, true, MBUS_ACK_SPAN, ack_read
};

PG_FUNCTION_INFO_V1(mbus_ack_covers);

/* ------------------------------------------------------------------------
 * What they say of ids
 * ------------------------------------------------------------------------
 */

/*
 * mbus_facts fills in what the rows that the snapshot sees say of the ids in
 * facts, which ascend.
 */
void
mbus_facts(Oid schema, int32 subscription_id, int64 since_lease,
		   MbusFacts *facts, int n, Snapshot snapshot)
{
	Newest	   *newest = palloc0(Max(n, 1) * sizeof(Newest));
	Question	q;

	MemSet(&q, 0, sizeof(q));
	q.subscription_id = subscription_id;
	q.since_lease = since_lease;
	q.snapshot = snapshot;
	for (int i = 0; i < n; i++)
	{
		Assert(i == 0 || facts[i].id > facts[i - 1].id);
		facts[i].done = false;
		facts[i].failed = false;
		facts[i].lease = 0;
		facts[i].attempt = 1;
		facts[i].retry_at = 0;
	}
	for (int i = 0; i < n; i += q.n)
	{
		int32		segment = MbusSegmentOf(facts[i].id);

		q.facts = facts + i;
		q.newest = newest + i;
		q.n = 1;
		while (i + q.n < n && MbusSegmentOf(q.facts[q.n].id) == segment)
			q.n++;
		segment_facts(schema, segment, &q);
	}
	pfree(newest);
}

/* Failures come first: a redrive says which acks count. */
static void
segment_facts(Oid schema, int32 segment, Question *q)
{
	q->leaf = mbus_leaf_open_written(schema, segment, MBUS_FAILURE);
	if (q->leaf)
	{
		leaf_read(q, &failures);
		table_close(q->leaf, AccessShareLock);
		for (int i = 0; i < q->n; i++)
			q->facts[i].done = q->facts[i].failed &&
				q->facts[i].retry_at == 0;
	}
	q->leaf = mbus_leaf_open_written(schema, segment, MBUS_ACK);
	if (q->leaf)
	{
		leaf_read(q, &acks);
		leaf_read(q, &wide_acks);
		table_close(q->leaf, AccessShareLock);
	}
}

/* Reads a table's rows about the ids, those of near ones in one scan. */
static void
leaf_read(Question *q, const Reading *reading)
{
	MbusLeafScan rows;

	mbus_leaf_scan_open(&rows, q->leaf, reading->subscription, reading->id,
						reading->wide);
	for (int first = 0; first < q->n;)
	{
		int			n = 1;

		while (first + n < q->n && q->facts[first + n].id -
			   q->facts[first + n - 1].id < reading->gap)
			n++;
		cluster_read(q, reading, &rows, first, n);
		first += n;
	}
	mbus_leaf_scan_close(&rows);
}

/*
 * cluster_read reads the rows that begin between the first and the last of n
 * ids; with "wide" those, too, that begin below and do not end below.
 */
static void
cluster_read(Question *q, const Reading *reading, MbusLeafScan *rows,
			 int first, int n)
{
	int64		lo = q->facts[first].id;
	int64		hi = q->facts[first + n - 1].id;
	HeapTuple	tuple;

	mbus_leaf_scan_int4(rows, reading->subscription, q->subscription_id);
	mbus_leaf_scan_int8(rows, reading->id,
						reading->wide ? lo - MBUS_ACK_SPAN + 1 : lo, hi);
	if (reading->wide)
		mbus_leaf_scan_int8(rows, MBUS_ACK_HI, lo, PG_INT64_MAX);
	mbus_leaf_scan_begin(rows, q->snapshot);
	while ((tuple = mbus_leaf_scan_next(rows)) != NULL)
		reading->row(q, tuple, first, n);
	mbus_leaf_scan_end(rows);
}

/* Takes note of a failure. */
static void
failure_read(Question *q, HeapTuple tuple, int first, int n)
{
	TupleDesc	desc = RelationGetDescr(q->leaf);
	int64		id;
	int64		lease;
	int16		attempt;
	TimestampTz retry_at;
	int			i;
	bool		isnull;

	lease = DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE, desc,
									   &isnull));
	if (lease < q->since_lease)
		return;
	id = DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_MESSAGE_ID, desc,
									&isnull));
	i = facts_search(q->facts, first, n, id);
	if (i >= first + n || q->facts[i].id != id)
		return;
	attempt = DatumGetInt16(heap_getattr(tuple, MBUS_FAILURE_ATTEMPT, desc,
										 &isnull));
	if (attempt == 0)
		q->newest[i].redriven = Max(q->newest[i].redriven, lease);
	if (q->facts[i].failed && (lease < q->newest[i].lease ||
							   (lease == q->newest[i].lease &&
								attempt < q->facts[i].attempt - 1)))
		return;
	retry_at = DatumGetTimestampTz(heap_getattr(tuple, MBUS_FAILURE_RETRY_AT,
												desc, &isnull));
	q->newest[i].lease = q->facts[i].lease = lease;
	q->facts[i].failed = true;
	q->facts[i].attempt = attempt + 1;
	q->facts[i].retry_at = isnull ? 0 : retry_at;
}

/* Takes note of an ack. */
static void
ack_read(Question *q, HeapTuple tuple, int first, int n)
{
	TupleDesc	desc = RelationGetDescr(q->leaf);
	Runs		runs;
	int64		lease;
	int64		lo;
	int64		hi;
	Datum		value;
	bool		isnull;
	int			i;

	lease = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_LEASE, desc, &isnull));
	if (lease < q->since_lease)
		return;
	lo = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_LO, desc, &isnull));
	hi = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_HI, desc, &isnull));
	i = facts_search(q->facts, first, n, lo);
	if (i >= first + n || q->facts[i].id > hi)
		return;
	value = heap_getattr(tuple, MBUS_ACK_RUNS, desc, &isnull);
	runs_read(value, isnull, &runs);
	for (; i < first + n && q->facts[i].id <= hi; i++)
	{
		if (lease > q->newest[i].redriven &&
			runs_have(&runs, q->facts[i].id - lo))
			q->facts[i].done = true;
	}
	runs_free(&runs);
}

/*
 * mbus_facts_search returns those about an id, of some by ascending id, or
 * NULL.
 */
const MbusFacts *
mbus_facts_search(const MbusFacts *facts, int n, int64 id)
{
	int			i = facts_search(facts, 0, n, id);

	return i < n && facts[i].id == id ? &facts[i] : NULL;
}

/* The first of n facts from "first" on whose id is not below the given. */
static int
facts_search(const MbusFacts *facts, int first, int n, int64 id)
{
	int			lo = first;
	int			hi = first + n;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (facts[middle].id < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo;
}

/* ------------------------------------------------------------------------
 * What was acked before
 * ------------------------------------------------------------------------
 */

/*
 * mbus_ack_repeated returns how many messages were acked under a lease: all
 * (nids < 0), or how many of the ids, which ascend; found[i] tells which.  Only
 * acks by those that "by" names count.  It sets *subscription_id, to 0 if there
 * are none.
 */
int
mbus_ack_repeated(Oid schema, int64 lease, int nids, const int64 *ids,
				  MbusAckBy by, bool *found, int32 *subscription_id)
{
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(schema, &leaves);
	int			total = 0;

	*subscription_id = 0;
	for (int i = 0; i < nids; i++)
		found[i] = false;
	for (int i = 0, first = 0; i < nleaves; i++)
	{
		int32		segment = leaves[i].segment;
		int			n = nids < 0 ? -1 : 0;
		Relation	leaf;

		if (nids >= 0)
		{
			while (first < nids && MbusSegmentOf(ids[first]) < segment)
				first++;
			while (first + n < nids &&
				   MbusSegmentOf(ids[first + n]) == segment)
				n++;
			if (n == 0)
				continue;
		}
		leaf = mbus_leaf_open_written(schema, segment, MBUS_ACK);
		if (leaf)
		{
			total += segment_repeated(leaf, lease, n, ids + first, by,
									  found + first, subscription_id);
			table_close(leaf, AccessShareLock);
		}
		first += Max(n, 0);
	}
	pfree(leaves);
	return total;
}

/*
 * segment_repeated looks in one segment for acks under a lease: counts the
 * messages (of the ids, which it marks in found, or all), and tells whose acks
 * they are.
 */
static int
segment_repeated(Relation leaf, int64 lease, int nids, const int64 *ids,
				 MbusAckBy by, bool *found, int32 *subscription_id)
{
	TupleDesc	desc = RelationGetDescr(leaf);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int			total = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, leaf, MBUS_ACK_LEASE, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_ACK_LEASE, lease, lease);
	mbus_leaf_scan_begin(&rows, snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		char	   *outcome;
		bool		isnull;

		outcome = TextDatumGetCString(heap_getattr(tuple, MBUS_ACK_OUTCOME,
												   desc, &isnull));
		if (strcmp(outcome, "acked") != 0 || !row_by(tuple, desc, by))
			continue;
		total += row_repeated(tuple, desc, nids, ids, found);
		*subscription_id =
			DatumGetInt32(heap_getattr(tuple, MBUS_ACK_SUBSCRIPTION_ID, desc,
									   &isnull));
	}
	mbus_leaf_scan_close(&rows);
	UnregisterSnapshot(snapshot);
	return total;
}

/* Whether a row is of one that is looked for. */
static bool
row_by(HeapTuple tuple, TupleDesc desc, MbusAckBy by)
{
	bool		isnull;
	Datum		role = heap_getattr(tuple, MBUS_ACK_ROLE, desc, &isnull);
	Datum		subject = heap_getattr(tuple, MBUS_ACK_SUBJECT, desc, &isnull);

	return by(TextDatumGetCString(role),
			  isnull ? NULL : TextDatumGetCString(subject));
}

/* How many a row has, all or of the ids that no other row had. */
static int
row_repeated(HeapTuple tuple, TupleDesc desc, int nids, const int64 *ids,
			 bool *found)
{
	Runs		runs;
	int			n = 0;
	int64		lo;
	int64		hi;
	Datum		value;
	bool		isnull;

	if (nids < 0)
		return DatumGetInt32(heap_getattr(tuple, MBUS_ACK_N, desc, &isnull));
	lo = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_LO, desc, &isnull));
	hi = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_HI, desc, &isnull));
	value = heap_getattr(tuple, MBUS_ACK_RUNS, desc, &isnull);
	runs_read(value, isnull, &runs);
	for (int i = 0; i < nids && ids[i] <= hi; i++)
	{
		if (ids[i] < lo || found[i] ||
			!runs_have(&runs, ids[i] - lo))
			continue;
		found[i] = true;
		n++;
	}
	runs_free(&runs);
	return n;
}

/* ------------------------------------------------------------------------
 * Runs
 * ------------------------------------------------------------------------
 */

/*
 * ack_covers(lo, runs, hi, id) tells whether a row of acks holds an id; for
 * views.  A NULL in lo, hi or id gives NULL.
 */
Datum
mbus_ack_covers(PG_FUNCTION_ARGS)
{
	int64		lo;
	int64		id;
	Runs		runs;
	bool		covers;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(3))
		PG_RETURN_NULL();
	lo = PG_GETARG_INT64(0);
	id = PG_GETARG_INT64(3);
	if (id < lo || id > PG_GETARG_INT64(2))
		PG_RETURN_BOOL(false);
	runs_read(PG_GETARG_DATUM(1), PG_ARGISNULL(1), &runs);
	covers = runs_have(&runs, id - lo);
	runs_free(&runs);
	PG_RETURN_BOOL(covers);
}

/* Takes a row's runs apart; NULL is one of all ids. */
static void
runs_read(Datum value, bool isnull, Runs *runs)
{
	ArrayType  *array;

	MemSet(runs, 0, sizeof(*runs));
	if (isnull)
		return;
	array = DatumGetArrayTypeP(value);
	if (ARR_NDIM(array) != 1 || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != INT4OID || ARR_DIMS(array)[0] % 2 != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("runs are not pairs of an offset and a length")));
	runs->n = ARR_DIMS(array)[0] / 2;
	runs->pair = (const int32 *) ARR_DATA_PTR(array);
	if ((Pointer) array != DatumGetPointer(value))
		runs->copy = array;
}

static void
runs_free(Runs *runs)
{
	if (runs->copy)
		pfree(runs->copy);
}

/* Whether one of the runs, which ascend, holds an offset. */
static bool
runs_have(const Runs *runs, int64 offset)
{
	int			lo = 0;
	int			hi = runs->n;

	if (runs->pair == NULL)
		return true;
	/* the last run that does not begin behind it */
	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (runs->pair[2 * middle] <= offset)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo > 0 &&
		offset - runs->pair[2 * lo - 2] < runs->pair[2 * lo - 1];
}
