/*
 * worker.c
 *		The background worker of one database: its loop and its small tasks.
 *
 * One worker runs for each listed database (launcher.c).  It is the only
 * process that makes, rolls and drops segments; state/state.h says what else
 * only it writes.  The larger tasks are in files of their own.
 *
 * A pass runs when somebody sets the latch (a publisher who wants a segment,
 * a caller of expire(), a claim whose subscription is not loaded), when a
 * lease ends, or when message_bus.worker_interval is over:
 *
 *	1. find the extension; if it is another one than before (dropped, created
 *	   again) shared memory starts anew, and numbering with it
 *	2. open what publishers want, roll what is old or full
 *	3. begin a lease epoch, load subscriptions, end leases (epoch.c, load.c,
 *	   expiry.c)
 *	4. write checkpoints of subscriptions that are due, and log what has been
 *	   committed (log_task.c)
 *	5. close what is not open any more and was not closed in an orderly way
 *	6. attach segments that were opened without, find what is acknowledged in
 *	   full, retire that and what has expired
 *	7. store failures and reads that backends have left in shared memory, give
 *	   back what channels that are gone are counted in (tally_task.c), and see
 *	   that the reserve of space is there (disk_reserve.c)
 *	8. enter transaction ids of closed segments (era_enter.c), and read a little
 *	   of what is stored again (scrub_task.c)
 *
 * 5 to 7 wait for the interval or for expire(); 2 and 3 are done between
 * their parts too (worker_serve).  Each task is one or more
 * transactions of its own, inside mbus_task_run(): an error ends that task
 * alone (task.c).
 *
 * Locks.  The state lock is taken for straight-line code only, never across
 * a catalog access.  Heavyweight locks are waited for with a lock_timeout,
 * so that a pass ends.
 *
 * Letting go.  DROP DATABASE and CREATE DATABASE ... TEMPLATE wait at most
 * five seconds for others to leave the database, holding a lock on it that
 * conflicts with what a connecting backend takes.  The worker tries for that
 * same lock at least every second (between tasks too), without waiting; if
 * somebody holds it, the worker exits, and the launcher starts another one
 * some seconds later, which waits in InitPostgres, where it is not yet
 * counted as connected.
 *
 * Life cycle.  The worker publishes its pid and latch in the slot and takes
 * them back when it exits.  Shared memory stays as it is: open segments stay
 * open and publishers go on in them, and the next worker takes over.  What a
 * worker leaves half done is described where it is done.
 *
 * Commits are asynchronous (synchronous_commit = off) but for those that say
 * ForceSyncCommit or drop files: everything here can be done again.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "base/settings.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/read_ring.h"
#include "state/state.h"
#include "worker/acked.h"
#include "worker/checkpoint.h"
#include "worker/disk_reserve.h"
#include "worker/era_enter.h"
#include "worker/expiry.h"
#include "worker/log_task.h"
#include "worker/names.h"
#include "worker/numbers.h"
#include "worker/reads.h"
#include "worker/reset.h"
#include "worker/rescue_task.h"
#include "worker/restore.h"
#include "worker/segment_ahead.h"
#include "worker/roles.h"
#include "worker/scrub_task.h"
#include "worker/segment_attach.h"
#include "worker/segment_close.h"
#include "worker/segment_open.h"
#include "worker/segment_retire.h"
#include "worker/store_drop.h"
#include "worker/store_move.h"
#include "worker/store_open.h"
#include "worker/store_settle.h"
#include "worker/tally_task.h"
#include "worker/task.h"
#include "worker/upload_task.h"
#include "worker/worker.h"
#include "worker/worker_settings.h"

#define PRUNE_EVERY_MS		3600000

static bool worker_claim(MbusDatabase *db);
static void worker_exit(int code, Datum arg);
static void worker_sleep(MbusWork *work);
static void worker_serve(MbusWork *work);
static void worker_pass(MbusWork *work);
static bool worker_ready(MbusWork *work);
static MbusOutcome worker_find(MbusWork *work, void *arg);
static void worker_store(MbusWork *work);
static MbusOutcome faults_store(MbusWork *work, void *arg);
static void fault_store(const MbusFault *fault);
static char *utf8_checked(const char *s);
static MbusOutcome errors_prune(MbusWork *work, void *arg);

/*
 * mbus_worker_main is the loop of the worker of the database whose oid it is
 * given; it never returns.
 */
void
mbus_worker_main(Datum main_arg)
{
	MbusWork   *work;
	MemoryContext context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	mbus_worker_settings();
	BackgroundWorkerUnblockSignals();
	/* as autovacuum does, also where nobody else may connect */
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(main_arg),
											  InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	mbus_worker_settle();

	work = MemoryContextAllocZero(TopMemoryContext, sizeof(MbusWork));
	work->log = MemoryContextAllocZero(TopMemoryContext, sizeof(MbusLog));
	work->db = mbus_database_attach(MyDatabaseId);
	work->serve = worker_serve;
	work->numbered_at = mbus_now();
	work->load.unasked = true;
	if (work->db == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("message_bus serves %d databases already",
						MBUS_MAX_DATABASES)));
	if (!worker_claim(work->db))
		proc_exit(0);
	before_shmem_exit(worker_exit, PointerGetDatum(work));
	mbus_retire_init(work);
	mbus_names_init();
	mbus_roles_init();

	context = AllocSetContextCreate(TopMemoryContext, "message_bus worker",
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(context);
		mbus_task_let_go(work);
		worker_pass(work);
		MemoryContextReset(context);
		worker_sleep(work);
	}
}

/*
 * worker_claim enters this process as the database's worker; false if there
 * is another one that lives.
 */
static bool
worker_claim(MbusDatabase *db)
{
	int			other;

	LWLockAcquire(&db->lock, LW_SHARED);
	other = db->worker.pid;
	LWLockRelease(&db->lock);
	if (other != 0 && BackendPidGetProc(other) != NULL)
		return false;			/* the launcher tries again */

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (db->worker.pid != other)
	{
		LWLockRelease(&db->lock);
		return false;
	}
	db->worker.pid = MyProcPid;
	db->worker.procno = MbusMyProcno();
	db->worker.started_at = mbus_now();
	LWLockRelease(&db->lock);
	return true;
}

/* Takes pid and latch back, whatever the reason for leaving. */
static void
worker_exit(int code, Datum arg)
{
	MbusWork   *work = (MbusWork *) DatumGetPointer(arg);
	MbusDatabase *db = work->db;

	/* the server may shut down, and shared memory with it */
	if (code != 0)
		mbus_reads_store_at_exit(work);
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->worker.pid = 0;
	db->worker.procno = -1;
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
}

/*
 * worker_sleep waits for the next pass: the latch, the end of a lease, what is
 * to be logged, or worker_interval after the last full pass, but never longer
 * than until the next look at the database's lock.
 */
static void
worker_sleep(MbusWork *work)
{
	TimestampTz now = mbus_now();
	TimestampTz next = TimestampTzPlusMilliseconds(work->pass.full_at,
												   mbus_worker_interval);
	int			events;

	next = Min(next, TimestampTzPlusMilliseconds(now, MBUS_LET_GO_EVERY_MS));
	next = mbus_deliveries_wake(work, next);
	if (work->entering.more || work->scrub.more)
		next = now;
	pgstat_report_activity(STATE_IDLE, NULL);
	do
	{
		TimestampTz wake = mbus_log_wake(work, next);
		long		ms;

		now = mbus_now();
		ms = TimestampDifferenceMilliseconds(now, Max(wake, now));
		events = WaitLatch(MyLatch,
						   WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   Max(ms, 1), PG_WAIT_EXTENSION);
	} while ((events & WL_LATCH_SET) == 0 && mbus_now() < next &&
			 !mbus_log_moved(work));
	ResetLatch(MyLatch);
}

/*
 * worker_serve does, between two tasks that may take long, what others
 * wait for.  Called outside transactions.
 */
static void
worker_serve(MbusWork *work)
{
	mbus_task_let_go(work);
	mbus_restore_asked(work);
	mbus_segments_open(work);
	mbus_stores_open(work);
	if (!work->disk.full)
		mbus_segments_ahead(work);
	mbus_deliveries_serve(work);
	if (mbus_reads_press(work->db))
		mbus_reads_store(work);
}

/*
 * worker_pass is one pass, in the order that the top of this file tells; then
 * it says when it ended, and answers the expire() that asked before it began.
 */
static void
worker_pass(MbusWork *work)
{
	MbusDatabase *db = work->db;
	TimestampTz started = mbus_now();
	TimestampTz ended;
	int			blocked = 0;

	mbus_clock_look();
	LWLockAcquire(&db->lock, LW_SHARED);
	work->pass.ticket = db->expire.requested > db->expire.done ?
		db->expire.requested : 0;
	LWLockRelease(&db->lock);

	if (worker_ready(work))
	{
		mbus_roles_look(work);
		mbus_restore_asked(work);
		mbus_segments_open(work);
		mbus_stores_open(work);
		if (!work->disk.full)
			mbus_segments_ahead(work);
		mbus_deliveries_serve(work);
		if (mbus_reads_press(db))
			mbus_reads_store(work);
		if (!work->disk.full)
			mbus_checkpoints_write(work);
		mbus_log_run(work);
		if (work->pass.ticket != 0 ||
			TimestampDifferenceExceeds(work->pass.full_at, started,
									   mbus_worker_interval))
		{
			work->pass.full_at = started;
			mbus_restore_look(work);
			mbus_segments_close_lost(work);
			mbus_stores_close_lost(work);
			if (work->pass.ticket != 0)
				mbus_segments_close_expired(work);
			if (!work->disk.full)
				mbus_segments_attach(work);
			mbus_segments_acked(work);
			if (!work->disk.full)
				mbus_expiring_move(work);
			blocked = mbus_segments_retire(work);
			mbus_stores_settle(work);
			mbus_stores_drop(work);
			if (!work->disk.full)
				mbus_stores_move(work);
			if (!work->disk.full)
			{
				worker_store(work);
				mbus_log_prune_run(work);
			}
			mbus_numbers_warn(work);
			mbus_disk_look(work);
		}
		if (!work->disk.full)
		{
			mbus_segments_enter(work);
			mbus_scrub_run(work);
		}
	}
	else
	{
		work->entering.more = work->scrub.more = false;
		work->pass.full_at = started;
		if (OidIsValid(work->schema))
			mbus_disk_look(work);
		work->expiry_stuck = true;	/* nobody has seen to leases that ended */
	}

	ended = mbus_now();
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->worker.last_pass_at = ended;
	db->worker.last_pass_us = ended - started;
	if (work->pass.ticket != 0)
	{
		db->expire.done = work->pass.ticket;
		db->expire.blocked = blocked;
	}
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
	pg_atomic_fetch_add_u64(&db->counter[MBUS_C_WORKER_PASSES], 1);
	pgstat_report_stat(true);
}

/*
 * worker_ready finds the extension and sees to it that segments are
 * numbered; true if the other tasks can go on.
 */
static bool
worker_ready(MbusWork *work)
{
	MbusOutcome outcome;

	if (!mbus_tasks_begin(work, MBUS_TASK_FIND, false))
		return false;
	outcome = mbus_task_run(work, MBUS_TASK_FIND, worker_find, NULL,
							"looking for the extension");
	mbus_tasks_end(work, MBUS_TASK_FIND);
	if (outcome != MBUS_DONE)
		return false;

	if (work->schema != work->db->schema)
	{
		/* nobody but the worker writes "schema" */
		mbus_database_reset(work->db, work->schema);
		work->load.unasked = true;
		work->load.older_checked = 0;
		MemSet(&work->restore, 0, sizeof(work->restore));
		MemSet(work->backoff, 0, sizeof(work->backoff));
		MemSet(&work->retire, 0, sizeof(work->retire));
		MemSet(&work->stores, 0, sizeof(work->stores));
		mbus_log_forget(work);
		mbus_scrub_forget(work);
	}
	if (!OidIsValid(work->schema))
	{
		mbus_disk_forget(work);
		work->disk.looked = false;
		return false;
	}
	if (!work->disk.looked)
		mbus_disk_look(work);
	if (!work->db->numbering.ready)
		mbus_segments_number(work);
	return work->db->numbering.ready;
}

/*
 * worker_find looks up the extension, its schema and the parent tables.
 * Anything missing means that there is no extension.
 */
static MbusOutcome
worker_find(MbusWork *work, void *arg)
{
	HeapTuple	tuple;

	StartTransactionCommand();
	work->extension = get_extension_oid("message_bus", true);
	work->schema = get_namespace_oid("message_bus", true);
	if (!OidIsValid(work->extension) || !OidIsValid(work->schema) ||
		getExtensionOfObject(NamespaceRelationId,
							 work->schema) != work->extension)
		work->schema = InvalidOid;

	for (int f = 0; f < MBUS_FAMILIES && OidIsValid(work->schema); f++)
	{
		work->parent[f] = get_relname_relid(mbus_family_name((MbusFamily) f),
											work->schema);
		if (!OidIsValid(work->parent[f]) ||
			get_rel_relkind(work->parent[f]) != RELKIND_PARTITIONED_TABLE)
			work->schema = InvalidOid;
	}
	if (OidIsValid(work->schema))
	{
		tuple = SearchSysCache1(RELOID,
								ObjectIdGetDatum(work->parent[0]));
		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for relation %u",
				 work->parent[0]);
		work->owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return MBUS_DONE;
}

/* Stores reads and failures, and removes old ones. */
static void
worker_store(MbusWork *work)
{
	TimestampTz now = mbus_now();

	mbus_reads_store(work);
	if (!mbus_tasks_begin(work, MBUS_TASK_STORE, false))
		return;
	(void) mbus_task_run(work, MBUS_TASK_STORE, faults_store, NULL,
						 "storing failures");
	if (TimestampDifferenceExceeds(work->errors_pruned_at, now,
								   PRUNE_EVERY_MS) &&
		mbus_task_run(work, MBUS_TASK_STORE, errors_prune, NULL,
					  "removing old failures") == MBUS_DONE)
		work->errors_pruned_at = now;
	mbus_tallies_look(work);
	mbus_uploads_look(work);
	mbus_tasks_end(work, MBUS_TASK_STORE);
}

/*
 * faults_store moves failures from shared memory to message_bus.error.  A
 * worker that ends between the commit and the advance of the tail stores them
 * twice.
 */
static MbusOutcome
faults_store(MbusWork *work, void *arg)
{
	MbusDatabase *db = work->db;
	uint64		from;
	uint64		to;
	char	   *faults = mbus_fault_take(db, &from, &to);

	if (faults == NULL)
		return MBUS_DONE;
	mbus_task_begin();
	mbus_task_hold_extension(work);
	for (uint64 at = 0; at < to - from;)
	{
		MbusFault  *fault = (MbusFault *) (faults + at);

		fault_store(fault);
		at += fault->size;
	}
	mbus_task_commit();
	pfree(faults);
	mbus_fault_taken(db, from, to);
	return MBUS_DONE;
}

/*
 * fault_store inserts one failure into message_bus.error.
 */
static void
fault_store(const MbusFault *fault)
{
	Oid			types[] = {TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID,
		INT4OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID};
	Datum		values[12];
	char		nulls[] = "            ";
	char	   *role = GetUserNameFromId(fault->role, true);
	const char *at = fault->texts;

	values[0] = TimestampTzGetDatum(fault->at);
	values[1] = CStringGetTextDatum(unpack_sql_state(fault->sqlerrcode));
	values[2] = CStringGetTextDatum(at);
	values[3] = CStringGetTextDatum(role ? role :
									psprintf("%u", fault->role));
	values[4] = Int32GetDatum(fault->pid);
	values[5] = Int64GetDatum(fault->session);
	if (fault->session == 0)
		nulls[5] = 'n';
	values[6] = Int64GetDatum(fault->message_id);
	if (fault->message_id == 0)
		nulls[6] = 'n';
	/* message, transaction id, channel, subject, detail */
	for (int i = 7; i < 12; i++)
	{
		at += strlen(at) + 1;
		values[i] = CStringGetTextDatum(utf8_checked(at));
		if (i > 7 && *at == '\0')
			nulls[i] = 'n';
	}
	if (SPI_execute_with_args("INSERT INTO message_bus.error (at, sqlstate,"
							  " function, role, pid, session, message_id, message,"
							  " transaction_id, channel, subject, detail)"
							  " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
							  " $11, $12)",
							  12, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not insert into message_bus.error");
}

/*
 * utf8_checked returns the text, without what is no valid text at its end
 * (it may have been cut inside a character).
 */
static char *
utf8_checked(const char *s)
{
	return pnstrdup(s, pg_encoding_verifymbstr(PG_UTF8, s, (int) strlen(s)));
}

static MbusOutcome
errors_prune(MbusWork *work, void *arg)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_sql("DELETE FROM message_bus.error"
			 " WHERE at < pg_catalog.clock_timestamp() - interval '7 days'");
	mbus_task_commit();
	return MBUS_DONE;
}
