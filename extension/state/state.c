/*
 * state.c
 *		Shared memory of the bus: made, found, given out and taken back.
 *
 * All of it is volatile: the tables are the truth, and a worker that starts
 * builds this anew (numbering above every segment that exists).  Losing it
 * loses nothing.
 *
 * Each part is its own piece of memory: the databases with the registry of
 * unfinished publishes, and the hash of channels, both made here; deliveries,
 * waiters, filters, the clock and the epochs, which their own files lay out
 * (part.c).  What a lock protects is said at each field; the order of the
 * locks is in extension/README.md.
 *
 * MbusShared.slot_lock protects only the claiming of a free MbusDatabase and
 * is never held together with the others.  Nothing is done under a lock that
 * can raise an error, wait or do I/O.
 *
 * A database's slot is claimed by its first worker and reset when the worker
 * finds that the extension has gone or is another one; the launcher frees it
 * when the database has been dropped.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "base/settings.h"
#include "state/clock.h"
#include "state/part.h"
#include "state/state.h"
#include "state/state_internal.h"

#define MBUS_WAIT_MS		30000	/* for the worker, before giving up */

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

MbusShared *mbus_shared = NULL;
HTAB	   *mbus_channels = NULL;

static MbusDatabase *my_database = NULL;	/* this backend's */

static void state_request(void);
static void state_startup(void);
static void counters_zero(MbusDatabase *db);
static Size state_size(void);
static void check_listed(void);
pg_noreturn static void not_ready(MbusDatabase *db, const char *what);

/*
 * mbus_state_init installs the hooks; called from _PG_init while the server
 * preloads libraries.
 */
void
mbus_state_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = state_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = state_startup;
}

/*
 * mbus_preloaded tells whether this copy of the library has shared memory.
 */
bool
mbus_preloaded(void)
{
	return mbus_shared != NULL;
}

static void
state_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(state_size());
	RequestAddinShmemSpace(hash_estimate_size(MBUS_CHANNEL_SLOTS,
											  sizeof(MbusChannelSlot)));
	mbus_parts_request();
}

/*
 * state_startup makes shared memory, or finds what another process has made:
 * first the databases, then the hash of channels, then the other parts in the
 * order they were added.  All LWLocks are of one tranche.
 */
static void
state_startup(void)
{
	HASHCTL		ctl;
	bool		found;
	int			tranche;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	mbus_shared = ShmemInitStruct("message_bus", state_size(), &found);
	if (!found)
	{
		MemSet(mbus_shared, 0, state_size());
		tranche = LWLockNewTrancheId();
		LWLockInitialize(&mbus_shared->slot_lock, tranche);
		LWLockInitialize(&mbus_shared->channel_lock, tranche);
		mbus_shared->made_at = GetCurrentTimestamp();
		pg_atomic_init_u32(&mbus_shared->highest_epoch, 0);
		mbus_shared->nbackends = MaxBackends + NUM_AUXILIARY_PROCS;
		for (int i = 0; i < mbus_shared->nbackends; i++)
			pg_atomic_init_u32(&mbus_shared->backend[i].nfacts, 0);
		for (int i = 0; i < MBUS_MAX_DATABASES; i++)
		{
			MbusDatabase *db = &mbus_shared->db[i];

			LWLockInitialize(&db->lock, tranche);
			ConditionVariableInit(&db->changed);
			db->worker.procno = -1;
			pg_atomic_init_u32(&db->numbering.known, 0);
			pg_atomic_init_u32(&db->numbering.hiding, 0);
			pg_atomic_init_u32(&db->numbering.fills, 0);
			pg_atomic_init_u32(&db->disk.full, 0);
			pg_atomic_init_u64(&db->numbering.filled_at, 0);
			pg_atomic_init_u64(&db->numbering.bodies_filled_at, 0);
			pg_atomic_init_u32(&db->scrub.quarantined, 0);
			pg_atomic_init_u32(&db->store_look, 0);
			for (int w = 0; w < MBUS_QUARANTINE_WORDS; w++)
				pg_atomic_init_u64(&db->scrub.filter[w], PG_UINT64_MAX);
			for (int w = 0; w < MBUS_SCRUB_WANTED; w++)
				pg_atomic_init_u64(&db->scrub.wanted[w], 0);
			for (int c = 0; c < MBUS_COUNTERS; c++)
				pg_atomic_init_u64(&db->counter[c], 0);
			for (int t = 0; t < MBUS_TALLIES; t++)
				pg_atomic_init_u64(&db->other[t], 0);
			pg_atomic_init_u32(&db->tallied, 0);
			pg_atomic_init_u32(&db->tally_full, 0);
			for (int l = 0; l < MBUS_LATENCIES; l++)
			{
				pg_atomic_init_u64(&db->latency[l].us, 0);
				for (int b = 0; b < MBUS_LATENCY_BUCKETS; b++)
					pg_atomic_init_u64(&db->latency[l].bucket[b], 0);
			}
			for (int s = 0; s <= MBUS_MAX_SERIES; s++)
			{
				pg_atomic_init_u64(&db->told[s], 0);
				pg_atomic_init_u32(&db->ahead[s].used, 0);
				pg_atomic_init_u32(&db->ahead[s].limit, 0);
				pg_atomic_init_u32(&db->ahead[s].low, 0);
				pg_atomic_init_u32(&db->ahead[s].asked, 0);
			}
		}
	}
	tranche = mbus_shared->slot_lock.tranche;
	LWLockRegisterTranche(tranche, "message_bus");

	MemSet(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(MbusChannelKey);
	ctl.entrysize = sizeof(MbusChannelSlot);
	mbus_channels = ShmemInitHash("message_bus channels",
								  MBUS_CHANNEL_SLOTS, MBUS_CHANNEL_SLOTS,
								  &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);

	mbus_parts_start(tranche);
	LWLockRelease(AddinShmemInitLock);
}

/* The databases, and an array of ranges for each process that there can be. */
static Size
state_size(void)
{
	int			nbackends = MaxBackends + NUM_AUXILIARY_PROCS;

	return add_size(offsetof(MbusShared, backend),
					mul_size(nbackends, sizeof(MbusBackend)));
}

/*
 * mbus_database_or_null returns this backend's database's shared state, or
 * NULL if the library is not preloaded or no worker has claimed a slot yet.
 */
MbusDatabase *
mbus_database_or_null(void)
{
	if (mbus_shared == NULL || !OidIsValid(MyDatabaseId))
		return NULL;
	if (my_database && my_database->database == MyDatabaseId)
		return my_database;

	my_database = NULL;
	LWLockAcquire(&mbus_shared->slot_lock, LW_SHARED);
	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		if (mbus_shared->db[i].database == MyDatabaseId)
			my_database = &mbus_shared->db[i];
	}
	LWLockRelease(&mbus_shared->slot_lock);
	return my_database;
}

/*
 * mbus_preload_check errors with 55000 if the server has not loaded the
 * library at its start.
 */
void
mbus_preload_check(void)
{
	if (mbus_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus is not preloaded"),
				 errhint("Add \"message_bus\" to \"shared_preload_libraries\" and restart the server.")));
}

/*
 * mbus_database returns this database's shared state.  It waits for a worker
 * that is starting, and errors with 55000 where there can be none.
 */
MbusDatabase *
mbus_database(void)
{
	TimestampTz started = 0;
	MbusDatabase *db;

	mbus_preload_check();
	check_listed();
	while ((db = mbus_database_or_null()) == NULL)
	{
		mbus_worker_wait(NULL, &started, NULL);
		check_listed();
	}
	return db;
}

/*
 * check_listed errors if the database is not in message_bus.databases, as
 * far as this backend has read the setting.  It looks again only after the
 * setting has changed.
 */
static void
check_listed(void)
{
	static uint64 listed_at = 0;
	char	   *name;

	if (listed_at == mbus_databases_version)
		return;
	name = get_database_name(MyDatabaseId);
	if (name == NULL || !mbus_database_listed(name))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus does not serve database \"%s\"",
						name ? name : "?"),
				 errhint("Add the database to \"message_bus.databases\" and reload the server's configuration.")));
	listed_at = mbus_databases_version;
}

/*
 * mbus_database_attach gives the calling worker its database's slot, claiming
 * a free one if need be, or NULL if all are taken.
 */
MbusDatabase *
mbus_database_attach(Oid database)
{
	MbusDatabase *db = NULL;

	LWLockAcquire(&mbus_shared->slot_lock, LW_EXCLUSIVE);
	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		if (mbus_shared->db[i].database == database)
		{
			db = &mbus_shared->db[i];
			break;
		}
		if (db == NULL && !OidIsValid(mbus_shared->db[i].database))
			db = &mbus_shared->db[i];
	}
	if (db)
		db->database = database;
	LWLockRelease(&mbus_shared->slot_lock);
	return db;
}

/*
 * mbus_databases_forget frees the slots of databases that are not in the list
 * of those that exist, each after "reset": nobody can be connected to one that
 * was dropped.
 */
void
mbus_databases_forget(List *existing,
					  void (*reset) (MbusDatabase *db, Oid schema))
{
	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		MbusDatabase *db = &mbus_shared->db[i];

		if (!OidIsValid(db->database) ||
			list_member_oid(existing, db->database))
			continue;
		reset(db, InvalidOid);
		counters_zero(db);
		LWLockAcquire(&mbus_shared->slot_lock, LW_EXCLUSIVE);
		db->database = InvalidOid;
		LWLockRelease(&mbus_shared->slot_lock);
	}
}

/* What is counted begins anew: the database is another one. */
static void
counters_zero(MbusDatabase *db)
{
	for (int c = 0; c < MBUS_COUNTERS; c++)
		pg_atomic_write_u64(&db->counter[c], 0);
	for (int t = 0; t < MBUS_TALLIES; t++)
		pg_atomic_write_u64(&db->other[t], 0);
	pg_atomic_write_u32(&db->tally_full, 0);
	for (int l = 0; l < MBUS_LATENCIES; l++)
	{
		for (int i = 0; i < MBUS_LATENCY_BUCKETS; i++)
			pg_atomic_write_u64(&db->latency[l].bucket[i], 0);
		pg_atomic_write_u64(&db->latency[l].us, 0);
	}
}

/*
 * mbus_wake_worker sets the latch of the database's worker, if one runs.
 */
void
mbus_wake_worker(MbusDatabase *db)
{
	int			procno;

	LWLockAcquire(&db->lock, LW_SHARED);
	procno = db->worker.procno;
	LWLockRelease(&db->lock);
	if (procno >= 0)
		SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

/*
 * mbus_epoch_seen notes that leases of an epoch may be given out.
 */
void
mbus_epoch_seen(uint32 epoch)
{
	uint32		highest = pg_atomic_read_u32(&mbus_shared->highest_epoch);

	while (highest < epoch &&
		   !pg_atomic_compare_exchange_u32(&mbus_shared->highest_epoch,
										   &highest, epoch))
		 /* somebody else has raised it: look again */ ;
}

/*
 * mbus_epoch_highest returns the highest epoch of any database since shared
 * memory was made, at mbus_state_made_at().
 */
uint32
mbus_epoch_highest(void)
{
	return pg_atomic_read_u32(&mbus_shared->highest_epoch);
}

TimestampTz
mbus_state_made_at(void)
{
	return mbus_shared->made_at;
}

/*
 * mbus_count adds to one of the database's counters.
 */
void
mbus_count(MbusCounter counter, uint64 n)
{
	MbusDatabase *db = mbus_database_or_null();

	if (db)
		pg_atomic_fetch_add_u64(&db->counter[counter], n);
}

/*
 * mbus_worker_wait wakes the worker and sleeps until it has changed something,
 * or a moment.  Past MBUS_WAIT_MS from *started, which the first call sets, it
 * errors with 55000 and what the worker said last, and at once where the node
 * is a wrong one.  "what" is for the worker
 * to do, and is looked for often; NULL: to be ready at all.  db is NULL before
 * the worker has claimed it.  The worker itself does not wait but errors with
 * 55P03 (see worker/expiry.c).
 */
void
mbus_worker_wait(MbusDatabase *db, TimestampTz *started, const char *what)
{
	TimestampTz now = mbus_now();

	if (*started == 0)
		*started = now;
	if (db)
		mbus_wake_worker(db);
	if (db && db->worker.pid == MyProcPid)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("a segment must be opened first")));
	if (db)
		mbus_node_checked(db);
	if (TimestampDifferenceExceeds(*started, now, MBUS_WAIT_MS))
		not_ready(db, what);
	if (db && what == NULL)
	{
		(void) ConditionVariableTimedSleep(&db->changed, 200,
										   PG_WAIT_EXTENSION);
		return;
	}
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 what ? 5 : 50, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * mbus_node_checked errors with 55000 if the database's ids are of another node than
 * message_bus.node: none can be given out.
 */
void
mbus_node_checked(MbusDatabase *db)
{
	int32		node;
	bool		refused;

	LWLockAcquire(&db->lock, LW_SHARED);
	refused = db->numbering.refused;
	node = db->numbering.node;
	LWLockRelease(&db->lock);
	if (!refused)
		return;
	ConditionVariableCancelSleep();
	mbus_node_refuse(node);
}

/*
 * mbus_node_refuse errors with 55000: the database's ids are of this node, and
 * message_bus.node is another one.
 */
void
mbus_node_refuse(int32 node)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("message_bus.node is %d, but this database is node %d",
					mbus_node, node),
			 errdetail("It has given out ids of node %d, and ids tell their node.",
					   node),
			 errhint("Set \"message_bus.node\" to %d and restart the server. A dump of the database can be restored on any node.",
					 node)));
}

/*
 * not_ready errors with 55000, with what the worker said last.
 */
static void
not_ready(MbusDatabase *db, const char *what)
{
	char		why[sizeof(db->worker.last_error)] = "";

	ConditionVariableCancelSleep();
	if (db)
	{
		LWLockAcquire(&db->lock, LW_SHARED);
		strlcpy(why, db->worker.last_error, sizeof(why));
		LWLockRelease(&db->lock);
	}
	if (what)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the worker of message_bus did not %s", what),
				 why[0] ? errdetail("Its last error was: %s", why) :
				 errdetail("It did not answer within %d seconds.",
						   MBUS_WAIT_MS / 1000),
				 errhint("See the view message_bus.worker_status and the server's log.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("message_bus is not ready in this database"),
			 why[0] ? errdetail("The worker's last error was: %s", why) :
			 errdetail("Its worker did not answer within %d seconds.",
					   MBUS_WAIT_MS / 1000),
			 errhint("See the view message_bus.worker_status and the server's log; an extension made in this transaction can be used after COMMIT.")));
}

/*
 * mbus_roll_below has what is open below a number followed by segments from
 * there on.
 */
void
mbus_roll_below(MbusDatabase *db, int64 number)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->numbering.roll_below = (int32) Max(db->numbering.roll_below, number);
	LWLockRelease(&db->lock);
}
