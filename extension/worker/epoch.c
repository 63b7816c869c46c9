/*
 * epoch.c
 *		Epochs of leases.
 *
 * A lease number is epoch << 22 | n.  The epoch is in
 * message_bus.server_state, raised with numbering at every start
 * (segment_open.c) and here when n runs low; it is durable before the first
 * number of it is given out, so that no lease is given out twice, and every
 * later one is higher.  A worker that ends between the commit and shared
 * memory has used up an epoch.
 *
 * DROP EXTENSION takes server_state along, and a lease of before must not fit
 * a message of the next extension.  So a numbering begins no epoch below the
 * seconds since 2025, nor one that shared memory has seen in this database.
 * Normal use does not outrun that clock: an epoch lasts for three million
 * leases.  There are epochs until 2093.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "state/clock.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "state/state.h"
#include "worker/epoch.h"
#include "worker/task.h"

/* 2025-01-01 00:00 UTC, as PostgreSQL counts from 2000 */
#define EPOCHS_BEGAN	(INT64CONST(9132) * USECS_PER_DAY)

static MbusOutcome epoch_raise(MbusWork *work, void *arg);

/* Begins a new epoch if three quarters of the numbers are used up. */
void
mbus_epoch_look(MbusWork *work)
{
	int32		next;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	next = work->db->delivery.lease_next;
	LWLockRelease(mbus_delivery_lock());
	if (next >= mbus_leases_per_epoch / 4 * 3)
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
 * mbus_epoch_floor returns the lowest epoch that a numbering may begin.
 */
int64
mbus_epoch_floor(MbusDatabase *db)
{
	int64		highest;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	highest = db->delivery.highest_epoch;
	LWLockRelease(mbus_delivery_lock());
	return Max(highest + 1,
			   (mbus_now() - EPOCHS_BEGAN) / USECS_PER_SEC);
}

/*
 * mbus_epoch_begin lets leases of an epoch be given out, which is durable.
 */
void
mbus_epoch_begin(MbusDatabase *db, int64 epoch)
{
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	db->delivery.lease_epoch = (int32) epoch;
	db->delivery.highest_epoch = Max(db->delivery.highest_epoch,
									 (int32) epoch);
	db->delivery.lease_next = 0;
	LWLockRelease(mbus_delivery_lock());
	ConditionVariableBroadcast(&db->changed);
}
