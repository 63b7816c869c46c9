/*
 * segment_retire.c
 *		Drops the segments that nobody can want any more.
 *
 * A segment that was never attached (segment_attach.c) is as one that has been
 * detached.
 *
 * A segment is retired when it is closed, its last expiry has passed (which
 * acked.c sets to now for one in which all is acknowledged), and no
 * publish in it is unfinished.  For each of its tables:
 *
 *	attached --(a)--> detach-pending --(b)--> detached
 *
 * and when all are detached, one transaction drops the tables and the
 * segment's secret, and deletes the row of message_bus.segment (c).
 * Before (a) it is counted what subscriptions were not done with
 * (segment_told.c): a table that is detached nobody reads.
 *
 * (a) and (b) are the two transactions of ALTER TABLE ... DETACH PARTITION
 * CONCURRENTLY, which no reader or writer of the parent waits for: (a) takes
 * ShareUpdateExclusive on parent and table; then, holding nothing, it waits
 * for the transactions that have the parent locked; (b) takes
 * AccessExclusive on the table alone.  DETACH and DROP without it lock the
 * parent AccessExclusive, which under load is never to be had.
 *
 * Waiting.  The command waits with a lock_timeout.  If it runs out, (a) has
 * committed and the table stays detach-pending: for new queries it is gone
 * from the parent, and only one table of a parent can be so; the others of
 * its family are left alone until it is done.  So it is worth not to get
 * there: before (a) we look who has locked the parent or the table, and go on
 * only when these are gone, however many passes that takes.  Who comes later
 * does not matter: else two readers that take turns would keep a table for
 * ever.  These lists (MbusInWay) are kept for each table of its own: who is
 * in the way of one is in no other's.  A pass waits SETTLE_MS for all of
 * them together.
 *
 * (b) of a table that is pending is done by DETACH ... FINALIZE.  Who may
 * still see the table attached has the parent locked since before (a), so we
 * wait for those who have it locked when we find the table pending, with a
 * list as above.  FINALIZE itself waits for more: for every snapshot of the
 * database that is older than its own, whatever it reads, and with
 * AccessExclusive on the table.  So it is run under a snapshot that none is
 * older than, and after the locks have been had without waiting.  A
 * snapshot's xmin only says below what transaction ids need not be looked
 * up; lowering it is safe, unless the snapshot has lost track of
 * subtransactions: then ids are looked up that may be too old, and FINALIZE
 * waits for the next pass.
 *
 * (c) takes AccessExclusive on these tables, without waiting.  If
 * that fails the row is marked "detached", which shows in the view segments.
 * Its commit deletes the files, last of all, which takes the longer the
 * larger they are (0.1 s for 300 MB where the file system discards blocks).
 * By then everybody sees that the segment is gone and its locks are released,
 * so expire() is answered from a callback in the commit, before that.
 *
 * Dumps.  pg_dump must find what it has listed, so nothing is detached or
 * dropped while one is at work, and none begins during a drop (dump.c).  One
 * that begins between (a) and (b) leaves the table detach-pending until it has
 * ended, and with it the others of its family.
 *
 * Ends in the middle (a crash, an error):
 *
 *	- before (a): nothing happened
 *	- after (a): detach-pending; the next pass finalizes it before it
 *	  detaches another one
 *	- after (b): the table stands alone, in no query's way; the next pass
 *	  goes on with the other family, then (c).  It depends on the extension,
 *	  and DROP EXTENSION takes it along (segment_open.c)
 *	- (c) is one transaction: the row exists as long as the tables do
 *
 * The state is read from the catalog each time; nothing depends on what
 * this process remembers, but for the choice when to try.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "log/unread.h"
#include "segment/dump.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/unfinished.h"
#include "worker/log_task.h"
#include "worker/numbers.h"
#include "worker/rescue_task.h"
#include "worker/segment_catalog.h"
#include "worker/segment_retire.h"
#include "worker/segment_secret.h"
#include "worker/segment_told.h"
#include "worker/task.h"

#define SETTLE_MS			100 /* of a pass, for who is in the way to get out
								 * of it */
#define DETACH_WAIT_MS		100
#define DROP_WAIT_MS		100
#define INSIST_MS			3000	/* expire() tries for that long */
#define SAY_BLOCKED_MS		3600000

/* A segment that is being retired, and its table that is worked on. */
typedef struct Retiring
{
	int32		segment;
	MbusFamily	family;
	MbusLeafState state[MBUS_FAMILIES];
	Oid			leaf[MBUS_FAMILIES];
} Retiring;

static int	segments_retire_once(MbusWork *work);
static MbusOutcome segments_expired(MbusWork *work, void *arg);
static MbusOutcome pending_find(MbusWork *work, void *arg);
static MbusOutcome segment_retire(MbusWork *work, int32 segment);
static MbusOutcome segment_inspect(MbusWork *work, void *arg);
static MbusOutcome leaf_detach(MbusWork *work, void *arg);
static bool leaf_clear(MbusWork *work, Retiring *retiring);
static bool way_clear(MbusWork *work, Oid relid);
static MbusInWay *way_find(MbusWork *work, Oid relid);
static void way_look(MbusInWay *way, Oid relid);
static bool way_settle(MbusWork *work, MbusInWay *way);
static MbusOutcome leaf_finalize(MbusWork *work, void *arg);
static TransactionId oldest_xmin(void);
static void detach_command(MbusFamily family, int32 segment,
						   const char *how);
static MbusOutcome segment_drop(MbusWork *work, void *arg);
static void drop_released(ResourceReleasePhase phase, bool is_commit,
						  bool is_top_level, void *arg);
static void retire_pause(MbusWork *work);
static void retire_report(MbusWork *work, int blocked);

/*
 * mbus_segments_retire retires what can be; returns how many segments could
 * not be because somebody was in the way, or by an error.  If expire() asks
 * for it, it tries these again for a while.
 */
int
mbus_segments_retire(MbusWork *work)
{
	TimestampTz started = mbus_now();
	bool		insist = work->pass.ticket != 0;
	int			blocked;

	if (!mbus_tasks_begin(work, MBUS_TASK_RETIRE, insist))
		return 0;
	for (;;)
	{
		blocked = segments_retire_once(work);
		if (blocked == 0 || !insist ||
			TimestampDifferenceExceeds(started, mbus_now(),
									   INSIST_MS))
			break;
		retire_pause(work);
	}
	mbus_tasks_end(work, MBUS_TASK_RETIRE);
	retire_report(work, blocked);
	return blocked;
}

/* Tries each segment once; returns how many could not be retired. */
static int
segments_retire_once(MbusWork *work)
{
	MbusNumbers expired = {.context = CurrentMemoryContext};
	int			blocked = 0;

	work->retire.settle_ms = SETTLE_MS;
	MemSet(work->retire.pending, 0, sizeof(work->retire.pending));
	(void) mbus_task_run(work, MBUS_TASK_RETIRE, segments_expired, &expired,
						 "looking for segments to retire");
	if (expired.n > 0)
		(void) mbus_task_run(work, MBUS_TASK_RETIRE, pending_find, NULL,
							 "looking for segments that are detach-pending");
	/* all that is listed has expired by now */
	if (expired.n > 0 && !mbus_expired_move(work))
		return expired.n;
	for (int i = 0; i < expired.n; i++)
	{
		work->serve(work);
		if (mbus_segment_hidden(work->db, expired.number[i]))
			continue;			/* it is being restored */
		if (!mbus_segment_settle(work, expired.number[i]))
		{
			blocked++;
			continue;
		}
		work->retire.last_drop = i == expired.n - 1 && blocked == 0;
		if (segment_retire(work, expired.number[i]) != MBUS_DONE)
			blocked++;
	}
	return blocked;
}

/*
 * segments_expired lists the segments to retire: first the one that is
 * detach-pending, if there is one.
 */
static MbusOutcome
segments_expired(MbusWork *work, void *arg)
{
	mbus_segments_query(work, arg, "SELECT segment_no FROM message_bus.segment"
						" WHERE closed_at IS NOT NULL"
						" AND expires_at < message_bus.clock()"
						" ORDER BY segment_no IN"
						" (SELECT substring(c.relname FROM '[0-9]{1,9}$')::int"
						"  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
						"  WHERE i.inhparent IN ('message_bus.message'::regclass,"
						"                        'message_bus.event'::regclass,"
						"                        'message_bus.ack'::regclass,"
						"                        'message_bus.failure'::regclass)"
						"  AND i.inhdetachpending) DESC, detached DESC, segment_no");
	return MBUS_DONE;
}

/*
 * pending_find finds the families of which a table is detach-pending, whether
 * it is to be retired or not: a parent can have but one.
 */
static MbusOutcome
pending_find(MbusWork *work, void *arg)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		bool		none;

		(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM pg_inherits"
							  " WHERE inhparent = %u AND inhdetachpending"
							  " LIMIT 1", work->parent[f]);
		work->retire.pending[f] = !none;
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * segment_retire takes one segment as far as it can.
 */
static MbusOutcome
segment_retire(MbusWork *work, int32 segment)
{
	Retiring	retiring = {.segment = segment};
	MbusOutcome outcome;

	if (mbus_segment_unfinished(work->db, segment) ||
		!mbus_log_lets_go(work, segment))
		return MBUS_BLOCKED;
	outcome = mbus_task_run(work, MBUS_TASK_RETIRE, segment_inspect,
							&retiring, "inspecting segment %d", segment);
	if (outcome == MBUS_DONE)
		outcome = mbus_segment_count(work, segment);
	for (int f = 0; f < MBUS_FAMILIES && outcome == MBUS_DONE; f++)
	{
		retiring.family = (MbusFamily) f;
		if (retiring.state[f] == MBUS_LEAF_PENDING)
			outcome = mbus_task_run(work, MBUS_TASK_RETIRE, leaf_finalize,
									&retiring, "finalizing segment %d",
									segment);
		else if (retiring.state[f] == MBUS_LEAF_ATTACHED)
			outcome = mbus_task_run(work, MBUS_TASK_RETIRE, leaf_detach,
									&retiring, "detaching segment %d",
									segment);
	}
	if (outcome != MBUS_DONE)
		return outcome;
	outcome = mbus_task_run(work, MBUS_TASK_RETIRE, segment_drop,
							&retiring, "dropping segment %d", segment);
	if (outcome != MBUS_DONE)
		(void) mbus_log_failed(work, outcome);
	else
		mbus_unread_forget(work->log, segment);
	return outcome;
}

/*
 * segment_inspect reads the state of the segment's tables, and makes sure
 * that they go with the extension: those of a restore do not yet.
 */
static MbusOutcome
segment_inspect(MbusWork *work, void *arg)
{
	Retiring   *retiring = arg;
	bool		blocked = false;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		bool		none;
		Oid			leaf;

		retiring->state[f] = mbus_leaf_state(work, (MbusFamily) f,
											 retiring->segment, &leaf);
		retiring->leaf[f] = leaf;
		blocked = blocked || retiring->state[f] == MBUS_LEAF_UNFINISHED;
		if (!OidIsValid(leaf))
			continue;
		(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM pg_depend"
							  " WHERE classid = 'pg_class'::regclass"
							  " AND objid = %u AND objsubid = 0"
							  " AND refclassid = 'pg_extension'::regclass"
							  " AND refobjid = %u", leaf, work->extension);
		if (none)
			mbus_segment_depend(leaf, work->extension);
	}
	mbus_task_commit();
	return blocked ? MBUS_BLOCKED : MBUS_DONE;
}

/*
 * leaf_detach runs (a) and, if nobody is in the way, (b).
 */
static MbusOutcome
leaf_detach(MbusWork *work, void *arg)
{
	Retiring   *retiring = arg;

	if (work->retire.pending[retiring->family] ||
		!leaf_clear(work, retiring))
		return MBUS_BLOCKED;

	/* a deadlock or a lock that is not to be had leaves it pending */
	work->retire.pending[retiring->family] = true;
	mbus_task_lock_timeout(DETACH_WAIT_MS);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	detach_command(retiring->family, retiring->segment, "CONCURRENTLY");
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	work->retire.pending[retiring->family] = false;
	return MBUS_DONE;
}

/*
 * Tells whether no dump is at work, nobody of a first look at parent and table
 * is left, and nobody holds what keeps tables from being detached at all.
 */
static bool
leaf_clear(MbusWork *work, Retiring *retiring)
{
	bool		clear;

	StartTransactionCommand();
	/* both lists are begun in the first look */
	clear = way_clear(work, retiring->leaf[retiring->family]);
	clear = way_clear(work, work->parent[retiring->family]) && clear;
	clear = clear &&
		ConditionalLockRelationOid(work->parent[retiring->family],
								   ShareUpdateExclusiveLock) &&
		mbus_dumps_wait(work->schema, false);
	CommitTransactionCommand();
	return clear;
}

/*
 * way_clear tells whether all who had a table locked in the first look at it
 * are gone; then the next look is a first one again.
 */
static bool
way_clear(MbusWork *work, Oid relid)
{
	MbusInWay  *way = way_find(work, relid);

	if (!OidIsValid(way->relid))
		way_look(way, relid);
	if (!way_settle(work, way))
		return false;
	way->relid = InvalidOid;
	return true;
}

/*
 * way_find returns the list of a table, or one that is free.  If there is
 * none the last is taken: a table that is not found has its first look again.
 */
static MbusInWay *
way_find(MbusWork *work, Oid relid)
{
	MbusInWay  *unused = NULL;

	for (int i = 0; i < MBUS_WAYS_MAX; i++)
	{
		MbusInWay  *way = &work->retire.way[i];

		if (way->relid == relid)
			return way;
		if (unused == NULL && !OidIsValid(way->relid))
			unused = way;
	}
	if (unused == NULL)
		unused = &work->retire.way[MBUS_WAYS_MAX - 1];
	unused->relid = InvalidOid;
	return unused;
}

/*
 * Begins the list of a table with who has locked it now.  Those beyond the
 * list's end are waited for as newcomers are, with a lock_timeout.
 */
static void
way_look(MbusInWay *way, Oid relid)
{
	LOCKTAG		tag;
	VirtualTransactionId *vxid;

	way->relid = relid;
	way->n = 0;
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	vxid = GetLockConflicts(&tag, AccessExclusiveLock, NULL);
	for (; VirtualTransactionIdIsValid(*vxid); vxid++)
	{
		if (way->n < MBUS_BLOCKERS_MAX)
			way->blocker[way->n++] = *vxid;
	}
}

/*
 * way_settle forgets those of a list that have ended, and waits for the
 * others while this pass may; true if none is left.
 */
static bool
way_settle(MbusWork *work, MbusInWay *way)
{
	for (;;)
	{
		int			left = 0;

		for (int i = 0; i < way->n; i++)
		{
			if (!VirtualXactLock(way->blocker[i], false))
				way->blocker[left++] = way->blocker[i];
		}
		way->n = left;
		if (left == 0 || work->retire.settle_ms <= 0)
			return left == 0;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(2000);
		work->retire.settle_ms -= 2;
	}
}

/*
 * leaf_finalize does (b) for a table that is detach-pending.
 */
static MbusOutcome
leaf_finalize(MbusWork *work, void *arg)
{
	Retiring   *retiring = arg;
	Oid			parent = work->parent[retiring->family];
	Oid			leaf = retiring->leaf[retiring->family];
	MbusInWay  *way = &work->retire.finalizing[retiring->family];
	Snapshot	snapshot;

	work->retire.pending[retiring->family] = true;
	mbus_task_lock_timeout(DETACH_WAIT_MS);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (way->relid != leaf)
	{
		way_look(way, parent);
		way->relid = leaf;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	snapshot = GetActiveSnapshot();

	if (!way_settle(work, way) || snapshot->suboverflowed ||
		!ConditionalLockRelationOid(parent, ShareUpdateExclusiveLock) ||
		!ConditionalLockRelationOid(leaf, AccessExclusiveLock))
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
		return MBUS_BLOCKED;
	}
	snapshot->xmin = oldest_xmin();
	detach_command(retiring->family, retiring->segment, "FINALIZE");
	PopActiveSnapshot();
	CommitTransactionCommand();
	way->relid = InvalidOid;
	work->retire.pending[retiring->family] = false;
	return MBUS_DONE;
}

/* An xmin that no snapshot is as old as. */
static TransactionId
oldest_xmin(void)
{
	TransactionId xmin = GetOldestTransactionIdConsideredRunning();

	TransactionIdRetreat(xmin);
	return xmin;
}

/*
 * detach_command runs ALTER TABLE ... DETACH PARTITION as a top-level
 * command.  In a transaction, with an active snapshot; CONCURRENTLY ends
 * that transaction and begins another one.  What the command works on must
 * outlive that: it lies in a context of its own, which is also what it
 * expects PortalContext to be.
 */
static void
detach_command(MbusFamily family, int32 segment, const char *how)
{
	static MemoryContext context = NULL;
	MemoryContext portal_context = PortalContext;
	PlannedStmt *statement;
	char	   *sql;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext,
										"message_bus detach",
										ALLOCSET_SMALL_SIZES);
	MemoryContextReset(context);	/* of the last one, which may have failed */
	MemoryContextSwitchTo(context);
	sql = psprintf("ALTER TABLE message_bus.%s"
				   " DETACH PARTITION message_bus.%s_%d %s",
				   mbus_family_name(family), mbus_family_name(family),
				   segment, how);
	statement = makeNode(PlannedStmt);
	statement->commandType = CMD_UTILITY;
	statement->canSetTag = true;
	statement->utilityStmt =
		linitial_node(RawStmt, pg_parse_query(sql))->stmt;
	statement->stmt_location = 0;
	statement->stmt_len = (int) strlen(sql);

	PortalContext = context;
	PG_TRY();
	{
		ProcessUtility(statement, sql, false, PROCESS_UTILITY_TOPLEVEL,
					   NULL, NULL, None_Receiver, NULL);
	}
	PG_FINALLY();
	{
		PortalContext = portal_context;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopTransactionContext);
}

/*
 * segment_drop does (c).
 */
static MbusOutcome
segment_drop(MbusWork *work, void *arg)
{
	Retiring   *retiring = arg;
	int32		segment = retiring->segment;
	Oid			secret;
	bool		locked;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_lock_timeout(DROP_WAIT_MS);
	locked = mbus_dumps_wait(work->schema, ++work->retire.drops % 2 == 0);
	secret = mbus_secret_table(work, segment);
	mbus_task_become_owner(work);
	for (int f = 0; f < MBUS_FAMILIES && locked; f++)
	{
		if (retiring->state[f] != MBUS_LEAF_GONE)
			locked = ConditionalLockRelationOid(retiring->leaf[f],
												AccessExclusiveLock);
	}
	if (locked && OidIsValid(secret))
		locked = ConditionalLockRelationOid(secret, AccessExclusiveLock);
	if (!locked || !mbus_log_dropped(work, segment))
	{
		mbus_sql("UPDATE message_bus.segment SET detached = true"
				 " WHERE segment_no = %d AND NOT detached", segment);
		mbus_task_commit();
		return MBUS_BLOCKED;
	}

	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		if (retiring->state[f] != MBUS_LEAF_GONE)
			mbus_sql("DROP TABLE message_bus.%s_%d",
					 mbus_family_name((MbusFamily) f), segment);
	}
	if (OidIsValid(secret))
		mbus_sql("DROP TABLE message_bus.secret_%d", segment);
	mbus_sql("DELETE FROM message_bus.segment_era WHERE segment_no = %d",
			 segment);
	/* a session that has just put some there keeps nothing back */
	mbus_sql("DELETE FROM message_bus.quarantine WHERE message_id IN"
			 " (SELECT message_id FROM message_bus.quarantine"
			 " WHERE message_id >= " INT64_FORMAT " AND message_id < "
			 INT64_FORMAT " FOR UPDATE SKIP LOCKED)",
			 MbusFirstId(segment), MbusFirstId(segment + 1));
	mbus_sql("DELETE FROM message_bus.unattached WHERE segment_no = %d",
			 segment);
	mbus_sql("DELETE FROM message_bus.segment WHERE segment_no = %d",
			 segment);
	work->entering.retired = true;
	mbus_numbering_raise(work->db, segment + 1);
	mbus_numbering_store(work->db);
	work->retire.dropping = true;
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * mbus_retire_init installs the worker's callback.
 */
void
mbus_retire_init(MbusWork *work)
{
	RegisterResourceReleaseCallback(drop_released, work);
}

/*
 * drop_released counts a drop when it has committed and its locks are
 * released, and answers expire() if it was the last.  What the commit has
 * left to do is to delete the files, which nobody needs to wait for.  It
 * must not fail: the transaction is committed.
 */
static void
drop_released(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
			  void *arg)
{
	MbusWork   *work = arg;
	MbusDatabase *db = work->db;

	if (!work->retire.dropping || !is_top_level ||
		phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	work->retire.dropping = false;
	if (!is_commit)
		return;

	pg_atomic_fetch_add_u64(&db->counter[MBUS_C_SEGMENTS_RETIRED], 1);
	pg_atomic_write_u32(&db->store_look, 1);	/* its messages hold none */
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->expire.retired++;
	if (work->retire.last_drop && work->pass.ticket != 0)
	{
		db->expire.done = work->pass.ticket;
		db->expire.blocked = 0;
	}
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
}

/* Waits a moment between two tries, and serves publishers meanwhile. */
static void
retire_pause(MbusWork *work)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 50, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	work->serve(work);
}

/*
 * retire_report tells the log, once an hour, that space is not returned.
 */
static void
retire_report(MbusWork *work, int blocked)
{
	TimestampTz now = mbus_now();

	if (blocked == 0)
		work->retire.blocked_said = 0;
	else if (work->retire.blocked_said == 0)
		work->retire.blocked_said = now;	/* let it be for the first hour */
	else if (TimestampDifferenceExceeds(work->retire.blocked_said, now,
										SAY_BLOCKED_MS))
	{
		work->retire.blocked_said = now;
		ereport(LOG,
				(errmsg("message_bus cannot drop %d expired segments of database %u",
						blocked, MyDatabaseId),
				 errdetail("Transactions that have been open for an hour publish to them, or read message_bus.message."),
				 errhint("See pg_stat_activity.xact_start and pg_locks.")));
	}
}
