/*
 * restore.c
 *		The worker takes in what a restore brings, and says how far segments
 *		are numbered.
 *
 * Numbering.  next_segment in shared memory is above every segment that a
 * cursor may have passed, and only grows.  What is written down of it is above
 * all that is written down elsewhere: it is raised in the transaction that
 * makes a segment (segment_open.c), drops one (segment_retire.c), writes a
 * checkpoint (checkpoint.c) or takes in a restore.
 *
 * A restore makes tables of segments, fills them, and gives them indexes and
 * row security, in many transactions, in an order of its own, or over hours
 * (the schema first, the data some other day).  A segment is a restore's if
 * its table of messages does not depend on the extension: ours do from the
 * start (segment_open.c).  It is hidden from readers (mbus_segment_hidden)
 * until it is settled:
 *
 *	- whole: each of its tables is attached, has its indexes and row security
 *	- filled: nobody is writing to them, and there is a message, and a secret
 *	  if there is a table for it, or nothing has changed for an hour
 *
 * One without messages stays hidden for as long as it has none: its data may
 * come some other day.  One that is filled and whose channels are not here is
 * foreign (foreign.c): it is detached, and then not hidden any more.
 *
 * A look hides what is new first, in a transaction of its own, and only that
 * answers who waits before he fills a segment (segment/fill.c).  Then numbers go
 * above what rows name, and each segment is settled by itself: one that cannot
 * be does not keep back others.  Hidden are the very numbers of what is not
 * settled, for other segments may lie between.  There is room for
 * MBUS_RESTORING; the others are hidden as a range if nothing else lies in
 * that, and settled when there is room.  Else they show as they are.
 *
 * Settling is one transaction.  It makes the tables depend on the extension,
 * makes a row of message_bus.segment where the restore brought none, raises
 * the epoch above those of leases and numbers of facts in it, numbers above
 * what these name, and moves the cursors of checkpoints back below the segment:
 * subscriptions may have passed its number.  When all of that
 * is written, just before the commit, memory is told, in one step under the
 * delivery lock: the segment shows, and loaded subscriptions read again from
 * there, all messages as candidates; a scan at work begins anew.  If the commit
 * fails the segment is hidden again at once.
 *
 * Whoever opens a segment looks first, in its own transaction: what it numbers
 * above is hidden before that shows.  Nothing of a hidden segment is closed
 * or retired.
 *
 * What is open is followed by a segment above those that have been settled, or
 * readers would stop at its end and see nothing of what is above.  So it is for
 * ids that rows name (named.c).
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "delivery/sub.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/epoch.h"
#include "worker/foreign.h"
#include "worker/named.h"
#include "worker/names.h"
#include "worker/numbers.h"
#include "worker/restore.h"
#include "worker/segment_catalog.h"
#include "worker/segment_secret.h"
#include "worker/task.h"

#define UNCHANGED_US	(60 * 60 * USECS_PER_SEC)	/* until nobody waits for
													 * what is missing */

#define LOCK_WAIT_MS	100
#define SETTLE_MS		200		/* then others are served first */

/* The highest numbers that are named in what is settled. */
typedef struct Named
{
	int64		lease;
	int64		fact;
	int64		segment;
} Named;

/* A segment that a restore has brought. */
typedef struct Restored
{
	int32		segment;
	bool		whole;
	bool		apart;			/* none of its tables is attached */
	bool		begun;			/* it may be filled */
	bool		settled;
	bool		foreign;		/* and detached */
} Restored;

/* A look at what a restore has brought. */
typedef struct Look
{
	MemoryContext context;		/* of the list */
	bool		searched;
	int64		highest;		/* number that was used, before the list */
	Restored   *list;			/* by ascending number */
	int			n;
	int			at;				/* the one that is settled */
} Look;

static MbusOutcome look_hide(MbusWork *work, void *arg);
static int64 unattached_sum(void);
static MbusOutcome look_find(MbusWork *work, void *arg);
static bool restored_begun(MbusWork *work, int32 segment);
static void look_settle(MbusWork *work, Look *look);
static MbusOutcome segment_settle(MbusWork *work, void *arg);
static bool settled_attach(MbusWork *work, const Look *look);
static int64 settled_store(MbusWork *work, const Look *look,
						   const Named *named);
static void settled_show(MbusWork *work, const Look *look);
static int	restored_list(MbusWork *work, MemoryContext context,
						  Restored **list);
static void crowd_look(MbusWork *work, const Restored *list, int n);
static bool restored_filled(MbusWork *work, int32 segment);
static bool restored_unchanged(MbusWork *work);
static bool table_written(Oid table);
static void restored_hide(MbusWork *work, const Restored *list, int n);
static void restored_settle(MbusWork *work, int32 segment, Named *named);
static int64 highest(const char *what, MbusFamily family, int32 segment,
					 int64 least);

/*
 * mbus_restore_look hides what a restore has brought, and settles what is whole
 * and filled.
 */
void
mbus_restore_look(MbusWork *work)
{
	MbusNumbering *numbering = &work->db->numbering;
	Look		look = {.context = CurrentMemoryContext};
	MbusOutcome outcome;
	uint32		ticket;

	if (!mbus_tasks_begin(work, MBUS_TASK_RESTORE, false))
		return;
	LWLockAcquire(&work->db->lock, LW_SHARED);
	ticket = numbering->looks_wanted;
	LWLockRelease(&work->db->lock);
	outcome = mbus_task_run(work, MBUS_TASK_RESTORE, look_hide, &look,
							"looking for what was restored");
	if (outcome == MBUS_DONE)
	{
		LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
		numbering->looks_done = ticket;
		LWLockRelease(&work->db->lock);
	}
	if (outcome == MBUS_DONE && look.n > 0)
		outcome = mbus_task_run(work, MBUS_TASK_RESTORE, look_find, &look,
								"looking for what is filled");
	mbus_tasks_end(work, MBUS_TASK_RESTORE);
	if (outcome != MBUS_DONE)
		return;

	mbus_named_look(work);
	look_settle(work, &look);
	if (look.searched && work->restore.pending == 0)
		mbus_names_looked();
	if (look.list)
		pfree(look.list);
}

/*
 * mbus_restore_asked looks if somebody waits for it, before he fills a segment
 * (segment/fill.c).
 */
void
mbus_restore_asked(MbusWork *work)
{
	MbusNumbering *numbering = &work->db->numbering;
	bool		asked;

	LWLockAcquire(&work->db->lock, LW_SHARED);
	asked = numbering->looks_wanted != numbering->looks_done;
	LWLockRelease(&work->db->lock);
	if (asked)
		mbus_restore_look(work);
}

/*
 * look_hide lists what a restore has brought, and hides it.  The catalog is
 * searched only if others have attached tables, or set some aside, since the
 * last look, or something is hidden.
 */
static MbusOutcome
look_hide(MbusWork *work, void *arg)
{
	Look	   *look = arg;
	int64		unattached;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_lock_timeout(LOCK_WAIT_MS);
	unattached = unattached_sum();
	look->searched = !work->restore.looked || !mbus_names_ours(work) ||
		unattached != work->restore.unattached ||
		work->restore.pending != 0 || mbus_foreign_again(work);
	if (look->searched)
	{
		/* what is not in the list is not numbered above */
		look->highest = mbus_highest_segment();
		look->n = restored_list(work, look->context, &look->list);
		restored_hide(work, look->list, look->n);
		work->restore.unattached = unattached;
		work->restore.looked = true;
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/* Another number when there are others in message_bus.unattached. */
static int64
unattached_sum(void)
{
	bool		isnull;

	return mbus_sql_int64(&isnull, "SELECT sum(hashint4(segment_no))"
						  " FROM message_bus.unattached");
}

/* look_find marks what may be filled: each of these costs a transaction. */
static MbusOutcome
look_find(MbusWork *work, void *arg)
{
	Look	   *look = arg;
	int			room = MBUS_RESTORING;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	for (int i = 0; i < look->n && room > 0; i++)
	{
		look->list[i].begun = look->list[i].whole &&
			restored_begun(work, look->list[i].segment);
		if (!look->list[i].foreign)
			room--;
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/* Whether a table of messages has rows, and nobody is writing to it. */
static bool
restored_begun(MbusWork *work, int32 segment)
{
	bool		begun = false;
	Relation	rel;
	Oid			leaf;

	leaf = get_relname_relid(psprintf("message_%d", segment), work->schema);
	if (!OidIsValid(leaf) || !ConditionalLockRelationOid(leaf, ShareLock))
		return false;
	rel = try_table_open(leaf, NoLock);
	if (rel)
	{
		begun = RelationGetNumberOfBlocks(rel) > 0;
		table_close(rel, NoLock);
	}
	UnlockRelationOid(leaf, ShareLock);
	return begun;
}

/*
 * look_settle settles what is filled, each in a transaction of its own, for
 * SETTLE_MS; the next pass goes on at once.  It stops at a lock: that is of what
 * all of them write to.
 */
static void
look_settle(MbusWork *work, Look *look)
{
	TimestampTz started = mbus_now();
	MbusOutcome outcome = MBUS_DONE;

	if (!mbus_tasks_begin(work, MBUS_TASK_SETTLE, false))
		return;
	for (look->at = 0; look->at < look->n && outcome != MBUS_BLOCKED;
		 look->at++)
	{
		Restored   *restored = &look->list[look->at];

		if (!restored->begun)
			continue;
		if (TimestampDifferenceExceeds(started, mbus_now(), SETTLE_MS))
		{
			work->pass.full_at = 0;
			break;
		}
		outcome = mbus_task_run(work, MBUS_TASK_SETTLE, segment_settle, look,
								"taking in segment %d", restored->segment);
		if (outcome != MBUS_DONE)
			restored->settled = restored->foreign = false;
		if (outcome != MBUS_DONE || restored->foreign)
			restored_hide(work, look->list, look->n);
		mbus_task_let_go(work);
	}
	mbus_tasks_end(work, MBUS_TASK_SETTLE);
}

/*
 * segment_settle settles one segment if it is filled, and shows it when all is
 * written.  One that is foreign is detached; it is hidden until that is
 * committed.
 */
static MbusOutcome
segment_settle(MbusWork *work, void *arg)
{
	Look	   *look = arg;
	Restored   *restored = &look->list[look->at];
	Named		named = {0};
	int64		epoch = 0;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_lock_timeout(LOCK_WAIT_MS);
	if (!restored_filled(work, restored->segment))
		;						/* it stays what it is */
	else if (mbus_foreign_judge(restored->segment))
		restored->foreign = mbus_foreign_detach(work, restored->segment);
	else if (settled_attach(work, look))
	{
		restored_settle(work, restored->segment, &named);
		epoch = settled_store(work, look, &named);
		restored->settled = true;
		settled_show(work, look);
	}
	mbus_task_commit();
	if (epoch != 0)
		mbus_epoch_begin(work->db, epoch);
	return MBUS_DONE;
}

/*
 * settled_attach tells whether a segment is attached.  One that was foreign is
 * attached first, and settled in the next look: until then it is hidden, and
 * readers find it by the time it shows.
 */
static bool
settled_attach(MbusWork *work, const Look *look)
{
	Restored   *restored = &look->list[look->at];

	if (!restored->apart)
		return true;
	restored->foreign = false;
	restored_hide(work, look->list, look->n);
	if (mbus_foreign_attach(work, restored->segment))
		work->pass.full_at = 0;
	return false;
}

/*
 * settled_store writes down what follows of a segment that is settled, and
 * raises the numbers of segments above all that there is; returns the epoch that
 * is to begin, or 0.  Numbers that do not exist are an error, but for those
 * that rows elsewhere name (named.c).
 */
static int64
settled_store(MbusWork *work, const Look *look, const Named *named)
{
	int64		epoch = Max(mbus_epoch_passed(named->lease, mbus_node),
							MbusFactEpoch(named->fact));
	int64		next = Max(named->segment, look->list[look->n - 1].segment);
	int64		back = MbusFirstId(look->list[look->at].segment) - 1;

	if (look->highest < MBUS_SEGMENT_MAX)
		next = Max(next, look->highest);
	next++;
	mbus_task_number_check(next, MBUS_SEGMENT_MAX, "segment numbers");
	mbus_task_number_check(epoch, MBUS_EPOCH_MAX, "lease epochs");
	mbus_sql("UPDATE message_bus.checkpoint SET"
			 " cursor = least(cursor, " INT64_FORMAT "),"
			 " due_at = '-infinity', retry_at = '-infinity'"
			 " WHERE cursor > " INT64_FORMAT
			 " OR due_at IS DISTINCT FROM '-infinity'"
			 " OR retry_at IS DISTINCT FROM '-infinity'", back, back);
	mbus_numbering_raise(work->db, next);
	mbus_numbering_store(work->db);
	epoch = epoch >= work->db->delivery.lease_epoch ?
		mbus_epoch_store(epoch) : 0;
	ForceSyncCommit();
	return epoch;
}

/*
 * settled_show shows the segment that is settled, and has all that is loaded
 * read again from there, in one step under the delivery lock: a scan that has
 * seen it and not rewound its subscription would take what is acknowledged.
 */
static void
settled_show(MbusWork *work, const Look *look)
{
	MbusDatabase *db = work->db;
	int32		next = db->numbering.next_segment;	/* nobody else writes it */

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	restored_hide(work, look->list, look->n);
	mbus_roll_below(db, next);
	mbus_subs_rewind(db->database, work->schema,
					 MbusFirstId(look->list[look->at].segment),
					 MbusFirstId(next));
	LWLockRelease(mbus_delivery_lock());
}

/*
 * mbus_restore_hide hides what a restore has brought and is not settled; true
 * if there is some.  In the caller's transaction.
 */
bool
mbus_restore_hide(MbusWork *work)
{
	Restored   *list;
	int			n = restored_list(work, CurrentMemoryContext, &list);

	restored_hide(work, list, n);
	return n > 0;
}

/*
 * restored_list lists the segments that are a restore's, by ascending number,
 * in a memory context; its snapshot is new.  What a table depends on is asked for each by itself,
 * in a way that leaves the planner no choice: without statistics it would read
 * all that depends on the extension for each of them.
 */
static int
restored_list(MbusWork *work, MemoryContext context, Restored **list)
{
	Restored   *found;
	int			n;

	mbus_foreign_begin(work);
	if (SPI_execute(psprintf(
							 "WITH restored AS (SELECT substring(c.relname FROM 9)::int AS n"
							 " FROM pg_class c"
							 " WHERE c.relnamespace = 'message_bus'::regnamespace"
							 " AND c.relkind = 'r'"
							 " AND c.relname ~ '^message_[0-9]{1,9}$'"
							 " AND (SELECT bool_or("
							 "   d.refclassid = 'pg_extension'::regclass"
							 "   AND d.refobjid = %u) FROM pg_depend d"
							 "  WHERE d.classid = 'pg_class'::regclass"
							 "  AND d.objid = c.oid AND d.objsubid = 0)"
							 " IS NOT TRUE)"
							 " SELECT n, (SELECT bool_and(l.relrowsecurity"
							 "   AND (SELECT count(*) FROM pg_index x"
							 "    WHERE x.indrelid = l.oid AND x.indisvalid)"
							 "   >= CASE left(l.relname, 1) WHEN 'm' THEN 5"
							 "    WHEN 'e' THEN 3 WHEN 's' THEN 0"
							 "    ELSE 4 END)"
							 "   AND (bool_and(l.relispartition"
							 "    OR l.relname ~ '^secret')"
							 "    OR bool_and(NOT l.relispartition)"
							 "    AND NOT EXISTS (SELECT"
							 "     FROM message_bus.unattached u"
							 "     WHERE u.segment_no = n))"
							 "  FROM pg_class l"
							 "  WHERE l.relnamespace = 'message_bus'::regnamespace"
							 "  AND l.relname = ANY (ARRAY['message_' || n,"
							 "   'event_' || n, 'ack_' || n, 'failure_' || n,"
							 "   'secret_' || n])),"
							 " NOT (SELECT relispartition FROM pg_class"
							 "  WHERE relnamespace = 'message_bus'::regnamespace"
							 "  AND relname = 'message_' || n)"
							 " FROM restored WHERE n <= %d ORDER BY n",
							 work->extension, MBUS_SEGMENT_MAX),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for restored segments");
	found = MemoryContextAllocZero(context,
								   (SPI_processed + 1) * sizeof(Restored));
	n = 0;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Restored	one = {0};
		bool		isnull;
		bool		again;

		one.segment = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		one.whole = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));
		one.apart = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
		one.foreign = mbus_foreign_known(one.segment, &again) && one.apart;
		/* it stays what it was as long as no channel changes */
		if (!one.foreign || again)
			found[n++] = one;
	}
	crowd_look(work, found, n);
	*list = found;
	return n;
}

/*
 * crowd_look tells whether those that have no room in shared memory are alone
 * among themselves, so that they can be hidden by a range.
 */
static void
crowd_look(MbusWork *work, const Restored *list, int n)
{
	bool		isnull;
	bool		alone = true;

	if (n > MBUS_RESTORING)
		alone = mbus_sql_int64(&isnull, "SELECT count(*) FROM pg_class"
							   " WHERE relnamespace ="
							   "  'message_bus'::regnamespace"
							   " AND relkind = 'r' AND substring(relname"
							   "  FROM '^message_([0-9]{1,9})$')::int"
							   "  BETWEEN %d AND %d",
							   list[MBUS_RESTORING].segment,
							   list[n - 1].segment) == n - MBUS_RESTORING;
	if (!alone && !work->restore.crowded)
		ereport(LOG,
				(errmsg("message_bus cannot hide all of %d segments that are being restored",
						n),
				 errdetail("Those from %d on show before they are filled.",
						   list[MBUS_RESTORING].segment)));
	work->restore.crowded = !alone;
}

/*
 * restored_filled tells whether a whole segment has its rows.  A writer's lock
 * is not waited for.
 */
static bool
restored_filled(MbusWork *work, int32 segment)
{
	bool		isnull;

	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		Oid			leaf;

		(void) mbus_leaf_state(work, (MbusFamily) f, segment, &leaf);
		if (table_written(leaf))
			return false;
	}
	if (table_written(mbus_secret_table(work, segment)))
		return false;
	return mbus_sql_int64(&isnull, "SELECT 1::int8 FROM message_bus.message_%d"
						  " LIMIT 1", segment) == 1 &&
		(restored_unchanged(work) || mbus_secret_filled(work, segment));
}

/* Whether for long nothing was made that is to be filled, nor settled. */
static bool
restored_unchanged(MbusWork *work)
{
	return work->restore.changed_at != 0 &&
		mbus_now() - work->restore.changed_at > UNCHANGED_US;
}

/* Whether somebody is writing to a table; InvalidOid: nobody is. */
static bool
table_written(Oid table)
{
	if (!OidIsValid(table))
		return false;
	if (!ConditionalLockRelationOid(table, ShareLock))
		return true;
	UnlockRelationOid(table, ShareLock);
	return false;
}

/*
 * restored_hide tells shared memory which segments are hidden: those that are
 * not settled.  Who wants no gaps waits for them, but not for long where
 * nothing changes.
 */
static void
restored_hide(MbusWork *work, const Restored *list, int n)
{
	MbusNumbering *numbering = &work->db->numbering;
	MbusRestore *restore = &work->restore;
	uint64		known = 0;
	int			pending = 0;
	int32		last = 0;

	for (int i = 0; i < n; i++)
	{
		if (!list[i].settled && !list[i].foreign)
			known = hash_combine64(known, list[i].segment);
	}
	if (restore->changed_at == 0 || known != restore->known)
		restore->changed_at = mbus_now();
	restore->known = known;

	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	numbering->crowd_lo = numbering->crowd_hi = numbering->gap = 0;
	for (int i = 0; i < n; i++)
	{
		if (list[i].settled || list[i].foreign)
			continue;
		last = list[i].segment;
		if (pending < MBUS_RESTORING)
			numbering->restoring[pending] = last;
		else if (pending == MBUS_RESTORING)
			numbering->crowd_lo = last;
		pending++;
	}
	numbering->nrestoring = Min(pending, MBUS_RESTORING);
	if (pending > MBUS_RESTORING && !restore->crowded)
		numbering->crowd_hi = last + 1;
	if (pending > 0 && !restored_unchanged(work))
		numbering->gap = numbering->restoring[0];
	pg_atomic_write_u32(&numbering->hiding, pending);
	LWLockRelease(&work->db->lock);
	restore->pending = pending;
}

/*
 * restored_settle makes a segment one of ours, and raises what is named to the
 * highest in it.
 */
static void
restored_settle(MbusWork *work, int32 segment, Named *named)
{
	Oid			leaf[MBUS_FAMILIES];

	mbus_channels_above(segment);
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		(void) mbus_leaf_state(work, (MbusFamily) f, segment, &leaf[f]);
		if (!OidIsValid(leaf[f]))
			continue;
		mbus_segment_depend(leaf[f], work->extension);
		mbus_segment_revoke(psprintf("%s_%d",
									 mbus_family_name((MbusFamily) f),
									 segment), leaf[f]);
		if (f != MBUS_MESSAGE)
			named->fact = highest("max(no)", (MbusFamily) f, segment,
								  named->fact);
		if (f == MBUS_ACK || f == MBUS_FAILURE)
			named->lease = highest("max(lease)", (MbusFamily) f, segment,
								   named->lease);
		if (f == MBUS_FAILURE)
			named->segment = highest(psprintf("max(dead_letter_id) >> %d",
											  MBUS_ROW_BITS),
									 (MbusFamily) f, segment, named->segment);
	}
	mbus_secret_settle(work, segment);
	mbus_sql("INSERT INTO message_bus.segment (segment_no, series, opened_at)"
			 " VALUES (%d, 1, message_bus.clock())"
			 " ON CONFLICT (segment_no) DO NOTHING", segment);
}

/* The highest of a table of a segment, or "least". */
static int64
highest(const char *what, MbusFamily family, int32 segment, int64 least)
{
	bool		isnull;
	int64		value = mbus_sql_int64(&isnull, "SELECT %s FROM message_bus.%s_%d",
									   what, mbus_family_name(family),
									   segment);

	return isnull ? least : Max(value, least);
}
