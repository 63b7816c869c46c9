/*
 * store_settle.c
 *		Takes in the stores of large bodies that a restore has brought.
 *
 * A store is a restore's if its table does not depend on the extension; ours do
 * from the start.  A restore makes the table, fills it, then gives it its
 * index and row security: until then nothing is read in it (55000,
 * body/part_scan.c).  When it has both it is ours: it goes with the extension,
 * nobody has rights on it, and stores are numbered above it.  That is one
 * transaction for all that are whole.
 *
 * The catalog is searched when the worker starts, when body_store has another
 * number of rows than this worker has made and deleted, and as long as
 * something is not whole.
 *
 * Rows that hold stores (body_hold, upload) may come after the tables.  So
 * nothing is dropped while a restore is at work, nor SETTLED_MS after one has
 * brought a store or rows (store_drop.c): shared memory knows when that was,
 * also another worker.  A table that comes without its row in body_store (a dump
 * of some tables) can be read and is never dropped.
 *
 * One that is not made whole keeps others from being dropped for UNCHANGED_US
 * after something was last brought; then it is told of, and left.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/restored.h"
#include "worker/segment_catalog.h"
#include "worker/store_open.h"
#include "worker/store_settle.h"
#include "worker/task.h"

#define SETTLED_MS		600000
#define UNCHANGED_US	(60 * 60 * USECS_PER_SEC)

/* Tables that are a restore's. */
typedef struct Restored
{
	int			whole;
	int			unfinished;
	uint32		hash;			/* of those that are unfinished */
	char		one[NAMEDATALEN];	/* of these */
} Restored;

static MbusOutcome stores_settle(MbusWork *work, void *arg);
static void restored_settle(MbusWork *work, Restored *restored);
static void settled_note(MbusWork *work, const Restored *restored);
static TimestampTz filled_at(MbusWork *work);
static void numbers_raise(MbusWork *work);

/*
 * mbus_stores_settle takes in what is whole of what a restore has brought.
 */
void
mbus_stores_settle(MbusWork *work)
{
	if (!mbus_tasks_begin(work, MBUS_TASK_BODY_SETTLE, false))
		return;
	(void) mbus_task_run(work, MBUS_TASK_BODY_SETTLE, stores_settle, NULL,
						 "looking for stores that were restored");
	mbus_tasks_end(work, MBUS_TASK_BODY_SETTLE);
}

/*
 * mbus_stores_none tells whether there are no stores, as of the last look.
 */
bool
mbus_stores_none(MbusWork *work)
{
	return work->stores.looked && work->stores.known == 0;
}

/*
 * mbus_stores_restoring tells whether what holds a store may still be to come.
 */
bool
mbus_stores_restoring(MbusWork *work)
{
	const MbusStoreWork *stores = &work->stores;
	TimestampTz now = mbus_now();

	if (!stores->looked ||
		!TimestampDifferenceExceeds(filled_at(work), now, SETTLED_MS) ||
		(stores->unsettled > 0 && now - filled_at(work) <= UNCHANGED_US))
		return true;
	return work->restore.pending > 0 && !mbus_restored_unchanged(work);
}

static MbusOutcome
stores_settle(MbusWork *work, void *arg)
{
	MbusStoreWork *stores = &work->stores;
	Restored	restored = {0};
	bool		isnull;
	int64		rows;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	rows = mbus_sql_int64(&isnull, "SELECT count(*)"
						  " FROM message_bus.body_store");
	if (!stores->looked || rows != stores->known || stores->unsettled > 0)
		restored_settle(work, &restored);
	mbus_task_commit();
	stores->looked = true;
	stores->known = rows;
	settled_note(work, &restored);
	return MBUS_DONE;
}

/* Notes when something was last brought, and tells of what is left unfinished. */
static void
settled_note(MbusWork *work, const Restored *restored)
{
	MbusStoreWork *stores = &work->stores;
	TimestampTz now = mbus_now();

	if (restored->whole > 0 || restored->hash != stores->unsettled_hash)
	{
		work->db->stores.settled_at = now;	/* the worker's alone */
		stores->unsettled_said = false;
	}
	stores->unsettled = restored->unfinished;
	stores->unsettled_hash = restored->hash;
	if (restored->unfinished == 0 || stores->unsettled_said ||
		now - filled_at(work) <= UNCHANGED_US)
		return;
	stores->unsettled_said = true;
	ereport(WARNING,
			(errmsg("%d tables of large bodies were not restored to the end, of them \"message_bus.%s\"",
					restored->unfinished, restored->one),
			 errdetail("They have no index or no row security.  Stores are dropped all the same from now on."),
			 errhint("Restore them again, or drop them.")));
}

/* When something was last brought. */
static TimestampTz
filled_at(MbusWork *work)
{
	return Max(work->db->stores.settled_at, (TimestampTz)
			   pg_atomic_read_u64(&work->db->numbering.bodies_filled_at));
}

/*
 * restored_settle settles the tables that are whole, and counts all that are
 * a restore's.
 */
static void
restored_settle(MbusWork *work, Restored *restored)
{
	SPITupleTable *found;
	uint64		n;

	if (SPI_execute(psprintf("SELECT c.relname::text, c.oid, c.relrowsecurity"
							 " AND EXISTS (SELECT FROM pg_index x"
							 "  WHERE x.indrelid = c.oid AND x.indisvalid)"
							 " FROM pg_class c"
							 " WHERE c.relnamespace = 'message_bus'::regnamespace"
							 " AND c.relkind = 'r'"
							 " AND c.relname ~ '^part_[0-9]{1,9}$'"
							 " AND (SELECT bool_or("
							 "   d.refclassid = 'pg_extension'::regclass"
							 "   AND d.refobjid = %u) FROM pg_depend d"
							 "  WHERE d.classid = 'pg_class'::regclass"
							 "  AND d.objid = c.oid AND d.objsubid = 0)"
							 " IS NOT TRUE ORDER BY c.oid", work->extension),
					false, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not look for restored stores");
	found = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	row = found->vals[i];
		TupleDesc	desc = found->tupdesc;
		bool		isnull;
		Oid			table;

		table = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
		if (!DatumGetBool(SPI_getbinval(row, desc, 3, &isnull)))
		{
			restored->unfinished++;
			restored->hash = hash_combine(restored->hash,
										  hash_bytes_uint32(table));
			strlcpy(restored->one, SPI_getvalue(row, desc, 1),
					sizeof(restored->one));
			continue;
		}
		mbus_segment_depend(table, work->extension);
		mbus_segment_revoke(SPI_getvalue(row, desc, 1), table);
		restored->whole++;
	}
	if (restored->whole > 0)
		numbers_raise(work);
}

/* Numbers stores above all that there are. */
static void
numbers_raise(MbusWork *work)
{
	MbusStores *stores = &work->db->stores;
	int64		next = mbus_highest_store() + 1;

	if (next <= stores->next_store || next > MBUS_SEGMENT_MAX)
		return;
	mbus_sql("UPDATE message_bus.server_state SET next_store = %d",
			 (int32) next);
	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	stores->next_store = (int32) next;
	LWLockRelease(&work->db->lock);
}
