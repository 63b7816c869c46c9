/*
 * launcher.c
 *		Starts one worker for each database in message_bus.databases.
 *
 * The launcher is a static background worker that the postmaster starts
 * after recovery (never on a standby before it is promoted, never under
 * pg_upgrade).  It connects to the shared catalogs only, so that it holds up
 * no DROP DATABASE.
 *
 * Each listed name is looked up every few seconds.  A database that exists
 * gets a dynamic worker, known by the database's oid; one that is no longer
 * listed has its worker terminated.  A worker that ended, for whatever
 * reason, is started again after five seconds, and after up to a minute if
 * it keeps ending early.  The pause is what lets DROP DATABASE and CREATE
 * DATABASE ... TEMPLATE through: the worker leaves when somebody locks its
 * database (see worker.c), and must not be back at once.
 *
 * The table of workers is the launcher's own memory.  When the launcher
 * exits in an orderly way it terminates its workers, and its successor
 * starts new ones; a worker that finds another one alive leaves again
 * (worker.c), so that there are never two.  If the launcher is killed, the
 * postmaster restarts everything.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/launcher.h"
#include "worker/reset.h"

#define LOOK_EVERY_MS		1000	/* for databases that came or went */
#define RESTART_FIRST_MS	5000
#define RESTART_LONGEST_MS	60000
#define RUN_IS_LONG_MS		60000	/* forgives earlier failures */

typedef struct Launched
{
	Oid			database;		/* InvalidOid: entry is free */
	bool		listed;
	BackgroundWorkerHandle *handle; /* NULL: none runs */
	TimestampTz started_at;
	TimestampTz start_after;
	int			failures;		/* runs in a row that were short */
} Launched;

static Launched launched[MBUS_MAX_DATABASES];
static char *told = NULL;		/* names that are no databases, as logged */

static void launcher_exit(int code, Datum arg);
static void launcher_look(void);
static bool name_is_listed(List *names, const char *name);
static List *names_without(List *names, const char *name);
static void launcher_tell(List *unknown);
static void launcher_list(Oid database);
static void launcher_watch(Launched *entry);
static void launcher_start(Launched *entry);
static void launcher_postpone(Launched *entry);

/*
 * mbus_launcher_init registers the launcher; called from _PG_init while the
 * server preloads libraries.
 */
void
mbus_launcher_init(void)
{
	BackgroundWorker worker;

	MemSet(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_FIRST_MS / 1000;
	strlcpy(worker.bgw_library_name, "message_bus", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "mbus_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "message_bus launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "message_bus launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/*
 * mbus_launcher_main is the launcher's loop; it never returns.
 */
void
mbus_launcher_main(Datum main_arg)
{
	MemoryContext context;
	TimestampTz looked_at = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	before_shmem_exit(launcher_exit, (Datum) 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	context = AllocSetContextCreate(TopMemoryContext, "message_bus launcher",
									ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			looked_at = 0;
		}

		MemoryContextSwitchTo(context);
		if (TimestampDifferenceExceeds(looked_at, mbus_now(),
									   LOOK_EVERY_MS))
		{
			launcher_look();
			looked_at = mbus_now();
		}
		for (int i = 0; i < MBUS_MAX_DATABASES; i++)
		{
			if (OidIsValid(launched[i].database))
				launcher_watch(&launched[i]);
		}
		MemoryContextReset(context);

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 1000, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* Ends the workers; the next launcher starts its own. */
static void
launcher_exit(int code, Datum arg)
{
	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		if (launched[i].handle)
			TerminateBackgroundWorker(launched[i].handle);
	}
}

/*
 * launcher_look marks the entries of databases that are listed and exist.
 * pg_database is read from end to end: connected to no database, indexes of
 * shared catalogs cannot always be opened.
 */
static void
launcher_look(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *names = mbus_listed_databases();
	List	   *unknown = list_copy(names);
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	List	   *existing = NIL;

	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
		launched[i].listed = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		existing = lappend_oid(existing, form->oid);
		if (name_is_listed(names, NameStr(form->datname)))
		{
			launcher_list(form->oid);
			unknown = names_without(unknown, NameStr(form->datname));
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	mbus_databases_forget(existing, mbus_database_reset);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	launcher_tell(unknown);
}

/*
 * launcher_tell logs the listed names that are no databases, once: again only
 * when they are others.
 */
static void
launcher_tell(List *unknown)
{
	StringInfoData quoted;
	ListCell   *cell;

	initStringInfo(&quoted);
	foreach(cell, unknown)
		appendStringInfo(&quoted, "%s\"%s\"", quoted.len > 0 ? ", " : "",
						 (const char *) lfirst(cell));
	if (strcmp(quoted.data, told ? told : "") == 0)
		return;
	if (told)
		pfree(told);
	told = MemoryContextStrdup(TopMemoryContext, quoted.data);
	if (quoted.len > 0)
		ereport(LOG,
				(errmsg(list_length(unknown) == 1 ?
						"message_bus.databases names %s, which is no database" :
						"message_bus.databases names %s, which are no databases",
						quoted.data),
				 errhint("A database that is made later is served from then on.")));
}

static bool
name_is_listed(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	}
	return false;
}

/* The names but for that one. */
static List *
names_without(List *names, const char *name)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			names = foreach_delete_current(names, cell);
	}
	return names;
}

/* Marks the database's entry, which it makes if need be. */
static void
launcher_list(Oid database)
{
	Launched   *entry = NULL;

	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		if (launched[i].database == database)
		{
			launched[i].listed = true;
			return;
		}
		if (entry == NULL && !OidIsValid(launched[i].database))
			entry = &launched[i];
	}
	if (entry == NULL)
	{
		/* entries of databases that are gone are freed as workers end */
		ereport(LOG,
				(errmsg("message_bus serves %d databases already, %u has to wait",
						MBUS_MAX_DATABASES, database)));
		return;
	}
	MemSet(entry, 0, sizeof(*entry));
	entry->database = database;
	entry->listed = true;
}

/*
 * launcher_watch takes one entry a step further: notices that its worker
 * ended, ends it, frees the entry, or starts it.
 */
static void
launcher_watch(Launched *entry)
{
	pid_t		pid;

	if (entry->handle)
	{
		if (GetBackgroundWorkerPid(entry->handle, &pid) == BGWH_STOPPED)
		{
			pfree(entry->handle);
			entry->handle = NULL;
			launcher_postpone(entry);
		}
		else if (!entry->listed)
			TerminateBackgroundWorker(entry->handle);
		return;
	}
	if (!entry->listed)
		entry->database = InvalidOid;
	else if (mbus_now() >= entry->start_after)
		launcher_start(entry);
}

/*
 * launcher_start has the postmaster start a worker for a database.  If there
 * is no slot for it, it is tried again later.
 */
static void
launcher_start(Launched *entry)
{
	BackgroundWorker worker;
	MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
	bool		started;

	MemSet(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "message_bus", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "mbus_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "message_bus worker for database %u",
			 entry->database);
	strlcpy(worker.bgw_type, "message_bus worker", BGW_MAXLEN);
	worker.bgw_main_arg = ObjectIdGetDatum(entry->database);
	worker.bgw_notify_pid = MyProcPid;

	started = RegisterDynamicBackgroundWorker(&worker, &entry->handle);
	MemoryContextSwitchTo(context);
	entry->started_at = mbus_now();
	if (!started)
	{
		entry->handle = NULL;
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a message_bus worker for database %u",
						entry->database),
				 errhint("Raise \"max_worker_processes\"; message_bus needs one for its launcher and one for each database.")));
		launcher_postpone(entry);
	}
}

/* Decides when the entry's next worker may start. */
static void
launcher_postpone(Launched *entry)
{
	TimestampTz now = mbus_now();
	int			pause;

	if (TimestampDifferenceExceeds(entry->started_at, now, RUN_IS_LONG_MS))
		entry->failures = 0;
	pause = Min(RESTART_FIRST_MS << Min(entry->failures, 8),
				RESTART_LONGEST_MS);
	entry->failures++;
	entry->start_after = TimestampTzPlusMilliseconds(now, pause);
}
