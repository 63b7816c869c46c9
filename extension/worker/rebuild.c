/*
 * rebuild.c
 *		The worker builds a subscription's part of shared memory from the
 *		tables.
 *
 * Its position is that of its checkpoint, if it has one that is still valid
 * (no seek since), else its start.  What was given out before is a candidate
 * (check_below): a claim looks into the tables before it takes it.  So the
 * checkpoint saves reading and nothing depends on its being recent.
 *
 * Of the checkpoint's entries, those that the tables know more of are left
 * to the tables; the retry position goes back to the time of each that waits
 * there, since the nack may have committed after the checkpoint.  The others
 * are ready again; but a lease that no ack or failure has ended was cut off
 * by a crash, which counts as an attempt: a failure row of kind "crash",
 * inserted here as that of a nack is.  The commit of these is flushed, and
 * only then is the subscription loaded.  A worker that ends in between
 * leaves it unloaded, and the next one finds the failures.
 *
 * Where the pools of shared memory are too small for what the checkpoint
 * has, the cursor goes back below it: all above are read as candidates.  So
 * it does for ordered subscriptions, which have no entries here: the scan
 * gives every key its entry, in the order of the messages.  Which of their
 * keys wait for a retry is looked up for each message, until nothing waits.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/array.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "delivery/fail.h"
#include "delivery/pool.h"
#include "delivery/skip.h"
#include "delivery/sub.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/message_key.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/waiter.h"
#include "worker/checkpoint.h"
#include "worker/names.h"
#include "worker/rebuild.h"
#include "worker/segment_catalog.h"
#include "worker/segment_open.h"
#include "worker/task.h"

#define FACTS		10000		/* ids in one look into the tables */
#define BLOCKED		3			/* tries, if segments must be opened */
#define SLACK_US	(10 * 60 * USECS_PER_SEC)	/* clocks step */

/* A subscription that is being loaded. */
typedef struct Loading
{
	int32		subscription_id;
	int32		channel_id;
	uint32		slot;
	uint32		generation;
	bool		ordered;
	bool		fresh;			/* made since the last numbering */
	int64		start_id;
	TimestampTz start_at;
	int64		since_lease;
	TimestampTz created_at;
	TimestampTz at;				/* of its checkpoint; 0: none that counts */
	int64		cursor;
	int64		check_below;
	int64		wait_low;		/* keys may wait, of ids from here on; 0: none */
	TimestampTz due_at;
	TimestampTz retry_at;
	int			ncrashed;
	MbusSegmentSet crashed_in;
	int			n;
	MbusPending *entry;			/* by ascending id; in the end those ready */
	int			nskips;			/* of pairs [lo, hi) */
	int64	   *skips;
} Loading;

/* Subscriptions that are loaded in one transaction. */
typedef struct Batch
{
	MemoryContext context;
	int			nids;
	const int32 *ids;
	int64		check_below;
	int32		epoch;
	int			n;
	Loading    *loading;
	MbusDueOwner *retries;		/* of each, where they may be */
	MbusDueOwner *delayed;
	int			ncrashed;
	bool		full;
} Batch;

static MbusOutcome batch_read(MbusWork *work, void *arg);
static void row_read(Batch *batch, Loading *l, HeapTuple row, TupleDesc desc,
					 TimestampTz numbered_at);
static void checkpoint_read(Loading *l, HeapTuple row, TupleDesc desc,
							int64 check_below, MemoryContext context);
static int	array_read(HeapTuple row, TupleDesc desc, int column, void **data);
static bool slot_make(MbusWork *work, Loading *l);
static void entries_judge(MbusWork *work, Batch *batch, Loading *l);
static MbusFacts *entries_facts(MbusWork *work, Loading *l);
static bool failed_since(const MbusPending *entry, const MbusFacts *facts,
						 TimestampTz at);
static void where_read(MbusWork *work, Batch *batch);
static void waits_judge(Loading *l, const MbusDueOwner *retries);
static int	crashes_fail(MbusWork *work, Loading *l, MbusPending *crashed,
						 int n);
static int	crash_compare(const void *a, const void *b);
static void cursor_lower(Loading *l, int64 cursor);
static bool loading_install(MbusWork *work, Batch *batch, int i);
static void where_install(MbusSegmentSet *set, const MbusDueOwner *owner);
static void waits_install(const Loading *l, const MbusDueOwner *retries);
static void entries_install(Loading *l);

/*
 * mbus_subscriptions_rebuild loads some subscriptions.  If they cannot be all
 * together each is loaded alone, so that one does not keep back the others.
 * False if some could not be; *full is set if slots are lacking.
 */
bool
mbus_subscriptions_rebuild(MbusWork *work, const int32 *ids, int n,
						   bool *full)
{
	Batch		batch;
	MbusOutcome outcome;
	int			blocked = 0;
	bool		all = true;

	do
	{
		MemSet(&batch, 0, sizeof(batch));
		batch.context = CurrentMemoryContext;
		batch.ids = ids;
		batch.nids = n;
		batch.epoch = work->db->delivery.lease_epoch;
		outcome = mbus_task_run(work, MBUS_TASK_LOAD, batch_read, &batch,
								n == 1 ? "loading subscription %d" :
								"loading subscriptions from %d on", ids[0]);
		mbus_task_let_go(work);
		mbus_segments_open(work);
	} while (outcome == MBUS_BLOCKED && ++blocked <= BLOCKED);

	if (outcome == MBUS_DONE)
	{
		for (int i = 0; i < batch.n; i++)
			all = loading_install(work, &batch, i) && all;
		*full = *full || batch.full;
		return all;
	}
	if (n == 1)
		return false;
	for (int i = 0; i < n; i++)
		all = mbus_subscriptions_rebuild(work, ids + i, 1, full) && all;
	return all;
}

/*
 * batch_read reads rows and checkpoints, and records the crashes.
 */
static MbusOutcome
batch_read(MbusWork *work, void *arg)
{
	Batch	   *batch = arg;
	Datum	   *elements = palloc(batch->nids * sizeof(Datum));
	Oid			types[] = {INT4ARRAYOID};
	Datum		values[1];
	SPITupleTable *rows;
	uint64		nrows;

	for (int i = 0; i < batch->nids; i++)
		elements[i] = Int32GetDatum(batch->ids[i]);
	mbus_task_begin();
	mbus_task_hold_extension(work);
	batch->check_below = MbusFirstId(Max(work->db->numbering.next_segment,
										 mbus_names_highest(work) + 1));

	values[0] = PointerGetDatum(construct_array(elements, batch->nids,
												INT4OID, 4, true,
												TYPALIGN_INT));
	if (SPI_execute_with_args("SELECT s.subscription_id, s.channel_id,"
							  " s.ordered, s.start_id, s.start_at,"
							  " s.since_lease, coalesce((SELECT m.epoch"
							  " FROM message_bus.subscription_made m"
							  " WHERE m.subscription_id = s.subscription_id),"
							  " 0), s.created_at,"
							  " c.at, c.cursor, c.due_at, c.retry_at, c.ids,"
							  " c.attempts, c.leases, c.skipped"
							  " FROM message_bus.subscription s"
							  " LEFT JOIN message_bus.checkpoint c"
							  " ON c.subscription_id = s.subscription_id"
							  " AND c.since_lease = s.since_lease"
							  " WHERE s.subscription_id = ANY ($1)"
							  " ORDER BY s.subscription_id",
							  1, types, values, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.subscription");
	rows = SPI_tuptable;
	nrows = SPI_processed;

	batch->loading = MemoryContextAllocZero(batch->context,
											(nrows + 1) * sizeof(Loading));
	for (uint64 i = 0; i < nrows; i++)
	{
		Loading    *l = &batch->loading[batch->n];

		row_read(batch, l, rows->vals[i], rows->tupdesc, work->numbered_at);
		if (!slot_make(work, l))
		{
			batch->full = true;
			continue;
		}
		entries_judge(work, batch, l);
		batch->n++;
	}
	where_read(work, batch);
	if (batch->ncrashed > 0)
		ForceSyncCommit();
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * Begins a subscription that is to be loaded by its row, and reads its
 * checkpoint if it has one.
 */
static void
row_read(Batch *batch, Loading *l, HeapTuple row, TupleDesc desc,
		 TimestampTz numbered_at)
{
	Datum		value[8];
	bool		isnull[8];

	for (int i = 0; i < 8; i++)
		value[i] = SPI_getbinval(row, desc, i + 1, &isnull[i]);
	MemSet(l, 0, sizeof(*l));
	l->subscription_id = DatumGetInt32(value[0]);
	l->channel_id = DatumGetInt32(value[1]);
	l->ordered = DatumGetBool(value[2]);
	l->start_id = DatumGetInt64(value[3]);
	l->start_at = isnull[4] ? 0 : DatumGetTimestampTz(value[4]);
	l->since_lease = DatumGetInt64(value[5]);
	l->created_at = DatumGetTimestampTz(value[7]);
	l->fresh = DatumGetInt32(value[6]) == batch->epoch &&
		l->created_at >= numbered_at;
	l->cursor = Max(l->start_id - 1, 0);
	l->check_below = l->fresh ? 0 : batch->check_below;
	l->due_at = l->retry_at = PG_INT64_MIN;
	checkpoint_read(l, row, desc, batch->check_below, batch->context);
}

/* Reads the checkpoint's part of a row, if there is a whole one. */
static void
checkpoint_read(Loading *l, HeapTuple row, TupleDesc desc,
				int64 check_below, MemoryContext context)
{
	TimestampTz now = mbus_now();
	TimestampTz time[2];
	bool		isnull;
	Datum		at = SPI_getbinval(row, desc, 9, &isnull);
	int64	   *ids;
	int16	   *attempts;
	int64	   *leases;
	int64	   *skips;

	if (isnull)
		return;
	/* it was given up: it is as old as its checkpoint says */
	l->fresh = false;
	l->check_below = check_below;
	l->n = array_read(row, desc, 13, (void **) &ids);
	l->nskips = array_read(row, desc, 16, (void **) &skips) / 2;
	if (array_read(row, desc, 14, (void **) &attempts) != l->n ||
		array_read(row, desc, 15, (void **) &leases) != l->n)
	{
		l->n = l->nskips = 0;
		return;
	}

	l->at = DatumGetTimestampTz(at);
	l->cursor = Max(l->cursor, DatumGetInt64(SPI_getbinval(row, desc, 10,
														   &isnull)));
	for (int i = 0; i < 2; i++)
	{
		time[i] = DatumGetTimestampTz(SPI_getbinval(row, desc, 11 + i,
													&isnull));
		if (time[i] != DT_NOBEGIN)
			time[i] = Min(time[i], now) - SLACK_US;
	}
	l->due_at = time[0];
	l->retry_at = time[1];

	l->skips = MemoryContextAlloc(context,
								  (l->nskips + 1) * 2 * sizeof(int64));
	if (l->nskips > 0)
		memcpy(l->skips, skips, l->nskips * 2 * sizeof(int64));
	l->entry = MemoryContextAllocHuge(context,
									  (l->n + 1) * sizeof(MbusPending));
	for (int i = 0; i < l->n; i++)
	{
		l->entry[i].id = ids[i];
		l->entry[i].attempt = attempts[i];
		l->entry[i].lease = leases[i];
	}
	qsort(l->entry, l->n, sizeof(MbusPending), mbus_pending_compare);
}

/* How many elements an array has: of a fixed size, none null; *data is them. */
static int
array_read(HeapTuple row, TupleDesc desc, int column, void **data)
{
	bool		isnull;
	Datum		value = SPI_getbinval(row, desc, column, &isnull);
	ArrayType  *array;

	*data = NULL;
	if (isnull)
		return 0;
	array = DatumGetArrayTypeP(value);
	*data = ARR_DATA_PTR(array);
	if (ARR_HASNULL(array) || ARR_NDIM(array) > 1)
		return 0;
	return ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
}

/*
 * slot_make finds or makes the slot; false if all are taken.
 */
static bool
slot_make(MbusWork *work, Loading *l)
{
	Oid			database = work->db->database;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	l->slot = mbus_sub_find(database, work->schema, l->subscription_id);
	if (l->slot == MBUS_NONE)
		l->slot = mbus_sub_create(database, work->schema, l->subscription_id,
								  l->channel_id);
	if (l->slot != MBUS_NONE)
		l->generation = mbus_sub(l->slot)->generation;
	LWLockRelease(mbus_delivery_lock());
	return l->slot != MBUS_NONE;
}

/*
 * entries_judge asks the tables what has become of the checkpoint's entries,
 * records the crashes, and leaves in l->entry those that are ready.
 */
static void
entries_judge(MbusWork *work, Batch *batch, Loading *l)
{
	MbusFacts  *facts;
	MbusPending *crashed;
	int			ncrashed = 0;
	int			nready = 0;

	if (l->n == 0)
	{
		cursor_lower(l, l->cursor);
		return;
	}
	facts = entries_facts(work, l);
	crashed = MemoryContextAllocHuge(CurrentMemoryContext,
									 l->n * sizeof(MbusPending));
	for (int i = 0; i < l->n; i++)
	{
		MbusPending *entry = &l->entry[i];

		if (facts[i].done)
			continue;
		if (facts[i].failed)
			l->retry_at = Min(l->retry_at, facts[i].retry_at);
		if (facts[i].failed && failed_since(entry, &facts[i], l->at))
			continue;
		if (entry->lease != 0)
			crashed[ncrashed++] = *entry;
		else
			l->entry[nready++] = *entry;
	}
	l->n = nready;
	cursor_lower(l, l->ordered && nready > 0 ? l->entry[0].id - 1 :
				 l->cursor);
	if (ncrashed > 0)
		batch->ncrashed += crashes_fail(work, l, crashed, ncrashed);
	l->ncrashed = ncrashed;
	pfree(crashed);
	pfree(facts);
}

/*
 * entries_facts returns facts of the entries, having dropped those whose
 * segment is gone.
 */
static MbusFacts *
entries_facts(MbusWork *work, Loading *l)
{
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(work->schema, &leaves);
	MbusFacts  *facts;
	int			n = 0;

	for (int i = 0; i < l->n; i++)
	{
		const MbusLeaf *leaf = mbus_leaf_search(leaves, nleaves,
												MbusSegmentOf(l->entry[i].id));

		if (leaf && OidIsValid(leaf->relid[MBUS_ACK]) &&
			OidIsValid(leaf->relid[MBUS_FAILURE]))
			l->entry[n++] = l->entry[i];
	}
	pfree(leaves);
	l->n = n;

	facts = MemoryContextAllocExtended(CurrentMemoryContext,
									   (n + 1) * sizeof(MbusFacts),
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
		facts[i].id = l->entry[i].id;
	for (int i = 0; i < n; i += FACTS)
		mbus_facts(work->schema, l->subscription_id, l->since_lease,
				   facts + i, Min(FACTS, n - i), GetActiveSnapshot());
	return facts;
}

/*
 * failed_since tells whether what failed, or was redriven, is the delivery
 * that the checkpoint knows, or a later one.
 */
static bool
failed_since(const MbusPending *entry, const MbusFacts *facts, TimestampTz at)
{
	if (entry->lease != 0)
		return facts->lease >= entry->lease;
	return facts->attempt != entry->attempt || facts->retry_at > at;
}

/*
 * where_read asks for all of a batch, segment by segment, where something is
 * that may have to be retried, or is delayed and was passed by the cursor.
 * Nothing of the kind can come but by who finds the subscription loaded.
 */
static void
where_read(MbusWork *work, Batch *batch)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	MbusDue		due;

	batch->retries = palloc0(2 * (batch->n + 1) * sizeof(MbusDueOwner));
	batch->delayed = batch->retries + batch->n + 1;
	for (int i = 0; i < batch->n; i++)
	{
		const Loading *l = &batch->loading[i];
		MbusDueOwner *retries = &batch->retries[i];
		MbusDueOwner *delayed = &batch->delayed[i];

		retries->owner = l->subscription_id;
		retries->since_lease = l->since_lease;
		retries->from = l->retry_at;
		retries->lowest = l->ordered;
		retries->upto = l->fresh ? 0 : PG_INT32_MAX;
		delayed->owner = l->channel_id;
		delayed->from = l->due_at;
		/* without a checkpoint the cursor has passed nothing that is wanted */
		delayed->upto = l->at == 0 ? 0 : MbusSegmentOf(l->cursor);
	}
	mbus_facts_where(work->schema, batch->retries, batch->n,
					 GetActiveSnapshot());
	mbus_due_delayed(&due, 0, GetActiveSnapshot());
	mbus_due_where(work->schema, &due, batch->delayed, batch->n);
	MemoryContextSwitchTo(caller);
	for (int i = 0; i < batch->n; i++)
		waits_judge(&batch->loading[i], &batch->retries[i]);
}

/*
 * waits_judge tells whether something of an ordered subscription may wait for
 * a retry, and from which id on: not below the cursor, but for what was
 * redriven.  Without a checkpoint the first scan looks at everything.
 */
static void
waits_judge(Loading *l, const MbusDueOwner *retries)
{
	if (!l->ordered || l->fresh)
		return;
	if (l->at == 0 || retries->nsegments > 0 || l->ncrashed > 0)
		l->wait_low = l->cursor + 1;
	if (l->at != 0 && retries->nsegments > 0)
		l->wait_low = Min(l->wait_low, retries->low);
}

/*
 * crashes_fail inserts failures for what was leased when the server went
 * down, lease by lease.
 */
static int
crashes_fail(MbusWork *work, Loading *l, MbusPending *crashed, int n)
{
	MbusHolding holding = {.sub = l->slot,
		.subscription_id = l->subscription_id,
		.channel_id = l->channel_id,
		.since_lease = l->since_lease,
		.ordered = l->ordered,
	.claimed_at = l->at};

	qsort(crashed, n, sizeof(MbusPending), crash_compare);
	holding.held = MemoryContextAllocExtended(CurrentMemoryContext,
											  n * sizeof(MbusHeld),
											  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < n; i++)
	{
		MbusHeld   *held = &holding.held[holding.n++];

		held->id = crashed[i].id;
		held->entry = MBUS_NONE;
		held->attempt = crashed[i].attempt;
		if (l->ordered)
			held->key_hash = mbus_message_key_hash(work->schema, held->id,
												   GetActiveSnapshot());
		held->again = false;
		mbus_set_add(&l->crashed_in, MbusSegmentOf(held->id),
					 MbusSegmentOf(held->id));
		holding.lease = crashed[i].lease;
		if (l->ordered)
			cursor_lower(l, crashed[i].id - 1);
		if (i + 1 < n && crashed[i + 1].lease == holding.lease)
			continue;
		mbus_fail(work->schema, work->db, &holding, "crash", 0, NULL);
		holding.n = 0;
	}
	pfree(holding.held);
	return n;
}

static int
crash_compare(const void *a, const void *b)
{
	const MbusPending *x = a;
	const MbusPending *y = b;

	if (x->lease != y->lease)
		return mbus_order(x->lease, y->lease);
	return mbus_order(x->id, y->id);
}

/*
 * cursor_lower moves the cursor back, if it is not there yet: entries and
 * skipped ranges above it are read anew, as candidates.
 */
static void
cursor_lower(Loading *l, int64 cursor)
{
	int			nskips = 0;

	l->cursor = Min(l->cursor, Max(cursor, Max(l->start_id - 1, 0)));
	while (l->n > 0 && l->entry[l->n - 1].id > l->cursor)
		l->n--;
	for (int i = 0; i < l->nskips; i++)
	{
		if (l->skips[2 * i] > l->cursor)
			continue;
		l->skips[2 * nskips] = l->skips[2 * i];
		l->skips[2 * nskips + 1] = Min(l->skips[2 * i + 1], l->cursor + 1);
		nskips++;
	}
	l->nskips = nskips;
}

/* ------------------------------------------------------------------------
 * Into memory
 * ------------------------------------------------------------------------
 */

/*
 * loading_install makes the subscription loaded, as it was read, unless
 * somebody has dropped or moved it meanwhile; then it is to be read again.
 */
static bool
loading_install(MbusWork *work, Batch *batch, int i)
{
	Loading    *l = &batch->loading[i];
	const MbusDueOwner *retries = &batch->retries[i];
	MbusSub    *sub = mbus_sub(l->slot);
	bool		same;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	same = sub->database == work->db->database &&
		sub->schema == work->schema && sub->generation == l->generation &&
		!sub->dropped && !sub->loaded;
	if (same)
	{
		sub->ordered = l->ordered;
		sub->start_id = l->start_id;
		sub->start_at = l->start_at;
		sub->since_lease = l->since_lease;
		sub->created_at = l->created_at;
		entries_install(l);
		if (l->wait_low != 0)
			waits_install(l, retries);
		sub->cursor = l->cursor;
		sub->quiet_from = l->cursor + 1;
		sub->check_below = l->check_below;
		/* before the start, or by a slot given up, some may have been passed */
		sub->expired_low = l->fresh ? PG_INT64_MAX : 0;
		sub->due_position = mbus_moment(l->due_at, 0);
		sub->retry_position = mbus_moment(l->retry_at, 0);
		sub->next_due = sub->next_retry = PG_INT64_MIN;
		sub->retry_in = l->crashed_in;
		where_install(&sub->retry_in, retries);
		mbus_set_none(&sub->due_in);
		where_install(&sub->due_in, &batch->delayed[i]);
		sub->changed_since = l->at == 0;
		sub->acks = 0;
		sub->loaded = true;
		sub->used_at = mbus_now();
	}
	LWLockRelease(mbus_delivery_lock());
	ConditionVariableBroadcast(&sub->changed);
	mbus_wake_channel(work->db->database, l->channel_id);
	return same;
}

/* Adds where an owner has something. */
static void
where_install(MbusSegmentSet *set, const MbusDueOwner *owner)
{
	for (int i = 0; i < owner->nsegments; i++)
		mbus_set_add(set, owner->segment[i], owner->segment[i]);
}

/* Says which keys may wait: any.  Caller holds the delivery lock. */
static void
waits_install(const Loading *l, const MbusDueOwner *retries)
{
	mbus_keys_wait(l->slot, l->wait_low);
	for (int i = 0; i < retries->nsegments; i++)
		mbus_keys_wait_in(l->slot, retries->segment[i]);
	if (l->at == 0 || l->ncrashed > 0)
		mbus_keys_wait_in(l->slot, 0);
}

/*
 * entries_install makes the entries ready and restores the skipped ranges, or
 * moves the cursor below all of them if a pool is too small.  Caller holds
 * the delivery lock.
 */
static void
entries_install(Loading *l)
{
	MbusSub    *sub = mbus_sub(l->slot);
	int			entries;
	int			skips;
	uint32		ready = mbus_entries_take(l->slot, MBUS_NONE, l->n,
										  &entries);
	uint32		skipped = mbus_skips_take(l->slot, l->nskips, &skips);
	uint32		at;
	int64		lowest;

	if (entries < l->n || skips < l->nskips)
	{
		mbus_entries_free(ready);
		mbus_skips_free(l->slot, skipped);
		lowest = l->cursor;
		if (l->n > 0)
			lowest = Min(lowest, l->entry[0].id - 1);
		if (l->nskips > 0)
			lowest = Min(lowest, l->skips[0] - 1);
		cursor_lower(l, lowest);
		return;
	}

	at = ready;
	for (int i = 0; i < l->n; i++)
	{
		uint32		next = mbus_entry(at)->next;

		mbus_entry_add(l->slot, at, l->entry[i].id, l->entry[i].attempt, 0);
		mbus_entry(at)->next = next;
		at = next;
	}
	mbus_ready_merge(l->slot, ready);

	at = skipped;
	for (int i = 0; i < l->nskips; i++)
	{
		mbus_skip(at)->lo = l->skips[2 * i];
		mbus_skip(at)->hi = l->skips[2 * i + 1];
		at = mbus_skip(at)->next;
	}
	sub->skipped = skipped;
	sub->nskipped = l->nskips;
}
