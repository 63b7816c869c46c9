/*
 * fault.c
 *		Failures: counted, kept and told.
 *
 * Every error of a public function passes mbus_call(), which counts it and
 * puts it into a ring in shared memory before it goes on to the caller: the
 * caller's transaction will be rolled back, so the row in message_bus.error
 * is written by the worker.  If the ring is full (the worker is behind, or
 * this is a standby) the failure is counted as lost from the view; the
 * server's log has it all the same.
 *
 * Inside message_bus.relay() the relay records a frame's error itself, once.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "state/fault.h"
#include "state/state.h"

static void fault_put(const char *function, Oid user, int sqlerrcode,
					  int64 message_id, const char *message);

/*
 * mbus_call runs the body of an SQL function and records an error it raises.
 */
Datum
mbus_call(PGFunction body, const char *function, FunctionCallInfo fcinfo)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			user = GetUserId();
	Datum		result = (Datum) 0;

	PG_TRY();
	{
		result = body(fcinfo);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		if (!mbus_caller.in_relay)
		{
			MemoryContextSwitchTo(caller);
			edata = CopyErrorData();
			/* under the caller's name, whoever it ran as when it failed */
			mbus_fault_record(function, edata, user);
			FreeErrorData(edata);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	return result;
}

/*
 * mbus_fault_record counts a user's error and keeps it for the view errors.
 * It takes the database's lock and cannot fail.
 */
void
mbus_fault_record(const char *function, ErrorData *edata, Oid user)
{
	mbus_count(MBUS_C_ERRORS, 1);
	fault_put(function, user, edata->sqlerrcode, 0,
			  edata->message ? edata->message : "");
}

/*
 * mbus_fault_checksum counts and keeps that a stored message does not match
 * its checksum.
 */
void
mbus_fault_checksum(int64 message_id, const char *detail)
{
	mbus_count(MBUS_C_CHECKSUM_FAILURES, 1);
	fault_put("verify", GetUserId(), ERRCODE_DATA_CORRUPTED, message_id, detail);
}

/*
 * fault_put adds a failure to the ring, or counts it as lost where that is
 * full.  Takes the state lock; cannot fail.
 */
static void
fault_put(const char *function, Oid user, int sqlerrcode, int64 message_id,
		  const char *message)
{
	MbusDatabase *db = mbus_database_or_null();
	MbusFault  *fault;

	if (db == NULL)
		return;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (sqlerrcode == ERRCODE_DISK_FULL)
		db->disk.told = true;
	if (db->faults.head - db->faults.tail >= MBUS_FAULTS)
		pg_atomic_fetch_add_u64(&db->counter[MBUS_C_FAULTS_LOST], 1);
	else
	{
		fault = &db->faults.fault[db->faults.head % MBUS_FAULTS];
		fault->at = GetCurrentTimestamp();
		fault->sqlerrcode = sqlerrcode;
		fault->pid = MyProcPid;
		fault->message_id = message_id;
		fault->session = mbus_caller.session;
		strlcpy(fault->function, function, sizeof(fault->function));
		fault->role = user;
		strlcpy(fault->message, message, sizeof(fault->message));
		/* no half of a character */
		fault->message[pg_encoding_mbcliplen(PG_UTF8, fault->message,
											 strlen(fault->message),
											 sizeof(fault->message) - 1)] = '\0';
		db->faults.head++;
	}
	LWLockRelease(&db->lock);
}
