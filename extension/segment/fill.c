/*
 * fill.c
 *		What a restore writes into tables that are in use.
 *
 * The bus writes its tables itself, so a COPY or an INSERT that names one is a
 * restore's, or somebody's by hand.  The worker sees what it brings in its
 * next pass.  Four things cannot wait for that, and hooks see to them:
 *
 *	- a segment that is being filled must be hidden, else what is acknowledged
 *	  is delivered because its acks come later: before the first row the worker
 *	  is asked to look, and waited for a moment.  So also before a table of
 *	  messages is attached: it has no indexes then, and readers would fail.
 *	  Tables that were made in the same transaction show with all they hold,
 *	  and need none of this; one that was truncated in it is not such a table
 *	- transaction ids that come into a segment which is entered already
 *	  (era.c) must be found: its row of segment_era is deleted in the same
 *	  transaction, and it is entered anew.  "fills" tells a worker that is
 *	  entering it; it holds a ShareLock on the table meanwhile, the restore
 *	  RowExclusive until it has committed
 *	- the worker gives up waiting for a secret that does not come when nothing
 *	  has come into a segment for long: the time is noted ("filled_at")
 *	- a purge or the start of a subscription that is above all segments must
 *	  not hide what is published from its commit on: publishers go to a segment
 *	  above it (MbusNumbering.roll_below), before the row can be seen.  That is
 *	  told at the end of the transaction, when it is about to commit: what it
 *	  rolls back uses up no numbers.  If the commit fails it is taken back
 *
 * For stores of large bodies the time is noted, too: none is dropped then for a
 * while, since what holds it may come last.
 *
 * And one is refused: COPY into the facts of a segment that is in use, and into
 * the parts of a store.  Segments
 * of another bus may have the numbers of ours; where their tables cannot be made,
 * pg_restore goes on and copies into ours.  Messages meet the unique index; acks
 * and deletions would count for messages that they are not of.
 *
 * INSERT is looked at for the first three only; its rows are not there yet when
 * the hook is called, and for the fourth the worker's pass has to do.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parsetree.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/columns.h"
#include "base/compat.h"
#include "base/ids.h"
#include "segment/fill.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/unfinished.h"

#define LOOK_WAIT_MS	3000

static ProcessUtility_hook_type prev_utility = NULL;
static ExecutorStart_hook_type prev_executor = NULL;

/* What this transaction has copied into, whose rows name ids. */
static Oid	copied_channel = InvalidOid;
static Oid	copied_subscription = InvalidOid;

/* What its commit has told publishers, and what they were told before. */
static int32 rolled_to = 0;
static int32 rolled_from = 0;

static void fill_utility(PlannedStmt *pstmt, const char *queryString,
						 bool readOnlyTree, ProcessUtilityContext context,
						 ParamListInfo params, QueryEnvironment *queryEnv,
						 DestReceiver *dest, QueryCompletion *qc);
static void fill_executor(QueryDesc *query, int eflags);
static Oid	table_copied(Node *command);
static Oid	table_attached(Node *command);
static bool bus_table(Oid relid);
static bool may_fill(Oid relid);
static int32 message_segment(Oid relid);
static void facts_refuse(Oid relid);
static bool is_part_table(const char *name);
static bool is_empty(Oid relid);
static bool body_table(const char *name);
static bool goes_with_extension(Oid relid);
static void fill_begins(Oid relid);
static void fill_stamp(Oid relid);
static void bodies_stamp(Oid relid);
static bool segment_table(const char *name);
static bool made_here(Oid relid);
static bool look_wait(MbusDatabase *db, uint32 ticket);
static void fill_seen(Oid relid);
static void era_forget(Oid schema, int32 segment);
static void fill_xact(XactEvent event, void *arg);
static void names_copied(Oid relid);
static void names_above(Oid relid, AttrNumber column, int64 offset);
static void names_take_back(void);
static int64 highest_id(Oid relid, AttrNumber column);

/*
 * mbus_fill_init installs the hooks; called from _PG_init while the server
 * preloads libraries.
 */
void
mbus_fill_init(void)
{
	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = fill_utility;
	prev_executor = ExecutorStart_hook;
	ExecutorStart_hook = fill_executor;
	RegisterXactCallback(fill_xact, NULL);
}

/*
 * Runs a command, with what COPY into a table of the bus, or attaching one,
 * brings about.
 */
static void
fill_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			 ProcessUtilityContext context, ParamListInfo params,
			 QueryEnvironment *queryEnv, DestReceiver *dest,
			 QueryCompletion *qc)
{
	Oid			relid = table_copied(pstmt->utilityStmt);
	Oid			begins = relid;

	if (!OidIsValid(begins))
		begins = table_attached(pstmt->utilityStmt);
	if (OidIsValid(begins) && may_fill(begins))
	{
		if (OidIsValid(relid))
		{
			facts_refuse(relid);
			bodies_stamp(relid);
		}
		fill_begins(begins);
		fill_stamp(begins);
	}
	if (prev_utility)
		prev_utility(pstmt, queryString, readOnlyTree, context, params,
					 queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
	if (OidIsValid(relid))
	{
		fill_stamp(relid);
		bodies_stamp(relid);
		fill_seen(relid);
		names_copied(relid);
	}
}

/* The same for INSERT, whose table is locked by now. */
static void
fill_executor(QueryDesc *query, int eflags)
{
	ListCell   *cell;

	if (prev_executor)
		prev_executor(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (query->operation != CMD_INSERT || eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	foreach(cell, query->plannedstmt->resultRelations)
	{
		Oid			relid = rt_fetch(lfirst_int(cell),
									 query->plannedstmt->rtable)->relid;

		if (!bus_table(relid))
			continue;
		fill_begins(relid);
		fill_stamp(relid);
		fill_seen(relid);
	}
}

/* The bus's table that a command copies into, or InvalidOid. */
static Oid
table_copied(Node *command)
{
	Oid			relid = InvalidOid;

	if (IsA(command, CopyStmt))
	{
		CopyStmt   *copy = (CopyStmt *) command;

		if (copy->is_from && copy->relation)
			relid = RangeVarGetRelid(copy->relation, NoLock, true);
	}
	return bus_table(relid) ? relid : InvalidOid;
}

/* The bus's table that a command attaches to another, or InvalidOid. */
static Oid
table_attached(Node *command)
{
	Oid			relid = InvalidOid;

	if (IsA(command, AlterTableStmt) &&
		((AlterTableStmt *) command)->cmds != NIL)
	{
		AlterTableCmd *first = linitial(((AlterTableStmt *) command)->cmds);

		/* it stands alone */
		if (first->subtype == AT_AttachPartition)
			relid = RangeVarGetRelid(((PartitionCmd *) first->def)->name,
									 NoLock, true);
	}
	return bus_table(relid) ? relid : InvalidOid;
}

/* Whether a table is in the bus's schema, and there is a bus. */
static bool
bus_table(Oid relid)
{
	Oid			schema;

	if (!OidIsValid(relid) || RecoveryInProgress() || !mbus_preloaded())
		return false;
	schema = get_namespace_oid("message_bus", true);
	return OidIsValid(schema) && get_rel_namespace(relid) == schema &&
		OidIsValid(get_relname_relid("segment_era", schema));
}

/*
 * Whether the user has a right that a command asks for which fills or attaches
 * a table: nobody else's command has the worker look.
 */
static bool
may_fill(Oid relid)
{
	Oid			user = GetUserId();

	return MbusOwnsTable(relid, user) ||
		pg_class_aclcheck(relid, user, ACL_INSERT) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, user, ACL_INSERT,
								  ACLMASK_ANY) == ACLCHECK_OK;
}

/* The segment whose messages a table has; 0: all, -1: none. */
static int32
message_segment(Oid relid)
{
	const char *parent = mbus_family_name(MBUS_MESSAGE);
	size_t		prefix = strlen(parent);
	char	   *name = get_rel_name(relid);
	int32		segment = -1;

	if (name && strcmp(name, parent) == 0)
		segment = 0;
	else if (name && strncmp(name, parent, prefix) == 0 &&
			 name[prefix] == '_' && name[prefix + 1] != '\0' &&
			 strspn(name + prefix + 1, "0123456789") ==
			 strlen(name + prefix + 1))
		segment = atoi(name + prefix + 1);
	return segment;
}

/*
 * facts_refuse errors with 55000 for a COPY into facts of a segment that is in
 * use: it is this bus's own, or was taken in.
 */
static void
facts_refuse(Oid relid)
{
	char	   *name = get_rel_name(relid);

	bool		refuse = name && is_part_table(name) && !is_empty(relid);

	for (int f = 0; name && f < MBUS_FAMILIES; f++)
	{
		const char *family = mbus_family_name((MbusFamily) f);
		size_t		prefix = strlen(family);

		refuse |= f != MBUS_MESSAGE &&
			strncmp(name, family, prefix) == 0 && name[prefix] == '_';
	}
	if (refuse && goes_with_extension(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot copy into table \"message_bus.%s\", which is in use",
						name),
				 errdetail("What is copied may be of another bus, whose segments and stores have the same numbers."),
				 errhint("Restore into an empty database.")));
}

/* Whether a name is that of a store's table. */
static bool
is_part_table(const char *name)
{
	const size_t prefix = strlen("part_");

	return strncmp(name, "part_", prefix) == 0 && name[prefix] != '\0' &&
		strspn(name + prefix, "0123456789") == strlen(name + prefix);
}

/* Whether a table has no block: its rows may come after its definition. */
static bool
is_empty(Oid relid)
{
	Relation	rel = try_table_open(relid, AccessShareLock);
	bool		empty = true;

	if (rel)
	{
		empty = RelationGetNumberOfBlocks(rel) == 0;
		table_close(rel, AccessShareLock);
	}
	return empty;
}

/* Whether a name is that of a table of bodies, or of what holds them. */
static bool
body_table(const char *name)
{
	return is_part_table(name) || strcmp(name, "body_store") == 0 ||
		strcmp(name, "body_hold") == 0 || strcmp(name, "body_moved") == 0 ||
		strcmp(name, "upload") == 0 || strcmp(name, "upload_end") == 0 ||
		strcmp(name, "upload_hash") == 0;
}

/* Whether a table depends on an extension, as those that are in use do. */
static bool
goes_with_extension(Oid relid)
{
	Relation	depends = table_open(DependRelationId, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key[0], Anum_pg_depend_classid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_objid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(depends, DependDependerIndexId, true, NULL, 2,
							  key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
		found = ((Form_pg_depend) GETSTRUCT(tuple))->refclassid ==
			ExtensionRelationId;
	systable_endscan(scan);
	table_close(depends, AccessShareLock);
	return found;
}

/*
 * fill_begins has a segment hidden that others have made and is to be filled,
 * or attached: the worker hides what it finds.  One that is hidden only because
 * nothing was numbered above it yet is not in the worker's list, and could show
 * when that is.  The worker itself attaches only what is its own.
 */
static void
fill_begins(Oid relid)
{
	MbusDatabase *db = mbus_database_or_null();
	int32		segment = message_segment(relid);
	bool		waits;
	uint32		ticket;

	if (db == NULL || db->worker.pid == MyProcPid || segment <= 0 ||
		mbus_segment_listed(db, segment))
		return;
	waits = !made_here(relid);
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	waits &= db->numbering.ready && db->worker.pid != 0;
	ticket = ++db->numbering.looks_wanted;
	LWLockRelease(&db->lock);
	mbus_wake_worker(db);
	if (waits && !look_wait(db, ticket))
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment %d of message_bus is not known to be hidden while it is filled",
						segment),
				 errdetail("The worker did not answer within %d seconds; what was acknowledged may be delivered again.",
						   LOOK_WAIT_MS / 1000),
				 errhint("See the view message_bus.worker_status and the server's log.")));
}

/*
 * fill_stamp notes that something comes into a segment: the worker waits for
 * what is missing of those that are restored.
 */
static void
fill_stamp(Oid relid)
{
	MbusDatabase *db = mbus_database_or_null();
	char	   *name = get_rel_name(relid);

	if (db && name && segment_table(name))
		pg_atomic_write_u64(&db->numbering.filled_at, (uint64) mbus_now());
}

/*
 * bodies_stamp notes that something of large bodies is copied.  INSERT says
 * nothing: the bus itself inserts uploads so.
 */
static void
bodies_stamp(Oid relid)
{
	MbusDatabase *db = mbus_database_or_null();
	char	   *name = get_rel_name(relid);

	if (db && name && body_table(name))
		pg_atomic_write_u64(&db->numbering.bodies_filled_at,
							(uint64) mbus_now());
}

/* Whether a name is that of a segment's table, or of the parent of some. */
static bool
segment_table(const char *name)
{
	for (int f = 0; f <= MBUS_FAMILIES; f++)
	{
		const char *family = f == MBUS_FAMILIES ? "secret" :
		mbus_family_name((MbusFamily) f);
		size_t		prefix = strlen(family);

		if (strncmp(name, family, prefix) == 0 &&
			(name[prefix] == '\0' || name[prefix] == '_'))
			return true;
	}
	return false;
}

/*
 * Whether a table was made in this transaction, or is gone: nobody else can
 * see it.  A row of pg_class does not tell: TRUNCATE, ALTER TABLE write a new
 * one.
 */
static bool
made_here(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	bool		made = true;

	if (rel)
	{
		made = rel->rd_createSubid != InvalidSubTransactionId;
		relation_close(rel, AccessShareLock);
	}
	return made;
}

/*
 * look_wait waits for the worker's look, for a moment: one that cannot work
 * does not keep a restore from going on.  False if it did not come.
 */
static bool
look_wait(MbusDatabase *db, uint32 ticket)
{
	bool		done = false;

	for (int ms = 0; !done && ms < LOOK_WAIT_MS; ms += 5)
	{
		mbus_wake_worker(db);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 5, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(&db->lock, LW_SHARED);
		done = (int32) (db->numbering.looks_done - ticket) >= 0;
		LWLockRelease(&db->lock);
	}
	return done;
}

/*
 * fill_seen has a segment's transaction ids entered anew; the table is locked
 * until the transaction ends.
 */
static void
fill_seen(Oid relid)
{
	MbusDatabase *db = mbus_database_or_null();
	int32		segment = message_segment(relid);

	if (segment < 0)
		return;
	if (db)
		pg_atomic_fetch_add_u32(&db->numbering.fills, 1);
	era_forget(get_rel_namespace(relid), segment);
}

/*
 * era_forget deletes a segment's row of segment_era, or all; backends hear of
 * it when the transaction has committed.  No rights are asked for: what is
 * lost is made anew.
 */
static void
era_forget(Oid schema, int32 segment)
{
	Relation	rel = table_open(get_relname_relid("segment_era", schema),
								 RowExclusiveLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;
	TM_FailureData failure;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		int32		entered;

		entered = DatumGetInt32(heap_getattr(tuple, MBUS_ENTERED_SEGMENT_NO,
											 RelationGetDescr(rel),
											 &isnull));
		/* the worker may just delete it */
		if (segment == 0 || entered == segment)
			(void) heap_delete(rel, &tuple->t_self, GetCurrentCommandId(true),
							   InvalidSnapshot, true, &failure, false);
	}
	systable_endscan(scan);
	CacheInvalidateRelcache(rel);
	table_close(rel, NoLock);
}

/* names_copied takes note of a COPY into a table whose rows name ids. */
static void
names_copied(Oid relid)
{
	char	   *name = get_rel_name(relid);

	if (name && strcmp(name, "channel") == 0)
		copied_channel = relid;
	else if (name && strcmp(name, "subscription") == 0)
		copied_subscription = relid;
}

/*
 * fill_xact has publishers go above what this transaction has copied, before
 * its commit.  A transaction that is prepared is about to commit.
 */
static void
fill_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (OidIsValid(copied_channel))
				names_above(copied_channel, MBUS_CHANNEL_PURGED_TO, 0);
			if (OidIsValid(copied_subscription))
				names_above(copied_subscription, MBUS_SUBSCRIPTION_START_ID,
							-1);
			break;
		case XACT_EVENT_ABORT:
			names_take_back();
			/* FALLTHROUGH */
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			copied_channel = copied_subscription = InvalidOid;
			rolled_to = rolled_from = 0;
			break;
		default:
			break;
	}
}

/*
 * names_above has publishers go to a segment above all that the rows of a
 * table name in a column.
 */
static void
names_above(Oid relid, AttrNumber column, int64 offset)
{
	MbusDatabase *db = mbus_database_or_null();
	int64		highest;
	int32		number;

	if (db == NULL)
		return;
	highest = highest_id(relid, column) + offset;
	if (highest <= 0 || highest >> MBUS_ROW_BITS >= MBUS_SEGMENT_MAX)
		return;
	number = MbusSegmentOf(highest) + 1;
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (number > db->numbering.roll_below)
	{
		if (rolled_to == 0)
			rolled_from = db->numbering.roll_below;
		db->numbering.roll_below = rolled_to = number;
	}
	LWLockRelease(&db->lock);
}

/*
 * names_take_back lets publishers go on as before, if nobody has told them
 * more since.
 */
static void
names_take_back(void)
{
	MbusDatabase *db = rolled_to != 0 ? mbus_database_or_null() : NULL;

	if (db == NULL)
		return;
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (db->numbering.roll_below == rolled_to)
		db->numbering.roll_below = rolled_from;
	LWLockRelease(&db->lock);
}

/* The highest id in a column, with what this transaction has brought. */
static int64
highest_id(Oid relid, AttrNumber column)
{
	Relation	rel = try_table_open(relid, AccessShareLock);
	int64		highest = 0;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (rel == NULL)
		return 0;
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		Datum		id = heap_getattr(tuple, column, RelationGetDescr(rel),
									  &isnull);

		if (!isnull)
			highest = Max(highest, DatumGetInt64(id));
	}
	table_endscan(scan);
	PopActiveSnapshot();
	table_close(rel, AccessShareLock);
	return highest;
}
