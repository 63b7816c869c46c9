/*
 * backlog.c
 *		How far a subscription is behind: counts what it still has to get, or
 *		has out.
 *
 * It begins with a copy of the subscription's shared memory; then takes a
 * snapshot and reads, leaf by leaf, each message once that may be wanted:
 *
 *	- that has an entry: is it live?
 *	- above the cursor
 *	- in a skipped range, at or below the cursor
 *	- at or below the cursor and delayed to the due position or later
 *	- at or below the cursor, of a key of which one is out or waits for a
 *	  retry, behind that one (ordered)
 *	- that failed and waits in the table
 *
 * One that has an entry is counted only as that, and one in a skipped range
 * only as that.  What the scan would take for a candidate is one here too:
 * it counts unless the tables say that it is done.  See delivery/README.md,
 * section "The scan".
 *
 * Messages that have expired, are deleted or purged, or that the subscription
 * began after, do not count.  No parent table is locked.
 *
 * To count exactly costs as much as to read all the messages behind, some 0.3 s
 * for a million.  So the views look at LOOKED_AT messages and up to LOOKED_UP
 * entries and failures of a subscription, which is exact where there are no
 * more; the rest is estimated (backlog_estimate.c), and said to be.
 */
#include "postgres.h"

#include <limits.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit/backlog.h"
#include "audit/backlog_internal.h"
#include "base/ids.h"
#include "channel/channel.h"
#include "channel/purged.h"
#include "delivery/pool.h"
#include "delivery/sub.h"
#include "facts/facts.h"
#include "segment/channel_scan.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "segment/message_key.h"
#include "state/clock.h"

#define LOOKED_AT		500		/* messages, before the rest is estimated */
#define KEYS			32		/* that are estimated */
#define LOOKED_UP		200		/* entries and failures, each by itself */

typedef void (*RowFunction) (Count *count, const Row *row);

static void policy_copy(Count *count);
static void busy_read(Count *count);
static void busy_bound(Count *count);
static void failed_read(Count *count);
static void keys_read(Count *count);
static int	key_compare(const void *a, const void *b);
static bool leaf_wanted(Count *count);
static void leaf_count(Count *count);
static bool leaf_has_id(const Count *count, const Ids *ids);
static void leaf_count_ids(Count *count, const Ids *ids, RowFunction found);
static void leaf_count_range(Count *count, MbusChannelScan *rows, int64 lo,
							 int64 hi);
static void leaf_count_delayed(Count *count);
static void leaf_count_keys(Count *count);
static void leaf_scan(Count *count, MbusLeafScan *rows, RowFunction found);
static bool row_wanted(Count *count, const Row *row);
static void row_oldest(Count *count, const Row *row);
static void row_entry(Count *count, const Row *row);
static void row_fresh(Count *count, const Row *row);
static void row_delayed(Count *count, const Row *row);
static void row_passed(Count *count, const Row *row);
static void row_failed(Count *count, const Row *row);
static void count_one(Count *count, int64 id, TimestampTz created_at);
static void candidate_add(Count *count, const Row *row, bool failed,
						  bool counted);
static void candidates_count(Count *count);
static int	candidate_compare(const void *a, const void *b);

/*
 * mbus_backlog counts what a subscription still has to get, or has out, from
 * a copy that was made before; exactly, or else, where that is much, looks at
 * some of it and estimates the rest.
 */
void
mbus_backlog(Oid schema, const MbusSubCopy *copy, bool exact,
			 MbusBacklog *backlog)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller,
												  "message_bus backlog",
												  ALLOCSET_DEFAULT_SIZES);
	Count	   *count;
	MbusLeaf   *leaves;
	int			nleaves;

	MemSet(backlog, 0, sizeof(*backlog));
	MemoryContextSwitchTo(context);
	count = palloc0(sizeof(Count));
	count->schema = schema;
	count->copy = copy;
	count->sub = &copy->sub;
	count->backlog = backlog;
	count->bounded = !exact;
	count->left = LOOKED_AT;
	count->now = mbus_now();
	count->snapshot = RegisterSnapshot(GetLatestSnapshot());
	policy_copy(count);
	busy_read(count);
	busy_bound(count);
	failed_read(count);
	if (copy->sub.ordered)
		keys_read(count);

	nleaves = mbus_leaves(schema, &leaves);
	for (int i = 0; i < nleaves; i++)
	{
		count->segment = leaves[i].segment;
		if (!leaf_wanted(count))
			continue;
		count->leaf = mbus_leaf_open(schema, count->segment, MBUS_MESSAGE,
									 AccessShareLock);
		if (count->leaf == NULL)
			continue;
		leaf_count(count);
		table_close(count->leaf, AccessShareLock);
	}
	candidates_count(count);
	UnregisterSnapshot(count->snapshot);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* The cached policy is good only until the next look-up. */
static void
policy_copy(Count *count)
{
	const MbusPolicy *policy = mbus_channel_policy(count->schema,
												   count->sub->channel_id);
	int64	   *kept;

	if (policy == NULL)
		return;
	count->policy = *policy;
	kept = palloc(Max(policy->nkept, 1) * 2 * sizeof(int64));
	if (policy->nkept > 0)
		memcpy(kept, policy->kept, policy->nkept * 2 * sizeof(int64));
	count->policy.kept = kept;
}

/* A NEXT entry stands for no message: its key's are found by the key. */
static void
busy_read(Count *count)
{
	for (int i = 0; i < count->copy->nout; i++)
	{
		const MbusEntry *entry = &count->copy->out[i].entry;

		if (entry->state != MBUS_ENTRY_NEXT)
			mbus_ids_add(&count->busy, entry->id);
	}
}

/*
 * Of many that have an entry only the first is looked up, and all are taken
 * for live.
 */
static void
busy_bound(Count *count)
{
	if (!count->bounded || count->busy.n <= LOOKED_UP)
		return;
	count->backlog->messages = count->busy.n;
	count->backlog->estimated = true;
}

/*
 * What failed and waits: some may have been counted otherwise, or be done.  A
 * scan that is at work has moved the retry position and read nothing yet.
 */
static void
failed_read(Count *count)
{
	TimestampTz from = Min(count->sub->retry_position.at,
						   count->sub->retry_from.at);
	int64	   *ids;
	int			n;

	n = mbus_facts_waiting(count->schema, count->sub->subscription_id,
						   count->sub->since_lease, from,
						   count->bounded ? LOOKED_UP + 1 : PG_INT32_MAX,
						   count->snapshot, mbus_sub_retries_in(count->sub),
						   &ids);
	if (count->bounded && n > LOOKED_UP)
	{
		n = LOOKED_UP;
		count->backlog->estimated = true;
	}
	count->failed.id = ids;
	count->failed.n = n;
}

/* Lists the keys of entries and of what failed; each once, with its lowest. */
static void
keys_read(Count *count)
{
	int			most = count->copy->nout + count->failed.n;
	int			n = 0;

	count->key = palloc_extended(Max(most, 1) * sizeof(KeyPassed),
								 MCXT_ALLOC_HUGE);
	for (int i = 0; i < count->copy->nout; i++)
	{
		const MbusEntry *entry = &count->copy->out[i].entry;
		KeyPassed  *key = &count->key[count->nkeys];

		key->key_hash = entry->key_hash;
		key->from = entry->passed;
		if (entry->state == MBUS_ENTRY_NEXT)
			key->from = key->from == 0 ? entry->id :
				Min(key->from, entry->id);
		count->nkeys += key->from != 0;
	}
	for (int i = 0; i < count->failed.n; i++)
	{
		KeyPassed  *key = &count->key[count->nkeys];

		CHECK_FOR_INTERRUPTS();
		key->key_hash = mbus_message_key_hash(count->schema,
											  count->failed.id[i],
											  count->snapshot);
		key->from = count->failed.id[i] + 1;
		count->nkeys += key->key_hash != 0;
	}
	if (count->nkeys == 0)
		return;
	qsort(count->key, count->nkeys, sizeof(KeyPassed), key_compare);
	for (int i = 1; i < count->nkeys; i++)
	{
		if (count->key[i].key_hash != count->key[n].key_hash)
			count->key[++n] = count->key[i];
	}
	count->nkeys = n + 1;
}

/* By key, the lowest id first. */
static int
key_compare(const void *a, const void *b)
{
	const KeyPassed *x = a;
	const KeyPassed *y = b;

	if (x->key_hash != y->key_hash)
		return mbus_order(x->key_hash, y->key_hash);
	return mbus_order(x->from, y->from);
}

/* ------------------------------------------------------------------------
 * Reading one segment
 * ------------------------------------------------------------------------
 */

/* Whether a segment may have something to count. */
static bool
leaf_wanted(Count *count)
{
	int64		first = MbusFirstId(count->segment);
	int64		end = MbusFirstId((int64) count->segment + 1);

	for (int i = 0; i < count->copy->nskips; i++)
	{
		if (count->copy->skip[i].lo < end && count->copy->skip[i].hi > first)
			return true;
	}
	for (int i = 0; i < count->nkeys; i++)
	{
		if (count->key[i].from < end)
			return true;
	}
	return count->sub->cursor < end - 1 ||
		mbus_set_has(&count->sub->due_in, count->segment) ||
		leaf_has_id(count, &count->busy) || leaf_has_id(count, &count->failed);
}

/* Whether one of the ids lies in the segment. */
static bool
leaf_has_id(const Count *count, const Ids *ids)
{
	int			i = mbus_ids_find(ids, MbusFirstId(count->segment));

	return i < ids->n && MbusSegmentOf(ids->id[i]) == count->segment;
}

/*
 * leaf_count counts one segment, source by source as the top of this file
 * lists them.  What an earlier source counts is known by its id (busy), its
 * skipped range or its time, and is not counted again.
 */
static void
leaf_count(Count *count)
{
	int64		first = MbusFirstId(count->segment);
	int64		end = MbusFirstId((int64) count->segment + 1);
	int64		cursor = count->sub->cursor;
	MbusChannelScan rows;

	count->deleted.n = 0;
	count->deleted_read = false;
	if (count->bounded && count->busy.n > LOOKED_UP)
	{
		Ids			lowest = count->busy;

		lowest.n = 1;
		leaf_count_ids(count, &lowest, row_oldest);
	}
	else
		leaf_count_ids(count, &count->busy, row_entry);

	mbus_channel_scan_open(&rows, count->leaf, count->sub->channel_id);
	for (int i = 0; i < count->copy->nskips; i++)
	{
		const MbusSkip *skip = &count->copy->skip[i];

		if (skip->lo < end && skip->hi > first && skip->lo <= cursor)
			leaf_count_range(count, &rows, skip->lo,
							 Min(skip->hi, cursor + 1));
	}
	if (cursor < end - 1)
		leaf_count_range(count, &rows, Max(cursor + 1, first), end);
	mbus_channel_scan_close(&rows);

	if (first <= cursor)
	{
		leaf_count_delayed(count);
		if (count->sub->ordered)
			leaf_count_keys(count);
	}
	leaf_count_ids(count, &count->failed, row_failed);
}

/* Looks up those of the ids that lie in this segment. */
static void
leaf_count_ids(Count *count, const Ids *ids, RowFunction found)
{
	int64		end = MbusFirstId((int64) count->segment + 1);
	int			i = mbus_ids_find(ids, MbusFirstId(count->segment));
	MbusLeafScan rows;

	if (i >= ids->n || ids->id[i] >= end)
		return;
	mbus_leaf_scan_open(&rows, count->leaf, MBUS_COL_ID, 0, false);
	for (; i < ids->n && ids->id[i] < end; i++)
	{
		mbus_leaf_scan_int8(&rows, MBUS_COL_ID, ids->id[i], ids->id[i]);
		leaf_scan(count, &rows, found);
	}
	mbus_leaf_scan_close(&rows);
}

/* Counts the channel's messages with ids in [lo, hi). */
static void
leaf_count_range(Count *count, MbusChannelScan *rows, int64 lo, int64 hi)
{
	HeapTuple	tuple;
	Row			row;

	lo = Max(lo, count->sub->start_id);
	lo = Max(lo, mbus_channel_purged_below(&count->policy, lo) + 1);
	mbus_channel_scan_begin(rows, lo, hi - 1, count->snapshot);
	while ((tuple = mbus_channel_scan_next(rows)) != NULL &&
		   mbus_backlog_spend(count))
	{
		if (mbus_backlog_row_read(count, tuple, &row))
			row_fresh(count, &row);
		lo = row.id + 1;
	}
	mbus_channel_scan_end(rows);
	if (tuple)
		mbus_backlog_estimate_range(count, rows, lo, hi);
}

/* Counts delayed messages from the due position on. */
static void
leaf_count_delayed(Count *count)
{
	TimestampTz from = count->sub->due_position.at;
	int64		after = -1;
	MbusLeafScan rows;
	HeapTuple	tuple;
	Row			row;

	mbus_leaf_scan_open(&rows, count->leaf, MBUS_COL_CHANNEL_ID,
						MBUS_COL_AVAILABLE_AT, true);
	mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, count->sub->channel_id);
	mbus_leaf_scan_time(&rows, MBUS_COL_AVAILABLE_AT, from, PG_INT64_MAX);
	mbus_leaf_scan_begin(&rows, count->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL &&
		   mbus_backlog_spend(count))
	{
		if (mbus_backlog_row_read(count, tuple, &row))
			row_delayed(count, &row);
		from = row.available_at;
		after = row.id;
	}
	mbus_leaf_scan_close(&rows);
	if (tuple)
		mbus_backlog_estimate_delayed(count, from, after);
}

/* What was passed over for a key: from the lowest such one to the cursor. */
static void
leaf_count_keys(Count *count)
{
	int64		end = MbusFirstId((int64) count->segment + 1);
	int			step;
	MbusLeafScan rows;
	HeapTuple	tuple;
	Row			row;

	mbus_leaf_scan_open(&rows, count->leaf, MBUS_COL_CHANNEL_ID,
						MBUS_COL_KEY_HASH, true);
	for (int i = 0; i < count->nkeys; i++)
	{
		const KeyPassed *key = &count->key[i];
		int64		from = key->from;

		CHECK_FOR_INTERRUPTS();
		if (key->from >= end)
			continue;
		mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID,
							count->sub->channel_id);
		mbus_leaf_scan_int8(&rows, MBUS_COL_KEY_HASH, key->key_hash,
							key->key_hash);
		mbus_leaf_scan_int8(&rows, MBUS_COL_ID, key->from,
							count->sub->cursor);
		mbus_leaf_scan_begin(&rows, count->snapshot);
		while ((tuple = mbus_leaf_scan_next(&rows)) != NULL &&
			   mbus_backlog_spend(count))
		{
			if (mbus_backlog_row_read(count, tuple, &row))
				row_passed(count, &row);
			from = row.id + 1;
		}
		mbus_leaf_scan_end(&rows);
		if (tuple == NULL)
			continue;
		/* of many keys some stand for the others */
		step = Max((count->nkeys - i) / KEYS, 1);
		mbus_backlog_estimate_key(count, key, from, step);
		i += step - 1;
	}
	mbus_leaf_scan_close(&rows);
}

/* Gives what an index scan finds, and is wanted at all, to a function. */
static void
leaf_scan(Count *count, MbusLeafScan *rows, RowFunction found)
{
	HeapTuple	tuple;
	Row			row;

	mbus_leaf_scan_begin(rows, count->snapshot);
	while ((tuple = mbus_leaf_scan_next(rows)) != NULL)
	{
		if (mbus_backlog_row_read(count, tuple, &row))
			found(count, &row);
	}
	mbus_leaf_scan_end(rows);
}

/*
 * mbus_backlog_spend tells whether one more message may be looked at; if not,
 * what is counted is an estimate.
 */
bool
mbus_backlog_spend(Count *count)
{
	if (!count->bounded)
		return true;
	if (count->left > 0)
	{
		count->left--;
		return true;
	}
	count->backlog->estimated = true;
	return false;
}

/*
 * mbus_backlog_row_read reads a message, and tells whether it is wanted at
 * all.
 */
bool
mbus_backlog_row_read(Count *count, HeapTuple tuple, Row *row)
{
	TupleDesc	desc = RelationGetDescr(count->leaf);
	Datum		delayed;
	bool		isnull;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	row->id = DatumGetInt64(READ(MBUS_COL_ID));
	row->created_at = DatumGetTimestampTz(READ(MBUS_COL_CREATED_AT));
	row->expires_at = DatumGetTimestampTz(READ(MBUS_COL_EXPIRES_AT));
	delayed = READ(MBUS_COL_AVAILABLE_AT);
	row->available_at = isnull ? row->created_at :
		DatumGetTimestampTz(delayed);
#undef READ
	return row_wanted(count, row);
}

/* ------------------------------------------------------------------------
 * What is found
 * ------------------------------------------------------------------------
 */

/*
 * Whether the subscription can still get a message: it lives, and is not from
 * before the start.
 */
static bool
row_wanted(Count *count, const Row *row)
{
	return row->expires_at > count->now &&
		row->id >= count->sub->start_id &&
		(count->sub->start_at == 0 ||
		 row->created_at >= count->sub->start_at) &&
		!mbus_channel_purged(&count->policy, row->id) &&
		!mbus_backlog_deleted(count, row->id);
}

/* One that has an entry and is counted already. */
static void
row_oldest(Count *count, const Row *row)
{
	mbus_backlog_oldest(count, row->id, row->created_at);
}

/* A message that has an entry. */
static void
row_entry(Count *count, const Row *row)
{
	count_one(count, row->id, row->created_at);
}

/* One above the cursor, or in a skipped range. */
static void
row_fresh(Count *count, const Row *row)
{
	if (mbus_ids_have(&count->busy, row->id))
		return;
	if (row->id < count->sub->check_below)
		candidate_add(count, row, false, false);
	else
		count_one(count, row->id, row->created_at);
}

/* What is not due yet was never delivered. */
static void
row_delayed(Count *count, const Row *row)
{
	if (row->id > count->sub->cursor || mbus_backlog_skipped(count, row->id) ||
		mbus_ids_have(&count->busy, row->id))
		return;
	if (row->available_at <= count->now)
		candidate_add(count, row, false, false);
	else
		count_one(count, row->id, row->created_at);
}

/* One at or below the cursor that was passed over for its key. */
static void
row_passed(Count *count, const Row *row)
{
	if (!mbus_backlog_late(count, row) && !mbus_backlog_skipped(count, row->id) &&
		!mbus_ids_have(&count->busy, row->id) &&
		!mbus_ids_have(&count->failed, row->id))
		candidate_add(count, row, false, false);
}

/* One that failed, and waits for its time. */
static void
row_failed(Count *count, const Row *row)
{
	if (!mbus_ids_have(&count->busy, row->id))
		candidate_add(count, row, true,
					  row->id > count->sub->cursor ||
					  mbus_backlog_skipped(count, row->id) || mbus_backlog_late(count, row));
}

/*
 * mbus_backlog_late tells whether a message is delayed, and not below what is
 * to be looked for.
 */
bool
mbus_backlog_late(const Count *count, const Row *row)
{
	return row->available_at > row->created_at &&
		row->available_at >= count->sub->due_position.at;
}

/* Counts a message, and keeps the oldest. */
static void
count_one(Count *count, int64 id, TimestampTz created_at)
{
	count->backlog->messages++;
	mbus_backlog_oldest(count, id, created_at);
}

/*
 * mbus_backlog_oldest keeps the oldest.
 */
void
mbus_backlog_oldest(Count *count, int64 id, TimestampTz created_at)
{
	MbusBacklog *backlog = count->backlog;

	if (backlog->oldest_id == 0 || id < backlog->oldest_id)
	{
		backlog->oldest_id = id;
		backlog->oldest_at = created_at;
	}
}

/*
 * Notes a message that the tables are to be asked about; "counted" if it
 * counts already, and only its failing is to be found out.
 */
static void
candidate_add(Count *count, const Row *row, bool failed, bool counted)
{
	Candidate  *candidate;

	if (count->ncandidates == CANDIDATES)
		candidates_count(count);
	candidate = &count->candidate[count->ncandidates++];
	candidate->id = row->id;
	candidate->created_at = row->created_at;
	candidate->failed = failed;
	candidate->counted = counted;
}

/*
 * candidates_count asks the tables, and counts those that are not done.
 */
static void
candidates_count(Count *count)
{
	Candidate  *candidate = count->candidate;
	int			n = count->ncandidates;
	MbusFacts  *facts = palloc0(CANDIDATES * sizeof(MbusFacts));
	int			nfacts = 0;

	qsort(candidate, n, sizeof(Candidate), candidate_compare);
	for (int i = 0; i < n; i++)
	{
		/* one may be found as a failure and otherwise too */
		if (i == 0 || candidate[i].id != candidate[i - 1].id)
			facts[nfacts++].id = candidate[i].id;
	}
	if (nfacts > 0)
		mbus_facts(count->schema, count->sub->subscription_id,
				   count->sub->since_lease, facts, nfacts, count->snapshot);
	for (int i = 0, f = 0; i < n; i++)
	{
		while (facts[f].id != candidate[i].id)
			f++;
		if (facts[f].done)
			continue;
		if (candidate[i].failed)
			count->backlog->retrying++;
		if (!candidate[i].counted)
			count_one(count, candidate[i].id, candidate[i].created_at);
	}
	count->ncandidates = 0;
	pfree(facts);
}

static int
candidate_compare(const void *a, const void *b)
{
	return mbus_order(((const Candidate *) a)->id,
					  ((const Candidate *) b)->id);
}

/* ------------------------------------------------------------------------
 * Skipped ranges
 * ------------------------------------------------------------------------
 */
