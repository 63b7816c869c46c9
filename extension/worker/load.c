/*
 * load.c
 *		The worker loads subscriptions into shared memory: which, and when.
 *
 * A subscription is loaded after the server's start, when the first claim
 * asks for it, and when the worker finds its row without a slot.  How that is
 * done is in rebuild.c.  Slots whose row is gone are let go.  Where a database
 * has no slots left, who asks for a subscription gets one that another does
 * not need (give_up.c).
 *
 * Restores.  A dump brings subscriptions that may start from a higher lease
 * than this server is at.  So before one that was not made since the last
 * numbering is loaded the epoch is raised above these, but for the first time
 * after a numbering that knows its past, or if it has a checkpoint, which no
 * dump brings.  What else a dump brings is seen to in restore.c.
 *
 * The subscription "default" of a channel is made here, when its first claim
 * asks for it, with the channel's owner.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "action/action.h"
#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "delivery/sub.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/epoch.h"
#include "worker/give_up.h"
#include "worker/load.h"
#include "worker/rebuild.h"
#include "worker/task.h"

#define LOAD_EVERY_MS	10000	/* even if nobody asks */
#define LOAD_AGAIN_MS	1000	/* if it failed and somebody asks */
#define LOAD_FULL_MS	200		/* if there was no free slot */
#define LOAD_BATCH		100		/* subscriptions in one transaction */
#define DEFAULT_WAIT_MS	100

/* A slot as memory had it before the tables were read. */
typedef struct Known
{
	int32		subscription_id;
	uint32		slot;
	bool		loaded;
	TimestampTz created_at;
	bool		exists;			/* has a row */
} Known;

/* A look at all subscriptions. */
typedef struct Roll
{
	MemoryContext context;		/* of all that outlives a transaction */
	int			nknown;
	Known	   *known;			/* by ascending id */
	int			nwanted;
	int32		wanted[MBUS_SUBS_WANTED];	/* somebody asks for them */
	int			nmissing;
	int32	   *missing;		/* have a row and are not loaded; those that
								 * are asked for come first */
	int			nasked;			/* how many these are */
	uint64		older;			/* hash of those that may be older than the
								 * last numbering; 0: none is */
	bool		full;			/* no slot was left for one */
	bool		failed;
} Roll;

static void defaults_make(MbusWork *work);
static MbusOutcome default_make(MbusWork *work, void *arg);
static bool subscriptions_look(MbusWork *work);
static void wanted_take(MbusWork *work, Roll *roll);
static void missing_load(MbusWork *work, Roll *roll);
static void known_collect(MbusWork *work, Roll *roll);
static int	known_compare(const void *a, const void *b);
static MbusOutcome rows_compare(MbusWork *work, void *arg);
static void missing_add(Roll *roll, int32 subscription_id);
static void slots_drop(MbusWork *work, Roll *roll);
static MbusOutcome leases_highest(MbusWork *work, void *arg);

/*
 * mbus_subscriptions_load makes what is asked for, loads what is not loaded
 * and drops what is gone, if somebody asks for it or it has been a while.
 */
void
mbus_subscriptions_load(MbusWork *work)
{
	MbusDatabase *db = work->db;
	TimestampTz now = mbus_now();
	uint64		wanted;
	bool		asked;
	bool		full;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	wanted = db->delivery.loads_wanted;
	asked = wanted > db->delivery.loads_done ||
		db->delivery.ndefault_wanted > 0;
	full = db->delivery.subs_full;
	LWLockRelease(mbus_delivery_lock());
	if (full && !TimestampDifferenceExceeds(work->load.looked_at, now,
											LOAD_FULL_MS))
		return;					/* who asks asks again and again */
	if (!asked && !work->load.unasked &&
		!TimestampDifferenceExceeds(work->load.looked_at, now,
									LOAD_EVERY_MS))
		return;
	if (!mbus_tasks_begin(work, MBUS_TASK_LOAD,
						  asked &&
						  TimestampDifferenceExceeds(work->load.looked_at, now,
													 LOAD_AGAIN_MS)))
		return;

	work->load.looked_at = now;
	defaults_make(work);
	if (subscriptions_look(work))
	{
		/* what failed alone is in the log, and others need not wait for it */
		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		db->delivery.loads_done = Max(db->delivery.loads_done, wanted);
		LWLockRelease(mbus_delivery_lock());
		ConditionVariableBroadcast(&db->changed);
	}
	mbus_tasks_end(work, MBUS_TASK_LOAD);
}

/* ------------------------------------------------------------------------
 * Subscriptions named "default"
 * ------------------------------------------------------------------------
 */

/*
 * defaults_make makes the subscriptions that are asked for; who asked for one
 * that cannot be made now goes on asking.
 */
static void
defaults_make(MbusWork *work)
{
	MbusDatabase *db = work->db;
	int32		channels[MBUS_DEFAULTS_WANTED];
	int			n;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	n = db->delivery.ndefault_wanted;
	memcpy(channels, db->delivery.default_wanted, n * sizeof(int32));
	db->delivery.ndefault_wanted = 0;
	LWLockRelease(mbus_delivery_lock());
	for (int i = 0; i < n; i++)
		(void) mbus_task_run(work, MBUS_TASK_LOAD, default_make, &channels[i],
							 "making the default subscription of channel %d",
							 channels[i]);
}

/*
 * default_make makes one.  The triggers fire, which on 15 and 16 our
 * session_replication_role would prevent.
 */
static MbusOutcome
default_make(MbusWork *work, void *arg)
{
	int32		channel_id = *(int32 *) arg;
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_lock_timeout(DEFAULT_WAIT_MS);
	mbus_sql("SET LOCAL session_replication_role = origin");
	mbus_task_become_owner(work);
	mbus_sql("WITH made AS (INSERT INTO message_bus.subscription"
			 " (channel_id, name, owner, ordered, wanted_at)"
			 " SELECT channel_id, 'default', owner, false, message_bus.clock()"
			 " FROM message_bus.channel WHERE channel_id = %d"
			 " FOR KEY SHARE ON CONFLICT DO NOTHING RETURNING subscription_id)"
			 " INSERT INTO message_bus.subscription_made"
			 " SELECT subscription_id, %d FROM made RETURNING subscription_id",
			 channel_id, work->db->delivery.lease_epoch);
	if (SPI_processed > 0)
		mbus_action_subscription(work->schema, channel_id,
								 DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
															 SPI_tuptable->tupdesc,
															 1, &isnull)),
								 "created");
	mbus_task_commit();
	return MBUS_DONE;
}

/* ------------------------------------------------------------------------
 * What is there and what is missing
 * ------------------------------------------------------------------------
 */

/*
 * subscriptions_look compares the table with memory; false if that failed.
 */
static bool
subscriptions_look(MbusWork *work)
{
	Roll		roll = {.context = CurrentMemoryContext};

	wanted_take(work, &roll);
	known_collect(work, &roll);
	if (mbus_task_run(work, MBUS_TASK_LOAD, rows_compare, &roll,
					  "looking for subscriptions") != MBUS_DONE)
		return false;
	slots_drop(work, &roll);
	if (roll.older != 0 && roll.older != work->load.older_checked &&
		!work->load.epoch_is_new)
	{
		int64		highest = 0;

		if (mbus_task_run(work, MBUS_TASK_LOAD, leases_highest, &highest,
						  "looking for leases of before") != MBUS_DONE)
			return false;
		if (highest >= work->db->delivery.lease_epoch &&
			!mbus_epoch_raise(work, highest))
			return false;
	}
	missing_load(work, &roll);

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	if (roll.full && !work->db->delivery.subs_full)
		roll.full = work->db->delivery.subs_full = true;
	else
	{
		work->db->delivery.subs_full = roll.full;
		roll.full = false;
	}
	LWLockRelease(mbus_delivery_lock());
	if (roll.full)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("message_bus follows only some of the subscriptions of database %u at one time",
						MyDatabaseId),
				 errdetail("The others are loaded when they are used."),
				 errhint("Increase \"message_bus.max_subscriptions\".")));
	work->load.older_checked = roll.older;
	work->load.epoch_is_new = false;
	work->load.unasked = roll.failed;
	return true;
}

/* Takes the list of subscriptions that are asked for. */
static void
wanted_take(MbusWork *work, Roll *roll)
{
	MbusDeliveryCall *call = &work->db->delivery;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	roll->nwanted = call->nsub_wanted;
	memcpy(roll->wanted, call->sub_wanted, roll->nwanted * sizeof(int32));
	call->nsub_wanted = 0;
	LWLockRelease(mbus_delivery_lock());
}

/*
 * missing_load loads those that are asked for, for which slots of others are
 * given up, and then the rest, as long as there are slots.
 */
static void
missing_load(MbusWork *work, Roll *roll)
{
	int			n;

	if (roll->nasked > 0)
		mbus_slots_give_up(work, roll->nasked);
	for (int i = 0; i < roll->nmissing; i += n)
	{
		n = Min(LOAD_BATCH, roll->nmissing - i);
		if (i < roll->nasked)
			n = Min(n, roll->nasked - i);
		else if (roll->full)
			break;
		if (!mbus_subscriptions_rebuild(work, roll->missing + i, n,
										&roll->full))
			roll->failed = true;
	}
}

/* Lists the slots of this extension. */
static void
known_collect(MbusWork *work, Roll *roll)
{
	roll->known = palloc(mbus_sub_slots() * sizeof(Known));
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		MbusSub    *sub = mbus_sub(s);
		Known	   *known = &roll->known[roll->nknown];

		if (sub->database != work->db->database ||
			sub->schema != work->schema || sub->dropped)
			continue;
		known->subscription_id = sub->subscription_id;
		known->slot = s;
		known->loaded = sub->loaded;
		known->created_at = sub->created_at;
		known->exists = false;
		roll->nknown++;
	}
	LWLockRelease(mbus_delivery_lock());
	qsort(roll->known, roll->nknown, sizeof(Known), known_compare);
}

static int
known_compare(const void *a, const void *b)
{
	return mbus_order(((const Known *) a)->subscription_id,
					  ((const Known *) b)->subscription_id);
}

/*
 * rows_compare finds the rows that are not loaded, and the slots that have a
 * row.
 */
static MbusOutcome
rows_compare(MbusWork *work, void *arg)
{
	Roll	   *roll = arg;
	Oid			types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {Int32GetDatum(work->db->delivery.lease_epoch),
	TimestampTzGetDatum(work->numbered_at)};

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (SPI_execute_with_args("SELECT s.subscription_id,"
							  " (m.epoch IS NULL OR m.epoch <> $1"
							  " OR s.created_at < $2) AND NOT EXISTS"
							  " (SELECT FROM message_bus.checkpoint c"
							  " WHERE c.subscription_id = s.subscription_id),"
							  " s.created_at"
							  " FROM message_bus.subscription s"
							  " LEFT JOIN message_bus.subscription_made m"
							  " ON m.subscription_id = s.subscription_id"
							  " ORDER BY s.subscription_id",
							  2, types, values, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.subscription");
	roll->missing = MemoryContextAlloc(roll->context,
									   (SPI_processed + 1) * sizeof(int32));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;
		Known		key = {0};
		Known	   *known;

		key.subscription_id =
			DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		known = bsearch(&key, roll->known, roll->nknown, sizeof(Known),
						known_compare);
		/* a restore may have put another one in its place */
		if (known)
			known->exists = !known->loaded || known->created_at ==
				DatumGetTimestampTz(SPI_getbinval(row, desc, 3, &isnull));
		if (known && known->exists && known->loaded)
			continue;
		missing_add(roll, key.subscription_id);
		if (DatumGetBool(SPI_getbinval(row, desc, 2, &isnull)))
			roll->older = roll->older * 31 + key.subscription_id;
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/* Adds one that is not loaded, before the others if it is asked for. */
static void
missing_add(Roll *roll, int32 subscription_id)
{
	int			at = roll->nmissing++;

	for (int i = 0; i < roll->nwanted; i++)
	{
		if (roll->wanted[i] != subscription_id)
			continue;
		roll->missing[at] = roll->missing[roll->nasked];
		at = roll->nasked++;
		break;
	}
	roll->missing[at] = subscription_id;
}

/* Lets the slots go that have no row. */
static void
slots_drop(MbusWork *work, Roll *roll)
{
	for (int i = 0; i < roll->nknown; i++)
	{
		Known	   *known = &roll->known[i];
		MbusSub    *sub = mbus_sub(known->slot);

		if (known->exists)
			continue;
		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		if (sub->database == work->db->database &&
			sub->schema == work->schema && !sub->dropped &&
			sub->subscription_id == known->subscription_id)
			mbus_sub_drop(known->slot);
		LWLockRelease(mbus_delivery_lock());
	}
}

/*
 * leases_highest finds the highest epoch that a subscription starts from.
 */
static MbusOutcome
leases_highest(MbusWork *work, void *arg)
{
	int64	   *highest = arg;
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	*highest = mbus_epoch_passed(mbus_sql_int64(&isnull,
												"SELECT max(since_lease)"
												" FROM message_bus.subscription"),
								 mbus_node);
	mbus_task_commit();
	return MBUS_DONE;
}
