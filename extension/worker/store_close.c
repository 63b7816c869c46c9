/*
 * store_close.c
 *		Closes stores of large bodies: they take no more, and when the last of
 *		these expires is written to their rows.
 *
 * Who takes a shared store out of shared memory knows its last expiry and
 * writes it to its row.  If that fails, or the server goes down before, the
 * row's promise of when it was opened stands, and it is closed at the next
 * full pass (store_open.c tells more of it).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "storage/lwlock.h"

#include "state/state.h"
#include "worker/store_close.h"
#include "worker/task.h"

static MbusOutcome store_write_closed(MbusWork *work, void *arg);
static MbusOutcome stores_write_lost(MbusWork *work, void *arg);
static char *stores_open_list(MbusDatabase *db);

/*
 * mbus_store_close closes the store of a series without a successor, unless
 * somebody waits for one by now.
 */
void
mbus_store_close(MbusWork *work, int32 series)
{
	MbusDatabase *db = work->db;
	MbusOpenStore *store = &db->stores.open[series];
	MbusOpenStore old = {0};

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (store->wanted == 0)
	{
		old = *store;
		MemSet(store, 0, sizeof(*store));
	}
	LWLockRelease(&db->lock);
	if (old.store_no != 0)
		mbus_store_closed(work, &old);
}

/*
 * mbus_store_closed writes down that a store which shared memory has forgotten
 * takes no more bodies, and when the last of them expires.
 */
void
mbus_store_closed(MbusWork *work, const MbusOpenStore *old)
{
	(void) mbus_task_run(work, MBUS_TASK_BODY_CLOSE, store_write_closed,
						 unconstify(MbusOpenStore *, old),
						 "closing store %d", old->store_no);
}

static MbusOutcome
store_write_closed(MbusWork *work, void *arg)
{
	const MbusOpenStore *old = arg;
	Oid			types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {Int32GetDatum(old->store_no),
	TimestampTzGetDatum(old->max_expires_at)};

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (SPI_execute_with_args("UPDATE message_bus.body_store"
							  " SET closed_at = message_bus.clock(),"
							  " expires_at = coalesce($2, message_bus.clock())"
							  " WHERE store_no = $1 AND closed_at IS NULL",
							  2, types, values,
							  old->max_expires_at == 0 ? " n" : NULL,
							  false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update message_bus.body_store");
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * mbus_stores_close_lost closes the shared stores that are not open and whose
 * row does not say so: they stay as long as that has promised.
 */
void
mbus_stores_close_lost(MbusWork *work)
{
	if (!mbus_tasks_begin(work, MBUS_TASK_BODY_CLOSE, false))
		return;
	(void) mbus_task_run(work, MBUS_TASK_BODY_CLOSE, stores_write_lost, NULL,
						 "closing stores");
	mbus_tasks_end(work, MBUS_TASK_BODY_CLOSE);
}

static MbusOutcome
stores_write_lost(MbusWork *work, void *arg)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_sql("UPDATE message_bus.body_store SET closed_at = message_bus.clock()"
			 " WHERE closed_at IS NULL AND NOT own"
			 " AND store_no <> ALL ('{%s}')", stores_open_list(work->db));
	mbus_task_commit();
	return MBUS_DONE;
}

/* The numbers of the stores that are open, with commas. */
static char *
stores_open_list(MbusDatabase *db)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		/* nobody but the worker makes it another than 0 */
		int32		number = db->stores.open[s].store_no;

		if (number != 0)
			appendStringInfo(&list, "%s%d", list.len > 0 ? "," : "", number);
	}
	return list.data;
}

/*
 * mbus_store_ready tells whether an own store is ready, for who may take it.
 */
bool
mbus_store_ready(MbusDatabase *db, int32 store_no)
{
	bool		ready = false;

	LWLockAcquire(&db->lock, LW_SHARED);
	for (int i = 0; i < db->stores.nready; i++)
		ready |= db->stores.ready[i].store_no == store_no;
	LWLockRelease(&db->lock);
	return ready;
}
