/*
 * store_move.c
 *		Moves bodies out of stores that are kept for a few of them.
 *
 * A shared store whose time is over stays whole while one body in it is held,
 * by a dead letter that lives for long, say.  If what is held is less than a
 * quarter of it, its bodies are copied, one in a transaction, to the open
 * store of the holder's series:
 *
 *	1. a number and room are taken there, its table is locked.  If none is open
 *	   one is wanted, and the next pass goes on
 *	2. the parts are copied as they are
 *	3. body_moved says where the body is (who finds its store gone looks
 *	   there), and the rows that hold it go over
 *
 * When nothing holds the old store it is dropped as any other.  Until then
 * its copy is read; a message that comes to refer to it meanwhile holds the old
 * store, and is moved to the copy that there is.  What was moved to a store
 * before, and is moved again, is found by its old number and its last one.
 *
 * A crash or an error leaves the body moved or not.  A store is left as it is
 * if a message that holds it cannot be read, a part is missing, an upload into
 * it goes on, or more messages hold it than one look reads.
 *
 * It copies message_bus.scrub_rate a second at most.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "body/body.h"
#include "channel/channel.h"
#include "message/stored.h"
#include "state/clock.h"
#include "state/store.h"
#include "worker/segment_catalog.h"
#include "worker/store_held.h"
#include "worker/store_move.h"
#include "worker/store_settle.h"
#include "worker/task.h"

#define HELD_PART	4			/* moved if less than this part is held */

/* A body that is moved, and what holds it. */
typedef struct Moving
{
	int64		body;			/* 0: none */
	int64		size;
	int32		series;			/* of a holder; 0: its channel has gone */
	TimestampTz expires_at;		/* the holder */
	StringInfoData holders;		/* ids, with commas */
} Moving;

static MbusOutcome stores_held_query(MbusWork *work, void *arg);
static MbusOutcome body_move(MbusWork *work, void *arg);
static bool moving_find(MbusWork *work, int32 store_no, Moving *moving);
static int64 body_now(int64 body);
static int64 table_bytes(int32 store_no);
static int64 copy_there(MbusWork *work, int64 body);
static int64 copy_make(MbusWork *work, int32 store_no, const Moving *moving);
static void holds_go_over(int32 store_no, const Moving *moving, int64 to);

/*
 * mbus_stores_move moves a body of the store whose turn it is, if one is to be
 * moved.
 */
void
mbus_stores_move(MbusWork *work)
{
	MbusNumbers found = {.context = CurrentMemoryContext};

	if (mbus_scrub_rate == 0 || mbus_now() < work->stores.move_at ||
		mbus_stores_restoring(work) ||
		!mbus_tasks_begin(work, MBUS_TASK_BODY_MOVE, false))
		return;
	if (mbus_task_run(work, MBUS_TASK_BODY_MOVE, stores_held_query, &found,
					  "looking for stores with little that is held") ==
		MBUS_DONE)
	{
		work->stores.moved_to = found.n > 0 ? found.number[0] : 0;
		if (found.n > 0)
			(void) mbus_task_run(work, MBUS_TASK_BODY_MOVE, body_move,
								 &found.number[0],
								 "moving a body of store %d",
								 found.number[0]);
	}
	mbus_tasks_end(work, MBUS_TASK_BODY_MOVE);
}

/* The next store that is kept by what holds it. */
static MbusOutcome
stores_held_query(MbusWork *work, void *arg)
{
	mbus_segments_query(work, arg,
						psprintf("SELECT store_no FROM message_bus.body_store"
								 " WHERE store_no > %d AND NOT own"
								 " AND closed_at IS NOT NULL"
								 " AND expires_at < message_bus.clock()"
								 " ORDER BY store_no LIMIT 1",
								 work->stores.moved_to));
	return MBUS_DONE;
}

/* Moves one body of a store, if that is worth it. */
static MbusOutcome
body_move(MbusWork *work, void *arg)
{
	int32		store_no = *(int32 *) arg;
	Moving		moving = {0};
	int64		to = 0;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (moving_find(work, store_no, &moving))
	{
		to = copy_there(work, moving.body);
		if (to == 0)
			to = copy_make(work, store_no, &moving);
		if (to != 0)
			holds_go_over(store_no, &moving, to);
	}
	mbus_task_commit();
	if (to == 0)
		return MBUS_DONE;
	/* the next one of the same store */
	work->stores.moved_to = store_no - 1;
	work->stores.move_at = mbus_now() +
		moving.size * USECS_PER_SEC / ((int64) mbus_scrub_rate * 1024);
	return MBUS_DONE;
}

/*
 * moving_find finds a body that is held, and all that holds it; false if the
 * store is to be left as it is.
 */
static bool
moving_find(MbusWork *work, int32 store_no, Moving *moving)
{
	int64		held = 0;
	int64	   *ids;
	int			n = mbus_store_holders(work, store_no, &ids);

	if (n <= 0 || mbus_store_uploading(work, store_no))
		return false;
	initStringInfo(&moving->holders);
	for (int i = 0; i < n; i++)
	{
		const MbusChannel *channel;
		MbusStored	message;
		int64		body;

		if (!mbus_message_fetch_stored(work->schema, ids[i], &message))
			return false;
		body = message.body;
		if (MbusStoreOf(body) != store_no)
			body = body_now(body);
		if (MbusStoreOf(body) != store_no)
			return false;
		held += message.size;	/* one that several refer to counts more */
		if (moving->body == 0)
		{
			channel = mbus_channel_by_id(work->schema, message.channel_id);
			moving->series = channel ? channel->series : 0;
			moving->body = body;
			moving->size = message.size;
			moving->expires_at = message.expires_at;
		}
		if (body == moving->body)
			appendStringInfo(&moving->holders, "%s" INT64_FORMAT,
							 moving->holders.len > 0 ? "," : "", ids[i]);
	}
	return held < table_bytes(store_no) / HELD_PART;
}

/* Where a body of another store was moved to; 0: it was not. */
static int64
body_now(int64 body)
{
	bool		isnull;

	return mbus_sql_int64(&isnull, "SELECT to_body FROM message_bus.body_moved"
						  " WHERE body = " INT64_FORMAT, body);
}

/* The bytes of a store; 0 if its table has gone. */
static int64
table_bytes(int32 store_no)
{
	bool		isnull;

	return mbus_sql_int64(&isnull, "SELECT pg_table_size("
						  "to_regclass('message_bus.part_%d'))", store_no);
}

/*
 * copy_there returns the copy that there is of a body already, its table
 * locked; 0 if there is none.
 */
static int64
copy_there(MbusWork *work, int64 body)
{
	int64		to = body_now(body);
	MbusBody	found;

	if (to == 0 || !mbus_body_find(work->schema, to, RowShareLock, &found) ||
		found.body != to)
		return 0;
	return to;
}

/*
 * copy_make copies a body and returns the copy's number; 0 if no store is open
 * for it, or a part is missing.
 */
static int64
copy_make(MbusWork *work, int32 store_no, const Moving *moving)
{
	MbusStoreTaken taken;
	MbusBody	old;
	MbusBody	new;
	bool		isnull;
	int64		parts;

	if (!mbus_body_find(work->schema, moving->body, RowShareLock, &old) ||
		old.store_no != store_no)
		return 0;
	parts = mbus_sql_int64(&isnull, "SELECT count(*) FROM message_bus.part_%d"
						   " WHERE body = " INT64_FORMAT, store_no,
						   moving->body);
	if (parts != mbus_parts(moving->size))
		return 0;
	if (!mbus_store_try(work->db, Max(moving->series, 1), moving->size,
						moving->expires_at, &taken) ||
		!mbus_body_find(work->schema, taken.body, RowExclusiveLock, &new) ||
		new.relid != taken.relid)
		return 0;
	mbus_task_become_owner(work);
	mbus_sql("INSERT INTO message_bus.part_%d SELECT " INT64_FORMAT
			 ", n, size, at, encoding, sha256, state, bytes"
			 " FROM message_bus.part_%d WHERE body = " INT64_FORMAT
			 " ORDER BY n", new.store_no, new.body, store_no, moving->body);
	mbus_sql("UPDATE message_bus.body_moved SET to_body = " INT64_FORMAT
			 " WHERE to_body = " INT64_FORMAT, new.body, moving->body);
	mbus_sql("INSERT INTO message_bus.body_moved VALUES (" INT64_FORMAT
			 ", " INT64_FORMAT ") ON CONFLICT (body) DO UPDATE"
			 " SET to_body = EXCLUDED.to_body", moving->body, new.body);
	return new.body;
}

/* Has the store of the copy held by what held the old one. */
static void
holds_go_over(int32 store_no, const Moving *moving, int64 to)
{
	mbus_sql("WITH held AS (DELETE FROM message_bus.body_hold"
			 " WHERE store_no = %d AND message_id = ANY ('{%s}')"
			 " RETURNING until, message_id)"
			 " INSERT INTO message_bus.body_hold"
			 " SELECT %d, until, message_id FROM held",
			 store_no, moving->holders.data, MbusStoreOf(to));
}
