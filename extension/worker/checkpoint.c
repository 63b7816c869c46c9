/*
 * checkpoint.c
 *		The worker writes down where subscriptions are.
 *
 * A checkpoint is a copy of a subscription's part of shared memory, taken in
 * one step under the delivery lock and then written: what is not in memory by
 * then is in the tables, and its commit comes before that of the checkpoint
 * in the log.  So an old checkpoint, or none, is as right as the newest; it
 * only has the load read more.  One is written every ten seconds, or after
 * 100,000 acknowledged messages, if something has changed.  It need not be
 * flushed.
 *
 * An entry that is held by a claim which has not ended is written as ready:
 * a claim that is cut off is no attempt.  One with a lease has its number.
 * Ordered subscriptions are read again from their lowest entry, or the lowest
 * message that has been passed over for one or may wait for a retry with a
 * key, so only leases are kept.
 *
 * The retry position is the lowest of three: a scan at work has moved it to
 * what it has not read yet, and open redrives insert times from before it.  An
 * open nack may, too, but its entry is in the checkpoint; see the load.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "delivery/pool.h"
#include "delivery/skip.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/checkpoint.h"
#include "worker/numbers.h"
#include "worker/task.h"

#define LOOK_EVERY_MS		200
#define CHECKPOINT_MS		10000
#define CHECKPOINT_ACKS		100000
#define CHECKPOINT_ENTRIES	10000	/* with so many more it is written half as
									 * often, and so on: it is a row of all */
#define CHECKPOINT_BATCH	100 /* in one transaction */
#define PARAMS				11

typedef struct Writing
{
	int			n;
	MbusSlotOf *due;
} Writing;

/* when this process last wrote the checkpoint of a slot's subscription */
static TimestampTz *written_at = NULL;

static void times_allocate(void);
static int	due_collect(MbusWork *work, TimestampTz now, MbusSlotOf **due);
static void due_write(MbusWork *work, MbusSlotOf *due, int n);
static MbusOutcome checkpoints_write(MbusWork *work, void *arg);
static void position_lower(MbusPosition *position);
static bool checkpoint_store(SPIPlanPtr *plan, const MbusPosition *position);
static Datum int64_array(const int64 *value, int n);
static void changed_set(MbusWork *work, const MbusSlotOf *due,
						bool changed);
static void position_grow(MbusPosition *position, int npending, int nskips);
static void position_fill(MbusSub *sub, MbusPosition *position);
static void pending_add(MbusPosition *position, const MbusEntry *entry,
						int64 lease);

/*
 * mbus_checkpoints_write writes the checkpoints that are due.
 */
void
mbus_checkpoints_write(MbusWork *work)
{
	TimestampTz now = mbus_now();
	MbusSlotOf *due;
	int			n;

	if (!TimestampDifferenceExceeds(work->checkpoints_looked_at, now,
									LOOK_EVERY_MS) ||
		!mbus_tasks_begin(work, MBUS_TASK_CHECKPOINT, false))
		return;
	work->checkpoints_looked_at = now;
	times_allocate();
	n = due_collect(work, now, &due);
	for (int i = 0; i < n; i += CHECKPOINT_BATCH)
	{
		due_write(work, due + i, Min(CHECKPOINT_BATCH, n - i));
		work->serve(work);
	}
	mbus_tasks_end(work, MBUS_TASK_CHECKPOINT);
	pfree(due);
}

/*
 * mbus_checkpoints_write_of writes those of some subscriptions now.
 */
void
mbus_checkpoints_write_of(MbusWork *work, MbusSlotOf *of, int n)
{
	times_allocate();
	for (int i = 0; i < n; i += CHECKPOINT_BATCH)
		due_write(work, of + i, Min(CHECKPOINT_BATCH, n - i));
}

static void
times_allocate(void)
{
	if (written_at == NULL)
		written_at = MemoryContextAllocZero(TopMemoryContext,
											mbus_sub_slots() *
											sizeof(TimestampTz));
}

/* Lists the subscriptions that are due. */
static int
due_collect(MbusWork *work, TimestampTz now, MbusSlotOf **due)
{
	int			n = 0;

	*due = palloc(mbus_sub_slots() * sizeof(MbusSlotOf));
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		MbusSub    *sub = mbus_sub(s);

		if (sub->database != work->db->database ||
			sub->schema != work->schema || sub->dropped || !sub->loaded ||
			!sub->changed_since ||
			(sub->acks <= CHECKPOINT_ACKS &&
			 !TimestampDifferenceExceeds(written_at[s], now, CHECKPOINT_MS *
										 (1 + sub->nentries /
										  CHECKPOINT_ENTRIES))))
			continue;
		(*due)[n].slot = s;
		(*due)[n].subscription_id = sub->subscription_id;
		n++;
	}
	LWLockRelease(mbus_delivery_lock());
	return n;
}

/* Writes some; what could not be written stays due. */
static void
due_write(MbusWork *work, MbusSlotOf *due, int n)
{
	Writing		writing = {n, due};

	if (mbus_task_run(work, MBUS_TASK_CHECKPOINT, checkpoints_write, &writing,
					  "writing checkpoints") == MBUS_DONE)
	{
		for (int i = 0; i < n; i++)
			written_at[due[i].slot] = mbus_now();
	}
	else
	{
		for (int i = 0; i < n; i++)
			changed_set(work, &due[i], true);
	}
}

/*
 * checkpoints_write writes some in one transaction.  A subscription is marked
 * as unchanged before it is copied, so that a change that comes meanwhile is
 * not lost.
 */
static MbusOutcome
checkpoints_write(MbusWork *work, void *arg)
{
	Writing    *writing = arg;
	MbusPosition position = {0};
	SPIPlanPtr	plan[2] = {0};

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_lock_timeout(100);
	for (int i = 0; i < writing->n; i++)
	{
		MbusSlotOf *due = &writing->due[i];

		CHECK_FOR_INTERRUPTS();
		changed_set(work, due, false);
		if (!mbus_position_copy(work, due->slot, due->subscription_id,
								&position))
			continue;			/* it was dropped */
		position_lower(&position);
		if (!checkpoint_store(plan, &position))
			changed_set(work, due, true);	/* a seek or drop is open */
	}
	mbus_numbering_store(work->db);
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * position_lower moves an ordered subscription's cursor below all that it is
 * not done with.
 */
static void
position_lower(MbusPosition *position)
{
	int			npending = 0;
	int			nskips = 0;

	if (!position->ordered)
		return;
	position->cursor = Min(position->cursor, position->passed - 1);
	if (position->waits)
		position->cursor = Min(position->cursor, position->wait_low);
	if (position->npending > 0)
		position->cursor = Min(position->cursor, position->pending[0].id - 1);
	for (int i = 0; i < position->npending; i++)
	{
		if (position->pending[i].lease != 0)
			position->pending[npending++] = position->pending[i];
	}
	position->npending = npending;
	for (int i = 0; i < position->nskips; i++)
	{
		if (position->skips[2 * i] > position->cursor)
			continue;
		position->skips[2 * nskips] = position->skips[2 * i];
		position->skips[2 * nskips + 1] = Min(position->skips[2 * i + 1],
											  position->cursor + 1);
		nskips++;
	}
	position->nskips = nskips;
}

/*
 * checkpoint_store writes a row; not that of a subscription that is gone, or
 * is being dropped, or that of another one which a restore has put in its
 * place.
 */
static bool
checkpoint_store(SPIPlanPtr *plan, const MbusPosition *position)
{
	static const char *const command[] = {
		"WITH mine AS (SELECT FROM message_bus.checkpoint"
		" WHERE subscription_id = $1 AND EXISTS"
		" (SELECT FROM message_bus.subscription s"
		" WHERE s.subscription_id = $1 AND s.created_at = $11)"
		" FOR NO KEY UPDATE SKIP LOCKED)"
		" UPDATE message_bus.checkpoint SET at = $2, since_lease = $3,"
		" cursor = $4, due_at = $5, retry_at = $6, ids = $7, attempts = $8,"
		" leases = $9, skipped = $10 FROM mine WHERE subscription_id = $1",
		"INSERT INTO message_bus.checkpoint (subscription_id, at,"
		" since_lease, cursor, due_at, retry_at, ids, attempts, leases,"
		" skipped) SELECT subscription_id, $2, $3, $4, $5, $6, $7, $8, $9,"
		" $10 FROM message_bus.subscription s WHERE subscription_id = $1"
		" AND s.created_at = $11"
		" AND NOT EXISTS (SELECT FROM message_bus.checkpoint c"
		" WHERE c.subscription_id = $1)"
		" FOR KEY SHARE OF s SKIP LOCKED"
	};
	Oid			types[PARAMS] = {INT4OID, TIMESTAMPTZOID, INT8OID, INT8OID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, INT8ARRAYOID, INT2ARRAYOID,
	INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID};
	Datum		values[PARAMS];
	int			n = position->npending;
	bool		stored = false;
	int64	   *number = MemoryContextAllocHuge(CurrentMemoryContext,
												(n + 1) * sizeof(int64));
	Datum	   *attempt = MemoryContextAllocHuge(CurrentMemoryContext,
												 (n + 1) * sizeof(Datum));

	values[0] = Int32GetDatum(position->subscription_id);
	values[1] = TimestampTzGetDatum(mbus_now());
	values[2] = Int64GetDatum(position->since_lease);
	values[3] = Int64GetDatum(position->cursor);
	values[4] = TimestampTzGetDatum(position->due_at);
	values[5] = TimestampTzGetDatum(position->retry_at);
	for (int i = 0; i < n; i++)
		number[i] = position->pending[i].id;
	values[6] = int64_array(number, n);
	for (int i = 0; i < n; i++)
		attempt[i] = Int16GetDatum(position->pending[i].attempt);
	values[7] = PointerGetDatum(construct_array(attempt, n, INT2OID, 2, true,
												TYPALIGN_SHORT));
	for (int i = 0; i < n; i++)
		number[i] = position->pending[i].lease;
	values[8] = int64_array(number, n);
	values[9] = int64_array(position->skips, position->nskips * 2);
	values[10] = TimestampTzGetDatum(position->created_at);

	for (int i = 0; i < 2; i++)
	{
		if (plan[i] == NULL)
			plan[i] = SPI_prepare(command[i], PARAMS, types);
		if (plan[i] == NULL ||
			SPI_execute_plan(plan[i], values, NULL, false, 0) < 0)
			elog(ERROR, "could not write message_bus.checkpoint");
		if ((stored = SPI_processed > 0))
			break;
	}
	pfree(number);
	pfree(attempt);
	return stored;
}

static Datum
int64_array(const int64 *value, int n)
{
	Datum	   *element = MemoryContextAllocHuge(CurrentMemoryContext,
												 (n + 1) * sizeof(Datum));
	ArrayType  *array;

	for (int i = 0; i < n; i++)
		element[i] = Int64GetDatum(value[i]);
	array = construct_array(element, n, INT8OID, 8, FLOAT8PASSBYVAL,
							TYPALIGN_DOUBLE);
	pfree(element);
	return PointerGetDatum(array);
}

/*
 * changed_set says whether a subscription has changed since its checkpoint.
 */
static void
changed_set(MbusWork *work, const MbusSlotOf *due, bool changed)
{
	MbusSub    *sub = mbus_sub(due->slot);

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	if (sub->database == work->db->database && sub->schema == work->schema &&
		sub->subscription_id == due->subscription_id)
	{
		sub->changed_since = changed;
		if (!changed)
			sub->acks = 0;
	}
	LWLockRelease(mbus_delivery_lock());
}

/* ------------------------------------------------------------------------
 * Copying
 * ------------------------------------------------------------------------
 */

/*
 * mbus_position_copy copies what memory has of a subscription.  False if the
 * slot is not its own any more or not loaded.  The arrays are allocated in
 * the current memory context, or reused.
 */
bool
mbus_position_copy(MbusWork *work, uint32 slot, int32 subscription_id,
				   MbusPosition *position)
{
	MbusSub    *sub = mbus_sub(slot);

	for (;;)
	{
		int			npending;
		int			nskips;
		bool		there;
		bool		room;

		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		there = sub->database == work->db->database &&
			sub->schema == work->schema &&
			sub->subscription_id == subscription_id && sub->loaded &&
			!sub->dropped;
		npending = sub->nentries;
		nskips = sub->nskipped;
		room = npending <= position->maxpending &&
			nskips <= position->maxskips;
		if (there && room)
			position_fill(sub, position);
		LWLockRelease(mbus_delivery_lock());
		if (!there)
			return false;
		if (room)
			break;
		position_grow(position, npending, nskips);
	}
	qsort(position->pending, position->npending, sizeof(MbusPending),
		  mbus_pending_compare);
	return true;
}

/* Makes room for that much, and a little more. */
static void
position_grow(MbusPosition *position, int npending, int nskips)
{
	if (position->pending)
		pfree(position->pending);
	if (position->skips)
		pfree(position->skips);
	position->maxpending = npending + npending / 4 + 64;
	position->maxskips = nskips + nskips / 4 + 64;
	position->pending = MemoryContextAllocHuge(CurrentMemoryContext,
											   position->maxpending *
											   sizeof(MbusPending));
	position->skips = MemoryContextAllocHuge(CurrentMemoryContext,
											 position->maxskips * 2 *
											 sizeof(int64));
}

/*
 * position_fill copies; there is room for it, and the caller holds the lock.
 */
static void
position_fill(MbusSub *sub, MbusPosition *position)
{
	position->subscription_id = sub->subscription_id;
	position->created_at = sub->created_at;
	position->ordered = sub->ordered;
	position->since_lease = sub->since_lease;
	position->cursor = sub->cursor;
	position->due_at = sub->due_position.at;
	position->retry_at = Min(sub->retry_position.at,
							 Min(sub->retry_from.at, sub->retry_floor));
	position->waits = sub->wait_low != 0;
	position->wait_low = sub->wait_low;
	if (sub->wait_passed != 0)
		position->wait_low = Min(sub->wait_low, sub->wait_passed - 1);
	position->passed = PG_INT64_MAX;
	position->npending = 0;
	for (uint32 e = sub->ready; e != MBUS_NONE; e = mbus_entry(e)->next)
		pending_add(position, mbus_entry(e), 0);
	for (uint32 e = sub->nexts; e != MBUS_NONE; e = mbus_entry(e)->next)
		pending_add(position, mbus_entry(e), 0);
	for (uint32 l = sub->leases; l != MBUS_NONE; l = mbus_lease(l)->next)
	{
		for (uint32 e = mbus_lease(l)->first; e != MBUS_NONE;
			 e = mbus_entry(e)->next)
			pending_add(position, mbus_entry(e),
						mbus_entry(e)->state == MBUS_ENTRY_LEASED ?
						mbus_lease(l)->number : 0);
	}

	position->nskips = 0;
	for (uint32 s = sub->skipped; s != MBUS_NONE &&
		 position->nskips < position->maxskips; s = mbus_skip(s)->next)
	{
		position->skips[2 * position->nskips] = mbus_skip(s)->lo;
		position->skips[2 * position->nskips + 1] = mbus_skip(s)->hi;
		position->nskips++;
	}
}

/* Adds an entry, and keeps the lowest id that was passed over for one. */
static void
pending_add(MbusPosition *position, const MbusEntry *entry, int64 lease)
{
	MbusPending *pending;

	if (entry->passed != 0)
		position->passed = Min(position->passed, entry->passed);
	if (position->npending >= position->maxpending)
		return;					/* cannot be: all are counted */
	pending = &position->pending[position->npending++];
	pending->id = entry->id;
	pending->attempt = entry->attempt;
	pending->lease = lease;
}

/*
 * mbus_pending_compare orders messages that are pending by their ids.
 */
int
mbus_pending_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusPending *) a)->id,
					  ((const MbusPending *) b)->id);
}
