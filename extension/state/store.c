/*
 * store.c
 *		Stores of large bodies in shared memory: which take bodies.
 *
 * A store is a table part_<n> that the worker makes and drops
 * (worker/store_open.c).  A shared one takes the bodies of a series, one after
 * the other; an own one takes one body, and some are kept ready.  Who writes a
 * body takes a number and room in one step under the state lock, and locks the
 * table then.  Nothing is registered: a body is seen through the row that
 * refers to it, and the table's lock keeps the table.  What the transaction
 * does not use is a gap.
 *
 * Between the step and the lock the worker may drop the table: a shared one
 * that was closed, with all in it expired; an own one that it cannot tell from
 * one left behind.  Who finds the table gone takes another.
 *
 * Where none is open or ready, who wants one says so, sets the worker's latch
 * and waits, as for a segment.
 *
 * Until when a shared store is kept: when one is opened, its row promises a
 * time, that of the first body and the series' window more.  A message that
 * expires by then only raises the latest expiry here (mbus_store_raise), as
 * long as the store is open; any other has a row in body_hold.  The closing
 * takes the store out of here in the same step in which it reads that expiry:
 * so a message is in one of the two.  After a crash the promise stands.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "base/settings.h"
#include "state/clock.h"
#include "state/disk.h"
#include "state/state.h"
#include "state/store.h"

static bool shared_take(MbusDatabase *db, int32 series, int64 size,
						TimestampTz expires_at, MbusStoreTaken *taken);
static bool own_take(MbusDatabase *db, MbusStoreTaken *taken);
static void own_limit(void);
static void store_xact_callback(XactEvent event, void *arg);

static bool look_at_commit = false; /* of this transaction */

/*
 * mbus_store_init registers the callback; from _PG_init while the server
 * preloads libraries.
 */
void
mbus_store_init(void)
{
	RegisterXactCallback(store_xact_callback, NULL);
}

/*
 * mbus_store_shared takes a number and room for a body in the store of a
 * series.  Waits for the worker where none is open; 55000 if that takes too
 * long, 53100 if the disk is full.
 */
void
mbus_store_shared(MbusDatabase *db, Oid schema, int32 series, int64 size,
				  TimestampTz expires_at, MbusStoreTaken *taken)
{
	TimestampTz started = 0;

	for (;;)
	{
		bool		done = false;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (db->schema == schema)
			done = shared_take(db, series, size, expires_at, taken);
		LWLockRelease(&db->lock);
		if (done)
			break;
		mbus_disk_check(db);
		if (started == 0)
			ConditionVariablePrepareToSleep(&db->changed);
		mbus_worker_wait(db, &started, NULL);
	}
	ConditionVariableCancelSleep();
}

/*
 * mbus_store_try takes what mbus_store_shared() takes, if there is a store
 * that is open: it does not wait.
 */
bool
mbus_store_try(MbusDatabase *db, int32 series, int64 size,
			   TimestampTz expires_at, MbusStoreTaken *taken)
{
	bool		done;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	done = shared_take(db, series, size, expires_at, taken);
	LWLockRelease(&db->lock);
	return done;
}

/*
 * shared_take takes it if there is one, else says that one is wanted.  Under
 * the lock.
 */
static bool
shared_take(MbusDatabase *db, int32 series, int64 size,
			TimestampTz expires_at, MbusStoreTaken *taken)
{
	MbusOpenStore *store = &db->stores.open[series];

	if (store->store_no == 0 || store->next_n >= MBUS_BODIES_LIMIT ||
		store->bytes >= (int64) mbus_store_max_mb * 1024 * 1024)
	{
		store->wanted = Max(store->wanted, expires_at);
		return false;
	}
	taken->body = MbusBodyOf(store->store_no, store->next_n++);
	taken->relid = store->relid;
	store->bytes += size;
	store->max_expires_at = Max(store->max_expires_at,
								Min(expires_at, store->promised));
	return true;
}

/*
 * mbus_store_own takes a store for one body.  53400 if there are as many as
 * may be; else as above.
 */
void
mbus_store_own(MbusDatabase *db, Oid schema, MbusStoreTaken *taken)
{
	TimestampTz started = 0;

	for (;;)
	{
		bool		done = false;
		bool		full = false;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (db->schema == schema)
		{
			done = own_take(db, taken);
			full = !done && db->stores.own >= mbus_max_own_stores;
		}
		LWLockRelease(&db->lock);
		if (done)
			break;
		if (full)
			own_limit();
		mbus_disk_check(db);
		if (started == 0)
			ConditionVariablePrepareToSleep(&db->changed);
		mbus_worker_wait(db, &started, NULL);
	}
	ConditionVariableCancelSleep();
	mbus_wake_worker(db);		/* it makes another */
}

/* The oldest of those that are ready.  Under the lock. */
static bool
own_take(MbusDatabase *db, MbusStoreTaken *taken)
{
	MbusStores *stores = &db->stores;

	stores->own_at = mbus_now();
	if (stores->nready == 0)
	{
		stores->own_wanted = true;
		return false;
	}
	taken->body = MbusBodyOf(stores->ready[0].store_no, stores->ready[0].n);
	taken->relid = stores->ready[0].relid;
	stores->nready--;
	memmove(&stores->ready[0], &stores->ready[1],
			stores->nready * sizeof(MbusReadyStore));
	return true;
}

static void
own_limit(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many large bodies"),
			 errdetail("At most %d bodies may have a store of their own.",
					   mbus_max_own_stores),
			 errhint("Wait until some have expired, delete some, or increase message_bus.max_own_stores.")));
}

/*
 * mbus_store_raise lets an open store be kept until a time; false if it is not
 * open here, or that is later than what is promised.
 */
bool
mbus_store_raise(MbusDatabase *db, Oid schema, int32 store_no,
				 TimestampTz expires_at)
{
	bool		raised = false;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	for (int s = 1; s <= MBUS_MAX_SERIES && !raised; s++)
	{
		MbusOpenStore *store = &db->stores.open[s];

		raised = db->schema == schema && store->store_no == store_no &&
			expires_at <= store->promised;
		if (raised)
			store->max_expires_at = Max(store->max_expires_at, expires_at);
	}
	LWLockRelease(&db->lock);
	return raised;
}

/*
 * mbus_store_gone takes a store out of those that take bodies: somebody has
 * found that its table is not there.
 */
void
mbus_store_gone(MbusDatabase *db, int32 store_no)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		MbusOpenStore *store = &db->stores.open[s];

		if (store->store_no == store_no)
		{
			TimestampTz wanted = store->wanted;

			MemSet(store, 0, sizeof(*store));
			store->wanted = wanted;
		}
	}
	LWLockRelease(&db->lock);
}

/*
 * mbus_stores_look has the worker look, when the transaction has committed,
 * whether stores have become of no use: a message with a body was deleted or
 * purged, or its segment has gone.
 */
void
mbus_stores_look(void)
{
	look_at_commit = true;
}

/* It cannot fail: it has a database's memory only if that was found before. */
static void
store_xact_callback(XactEvent event, void *arg)
{
	MbusDatabase *db;

	if (!look_at_commit ||
		(event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	look_at_commit = false;
	db = event == XACT_EVENT_COMMIT ? mbus_database_or_null() : NULL;
	if (db && pg_atomic_exchange_u32(&db->store_look, 1) == 0)
		mbus_wake_worker(db);
}
