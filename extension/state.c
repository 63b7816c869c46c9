/*
 * state.c
 *		Shared memory of the bus, and the registry of unfinished publishes.
 *
 * All of it is volatile: the tables are the truth, and a worker that starts
 * builds this anew (numbering above every segment that exists).  Losing it
 * loses nothing.
 *
 * Locks, in the order they are taken:
 *
 *	1. MbusDatabase.lock, one for each database: series, numbering, worker
 *	   status, failures, and the ranges of this database's backends.
 *	2. MbusShared.channel_lock: the hash of channels.
 *
 * MbusShared.slot_lock protects only the claiming of a free MbusDatabase and
 * is never held together with the others.  Nothing is done under a lock that
 * can raise an error, wait or do I/O.
 *
 * The registry.  Ids are reserved before commit, so rows become visible out
 * of order.  A publisher therefore reserves ids and registers them as
 * unfinished in one step (mbus_reserve), before it inserts; its transaction
 * callback removes them after the commit has become visible or the abort is
 * done.  The callback allocates nothing and cannot fail.  Ranges are hints,
 * rows are the truth: an id of a rolled-back savepoint is simply not found.
 *
 * A reader that wants no gaps first asks mbus_published_limit() for the
 * first id that is unreserved or unfinished, and THEN takes its snapshot.
 * The other order loses messages.
 *
 * A transaction that publishes again and again while others do too gets its
 * ids in growing chunks, so that its array of ranges is never used up by
 * messages without a key.  A chunk's rest is used while its segment is open;
 * for a message with a key only if nobody else has published to the channel
 * meanwhile, so that what was committed before comes before.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "settings.h"
#include "state.h"

#define MBUS_WAIT_MS		30000	/* for the worker, before giving up */
#define MBUS_CHUNK_MAX_BITS 16

/* A backend's unfinished ranges; protected by its database's lock. */
typedef struct MbusBackend
{
	Oid			database;
	Oid			schema;
	int32		nranges;
	MbusRange	range[MBUS_RANGES_PER_BACKEND];
} MbusBackend;

typedef struct MbusChannelKey
{
	Oid			database;
	int32		channel_id;
} MbusChannelKey;

/* Newest id reserved for a channel; protected by channel_lock. */
typedef struct MbusChannelSlot
{
	MbusChannelKey key;
	int64		last_id;
} MbusChannelSlot;

typedef struct MbusShared
{
	LWLock		slot_lock;
	LWLock		channel_lock;
	int32		nbackends;
	MbusDatabase db[MBUS_MAX_DATABASES];
	MbusBackend backend[FLEXIBLE_ARRAY_MEMBER];
} MbusShared;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

static MbusShared *mbus_shared = NULL;
static HTAB *mbus_channels = NULL;

/* this backend */
static MbusDatabase *my_database = NULL;
static int64 my_next[MBUS_RANGES_PER_BACKEND];	/* first unused id of each of
												 * its ranges */

static void state_request(void);
static void state_startup(void);
static void state_xact_callback(XactEvent event, void *arg);
static bool reserve_from_rest(MbusSeries *series, MbusChannelSlot *slot,
							  int32 channel_id, int32 rows, bool ordered,
							  MbusReservation *out);
static void reserve_from_series(MbusSeries *series, MbusChannelSlot *slot,
								int32 channel_id, int32 rows,
								MbusReservation *out);
static MbusChannelSlot *channel_slot(MbusDatabase *db, int32 channel_id);
static void channel_slots_purge(MbusDatabase *db);
static void channel_slots_forget(MbusDatabase *db);
static int32 oldest_open_segment(MbusDatabase *db);
static bool segment_wanted(MbusDatabase *db);
static void check_listed(void);
static void wait_for_worker(MbusDatabase *db, TimestampTz started);

static Size
state_size(void)
{
	int			nbackends = MaxBackends + NUM_AUXILIARY_PROCS;

	return add_size(offsetof(MbusShared, backend),
					mul_size(nbackends, sizeof(MbusBackend)));
}

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
	RegisterXactCallback(state_xact_callback, NULL);
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
}

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
		mbus_shared->nbackends = MaxBackends + NUM_AUXILIARY_PROCS;
		for (int i = 0; i < MBUS_MAX_DATABASES; i++)
		{
			MbusDatabase *db = &mbus_shared->db[i];

			LWLockInitialize(&db->lock, tranche);
			ConditionVariableInit(&db->changed);
			db->worker.procno = -1;
			for (int c = 0; c < MBUS_COUNTERS; c++)
				pg_atomic_init_u64(&db->counter[c], 0);
		}
	}
	LWLockRegisterTranche(mbus_shared->slot_lock.tranche, "message_bus");

	MemSet(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(MbusChannelKey);
	ctl.entrysize = sizeof(MbusChannelSlot);
	mbus_channels = ShmemInitHash("message_bus channels",
								  MBUS_CHANNEL_SLOTS, MBUS_CHANNEL_SLOTS,
								  &ctl, HASH_ELEM | HASH_BLOBS);
	LWLockRelease(AddinShmemInitLock);
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
 * mbus_database returns this database's shared state.  It waits for a worker
 * that is starting, and errors with 55000 where there can be none.
 */
MbusDatabase *
mbus_database(void)
{
	TimestampTz started = 0;
	MbusDatabase *db;

	if (mbus_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus is not preloaded"),
				 errhint("Add \"message_bus\" to \"shared_preload_libraries\" and restart the server.")));

	check_listed();
	while ((db = mbus_database_or_null()) == NULL)
	{
		if (started == 0)
			started = GetCurrentTimestamp();
		wait_for_worker(NULL, started);
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
 * of those that exist: nobody can be connected to one that was dropped.
 */
void
mbus_databases_forget(List *existing)
{
	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		MbusDatabase *db = &mbus_shared->db[i];

		if (!OidIsValid(db->database) ||
			list_member_oid(existing, db->database))
			continue;
		mbus_database_reset(db, InvalidOid);
		for (int c = 0; c < MBUS_COUNTERS; c++)
			pg_atomic_write_u64(&db->counter[c], 0);
		LWLockAcquire(&mbus_shared->slot_lock, LW_EXCLUSIVE);
		db->database = InvalidOid;
		LWLockRelease(&mbus_shared->slot_lock);
	}
}

/*
 * mbus_database_reset makes the slot that of a new extension (or of none):
 * nothing is open and publishers wait until the worker sets "ready".
 */
void
mbus_database_reset(MbusDatabase *db, Oid schema)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->schema = schema;
	db->ready = false;
	db->next_segment = 0;
	db->first_segment = 0;
	MemSet(db->series, 0, sizeof(db->series));
	db->fault_tail = db->fault_head;
	LWLockRelease(&db->lock);
	channel_slots_forget(db);
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
 * wait_for_worker sleeps until the worker has changed something, or a moment;
 * past MBUS_WAIT_MS it errors with what the worker said last.
 */
static void
wait_for_worker(MbusDatabase *db, TimestampTz started)
{
	char		why[sizeof(db->worker.last_error)] = "";

	if (!TimestampDifferenceExceeds(started, GetCurrentTimestamp(),
									MBUS_WAIT_MS))
	{
		if (db)
			(void) ConditionVariableTimedSleep(&db->changed, 200,
											   PG_WAIT_EXTENSION);
		else
		{
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 50, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		return;
	}

	ConditionVariableCancelSleep();
	if (db)
	{
		LWLockAcquire(&db->lock, LW_SHARED);
		strlcpy(why, db->worker.last_error, sizeof(why));
		LWLockRelease(&db->lock);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("message_bus is not ready in this database"),
			 why[0] ? errdetail("The worker's last error was: %s", why) :
			 errdetail("Its worker did not answer within %d seconds.",
					   MBUS_WAIT_MS / 1000),
			 errhint("See the view message_bus.worker_status and the server's log; an extension made in this transaction can be used after COMMIT.")));
}

/*
 * mbus_reserve reserves ids for at most "rows" messages of a channel and
 * registers them as unfinished until the transaction ends.
 *
 * It may give fewer (at least one): the caller asks again for the rest.  All
 * it gives lie in one open segment.  "bytes" and "longest_ttl_us" (of all
 * rows) feed the segment's size and expiry.  Waits for the worker where no
 * segment is open; errors with 55000 if that takes too long, 54000 if this
 * transaction has used up its ranges, 53400 if the table of channels is full.
 */
void
mbus_reserve(MbusDatabase *db, Oid schema, int32 series_no, int32 channel_id,
			 int32 rows, int64 bytes, int64 longest_ttl_us, bool ordered,
			 MbusReservation *out)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];
	MbusSeries *series = &db->series[series_no];
	TimestampTz started = 0;

	Assert(rows > 0 && series_no >= 1 && series_no <= MBUS_MAX_SERIES);

	for (;;)
	{
		MbusChannelSlot *slot;
		bool		full = false;
		bool		wake = false;

		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		if (db->ready && db->schema == schema)
		{
			slot = channel_slot(db, channel_id);
			if (slot == NULL)
			{
				LWLockRelease(&db->lock);
				ConditionVariableCancelSleep();
				ereport(ERROR,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("too many channels are in use"),
						 errdetail("The server follows at most %d channels that were published to lately.",
								   MBUS_CHANNEL_SLOTS)));
			}
			if (me->database != db->database || me->schema != schema)
			{
				/* only ever with nranges 0, or after DROP EXTENSION */
				me->nranges = 0;
				me->schema = schema;
				me->database = db->database;
			}
			out->rows = 0;
			if (series->open_segment == 0 ||
				series->open_segment < MbusSegmentOf(slot->last_id))
				wake = true;
			else if (reserve_from_rest(series, slot, channel_id, rows,
									   ordered, out))
				 /* had some left */ ;
			else if (series->next_row >= series->max_rows)
				wake = true;
			else
			{
				reserve_from_series(series, slot, channel_id, rows, out);
				full = (out->rows == 0);
			}
			if (wake)
				series->wanted = Max(series->wanted,
									 Max(series->open_segment + 1,
										 MbusSegmentOf(slot->last_id)));

			if (out->rows > 0)
			{
				out->created_at = GetCurrentTimestamp();
				out->segment = series->open_segment;
				memcpy(out->leaf, series->leaf, sizeof(out->leaf));
				series->bytes += bytes;
				series->max_expires_at = Max(series->max_expires_at,
											 out->created_at + longest_ttl_us);
				wake = series->next_row > series->max_rows / 4 * 3 &&
					series->wanted <= series->open_segment;
				LWLockRelease(&db->lock);
				ConditionVariableCancelSleep();
				if (wake)
					mbus_wake_worker(db);
				return;
			}
		}
		else
			wake = true;
		LWLockRelease(&db->lock);

		if (full)
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too many publishes in one transaction"),
					 errdetail("A transaction that publishes messages with a key while others publish to the same channel, or to many channels, can do so %d times.",
							   MBUS_RANGES_PER_BACKEND),
					 errhint("Use message_bus.publish_batch(), or commit more often.")));
		}

		if (started == 0)
		{
			started = GetCurrentTimestamp();
			mbus_count(MBUS_C_SEGMENT_WAITS, 1);
			ConditionVariablePrepareToSleep(&db->changed);
		}
		if (wake)
			mbus_wake_worker(db);
		wait_for_worker(db, started);
	}
}

/*
 * reserve_from_rest takes ids that this transaction has reserved for the
 * channel before and not used.  Caller holds the database's lock.
 */
static bool
reserve_from_rest(MbusSeries *series, MbusChannelSlot *slot,
				  int32 channel_id, int32 rows, bool ordered,
				  MbusReservation *out)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];

	for (int i = me->nranges - 1; i >= 0; i--)
	{
		MbusRange  *range = &me->range[i];

		if (range->channel_id != channel_id || my_next[i] >= range->hi ||
			MbusSegmentOf(range->lo) != series->open_segment)
			continue;
		if (ordered && slot->last_id != range->hi - 1)
			continue;
		out->first_id = my_next[i];
		out->rows = (int32) Min((int64) rows, range->hi - my_next[i]);
		my_next[i] += out->rows;
		return true;
	}
	return false;
}

/*
 * reserve_from_series takes the next ids of the open segment and registers
 * them; out->rows stays 0 if this backend's array of ranges is full.  Caller
 * holds the database's lock and has seen that ids are left.
 */
static void
reserve_from_series(MbusSeries *series, MbusChannelSlot *slot,
					int32 channel_id, int32 rows, MbusReservation *out)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];
	int64		first = MbusFirstId(series->open_segment) + series->next_row;
	int32		left = series->max_rows - series->next_row;
	int32		take = Min(rows, left);
	MbusRange  *last;

	last = me->nranges > 0 ? &me->range[me->nranges - 1] : NULL;
	if (last && last->hi == first && last->channel_id == channel_id &&
		MbusSegmentOf(last->lo) == series->open_segment)
	{
		/* nobody came between: the range just grows */
		last->hi += take;
		my_next[me->nranges - 1] = last->hi;
	}
	else
	{
		int32		chunk;

		if (me->nranges >= MBUS_RANGES_PER_BACKEND)
			return;
		chunk = 1 << Min(me->nranges, MBUS_CHUNK_MAX_BITS);
		chunk = Min(Max(chunk, take), left);
		last = &me->range[me->nranges];
		last->channel_id = channel_id;
		last->lo = first;
		last->hi = first + chunk;
		my_next[me->nranges] = first + take;
		me->nranges++;
	}
	out->first_id = first;
	out->rows = take;
	series->next_row = (int32) (last->hi -
								MbusFirstId(series->open_segment));
	slot->last_id = last->hi - 1;
}

/*
 * mbus_published_limit returns the first id of a channel that is not
 * reserved yet or belongs to a publish that has not ended.  Every message of
 * the channel below it is settled; take the snapshot AFTER this call.
 *
 * "highest_leaf" is the highest segment the caller knew before the call: with
 * none open and none about to be, segments above our numbering are those that
 * a restore has brought.
 */
int64
mbus_published_limit(MbusDatabase *db, Oid schema, int32 channel_id,
					 int32 highest_leaf)
{
	MbusChannelKey key;
	MbusChannelSlot *slot;
	int64		limit;
	int32		oldest;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;

	LWLockAcquire(&db->lock, LW_SHARED);
	if (!db->ready || db->schema != schema)
	{
		/* no publish of this extension can have begun */
		LWLockRelease(&db->lock);
		return PG_INT64_MAX;
	}
	LWLockAcquire(&mbus_shared->channel_lock, LW_SHARED);
	slot = hash_search(mbus_channels, &key, HASH_FIND, NULL);
	if (slot)
		limit = slot->last_id + 1;
	else
	{
		/*
		 * Nothing was published to it since the server started, or its slot
		 * was purged: its messages lie below all that is open.
		 */
		oldest = oldest_open_segment(db);
		limit = MbusFirstId(oldest ? oldest : db->next_segment);
		if (oldest == 0 && !segment_wanted(db))
			limit = Max(limit, MbusFirstId((int64) highest_leaf + 1));
	}
	LWLockRelease(&mbus_shared->channel_lock);

	for (int i = 0; i < mbus_shared->nbackends; i++)
	{
		MbusBackend *b = &mbus_shared->backend[i];

		if (b->nranges == 0 || b->database != db->database ||
			b->schema != db->schema)
			continue;
		for (int r = 0; r < b->nranges; r++)
		{
			if (b->range[r].channel_id == channel_id)
				limit = Min(limit, b->range[r].lo);
		}
	}
	LWLockRelease(&db->lock);
	return limit;
}

/*
 * mbus_unfinished_elsewhere tells whether a publish to the channel into
 * another segment than this one has not ended.
 */
bool
mbus_unfinished_elsewhere(MbusDatabase *db, int32 channel_id, int32 segment)
{
	bool		found = false;

	LWLockAcquire(&db->lock, LW_SHARED);
	for (int i = 0; i < mbus_shared->nbackends && !found; i++)
	{
		MbusBackend *b = &mbus_shared->backend[i];

		if (b->nranges == 0 || b->database != db->database ||
			b->schema != db->schema)
			continue;
		for (int r = 0; r < b->nranges; r++)
		{
			if (b->range[r].channel_id == channel_id &&
				MbusSegmentOf(b->range[r].lo) != segment)
				found = true;
		}
	}
	LWLockRelease(&db->lock);
	return found;
}

/*
 * mbus_reserved_above tells whether ids of the channel may have been reserved
 * in a segment above this one, by a publish that has ended or not.
 */
bool
mbus_reserved_above(MbusDatabase *db, int32 channel_id, int32 segment)
{
	MbusChannelKey key;
	MbusChannelSlot *slot;
	bool		above;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;

	LWLockAcquire(&db->lock, LW_SHARED);
	LWLockAcquire(&mbus_shared->channel_lock, LW_SHARED);
	slot = hash_search(mbus_channels, &key, HASH_FIND, NULL);
	/* a slot that was purged may have said so */
	above = slot == NULL || MbusSegmentOf(slot->last_id) > segment;
	LWLockRelease(&mbus_shared->channel_lock);
	LWLockRelease(&db->lock);
	return above;
}

/*
 * mbus_segment_unfinished tells whether a publish into a segment has not
 * ended.  No new one can begin in a segment that is closed.
 */
bool
mbus_segment_unfinished(MbusDatabase *db, int32 segment)
{
	bool		found = false;

	LWLockAcquire(&db->lock, LW_SHARED);
	for (int i = 0; i < mbus_shared->nbackends && !found; i++)
	{
		MbusBackend *b = &mbus_shared->backend[i];

		if (b->nranges == 0 || b->database != db->database ||
			b->schema != db->schema)
			continue;
		for (int r = 0; r < b->nranges; r++)
		{
			if (MbusSegmentOf(b->range[r].lo) == segment)
				found = true;
		}
	}
	LWLockRelease(&db->lock);
	return found;
}

/*
 * mbus_unfinished_ranges counts the registered ranges of a database.
 */
int
mbus_unfinished_ranges(MbusDatabase *db)
{
	int			n = 0;

	LWLockAcquire(&db->lock, LW_SHARED);
	for (int i = 0; i < mbus_shared->nbackends; i++)
	{
		if (mbus_shared->backend[i].database == db->database)
			n += mbus_shared->backend[i].nranges;
	}
	LWLockRelease(&db->lock);
	return n;
}

/*
 * state_xact_callback ends this backend's unfinished publishes.  After a
 * commit it runs when the rows are visible to every new snapshot.  Nothing in
 * it can fail.
 */
static void
state_xact_callback(XactEvent event, void *arg)
{
	MbusBackend *me;

	if (mbus_shared == NULL || my_database == NULL || MyProc == NULL)
		return;
	me = &mbus_shared->backend[MbusMyProcno()];
	if (me->nranges == 0 || me->database != MyDatabaseId)
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			LWLockAcquire(&my_database->lock, LW_EXCLUSIVE);
			me->nranges = 0;
			LWLockRelease(&my_database->lock);
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has published messages"),
					 errhint("Use COMMIT.")));
			break;
		default:
			break;
	}
}

/*
 * channel_slot finds or makes the slot of a channel; NULL if the table is
 * full of slots that are needed.  Caller holds the database's lock
 * exclusively, which is what protects the slot that is returned: the purge
 * of another database never touches it.
 */
static MbusChannelSlot *
channel_slot(MbusDatabase *db, int32 channel_id)
{
	MbusChannelKey key;
	MbusChannelSlot *slot;
	bool		found;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;

	LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
	slot = hash_search(mbus_channels, &key, HASH_FIND, &found);
	if (slot == NULL)
	{
		if (hash_get_num_entries(mbus_channels) >= MBUS_CHANNEL_SLOTS)
			channel_slots_purge(db);
		if (hash_get_num_entries(mbus_channels) < MBUS_CHANNEL_SLOTS)
			slot = hash_search(mbus_channels, &key, HASH_ENTER_NULL, &found);
		if (slot)
		{
			/*
			 * All that the channel holds lies below what is open now, so that
			 * a purged slot can start anew from there.
			 */
			int32		oldest = oldest_open_segment(db);

			slot->last_id = MbusFirstId(oldest ? oldest :
										db->next_segment) - 1;
		}
	}
	LWLockRelease(&mbus_shared->channel_lock);
	return slot;
}

/*
 * channel_slots_purge drops the slots of this database whose channels hold
 * nothing in or above the oldest open segment: an id reserved later is above
 * all of theirs anyway.  Caller holds both locks exclusively.
 */
static void
channel_slots_purge(MbusDatabase *db)
{
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;
	int32		oldest = oldest_open_segment(db);

	if (oldest == 0)
		oldest = db->next_segment;
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database &&
			MbusSegmentOf(slot->last_id) < oldest)
			(void) hash_search(mbus_channels, &slot->key, HASH_REMOVE, NULL);
	}
}

/*
 * channel_slots_forget drops all slots of a database whose extension is new.
 */
static void
channel_slots_forget(MbusDatabase *db)
{
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database)
			(void) hash_search(mbus_channels, &slot->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(&mbus_shared->channel_lock);
	LWLockRelease(&db->lock);
}

/*
 * oldest_open_segment returns the lowest number of an open segment, 0 if none
 * is open.  Caller holds the database's lock.
 */
static int32
oldest_open_segment(MbusDatabase *db)
{
	int32		oldest = 0;

	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		int32		open = db->series[s].open_segment;

		if (open != 0 && (oldest == 0 || open < oldest))
			oldest = open;
	}
	return oldest;
}

/*
 * segment_wanted tells whether a publisher waits for a segment.  Caller holds
 * the database's lock.
 */
static bool
segment_wanted(MbusDatabase *db)
{
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		if (db->series[s].wanted > db->series[s].open_segment)
			return true;
	}
	return false;
}
