/*
 * expiry.c
 *		The worker ends leases whose time is over, and says when it looks
 *		again.
 *
 * Leases that have ended are failures, written in batches: entries are
 * pinned as by a nack, failure rows inserted, and the callback of the commit
 * lets them wait for their time (delivery/effect.c).  The commit is flushed:
 * the next delivery of a message has a higher attempt than any before, also
 * after a crash.  If it fails the abort takes the pins off and it is tried
 * again.
 *
 * A message that is given up may go to a dead-letter channel, whose segment
 * this very process has to open.  Publishing does not wait for it here but
 * errors (mbus_worker_wait); the task is then "blocked", the segment is
 * opened, and the task runs again.
 *
 * mbus_deliveries_serve is the door to all that claims wait for: epochs
 * (epoch.c), subscriptions to load (load.c), leases to end.
 *
 * Waking.  Before it sleeps the worker says in db->delivery.expiry_wake when
 * it will look again, not later than the earliest deadline.  A claim with an
 * earlier one wakes it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "delivery/fail.h"
#include "delivery/hold.h"
#include "delivery/deadline.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "facts/facts.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/epoch.h"
#include "worker/expiry.h"
#include "worker/load.h"
#include "worker/segment_open.h"
#include "worker/task.h"

#define EXPIRE_LEASES	100		/* in one transaction */
#define EXPIRE_MESSAGES	10000
#define EXPIRE_BLOCKED	3		/* tries, if segments must be opened */
#define EXPIRE_STUCK_MS 100
#define EXPIRE_AGAIN_MS 60000	/* for one that cannot be seen to: longer than
								 * tasks are put off */
#define EXPIRE_LOCKED_MS 1000	/* for one that somebody's lock is in the way
								 * of */
#define EXPIRE_LOCK_MS	2		/* to wait for that in, one by one */
#define EXPIRE_POSTPONED 1000	/* at one time */

/* Leases to be seen to in one transaction. */
typedef struct Expiring
{
	int			most;
	int			leases;			/* out */
	int			messages;		/* out */
	int64		lease;			/* out: the one worked on last */
} Expiring;

static void leases_expire(MbusWork *work);
static TimestampTz earliest_deadline(MbusDatabase *db);
static MbusOutcome leases_fail(MbusWork *work, void *arg);
static const char *close_reason(int code);
static bool lease_fail(MbusWork *work, Expiring *expiring);
static void lease_postpone(MbusWork *work, int64 number, int ms);

/*
 * mbus_deliveries_serve does what claims wait for.  Cheap if there is nothing
 * to do: other tasks call it in between.
 */
void
mbus_deliveries_serve(MbusWork *work)
{
	if (!work->db->numbering.ready)
		return;
	mbus_epoch_look(work);
	mbus_subscriptions_load(work);
	leases_expire(work);
}

/*
 * mbus_deliveries_wake returns when the worker must look again, "wake" at the
 * latest, and lets claims know.
 */
TimestampTz
mbus_deliveries_wake(MbusWork *work, TimestampTz wake)
{
	MbusDatabase *db = work->db;
	TimestampTz earliest;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	earliest = mbus_deadline_earliest(db->database);
	if (work->expiry_stuck)
		earliest = Max(earliest,
					   TimestampTzPlusMilliseconds(mbus_now(),
												   EXPIRE_STUCK_MS));
	db->delivery.expiry_wake = wake = Min(wake, earliest);
	LWLockRelease(mbus_delivery_lock());
	return wake;
}

/* ------------------------------------------------------------------------
 * Leases that have ended
 * ------------------------------------------------------------------------
 */

/*
 * leases_expire sees to all leases that have ended, and to messages that
 * turned out corrupt.  After an error it takes one at a time, and puts off
 * one that fails again, so that it does not hold up the others.
 */
static void
leases_expire(MbusWork *work)
{
	int			blocked = 0;
	int			postponed = 0;
	bool		single = work->backoff[MBUS_TASK_EXPIRE].failures > 0;

	work->expiry_stuck = false;
	if (earliest_deadline(work->db) > mbus_now())
		return;
	if (!mbus_tasks_begin(work, MBUS_TASK_EXPIRE, false))
	{
		work->expiry_stuck = true;
		return;
	}
	do
	{
		Expiring	expiring = {0};
		MbusOutcome outcome;

		expiring.most = single ? 1 : EXPIRE_LEASES;
		outcome = mbus_task_run(work, MBUS_TASK_EXPIRE, leases_fail,
								&expiring, "ending leases");
		mbus_task_let_go(work);
		mbus_segments_open(work);
		if (outcome == MBUS_DONE)
		{
			mbus_count(MBUS_C_LEASES_EXPIRED, expiring.messages);
			if (expiring.leases == 0)
				break;
			continue;
		}
		if (outcome == MBUS_BLOCKED && ++blocked <= EXPIRE_BLOCKED)
			continue;
		blocked = 0;
		if (single)
		{
			/* put off this one, and go on with the others */
			if (expiring.lease == 0 || ++postponed > EXPIRE_POSTPONED)
				break;
			lease_postpone(work, expiring.lease, outcome == MBUS_BLOCKED ?
						   EXPIRE_LOCKED_MS : EXPIRE_AGAIN_MS);
		}
		single = true;
	} while (earliest_deadline(work->db) <= mbus_now());
	mbus_tasks_end(work, MBUS_TASK_EXPIRE);

	/* nothing can be done now: the worker is to sleep all the same */
	work->expiry_stuck = earliest_deadline(work->db) <= mbus_now();
}

static TimestampTz
earliest_deadline(MbusDatabase *db)
{
	TimestampTz earliest;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	earliest = mbus_deadline_earliest(db->database);
	LWLockRelease(mbus_delivery_lock());
	return earliest;
}

/*
 * leases_fail gives up some leases, in one transaction.
 */
static MbusOutcome
leases_fail(MbusWork *work, void *arg)
{
	Expiring   *expiring = arg;
	int			n = 0;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (expiring->most == 1)
		mbus_task_lock_timeout(EXPIRE_LOCK_MS);
	while (n < expiring->most && expiring->messages < EXPIRE_MESSAGES &&
		   lease_fail(work, expiring))
		n++;
	if (n > 0)
		ForceSyncCommit();
	mbus_task_commit();
	expiring->leases = n;
	return MBUS_DONE;
}

/* Gives up what of one lease has ended; false if there is none. */
static bool
lease_fail(MbusWork *work, Expiring *expiring)
{
	MbusHolding holding;
	bool		corrupt;

	CHECK_FOR_INTERRUPTS();
	if (!mbus_hold_expired(work->db, work->schema, &holding, &corrupt))
		return false;
	expiring->lease = holding.lease;
	if (corrupt)
		mbus_fail(work->schema, work->db, &holding, "corrupt", 0, NULL);
	else if (holding.lost)
		mbus_fail(work->schema, work->db, &holding, "disconnected", -1,
				  close_reason(holding.close_code));
	else
		mbus_fail(work->schema, work->db, &holding, "expired", 0, NULL);
	if (!corrupt)
		expiring->messages += holding.n;
	return true;
}

/* close_reason tells how the socket of a lease was closed, if that is known. */
static const char *
close_reason(int code)
{
	return code == 0 ? "the session was closed" :
		psprintf("the socket was closed with code %d", code);
}

/*
 * lease_postpone gives a lease that cannot be ended some more time.  Nobody
 * is promised less: its messages may be acknowledged until then.
 */
static void
lease_postpone(MbusWork *work, int64 number, int ms)
{
	TimestampTz now = mbus_now();
	TimestampTz later = TimestampTzPlusMilliseconds(now, ms);
	uint32		index;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	index = mbus_lease_find(work->db->database, work->schema, number);
	if (index != MBUS_NONE)
	{
		for (uint32 e = mbus_lease(index)->first; e != MBUS_NONE;
			 e = mbus_entry(e)->next)
		{
			if (mbus_entry(e)->pin == MBUS_PIN_NONE)
				mbus_entry(e)->deadline = Max(mbus_entry(e)->deadline, later);
		}
	}
	LWLockRelease(mbus_delivery_lock());
}
