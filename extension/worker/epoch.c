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
 * DROP EXTENSION and DROP DATABASE take server_state along, and a lease of
 * before must not fit a message of the next extension.  So epochs go by the
 * clock: they are seconds since 2025, and none is begun before its second has
 * come.  All that were begun up to now are then below the next second's,
 * whatever is known of them.  The first numbering of an extension begins with
 * the second after that in which shared memory was made, or above all that
 * shared memory has seen since, and waits for it, mostly not at all.  One that
 * follows another is above that in any case.  On another timeline (a
 * promotion) it is a minute ahead of the clock, since that server's may have
 * differed from this one's.
 *
 * What outruns the clock: that minute, leases of a dump from a server whose
 * clock was ahead, more leases a second than an epoch has, and a clock that was
 * set back while the server was down.  Only then, and only if besides the
 * extension is dropped and the server is restarted before the clock has caught
 * up, may a number come twice.  There are epochs until 2093.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "state/clock.h"
#include "state/part.h"
#include "state/state.h"
#include "worker/epoch.h"
#include "worker/task.h"

/* 2025-01-01 00:00 UTC, as PostgreSQL counts from 2000 */
#define EPOCHS_BEGAN	(INT64CONST(9132) * USECS_PER_DAY)

#define CLOCKS_DIFFER	60		/* seconds, at most, of two servers */
#define AWAIT_S			2		/* what is further ahead is not waited for */

static pg_atomic_uint64 *next_epoch = NULL; /* above all that any database
											 * here has begun, but for those
											 * that have outrun the clock */

static Size epoch_size(void);
static void epoch_startup(void *memory, bool found, int tranche);
static int64 epoch_second(void);
static MbusOutcome epoch_raise(MbusWork *work, void *arg);

/*
 * mbus_epoch_init asks for shared memory; from _PG_init.
 */
void
mbus_epoch_init(void)
{
	static const MbusPart part = {"message_bus epochs", epoch_size,
	epoch_startup};

	mbus_state_part(&part);
}

static Size
epoch_size(void)
{
	return sizeof(pg_atomic_uint64);
}

static void
epoch_startup(void *memory, bool found, int tranche)
{
	next_epoch = memory;
	if (!found)
		pg_atomic_init_u64(next_epoch, (uint64) (epoch_second() + 1));
}

/* The epoch whose second it is. */
static int64
epoch_second(void)
{
	return (mbus_now() - EPOCHS_BEGAN) / USECS_PER_SEC;
}

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
 * mbus_epoch_floor returns the lowest epoch that a numbering may begin; the
 * first one of an extension ("fresh"), or one on another timeline.
 */
int64
mbus_epoch_floor(MbusDatabase *db, bool fresh, bool other_timeline)
{
	int64		floor;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	floor = db->delivery.highest_epoch + INT64CONST(1);
	LWLockRelease(mbus_delivery_lock());
	floor = Max(floor, epoch_second());
	if (fresh)
		floor = Max(floor, (int64) pg_atomic_read_u64(next_epoch));
	if (other_timeline)
		floor = Max(floor, epoch_second() + 1 + CLOCKS_DIFFER);
	return floor;
}

/*
 * mbus_epoch_await waits until an epoch's second has come, unless it is far
 * ahead; called outside transactions.
 */
void
mbus_epoch_await(int64 epoch)
{
	int64		ahead;

	while ((ahead = epoch - epoch_second()) > 0 && ahead <= AWAIT_S)
	{
		CHECK_FOR_INTERRUPTS();
		pg_usleep(10000);
	}
}

/*
 * mbus_epoch_begin lets leases of an epoch be given out, which is durable.
 */
void
mbus_epoch_begin(MbusDatabase *db, int64 epoch)
{
	bool		far = epoch > epoch_second() + AWAIT_S;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	db->delivery.lease_epoch = (int32) epoch;
	db->delivery.highest_epoch = Max(db->delivery.highest_epoch,
									 (int32) epoch);
	db->delivery.lease_next = 0;
	/* under the lock: two workers may raise it */
	if (!far && (int64) pg_atomic_read_u64(next_epoch) <= epoch)
		pg_atomic_write_u64(next_epoch, (uint64) (epoch + 1));
	LWLockRelease(mbus_delivery_lock());
	ConditionVariableBroadcast(&db->changed);
}
