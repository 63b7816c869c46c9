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
 * What is rolled back and was not written to is given back at the end of the
 * (sub)transaction (taken[]): room in a shared store, and an own store, which
 * is ready again with the next number of a body in it.  Else who begins bodies
 * and rolls back would fill stores with nothing, and take all own ones there
 * may be.  An own store that cannot be given back is looked at by the worker at
 * once.  More of them in one transaction than TAKEN_MAX are not listed: the
 * worker looks.  PREPARE is refused: the number of a body lives in this memory
 * until it is committed.
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

#define TAKEN_MAX	64

/* What this transaction has taken and not written to yet. */
typedef struct Taken
{
	SubTransactionId subid;
	Oid			schema;
	Oid			relid;
	int64		body;			/* of a shared store, the last one */
	int64		bytes;			/* in a shared store; -1: an own one */
} Taken;

static bool shared_take(MbusDatabase *db, int32 series, int64 size,
						TimestampTz expires_at, MbusStoreTaken *out);
static bool own_take(MbusDatabase *db, MbusStoreTaken *store);
static void own_limit(void);
static void taken_note(Oid schema, const MbusStoreTaken *store, int64 bytes);
static bool taken_return(MbusDatabase *db, const Taken *one);
static bool ready_again(MbusDatabase *db, const Taken *one);
static void taken_rolled_back(SubTransactionId subid);
static void look_now(MbusDatabase *db);
static void store_xact_callback(XactEvent event, void *arg);
static void store_subxact_callback(SubXactEvent event, SubTransactionId subid,
								   SubTransactionId parent, void *arg);

/* of this transaction */
static bool look_at_commit = false;
static bool look_at_abort = false;
static bool used = false;		/* a body was taken or written to */
static Taken taken[TAKEN_MAX];
static int	ntaken = 0;

/*
 * mbus_store_init registers the callback; from _PG_init while the server
 * preloads libraries.
 */
void
mbus_store_init(void)
{
	RegisterXactCallback(store_xact_callback, NULL);
	RegisterSubXactCallback(store_subxact_callback, NULL);
}

/*
 * mbus_store_shared takes a number and room for a body in the store of a
 * series.  Waits for the worker where none is open; 55000 if that takes too
 * long, 53100 if the disk is full.
 */
void
mbus_store_shared(MbusDatabase *db, Oid schema, int32 series, int64 size,
				  TimestampTz expires_at, MbusStoreTaken *store)
{
	TimestampTz started = 0;

	for (;;)
	{
		bool		done = false;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (db->schema == schema)
			done = shared_take(db, series, size, expires_at, store);
		LWLockRelease(&db->lock);
		if (done)
			break;
		mbus_disk_check(db);
		if (started == 0)
			ConditionVariablePrepareToSleep(&db->changed);
		mbus_worker_wait(db, &started, NULL);
	}
	taken_note(schema, store, size);
	ConditionVariableCancelSleep();
}

/*
 * mbus_store_try takes what mbus_store_shared() takes, if there is a store
 * that is open: it does not wait.
 */
bool
mbus_store_try(MbusDatabase *db, int32 series, int64 size,
			   TimestampTz expires_at, MbusStoreTaken *store)
{
	bool		done;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	done = shared_take(db, series, size, expires_at, store);
	LWLockRelease(&db->lock);
	return done;
}

/*
 * shared_take takes it if there is one, else says that one is wanted.  Under
 * the lock.
 */
static bool
shared_take(MbusDatabase *db, int32 series, int64 size,
			TimestampTz expires_at, MbusStoreTaken *out)
{
	MbusOpenStore *store = &db->stores.open[series];

	if (store->store_no == 0 || store->next_n >= MBUS_BODIES_LIMIT ||
		store->bytes >= (int64) mbus_store_max_mb * 1024 * 1024)
	{
		store->wanted = Max(store->wanted, expires_at);
		return false;
	}
	out->body = MbusBodyOf(store->store_no, store->next_n++);
	out->relid = store->relid;
	store->bytes += size;
	store->wanted_until = Max(store->wanted_until, expires_at);
	return true;
}

/*
 * mbus_store_own takes a store for one body.  53400 if there are as many as
 * may be; else as above.
 */
void
mbus_store_own(MbusDatabase *db, Oid schema, MbusStoreTaken *store)
{
	TimestampTz started = 0;

	for (;;)
	{
		bool		done = false;
		bool		full = false;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (db->schema == schema)
		{
			done = own_take(db, store);
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
	taken_note(schema, store, -1);
	ConditionVariableCancelSleep();
	mbus_wake_worker(db);		/* it makes another */
}

/* The oldest of those that are ready.  Under the lock. */
static bool
own_take(MbusDatabase *db, MbusStoreTaken *store)
{
	MbusStores *stores = &db->stores;

	stores->own_at = mbus_now();
	if (stores->nready == 0)
	{
		stores->own_wanted = true;
		return false;
	}
	store->body = MbusBodyOf(stores->ready[0].store_no, stores->ready[0].n);
	store->relid = stores->ready[0].relid;
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
	mbus_store_written(store_no);	/* it is not given back */
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

/* ------------------------------------------------------------------------
 * What a transaction has taken
 * ------------------------------------------------------------------------
 */

/* Notes what was taken, until it is written to or the transaction ends. */
static void
taken_note(Oid schema, const MbusStoreTaken *store, int64 bytes)
{
	Taken		one = {
		.subid = GetCurrentSubTransactionId(),
		.schema = schema,
		.relid = store->relid,
		.body = store->body,
		.bytes = bytes
	};
	Taken	   *last = ntaken > 0 ? &taken[ntaken - 1] : NULL;

	used = true;
	if (last && bytes >= 0 && last->bytes >= 0 && last->subid == one.subid &&
		last->relid == one.relid)
	{
		last->body = one.body;
		last->bytes += bytes;
	}
	else if (ntaken < TAKEN_MAX)
		taken[ntaken++] = one;
	else if (bytes < 0)
		look_at_commit = look_at_abort = true;
}

/*
 * mbus_store_written notes that a store is written to: it is not given back
 * any more.
 */
void
mbus_store_written(int32 store_no)
{
	int			left = 0;

	used = true;
	for (int i = 0; i < ntaken; i++)
	{
		if (MbusStoreOf(taken[i].body) != store_no)
			taken[left++] = taken[i];
		else if (taken[i].bytes < 0)
			look_at_abort = true;
	}
	ntaken = left;
}

/*
 * taken_rolled_back gives back what a subtransaction has taken, all of it if
 * that is invalid.  It cannot fail: what was taken has found the database's
 * memory before.
 */
static void
taken_rolled_back(SubTransactionId subid)
{
	MbusDatabase *db = ntaken > 0 ? mbus_database_or_null() : NULL;
	bool		all = true;
	int			left = 0;

	if (ntaken == 0)
		return;
	if (db)
		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	for (int i = 0; i < ntaken; i++)
	{
		if (subid != InvalidSubTransactionId && taken[i].subid != subid)
			taken[left++] = taken[i];
		else if (db && db->schema == taken[i].schema)
			all &= taken_return(db, &taken[i]);
	}
	ntaken = left;
	if (db)
	{
		LWLockRelease(&db->lock);
		ConditionVariableBroadcast(&db->changed);
		if (!all)
			look_now(db);
	}
}

/* Gives one back; false if that cannot be.  Under the lock. */
static bool
taken_return(MbusDatabase *db, const Taken *one)
{
	if (one->bytes < 0)
		return ready_again(db, one);
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		MbusOpenStore *store = &db->stores.open[s];

		if (store->store_no == MbusStoreOf(one->body) &&
			store->relid == one->relid)
			store->bytes = Max(0, store->bytes - one->bytes);
	}
	return true;
}

/*
 * ready_again makes an own store ready, with its next number of a body, if the
 * worker has kept that for it.  Under the lock.
 */
static bool
ready_again(MbusDatabase *db, const Taken *one)
{
	MbusStores *stores = &db->stores;
	MbusReadyStore again = {
		.store_no = MbusStoreOf(one->body),
		.n = (int32) (one->body & (MBUS_BODIES_LIMIT - 1)) + 1,
		.relid = one->relid
	};

	if (again.n % MBUS_OWN_NUMBERS == 0 ||
		stores->nready >= MBUS_READY_STORES)
		return false;
	stores->ready[stores->nready++] = again;
	return true;
}

/* Has the worker look at once. */
static void
look_now(MbusDatabase *db)
{
	if (pg_atomic_exchange_u32(&db->store_look, 1) == 0)
		mbus_wake_worker(db);
}

/* It cannot fail: it has a database's memory only if that was found before. */
static void
store_xact_callback(XactEvent event, void *arg)
{
	MbusDatabase *db;
	bool		look;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			look = event == XACT_EVENT_COMMIT ? look_at_commit : look_at_abort;
			if (event == XACT_EVENT_ABORT)
				taken_rolled_back(InvalidSubTransactionId);
			look_at_commit = look_at_abort = used = false;
			ntaken = 0;
			db = look ? mbus_database_or_null() : NULL;
			if (db)
				look_now(db);
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (used || look_at_commit)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has written or ended large bodies"),
						 errhint("Use COMMIT.")));
			break;
		default:
			break;
	}
}

/* What a subtransaction has taken is its parent's, or is given back. */
static void
store_subxact_callback(SubXactEvent event, SubTransactionId subid,
					   SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		taken_rolled_back(subid);
		look_at_commit |= look_at_abort;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = 0; i < ntaken; i++)
		{
			if (taken[i].subid == subid)
				taken[i].subid = parent;
		}
	}
}
