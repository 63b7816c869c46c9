/*
 * dump.c
 *		Dumps and the dropping of tables keep out of each other's way.
 *
 * pg_dump lists all tables under its snapshot and then locks them by name: one
 * that is dropped in between fails the whole dump.  No look at snapshots can
 * prevent it, since one may be taken while a drop commits.  So both take a
 * lock: pg_dump begins with SET TRANSACTION ISOLATION LEVEL REPEATABLE READ,
 * READ ONLY, and a hook on that command takes it, shared, before there is a
 * snapshot and until the transaction ends; a transaction of the worker that
 * detaches or drops takes it exclusively until its commit is visible
 * (segment_retire.c).  Whoever reads so may wait for a drop, some
 * milliseconds; a dump delays the return of space until it has ended, as its
 * locks on the tables would.
 *
 * The lock is one on the schema, with a subobject that schemas do not have, so
 * that it meets no other.  The worker waits for it for a moment and in turn,
 * so that readers that come one after the other do not shut it out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "tcop/utility.h"
#include "utils/snapmgr.h"

#include "segment/dump.h"
#include "state/state.h"

#define DUMP_SUBOBJECT	1

static ProcessUtility_hook_type prev_utility = NULL;

static void dump_utility(PlannedStmt *pstmt, const char *queryString,
						 bool readOnlyTree, ProcessUtilityContext context,
						 ParamListInfo params, QueryEnvironment *queryEnv,
						 DestReceiver *dest, QueryCompletion *qc);
static void dump_begins(void);

/*
 * mbus_dump_init installs the hook; called from _PG_init while the server
 * preloads libraries.
 */
void
mbus_dump_init(void)
{
	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = dump_utility;
}

/* Runs the command, and looks at what it has made of the transaction. */
static void
dump_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			 ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *queryEnv, DestReceiver *dest,
			 QueryCompletion *qc)
{
	NodeTag		tag = nodeTag(pstmt->utilityStmt);

	if (prev_utility)
		prev_utility(pstmt, queryString, readOnlyTree, context, params,
					 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
	if ((tag == T_VariableSetStmt || tag == T_TransactionStmt) &&
		IsTransactionState() && IsolationUsesXactSnapshot() &&
		XactReadOnly && !FirstSnapshotSet)
		dump_begins();
}

/* Takes the lock, if the database has a bus; once in a transaction. */
static void
dump_begins(void)
{
	MbusDatabase *db;
	Oid			schema;

	if (RecoveryInProgress())
		return;
	db = mbus_database_or_null();
	if (db == NULL)
		return;
	LWLockAcquire(&db->lock, LW_SHARED);
	schema = db->schema;
	LWLockRelease(&db->lock);
	if (OidIsValid(schema))
		LockDatabaseObject(NamespaceRelationId, schema, DUMP_SUBOBJECT,
						   AccessShareLock);
}

/*
 * mbus_dumps_wait has dumps wait until the caller's transaction has ended;
 * false if one is at work.  With "in_turn" it is waited for, behind those that
 * are there and before who comes, and an error if lock_timeout runs out.
 */
bool
mbus_dumps_wait(Oid schema, bool in_turn)
{
	if (ConditionalLockDatabaseObject(NamespaceRelationId, schema,
									  DUMP_SUBOBJECT, AccessExclusiveLock))
		return true;
	if (!in_turn)
		return false;
	LockDatabaseObject(NamespaceRelationId, schema, DUMP_SUBOBJECT,
					   AccessExclusiveLock);
	return true;
}
