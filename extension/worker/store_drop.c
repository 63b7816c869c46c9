/*
 * store_drop.c
 *		Drops the stores of large bodies that nobody can want any more.
 *
 * A shared store may go when it is closed and its time is over, an own one
 * when it is not ready for somebody to take; either only if nothing holds it
 * (store_held.c).  That is asked first, without a lock, and again under it:
 *
 *	1. dumps wait (segment/dump.c)
 *	2. AccessExclusive on the table, if it is to be had at once.  Who writes
 *	   parts, makes a message that refers to a body, or reads, has it locked
 *	   until his transaction has ended
 *	3. what holds the store is asked again, each statement with a new
 *	   snapshot: who had it locked before has committed what he did, and who
 *	   comes later finds no table
 *	4. the table is dropped, and all rows that go with it
 *
 * All in one transaction: after a crash or an error it is done or not.
 *
 * What has expired may still be wanted as a dead letter (dead_letter_expired),
 * which refers to the body.  So between the look that finds a store of no use
 * and its lock, what has expired by then is moved, as before segments are dropped
 * (rescue_task.c); what was moved holds the store when that is asked again.
 *
 * A closed store of no block at all goes before the time that its row promises:
 * nothing was written into it before it was closed, and what comes later
 * holds it by a row.  One that was closed EMPTY_WITHIN ago is looked at for that.
 *
 * Each full pass looks at some stores in turn, LOOK of them.  When a message
 * with a body was deleted or purged, a segment has gone, or expire() asks, it
 * goes once around all there are, in pieces of ROUND_MS a pass; for expire(),
 * which waits for that, in one pass.
 *
 * While a restore is at work nothing is dropped: what holds a store may still
 * be to come.  On a full disk stores are dropped as segments are: the reserve is
 * for that (disk_reserve.c).
 */
#include "postgres.h"

#include "executor/spi.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "segment/dump.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/store.h"
#include "worker/rescue_task.h"
#include "worker/segment_catalog.h"
#include "worker/store_close.h"
#include "worker/store_drop.h"
#include "worker/store_held.h"
#include "worker/store_settle.h"
#include "worker/task.h"

#define LOOK			32
#define ROUND_MS		200
#define DROP_WAIT_MS	100
#define EMPTY_WITHIN	"1 hour"

/* Stores that are looked at. */
typedef struct Turn
{
	MbusNumbers found;
	int32		above;			/* numbers above this one */
} Turn;

/* One that is looked at. */
typedef struct Look
{
	int32		store_no;
	bool		unwanted;		/* out */
	bool		had;			/* out: it has had messages */
} Look;

static void round_begin(MbusWork *work);
static bool turn_take(MbusWork *work);
static bool unwanted_find(MbusWork *work, const MbusNumbers *found,
						  Look *looks);
static MbusOutcome store_look(MbusWork *work, void *arg);
static MbusOutcome stores_due(MbusWork *work, void *arg);
static MbusOutcome store_drop(MbusWork *work, void *arg);
static bool store_wanted(MbusWork *work, int32 store_no);
static void store_remove(int32 store_no, bool table);
static void store_dropped(MbusWork *work, bool own);

/*
 * mbus_stores_drop drops what can go of the stores whose turn it is.
 */
void
mbus_stores_drop(MbusWork *work)
{
	TimestampTz started = mbus_now();

	if (pg_atomic_exchange_u32(&work->db->store_look, 0) != 0 ||
		work->pass.ticket != 0)
		round_begin(work);
	if (mbus_stores_restoring(work) ||
		!mbus_tasks_begin(work, MBUS_TASK_BODY_DROP, work->pass.ticket != 0))
		return;
	while (turn_take(work) && work->stores.round &&
		   (work->pass.ticket != 0 ||
			!TimestampDifferenceExceeds(started, mbus_now(), ROUND_MS)))
		work->serve(work);
	mbus_tasks_end(work, MBUS_TASK_BODY_DROP);
}

/* A round goes on from where the last turn ended, and ends there. */
static void
round_begin(MbusWork *work)
{
	work->stores.round = true;
	work->stores.round_from = work->stores.dropped_to;
	work->stores.round_over = false;
}

/*
 * turn_take looks at the next stores; false if that did not work, or the
 * round has ended.
 */
static bool
turn_take(MbusWork *work)
{
	MbusStoreWork *stores = &work->stores;
	Turn		turn = {.found.context = CurrentMemoryContext,
	.above = stores->dropped_to};
	Look		looks[LOOK];

	if (mbus_task_run(work, MBUS_TASK_BODY_DROP, stores_due, &turn,
					  "looking for stores to drop") != MBUS_DONE)
		return false;
	/* what holds those that are unwanted now has expired by now */
	if (unwanted_find(work, &turn.found, looks) && !mbus_expired_move(work))
		return false;
	for (int i = 0; i < turn.found.n; i++)
	{
		stores->dropped_to = turn.found.number[i];
		if (looks[i].unwanted)
			(void) mbus_task_run(work, MBUS_TASK_BODY_DROP, store_drop,
								 &turn.found.number[i], "dropping store %d",
								 turn.found.number[i]);
		if (stores->round_over && stores->dropped_to >= stores->round_from)
			stores->round = false;
	}
	if (turn.found.n < LOOK)
	{
		if (stores->round_over || stores->round_from == 0)
			stores->round = false;
		stores->round_over = true;
		stores->dropped_to = 0;
	}
	return stores->round;
}

/* Asks which of some stores nobody wants; true: such have had messages. */
static bool
unwanted_find(MbusWork *work, const MbusNumbers *found, Look *looks)
{
	bool		any = false;

	for (int i = 0; i < found->n; i++)
	{
		looks[i].store_no = found->number[i];
		looks[i].unwanted = looks[i].had = false;
		if (!mbus_store_ready(work->db, found->number[i]))
			(void) mbus_task_run(work, MBUS_TASK_BODY_DROP, store_look,
								 &looks[i], "looking at store %d",
								 looks[i].store_no);
		any |= looks[i].unwanted && looks[i].had;
	}
	return any;
}

static MbusOutcome
store_look(MbusWork *work, void *arg)
{
	Look	   *look = arg;
	bool		unwanted;
	bool		none = true;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	unwanted = !store_wanted(work, look->store_no);
	if (unwanted)
		(void) mbus_sql_int64(&none, "SELECT 1::int8"
							  " FROM message_bus.body_store s"
							  " WHERE store_no = %d AND (NOT own OR EXISTS"
							  " (SELECT FROM message_bus.body_hold h"
							  "  WHERE h.store_no = s.store_no))",
							  look->store_no);
	mbus_task_commit();
	look->unwanted = unwanted;
	look->had = !none;
	return MBUS_DONE;
}

/* The next stores that may have become of no use. */
static MbusOutcome
stores_due(MbusWork *work, void *arg)
{
	Turn	   *turn = arg;

	mbus_segments_query(work, &turn->found,
						psprintf("SELECT store_no FROM message_bus.body_store"
								 " WHERE store_no > %d AND (own OR"
								 " closed_at IS NOT NULL AND"
								 " (expires_at < message_bus.clock() OR"
								 "  CASE WHEN closed_at > message_bus.clock()"
								 "    - interval '" EMPTY_WITHIN "'"
								 "   THEN pg_catalog.pg_relation_size("
								 "    pg_catalog.to_regclass("
								 "     'message_bus.part_' || store_no)) = 0"
								 "   END))"
								 " ORDER BY store_no LIMIT %d", turn->above,
								 LOOK));
	return MBUS_DONE;
}

/* Drops a store, if it can be. */
static MbusOutcome
store_drop(MbusWork *work, void *arg)
{
	int32		store_no = *(int32 *) arg;
	MbusOutcome outcome = MBUS_DONE;
	bool		dropped = false;
	bool		own = false;
	Oid			table;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (!store_wanted(work, store_no))
	{
		bool		none;

		mbus_task_lock_timeout(DROP_WAIT_MS);
		table = get_relname_relid(psprintf("part_%d", store_no),
								  work->schema);
		if (!mbus_dumps_wait(work->schema, ++work->stores.drops % 2 == 0) ||
			(OidIsValid(table) &&
			 !ConditionalLockRelationOid(table, AccessExclusiveLock)))
			outcome = MBUS_BLOCKED;
		else if (!mbus_store_ready(work->db, store_no) &&
				 !store_wanted(work, store_no))
		{
			(void) mbus_sql_int64(&none, "SELECT 1::int8"
								  " FROM message_bus.body_store"
								  " WHERE store_no = %d AND own", store_no);
			own = !none;
			mbus_task_become_owner(work);
			store_remove(store_no, OidIsValid(table));
			dropped = true;
		}
	}
	mbus_task_commit();
	if (dropped)
		store_dropped(work, own);
	return outcome;
}

static bool
store_wanted(MbusWork *work, int32 store_no)
{
	return mbus_store_held(work, store_no) ||
		mbus_store_uploading(work, store_no);
}

/* Removes the table of a store, and the rows that go with it. */
static void
store_remove(int32 store_no, bool table)
{
	int64		lo = MbusBodyOf(store_no, 0);
	int64		hi = MbusBodyOf(store_no + 1, 0);

	if (table)
		mbus_sql("DROP TABLE message_bus.part_%d", store_no);
	/* who repeats a commit finds it a while longer: upload_task.c */
	mbus_sql("WITH gone AS (DELETE FROM message_bus.upload"
			 "  WHERE body >= " INT64_FORMAT " AND body < " INT64_FORMAT
			 "  AND NOT done RETURNING body),"
			 " hashes AS (DELETE FROM message_bus.upload_hash h USING gone"
			 "  WHERE h.body = gone.body)"
			 " DELETE FROM message_bus.upload_end e USING gone"
			 " WHERE e.body = gone.body", lo, hi);
	mbus_sql("DELETE FROM message_bus.body_moved WHERE to_body >= "
			 INT64_FORMAT " AND to_body < " INT64_FORMAT, lo, hi);
	mbus_sql("DELETE FROM message_bus.body_hold WHERE store_no = %d",
			 store_no);
	mbus_sql("DELETE FROM message_bus.body_store WHERE store_no = %d",
			 store_no);
}

/* Takes note that a store has gone. */
static void
store_dropped(MbusWork *work, bool own)
{
	work->stores.known--;
	if (!own)
		return;
	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	work->db->stores.own = Max(0, work->db->stores.own - 1);
	LWLockRelease(&work->db->lock);
}
