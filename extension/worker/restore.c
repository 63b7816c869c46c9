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
 *	  if there is a table for it, or nothing has changed for an hour, nor come
 *	  into a table of any segment (MbusNumbering.filled_at)
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
 * First the epoch is raised above those of leases and numbers of facts in the
 * segment, durable and begun: who sees its messages must not get a lease below
 * those that its facts have.  Then it is settled in one transaction.  That
 * makes the tables depend on the extension, makes a row of message_bus.segment
 * where the restore brought none, numbers above what the facts name, and moves the cursors of checkpoints back below the segment:
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
 * What is open below a segment that is settled is followed by one above it, or
 * readers would stop at its end and see nothing of what is above.  So it is for
 * ids that rows name (named.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/lwlock.h"
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
#include "worker/restored.h"
#include "worker/segment_catalog.h"
#include "worker/task.h"

#define LOCK_WAIT_MS	100
#define SETTLE_MS		200		/* then others are served first */
#define UNSETTLED_FIRST_MS	100
#define UNSETTLED_LONGEST_MS	30000

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
	int64		epoch;			/* that must be passed before it can be */
	int32		roll;			/* what is open is followed from there on */
	Restored   *again;			/* the list, read once more; or NULL */
	int			nagain;
} Look;

static MbusOutcome look_hide(MbusWork *work, void *arg);
static int64 unattached_sum(void);
static MbusOutcome look_find(MbusWork *work, void *arg);
static void look_settle(MbusWork *work, Look *look);
static bool unsettled_waits(const MbusWork *work, int32 segment);
static void unsettled_add(MbusWork *work, int32 segment);
static MbusOutcome settle(MbusWork *work, Look *look);
static MbusOutcome segment_settle(MbusWork *work, void *arg);
static bool settled_attach(MbusWork *work, const Look *look);
static void settled_store(MbusWork *work, Look *look, const MbusRestoredNames *named);
static void settled_show(MbusWork *work, const Look *look);
static int	restored_list(MbusWork *work, MemoryContext context,
						  Restored **list);
static void crowd_look(MbusWork *work, const Restored *list, int n);
static void restored_hide(MbusWork *work, const Restored *list, int n);

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
			mbus_restored_begun(work, look->list[i].segment);
		if (!look->list[i].foreign)
			room--;
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * look_settle settles what is filled, each in a transaction of its own, for
 * SETTLE_MS.  The next look goes on behind, at once if any was settled.  It
 * stops at a lock, for that may be of what all of them write to.  One that errs
 * is put off by itself.
 */
static void
look_settle(MbusWork *work, Look *look)
{
	TimestampTz started = mbus_now();
	MbusOutcome outcome = MBUS_DONE;
	bool		settled = false;
	bool		more = false;
	int			first = 0;

	if (!mbus_tasks_begin(work, MBUS_TASK_SETTLE, false))
		return;
	while (first < look->n &&
		   look->list[first].segment <= work->restore.settled_to)
		first++;
	for (int i = 0; i < look->n && outcome != MBUS_BLOCKED && !more; i++)
	{
		look->at = (first + i) % look->n;
		if (!look->list[look->at].begun ||
			unsettled_waits(work, look->list[look->at].segment))
			continue;
		more = TimestampDifferenceExceeds(started, mbus_now(), SETTLE_MS);
		if (more)
			break;
		outcome = settle(work, look);
		if (outcome == MBUS_FAILED)
			unsettled_add(work, look->list[look->at].segment);
		work->restore.settled_to = look->list[look->at].segment;
		settled |= look->list[look->at].settled;
		more = look->again != NULL;
		mbus_task_let_go(work);
	}
	if (settled && more)
		work->pass.full_at = 0;
	mbus_tasks_end(work, MBUS_TASK_SETTLE);
}

/* Whether a segment that could not be taken in is put off still. */
static bool
unsettled_waits(const MbusWork *work, int32 segment)
{
	for (int i = 0; i < MBUS_UNSETTLED; i++)
	{
		const MbusUnsettled *one = &work->restore.unsettled[i];

		if (one->segment == segment)
			return mbus_now() < one->retry_at;
	}
	return false;
}

/*
 * unsettled_add puts one off that has failed: by UNSETTLED_FIRST_MS, doubling
 * to UNSETTLED_LONGEST_MS.  If there is no room, all are.  A place is free when
 * its segment was not tried for long.
 */
static void
unsettled_add(MbusWork *work, int32 segment)
{
	MbusUnsettled *place = NULL;
	TimestampTz now = mbus_now();

	for (int i = 0; i < MBUS_UNSETTLED; i++)
	{
		MbusUnsettled *one = &work->restore.unsettled[i];

		if (one->segment == segment)
		{
			place = one;
			break;
		}
		if (one->segment == 0 ||
			TimestampDifferenceExceeds(one->retry_at, now,
									   2 * UNSETTLED_LONGEST_MS))
			place = one;
	}
	if (place == NULL)
		return;
	if (place->segment != segment)
		place->failures = 0;
	place->segment = segment;
	place->retry_at =
		TimestampTzPlusMilliseconds(now,
									Min(UNSETTLED_FIRST_MS <<
										Min(place->failures, 12),
										UNSETTLED_LONGEST_MS));
	place->failures++;
	work->backoff[MBUS_TASK_SETTLE].failed = false;
}

/*
 * settle settles the segment that is at hand, and hides it again if that fails.
 * If leases in it are too high the epoch is raised first.
 */
static MbusOutcome
settle(MbusWork *work, Look *look)
{
	Restored   *restored = &look->list[look->at];
	MbusOutcome outcome;

	look->epoch = 0;
	outcome = mbus_task_run(work, MBUS_TASK_SETTLE, segment_settle, look,
							"taking in segment %d", restored->segment);
	if (outcome == MBUS_DONE && look->epoch != 0 &&
		mbus_epoch_raise(work, look->epoch))
		outcome = mbus_task_run(work, MBUS_TASK_SETTLE, segment_settle, look,
								"taking in segment %d", restored->segment);
	if (outcome != MBUS_DONE)
		restored->settled = restored->foreign = false;
	if (outcome != MBUS_DONE || restored->foreign)
		restored_hide(work, look->list, look->n);
	return outcome;
}

/*
 * segment_settle settles one segment if it is filled, and shows it when all is
 * written; or, if leases or facts in it are above the epoch that is at work,
 * says above which one that must be first.  One
 * that is foreign is detached; it is hidden until that is committed.
 */
static MbusOutcome
segment_settle(MbusWork *work, void *arg)
{
	Look	   *look = arg;
	Restored   *restored = &look->list[look->at];
	MbusRestoredNames named = {0};
	int64		epoch;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_lock_timeout(LOCK_WAIT_MS);
	if (!mbus_restored_filled(work, restored->segment))
		;						/* it stays what it is */
	else if (mbus_foreign_judge(restored->segment))
		restored->foreign = mbus_foreign_detach(work, restored->segment);
	else if (settled_attach(work, look))
	{
		mbus_restored_names(work, restored->segment, &named);
		epoch = Max(mbus_epoch_passed(named.lease, mbus_node),
					MbusFactEpoch(named.fact));
		mbus_task_number_check(epoch + 1, MBUS_EPOCH_MAX, "lease epochs");
		if (epoch >= work->db->delivery.lease_epoch)
			look->epoch = epoch;
		else
		{
			mbus_restored_settle(work, restored->segment);
			settled_store(work, look, &named);
			restored->settled = true;
			settled_show(work, look);
		}
	}
	mbus_task_commit();
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
 * raises the numbers of segments above all that there is.  Numbers that do not
 * exist are an error, but for those that rows elsewhere name (named.c).  What
 * was made after the look, and is numbered above now, is listed to be hidden.
 */
static void
settled_store(MbusWork *work, Look *look, const MbusRestoredNames *named)
{
	int64		next = look->list[look->n - 1].segment;
	int64		back = MbusFirstId(look->list[look->at].segment) - 1;

	if (look->highest < MBUS_SEGMENT_MAX)
		next = Max(next, look->highest);
	next = Max(next + 1, work->db->numbering.next_segment);
	look->roll = look->list[look->at].segment + 1;
	if (named->segment >= next)
	{
		/* higher than was looked */
		next = named->segment + 1;
		mbus_task_number_check(next, MBUS_SEGMENT_MAX, "segment numbers");
		look->roll = (int32) next;
		look->nagain = restored_list(work, look->context, &look->again);
	}
	mbus_task_number_check(next, MBUS_SEGMENT_MAX, "segment numbers");
	mbus_sql("UPDATE message_bus.checkpoint SET"
			 " cursor = least(cursor, " INT64_FORMAT "),"
			 " due_at = '-infinity', retry_at = '-infinity'"
			 " WHERE cursor > " INT64_FORMAT
			 " OR due_at IS DISTINCT FROM '-infinity'"
			 " OR retry_at IS DISTINCT FROM '-infinity'", back, back);
	mbus_numbering_raise(work->db, next);
	mbus_numbering_store(work->db);
	ForceSyncCommit();
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
	if (look->again)
		restored_hide(work, look->again, look->nagain);
	else
		restored_hide(work, look->list, look->n);
	mbus_roll_below(db, look->roll);
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
	else if (n > MBUS_RESTORING && !work->restore.behind)
		ereport(LOG,
				(errmsg("message_bus takes in %d of %d segments that are being restored",
						MBUS_RESTORING, n),
				 errdetail("Those from %d on stay hidden, filled or not, until as many of the others are filled.",
						   list[MBUS_RESTORING].segment)));
	work->restore.behind = n > MBUS_RESTORING;
	work->restore.crowded = !alone;
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
	if (pending > 0 && !mbus_restored_unchanged(work))
		numbering->gap = numbering->restoring[0];
	pg_atomic_write_u32(&numbering->hiding, pending);
	LWLockRelease(&work->db->lock);
	restore->pending = pending;
}
