/*
 * task.c
 *		Runs one task of the worker, and what tasks share.
 *
 * A task is one or more transactions inside mbus_task_run(), between
 * mbus_task_begin() and mbus_task_commit() where one with SPI will do.  An
 * error ends the task alone.  It is logged with what was being done,
 * counted, and shown in worker_status.
 *
 * Tasks of one kind run in groups, between mbus_tasks_begin() and
 * mbus_tasks_end().  If one of a group failed, the others of it run all the
 * same, so that one bad segment does not keep back the rest; the next group
 * is put off by 0.1 s, doubling to 30 s.
 *
 * Locks.  A task waits for one MBUS_LOCK_WAIT_MS at most, in which the worker
 * serves nobody, and gives up.  That is no failure: it is tried again after
 * 0.1 s, however often.  worker_status shows what could not be locked, the log
 * has it once a minute.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "state/clock.h"
#include "state/state.h"
#include "worker/task.h"

#define BACKOFF_FIRST_MS	100
#define BACKOFF_LONGEST_MS	30000
#define SAY_LOCKED_MS		60000

/* mbus_task_hold_extension() failed for this: no fault, the next pass sees */
static bool extension_gone = false;

/* What an error in a task means. */
typedef enum Failure
{
	FAILURE_NONE,				/* it happens in the normal course of things */
	FAILURE_LOCKED,				/* somebody's lock is in the way */
	FAILURE_ERROR
} Failure;

static void task_context(void *arg);
static void task_failed(MbusWork *work, MbusTaskKind kind, const char *what,
						MemoryContext context, Failure failure);
static bool locked_to_say(MbusBackoff *backoff);
static void space_lacking(MbusWork *work, MbusTaskKind kind);

/*
 * mbus_tasks_begin begins a group of tasks of one kind, unless they are put
 * off because one failed lately: then it returns false.
 */
bool
mbus_tasks_begin(MbusWork *work, MbusTaskKind kind, bool force)
{
	work->backoff[kind].failed = false;
	work->backoff[kind].locked = false;
	return force || work->backoff[kind].failures == 0 ||
		mbus_now() >= work->backoff[kind].retry_at;
}

/*
 * mbus_tasks_end ends a group: if any of it failed, the next is put off.
 */
void
mbus_tasks_end(MbusWork *work, MbusTaskKind kind)
{
	int			pause;

	if (!work->backoff[kind].failed)
	{
		work->backoff[kind].failures = work->backoff[kind].locked ? 1 : 0;
		work->backoff[kind].retry_at =
			TimestampTzPlusMilliseconds(mbus_now(),
										BACKOFF_FIRST_MS);
		return;
	}
	pause = Min(BACKOFF_FIRST_MS << Min(work->backoff[kind].failures, 12),
				BACKOFF_LONGEST_MS);
	work->backoff[kind].failures++;
	work->backoff[kind].retry_at =
		TimestampTzPlusMilliseconds(mbus_now(), pause);
}

/*
 * mbus_task_run runs a task and returns its outcome; the task makes its own
 * transactions.  An error in it is logged with "what", counted and kept for
 * worker_status.  A lock that is not to be had is MBUS_BLOCKED, and no failure.
 * Retirement and the kinds after it give up on one in the normal course of
 * things, and an extension may be dropped while we work: that is told nobody.
 */
MbusOutcome
mbus_task_run(MbusWork *work, MbusTaskKind kind, MbusTask task, void *arg,
			  const char *what,...)
{
	MemoryContext context = CurrentMemoryContext;
	char		doing[128];
	ErrorContextCallback callback;
	volatile MbusOutcome outcome = MBUS_FAILED;
	va_list		args;

	va_start(args, what);
	vsnprintf(doing, sizeof(doing), what, args);
	va_end(args);
	pgstat_report_activity(STATE_RUNNING, doing);
	callback.callback = task_context;
	callback.arg = doing;
	callback.previous = error_context_stack;

	PG_TRY();
	{
		error_context_stack = &callback;
		outcome = task(work, arg);
	}
	PG_CATCH();
	{
		int			code = geterrcode();
		bool		locked = code == ERRCODE_LOCK_NOT_AVAILABLE ||
		code == ERRCODE_T_R_DEADLOCK_DETECTED;
		Failure		failure = extension_gone ? FAILURE_NONE :
		!locked ? FAILURE_ERROR :
		kind >= MBUS_TASK_RETIRE ? FAILURE_NONE : FAILURE_LOCKED;

		extension_gone = false;
		task_failed(work, kind, doing, context, failure);
		outcome = failure == FAILURE_ERROR ? MBUS_FAILED : MBUS_BLOCKED;
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(context);
	return outcome;
}

static void
task_context(void *arg)
{
	errcontext("message_bus worker while %s", (const char *) arg);
}

/*
 * task_failed ends the transaction of a task that raised an error, and says
 * so as that deserves.
 */
static void
task_failed(MbusWork *work, MbusTaskKind kind, const char *what,
			MemoryContext context, Failure failure)
{
	MbusDatabase *db = work->db;
	MbusBackoff *backoff = &work->backoff[kind];
	ErrorData  *edata;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	edata = CopyErrorData();
	if (failure == FAILURE_ERROR ||
		(failure == FAILURE_LOCKED && locked_to_say(backoff)))
		EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	QueryCancelPending = false;
	RESUME_INTERRUPTS();
	if (failure == FAILURE_NONE)
		return;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->worker.last_error_at = mbus_now();
	snprintf(db->worker.last_error, sizeof(db->worker.last_error), "%s: %s",
			 what, edata->message);
	LWLockRelease(&db->lock);
	work->failed_code = edata->sqlerrcode;
	if (edata->sqlerrcode == ERRCODE_DISK_FULL ||
		edata->saved_errno == ENOSPC || edata->saved_errno == EDQUOT)
		space_lacking(work, kind);
	if (failure == FAILURE_ERROR)
	{
		pg_atomic_fetch_add_u64(&db->counter[MBUS_C_WORKER_ERRORS], 1);
		ConditionVariableBroadcast(&db->changed);
		backoff->failed = true;
	}
	else
		backoff->locked = true;
	FreeErrorData(edata);
}

/*
 * Takes note that a task has failed for want of space, and whether it is one
 * that gives some back, or without which none does; disk_reserve.c.
 */
static void
space_lacking(MbusWork *work, MbusTaskKind kind)
{
	work->disk.lacking = true;
	switch (kind)
	{
		case MBUS_TASK_FIND:
		case MBUS_TASK_NUMBER:
		case MBUS_TASK_CLOSE:
		case MBUS_TASK_BODY_CLOSE:
		case MBUS_TASK_BODY_DROP:
		case MBUS_TASK_RETIRE:
		case MBUS_TASK_ACKED:
			work->disk.wanted = true;
			break;
		default:
			break;
	}
}

/* Whether the log is to be told of a lock: once a minute. */
static bool
locked_to_say(MbusBackoff *backoff)
{
	TimestampTz now = mbus_now();

	if (backoff->locked_said != 0 &&
		!TimestampDifferenceExceeds(backoff->locked_said, now, SAY_LOCKED_MS))
		return false;
	backoff->locked_said = now;
	return true;
}

/*
 * mbus_task_begin starts a transaction with a snapshot and SPI; what a task
 * allocates until mbus_task_commit() is gone with it.
 */
void
mbus_task_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * mbus_task_commit ends what mbus_task_begin() began, and gives up the owner's
 * rights.
 */
void
mbus_task_commit(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	PopActiveSnapshot();
	SetUserIdAndSecContext(GetSessionUserId(), 0);
	CommitTransactionCommand();
}

/*
 * mbus_task_hold_extension locks the extension until the end of the
 * transaction, against DROP EXTENSION, and errors if it is not the one found
 * at the start of the pass any more.
 */
void
mbus_task_hold_extension(MbusWork *work)
{
	mbus_task_lock_timeout(MBUS_LOCK_WAIT_MS);
	LockDatabaseObject(ExtensionRelationId, work->extension, 0,
					   AccessShareLock);
	extension_gone =
		get_extension_oid("message_bus", true) != work->extension;
	if (extension_gone)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"message_bus\" was dropped meanwhile")));
}

/*
 * mbus_task_become_owner continues the transaction as the owner of the
 * extension's tables, in a restricted context: what the commands may happen
 * to call gets no more rights than that.  Undone by mbus_task_commit(), or
 * by an abort.
 */
void
mbus_task_become_owner(MbusWork *work)
{
	SetUserIdAndSecContext(work->owner,
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
}

/*
 * mbus_task_lock_timeout bounds each wait for a lock from here on.
 */
void
mbus_task_lock_timeout(int ms)
{
	char		value[16];

	snprintf(value, sizeof(value), "%d", ms);
	SetConfigOption("lock_timeout", value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * mbus_sql runs one statement through SPI and errors unless it succeeds.
 * The format's arguments must be numbers or quoted identifiers.
 */
void
mbus_sql(const char *fmt,...)
{
	StringInfoData sql;
	int			needed;
	int			result;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;

		va_start(args, fmt);
		needed = appendStringInfoVA(&sql, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	result = SPI_execute(sql.data, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql.data,
			 SPI_result_code_string(result));
	pfree(sql.data);
}

/*
 * mbus_sql_int64 returns the first column of the first row of a query whose
 * first column is a bigint; *isnull if there is none.
 */
int64
mbus_sql_int64(bool *isnull, const char *fmt,...)
{
	va_list		args;
	char		sql[2048];
	Datum		value = (Datum) 0;
	int			len;

	va_start(args, fmt);
	len = vsnprintf(sql, sizeof(sql), fmt, args);
	va_end(args);
	if (len >= (int) sizeof(sql))
		elog(ERROR, "query is too long");

	if (SPI_execute(sql, false, 1) < 0)
		elog(ERROR, "could not execute \"%s\"", sql);
	*isnull = true;
	if (SPI_processed > 0)
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
							  1, isnull);
	return *isnull ? 0 : DatumGetInt64(value);
}

/*
 * mbus_task_let_go exits if somebody wants the database for himself; it
 * looks at most every MBUS_LET_GO_EVERY_MS.  Called outside transactions.
 */
void
mbus_task_let_go(MbusWork *work)
{
	TimestampTz now = mbus_now();
	MemoryContext context = CurrentMemoryContext;
	LOCKTAG		tag;

	CHECK_FOR_INTERRUPTS();
	if (!TimestampDifferenceExceeds(work->let_go_looked_at, now,
									MBUS_LET_GO_EVERY_MS))
		return;
	work->let_go_looked_at = now;

	StartTransactionCommand();
	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) ==
		LOCKACQUIRE_NOT_AVAIL)
	{
		AbortCurrentTransaction();
		ereport(LOG,
				(errmsg("message_bus worker leaves database %u, which is being dropped, copied or moved",
						MyDatabaseId)));
		proc_exit(0);
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/*
 * mbus_task_number_check errors with 54000 if there are no more numbers.
 */
void
mbus_task_number_check(int64 number, int highest, const char *what)
{
	if (number > highest)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("message_bus has used up its %s", what),
				 errdetail("The highest is %d.", highest)));
}
