/*
 * worker_sql.c
 *		What SQL can see of the worker, and ask of it.
 *
 * expire() takes a ticket under the state lock, sets the worker's latch and
 * waits on MbusDatabase.changed until the worker has served a pass that
 * began after the ticket.  The worker retires segments, not the caller: it
 * sees what has committed, and waits for nobody longer than a few seconds,
 * so that a caller whose own transaction is in the way gets a warning and
 * not a deadlock.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/settings.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/unfinished.h"
#include "worker/numbers.h"

#define EXPIRE_WAIT_MS		60000
#define WORKER_AWAY_MS		10000	/* one that has left is back by then */
#define OPEN_COLUMNS		7
#define STATUS_COLUMNS		19

static bool expire_wait(MbusDatabase *db, uint64 ticket);
static const char *fault_of_bus(void);
static bool caller_may_know(void);

/*
 * expire() has the worker close and retire what has expired, and returns how
 * many segments were dropped.
 */
MBUS_FUNCTION(expire)
{
	MbusDatabase *db;
	uint64		ticket;
	int32		before;
	int32		after;
	int32		blocked;

	PreventCommandDuringRecovery("message_bus.expire()");
	db = mbus_database();
	if (!mbus_database_listed(get_database_name(MyDatabaseId)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus does not serve database \"%s\" any more",
						get_database_name(MyDatabaseId)),
				 errhint("Add the database to \"message_bus.databases\" and reload the server's configuration.")));
	mbus_node_checked(db);
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	ticket = ++db->expire.requested;
	before = db->expire.retired;
	LWLockRelease(&db->lock);

	if (!expire_wait(db, ticket))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus worker did not answer within %d seconds",
						EXPIRE_WAIT_MS / 1000),
				 errhint("See the view message_bus.worker_status and the server's log.")));

	LWLockAcquire(&db->lock, LW_SHARED);
	after = db->expire.retired;
	blocked = db->expire.blocked;
	LWLockRelease(&db->lock);
	if (blocked > 0)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg_plural("%d expired segment could not be dropped yet",
							   "%d expired segments could not be dropped yet",
							   blocked, blocked),
				 errdetail("Open transactions publish to them or read message_bus.message or message_bus.event, or dropping them failed."),
				 errhint("The worker goes on trying; see pg_locks and the view message_bus.worker_status.")));
	PG_RETURN_INT32(after - before);
}

/* Waits until the ticket is served; false if that takes too long. */
static bool
expire_wait(MbusDatabase *db, uint64 ticket)
{
	TimestampTz started = mbus_now();
	bool		served;

	ConditionVariablePrepareToSleep(&db->changed);
	for (;;)
	{
		LWLockAcquire(&db->lock, LW_SHARED);
		served = db->expire.done >= ticket;
		LWLockRelease(&db->lock);
		if (served || TimestampDifferenceExceeds(started,
												 mbus_now(),
												 EXPIRE_WAIT_MS))
			break;
		mbus_wake_worker(db);
		(void) ConditionVariableTimedSleep(&db->changed, 500,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return served;
}

/*
 * open_segments() returns the segments that take messages, as shared memory
 * has them.
 */
MBUS_FUNCTION(open_segments)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusDatabase *db;

	InitMaterializedSRF(fcinfo, 0);
	db = mbus_database_or_null();
	for (int s = 1; db != NULL && s <= MBUS_MAX_SERIES; s++)
	{
		Datum		values[OPEN_COLUMNS];
		bool		nulls[OPEN_COLUMNS] = {0};
		MbusSeries	series;

		LWLockAcquire(&db->lock, LW_SHARED);
		series = db->series[s];
		LWLockRelease(&db->lock);
		if (series.open_segment == 0)
			continue;
		values[0] = Int32GetDatum(series.open_segment);
		values[1] = Int32GetDatum(s);
		values[2] = TimestampTzGetDatum(series.opened_at);
		values[3] = Int32GetDatum(series.next_row);
		values[4] = Int32GetDatum(series.max_rows);
		values[5] = Int64GetDatum(series.bytes);
		values[6] = TimestampTzGetDatum(series.max_expires_at);
		nulls[6] = series.max_expires_at == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 nulls);
	}
	return (Datum) 0;
}

/*
 * listed_databases() returns the names in message_bus.databases.
 */
MBUS_FUNCTION(databases_listed)
{
	List	   *names = mbus_listed_databases();
	Datum	   *value = palloc(sizeof(Datum) * Max(1, list_length(names)));
	ListCell   *cell;
	int			n = 0;

	foreach(cell, names)
		value[n++] = CStringGetTextDatum((const char *) lfirst(cell));
	PG_RETURN_ARRAYTYPE_P(construct_array(value, n, TEXTOID, -1, false,
										  TYPALIGN_INT));
}

/*
 * bus_fault() returns why nothing can be published here, and NULL if it can, or
 * to somebody who needs not know.
 */
MBUS_FUNCTION(bus_fault)
{
	const char *fault = caller_may_know() ? fault_of_bus() : NULL;

	if (fault == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(fault));
}

/* What keeps everybody from publishing; NULL: nothing that is known. */
static const char *
fault_of_bus(void)
{
	MbusDatabase *db = mbus_database_or_null();
	MbusWorkerStatus worker;
	bool		refused;
	bool		ready;
	bool		full;

	if (RecoveryInProgress())
		return "the server is a standby";
	if (XactReadOnly)
		return "the database is read-only";
	if (!mbus_preloaded())
		return "the server has not loaded message_bus";
	if (!mbus_database_listed(get_database_name(MyDatabaseId)))
		return "message_bus.databases does not name the database";
	if (db == NULL)
		return "no worker of message_bus has begun";
	LWLockAcquire(&db->lock, LW_SHARED);
	worker = db->worker;
	refused = db->numbering.refused;
	ready = db->numbering.ready;
	full = db->disk.full_since != 0;
	LWLockRelease(&db->lock);
	if (refused)
		return "the database is another node than message_bus.node";
	if (worker.pid == 0 &&
		TimestampDifferenceExceeds(worker.last_pass_at, mbus_now(),
								   WORKER_AWAY_MS))
		return "no worker of message_bus runs";
	if (!ready)
		return "the worker of message_bus is not ready";
	return full ? "the disk of the database is full" : NULL;
}

/* A gateway's login, and who watches over the server. */
static bool
caller_may_know(void)
{
	Oid			types[] = {INT8ARRAYOID, BYTEAARRAYOID};
	Oid			relay;

	if (has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
		return true;
	relay = LookupFuncName(list_make2(makeString("message_bus"),
									  makeString("relay")), 2, types, true);
	return OidIsValid(relay) &&
		MbusFunctionAclCheck(relay, GetUserId()) == ACLCHECK_OK;
}

/*
 * worker_status_row() returns what the worker of this database tells of
 * itself; no row where none has ever run.
 */
MBUS_FUNCTION(worker_status_row)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusDatabase *db;
	MbusWorkerStatus worker;
	MbusNumbersUsed used;
	Datum		values[STATUS_COLUMNS];
	bool		nulls[STATUS_COLUMNS] = {0};
	bool		ready;
	int32		channels;
	TimestampTz full_since;

	InitMaterializedSRF(fcinfo, 0);
	db = mbus_database_or_null();
	if (db == NULL)
		return (Datum) 0;
	LWLockAcquire(&db->lock, LW_SHARED);
	worker = db->worker;
	ready = db->numbering.ready;
	channels = db->channels.nslots;
	full_since = db->disk.full_since;
	LWLockRelease(&db->lock);
	mbus_numbers_used(db, &used);

	values[0] = Int32GetDatum(worker.pid);
	nulls[0] = worker.pid == 0;
	values[1] = TimestampTzGetDatum(worker.started_at);
	values[2] = TimestampTzGetDatum(worker.last_pass_at);
	nulls[2] = worker.last_pass_at == 0;
	values[3] = Float8GetDatum((double) worker.last_pass_us / 1000.0);
	values[4] = BoolGetDatum(ready);
	values[5] = Int64GetDatum(pg_atomic_read_u64(&db->counter[MBUS_C_WORKER_PASSES]));
	values[6] = Int64GetDatum(pg_atomic_read_u64(&db->counter[MBUS_C_WORKER_ERRORS]));
	values[7] = CStringGetTextDatum(worker.last_error);
	nulls[7] = worker.last_error[0] == '\0';
	values[8] = TimestampTzGetDatum(worker.last_error_at);
	nulls[8] = worker.last_error_at == 0;
	values[9] = Int64GetDatum(pg_atomic_read_u64(&db->counter[MBUS_C_SEGMENTS_OPENED]));
	values[10] = Int64GetDatum(pg_atomic_read_u64(&db->counter[MBUS_C_SEGMENTS_RETIRED]));
	values[11] = Int32GetDatum(mbus_unfinished_ranges(db));
	values[12] = Int32GetDatum(channels);
	values[13] = Int32GetDatum(mbus_worker_interval);
	values[14] = Int32GetDatum(mbus_node);
	values[15] = Float8GetDatum(used.segments);
	values[16] = Float8GetDatum(used.epochs);
	values[17] = CStringGetTextDatum(used.warning);
	nulls[17] = used.warning[0] == '\0';
	values[18] = TimestampTzGetDatum(full_since);
	nulls[18] = full_since == 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
