/*
 * epoch.c
 *		Epochs of leases, and of numbers of facts.
 *
 * A lease's number is epoch << 17 | n, with the node between the bits
 * (base/ids.h).  The epoch is in message_bus.server_state, raised with
 * numbering at every start (segment_open.c) and here when n runs low; it is
 * durable before the first number of it is given out, so that no lease is
 * given out twice, and every later one is higher.  Numbers of facts begin with
 * it too (fact_number.c).  A worker that ends between the commit and shared
 * memory has used up an epoch.
 *
 * DROP EXTENSION takes server_state along, and DROP DATABASE too, and a lease
 * of before must not fit a message of the next extension.  So epochs are
 * seconds since 2025, and none begins before its second has come: those of an
 * extension that has been dropped were of seconds that are over, and a new one
 * begins above
 *
 *	- all epochs that this shared memory has seen of the database, and those
 *	  of others that are not ahead of the clock: it may be one of them that
 *	  was dropped and made anew
 *	- the second in which shared memory was made: what a server of before has
 *	  begun is not above that
 *
 * which it waits for, up to a second.  An epoch is ahead of the clock only
 * where numbers run low (131,072 are given out within a second), a restore has
 * brought higher ones, the clock was set back while the server was down, or a
 * server was promoted within 256 seconds after the last epoch's start: then the
 * next is 256 above it, for what the old timeline may have begun.
 *
 * When an epoch's numbers are used up claims wait for the worker, which begins
 * the next one when half are.  There are epochs until 2093.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "state/clock.h"
#include "state/fact_number.h"
#include "state/state.h"
#include "worker/epoch.h"
#include "worker/task.h"

/* 2025-01-01 00:00 UTC, as PostgreSQL counts from 2000 */
#define EPOCHS_BEGAN	(INT64CONST(9132) * USECS_PER_DAY)

#define TIMELINE_SKIP	256
#define WAIT_S			2		/* what is further ahead of the clock is not
								 * waited for */

static MbusOutcome epoch_raise(MbusWork *work, void *arg);
static int64 second_of(TimestampTz at);

/*
 * mbus_epoch_look begins a new epoch if half of the leases' numbers, or three
 * quarters of those of facts, are used up.
 */
void
mbus_epoch_look(MbusWork *work)
{
	int32		next;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	next = work->db->delivery.lease_next;
	LWLockRelease(mbus_delivery_lock());
	if (next >= mbus_leases_per_epoch / 2 || mbus_fact_numbers_low(work->db))
		(void) mbus_epoch_raise(work, 0);
}

/*
 * mbus_epoch_raise begins a new epoch, above "least"; false if that failed.
 */
bool
mbus_epoch_raise(MbusWork *work, int64 least)
{
	int64		epoch = least;
	MbusOutcome outcome;

	if (!mbus_tasks_begin(work, MBUS_TASK_EPOCH, false))
		return false;
	outcome = mbus_task_run(work, MBUS_TASK_EPOCH, epoch_raise, &epoch,
							"beginning an epoch of leases");
	mbus_tasks_end(work, MBUS_TASK_EPOCH);
	if (outcome != MBUS_DONE)
		return false;
	mbus_epoch_begin(work->db, epoch);
	return true;
}

/*
 * Raises the epoch above *epoch, and sets that to the new one; durable when it
 * returns.
 */
static MbusOutcome
epoch_raise(MbusWork *work, void *arg)
{
	int64	   *epoch = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	*epoch = mbus_epoch_store(*epoch);
	ForceSyncCommit();
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * mbus_epoch_store writes down an epoch above "least" and the last one, and
 * returns it; in the caller's transaction, which must flush its commit.
 */
int64
mbus_epoch_store(int64 least)
{
	bool		isnull;
	int64		epoch;

	epoch = mbus_sql_int64(&isnull, "UPDATE message_bus.server_state"
						   " SET epoch = least(greatest(epoch::int8, "
						   INT64_FORMAT ") + 1, %d) RETURNING epoch::int8",
						   least, MBUS_EPOCH_MAX + 1);
	if (isnull)
		elog(ERROR, "message_bus.server_state has no row");
	mbus_task_number_check(epoch, MBUS_EPOCH_MAX, "lease epochs");
	return epoch;
}

/*
 * mbus_epoch_next returns the epoch that a numbering begins: above "stored", the
 * last of an extension that has been numbered before ("known").
 */
int64
mbus_epoch_next(MbusDatabase *db, int64 stored, bool known,
				bool other_timeline)
{
	int64		second = second_of(mbus_now());
	int64		before;

	if (known)
		return other_timeline ? Max(stored + TIMELINE_SKIP, second + 1) :
			Max(stored + 1, second);

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	before = Max(stored, db->delivery.highest_epoch);
	LWLockRelease(mbus_delivery_lock());
	before = Max(before, second_of(mbus_state_made_at()));
	before = Max(before, Min((int64) mbus_epoch_highest(), second));
	return Max(before + 1, second);
}

/* The second that a time is in, as epochs count. */
static int64
second_of(TimestampTz at)
{
	return (at - EPOCHS_BEGAN) / USECS_PER_SEC;
}

/*
 * mbus_epoch_wait waits until an epoch's second has come, unless it is far
 * ahead; outside transactions.  By the bus's time, which goes on in any case.
 */
void
mbus_epoch_wait(int64 epoch)
{
	int64		ahead;

	while ((ahead = epoch - second_of(mbus_now())) > 0 && ahead <= WAIT_S)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 PG_WAIT_EXTENSION);
	}
}

/*
 * mbus_epoch_begin lets leases and numbers of facts of an epoch be given out,
 * which is durable.
 */
void
mbus_epoch_begin(MbusDatabase *db, int64 epoch)
{
	mbus_epoch_seen((uint32) epoch);
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	db->delivery.lease_epoch = (int32) epoch;
	db->delivery.highest_epoch = Max(db->delivery.highest_epoch,
									 (int32) epoch);
	db->delivery.lease_next = 0;
	LWLockRelease(mbus_delivery_lock());
	mbus_fact_numbers_begin(db, epoch);
	ConditionVariableBroadcast(&db->changed);
}
