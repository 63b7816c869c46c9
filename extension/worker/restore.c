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
 *	  if there is a table for it; or nothing has changed for an hour
 *
 * Settling is one transaction.  It makes the tables depend on the extension,
 * makes a row of message_bus.segment where the restore brought none, raises
 * the epoch above those of leases and numbers of facts in it, numbers above
 * what these name, and moves the cursors of checkpoints back below the segment:
 * subscriptions may have passed its number.  Before the commit memory is
 * told, in one step under the delivery lock: the segment shows, and loaded
 * subscriptions read again from there, all messages as candidates; a scan at
 * work begins anew.  If the commit fails the segment is hidden by
 * the next look, and settled again.
 *
 * Whoever opens a segment looks first, in its own transaction: what it numbers
 * above is hidden before that shows.  Nothing of a hidden segment is closed
 * or retired.
 *
 * What is open is followed by a segment above those that have been settled, or
 * readers would stop at its end and see nothing of what is above.  Ids below
 * which nothing is wanted (purged_to, start_id) may be higher than all
 * segments, too; then likewise.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
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
#include "worker/names.h"
#include "worker/restore.h"
#include "worker/segment_catalog.h"
#include "worker/segment_secret.h"
#include "worker/task.h"

#define EMPTY_US	(60 * 60 * USECS_PER_SEC)	/* until one that nobody fills
												 * is taken as it is */

#define LOCK_WAIT_MS	100
#define SETTLE_BATCH	50		/* in one transaction */

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
	bool		settled;
} Restored;

static MbusOutcome restore_look(MbusWork *work, void *arg);
static void settled_show(MbusWork *work, const Restored *list, int n,
						 int32 lowest, int64 next);
static int64 settled_store(MbusWork *work, int32 lowest, const Named *named);
static int64 unattached_sum(void);
static void roll_below(MbusDatabase *db, int64 number);
static void names_above(MbusWork *work);
static int	restored_list(MbusWork *work, Restored **list);
static bool restored_filled(MbusWork *work, int32 segment);
static bool table_written(Oid table);
static void restored_hide(MbusWork *work, const Restored *list, int n);
static void restored_settle(MbusWork *work, int32 segment, Named *named);
static int64 highest(const char *what, MbusFamily family, int32 segment,
					 int64 least);

/*
 * mbus_numbering_raise lets segments be numbered from "next" on.
 */
void
mbus_numbering_raise(MbusDatabase *db, int64 next)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (next > db->numbering.next_segment)
	{
		db->numbering.next_segment = (int32) next;
		pg_atomic_write_u32(&db->numbering.known, (uint32) next);
	}
	LWLockRelease(&db->lock);
}

/*
 * mbus_numbering_store writes it down, in the caller's transaction.
 */
void
mbus_numbering_store(MbusDatabase *db)
{
	int32		next;

	LWLockAcquire(&db->lock, LW_SHARED);
	next = db->numbering.next_segment;
	LWLockRelease(&db->lock);
	mbus_sql("UPDATE message_bus.server_state SET next_segment = %d"
			 " WHERE next_segment < %d", next, next);
}

/*
 * mbus_restore_look settles what is whole and filled.
 */
void
mbus_restore_look(MbusWork *work)
{
	MbusNumbering *numbering = &work->db->numbering;
	bool		more = true;
	uint32		ticket;

	if (!mbus_tasks_begin(work, MBUS_TASK_RESTORE, false))
		return;
	LWLockAcquire(&work->db->lock, LW_SHARED);
	ticket = numbering->looks_wanted;
	LWLockRelease(&work->db->lock);
	while (more &&
		   mbus_task_run(work, MBUS_TASK_RESTORE, restore_look, &more,
						 "looking for what was restored") == MBUS_DONE)
		mbus_task_let_go(work);
	mbus_tasks_end(work, MBUS_TASK_RESTORE);
	if (more)
		return;
	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	numbering->looks_done = ticket;
	LWLockRelease(&work->db->lock);
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
 * restore_look is one look; it settles some, and says in *more if there may be
 * others.  The catalog is searched only if others have attached tables, or set
 * some aside, since the last one, or something is hidden.
 */
static MbusOutcome
restore_look(MbusWork *work, void *arg)
{
	MbusDatabase *db = work->db;
	bool	   *more = arg;
	int64		unattached;
	Restored   *list;
	int			n;
	int			nsettled = 0;
	int32		lowest = 0;
	Named		named = {0};
	int64		epoch = 0;

	*more = false;
	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_lock_timeout(LOCK_WAIT_MS);
	names_above(work);
	unattached = unattached_sum();
	if (work->restore.looked && mbus_names_ours(work) &&
		unattached == work->restore.unattached &&
		work->restore.pending == 0)
	{
		mbus_task_commit();
		return MBUS_DONE;
	}
	n = restored_list(work, &list);
	for (int i = 0; i < n && !*more; i++)
	{
		if (!list[i].whole || !restored_filled(work, list[i].segment))
			continue;
		list[i].settled = true;
		*more = ++nsettled >= SETTLE_BATCH;
		restored_settle(work, list[i].segment, &named);
		if (nsettled == 1)
			lowest = list[i].segment;
	}
	if (nsettled > 0)
	{
		named.segment = Max(named.segment, mbus_highest_segment());
		settled_show(work, list, n, lowest, named.segment + 1);
		epoch = settled_store(work, lowest, &named);
	}
	else
		restored_hide(work, list, n);
	mbus_task_commit();
	if (epoch != 0)
		mbus_epoch_begin(db, epoch);
	if (!*more && work->restore.pending == 0)
		mbus_names_looked();
	if (!*more)
		work->restore.unattached = unattached;
	work->restore.looked = true;
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

/*
 * settled_show shows what is settled, the first of it "lowest", and has all
 * that is loaded read again from there, in one step under the delivery lock:
 * a scan that has seen it and not rewound its subscription would take what is
 * acknowledged.  What stays hidden is told before "next" is raised.
 */
static void
settled_show(MbusWork *work, const Restored *list, int n, int32 lowest,
			 int64 next)
{
	MbusDatabase *db = work->db;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	restored_hide(work, list, n);
	mbus_numbering_raise(db, next);
	roll_below(db, next);
	/* nobody else writes it */
	mbus_subs_rewind(db->database, work->schema, MbusFirstId(lowest),
					 MbusFirstId(db->numbering.next_segment));
	LWLockRelease(mbus_delivery_lock());
}

/*
 * settled_store writes down what follows of segments that are settled, the
 * first of them "lowest"; returns the epoch that is to begin, or 0.
 */
static int64
settled_store(MbusWork *work, int32 lowest, const Named *named)
{
	int64		epoch = Max(mbus_epoch_passed(named->lease, mbus_node),
							MbusFactEpoch(named->fact));

	mbus_sql("UPDATE message_bus.checkpoint SET"
			 " cursor = least(cursor, " INT64_FORMAT "),"
			 " due_at = '-infinity', retry_at = '-infinity'",
			 MbusFirstId(lowest) - 1);
	mbus_numbering_store(work->db);
	epoch = epoch >= work->db->delivery.lease_epoch ?
		mbus_epoch_store(epoch) : 0;
	ForceSyncCommit();
	return epoch;
}

/* Has what is open below a number followed by segments from there on. */
static void
roll_below(MbusDatabase *db, int64 number)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->numbering.roll_below = (int32) Max(db->numbering.roll_below, number);
	LWLockRelease(&db->lock);
}

/*
 * names_above has what is open followed by segments above all that purges and
 * starts name.
 */
static void
names_above(MbusWork *work)
{
	bool		isnull;
	int64		above;

	if (mbus_names_highest(work) < work->db->numbering.next_segment)
		return;
	above = mbus_sql_int64(&isnull, "SELECT (greatest("
						   "(SELECT max(purged_to) FROM message_bus.channel),"
						   "(SELECT max(start_id) - 1"
						   " FROM message_bus.subscription)) >> %d) + 1",
						   MBUS_ROW_BITS);
	if (isnull || above <= work->db->numbering.next_segment)
		return;
	mbus_task_number_check(above, MBUS_SEGMENT_MAX, "segment numbers");
	roll_below(work->db, above);
	mbus_numbering_raise(work->db, above);
	mbus_numbering_store(work->db);
}

/*
 * mbus_restore_hide hides what a restore has brought and is not settled; true
 * if there is some.  In the caller's transaction.
 */
bool
mbus_restore_hide(MbusWork *work)
{
	Restored   *list;
	int			n = restored_list(work, &list);

	restored_hide(work, list, n);
	return n > 0;
}

/*
 * restored_list lists the segments that are a restore's, by ascending number;
 * its snapshot is new.  What a table depends on is asked for each by itself,
 * in a way that leaves the planner no choice: without statistics it would read
 * all that depends on the extension for each of them.
 */
static int
restored_list(MbusWork *work, Restored **list)
{
	Restored   *found;
	int			n;

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
							 " SELECT n, NOT EXISTS (SELECT FROM pg_class l"
							 "  WHERE l.relnamespace = 'message_bus'::regnamespace"
							 "  AND l.relname = ANY (ARRAY['message_' || n,"
							 "   'event_' || n, 'ack_' || n, 'failure_' || n,"
							 "   'secret_' || n])"
							 "  AND NOT (l.relrowsecurity"
							 "   AND l.relispartition = (l.relname !~ '^secret')"
							 "   AND (SELECT count(*) FROM pg_index x"
							 "    WHERE x.indrelid = l.oid AND x.indisvalid)"
							 "   >= CASE left(l.relname, 1) WHEN 'm' THEN 5"
							 "    WHEN 'e' THEN 3 WHEN 's' THEN 0"
							 "    ELSE 4 END))"
							 " FROM restored WHERE n <= %d ORDER BY n",
							 work->extension, MBUS_SEGMENT_MAX),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for restored segments");
	n = (int) SPI_processed;
	found = palloc0((n + 1) * sizeof(Restored));
	for (int i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		found[i].segment = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		found[i].whole = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));
	}
	*list = found;
	return n;
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
	if (mbus_now() - work->restore.changed_at > EMPTY_US &&
		work->restore.changed_at != 0)
		return true;
	return mbus_secret_filled(work, segment) &&
		mbus_sql_int64(&isnull, "SELECT 1::int8 FROM message_bus.message_%d"
					   " LIMIT 1", segment) == 1;
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
 * not settled.  Where there are many runs of them the last ranges meet.
 */
static void
restored_hide(MbusWork *work, const Restored *list, int n)
{
	MbusNumbering *numbering = &work->db->numbering;
	MbusRestoring range[MBUS_RESTORING] = {{0}};
	int			nranges = 0;
	int			pending = 0;
	uint64		known = 0;

	for (int i = 0; i < n; i++)
	{
		int32		segment = list[i].segment;

		if (list[i].settled)
			continue;
		pending++;
		known = hash_combine64(known, segment);
		if (nranges == 0 || (range[nranges - 1].hi < segment &&
							 nranges < MBUS_RESTORING))
			range[nranges++].lo = segment;
		range[nranges - 1].hi = segment + 1;
	}
	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	memcpy(numbering->restoring, range, nranges * sizeof(MbusRestoring));
	numbering->nrestoring = nranges;
	pg_atomic_write_u32(&numbering->hiding, nranges);
	LWLockRelease(&work->db->lock);

	if (work->restore.changed_at == 0 || known != work->restore.known)
		work->restore.changed_at = mbus_now();
	work->restore.known = known;
	work->restore.pending = pending;
}

/*
 * restored_settle makes a segment one of ours, and raises what is named to the
 * highest in it.
 */
static void
restored_settle(MbusWork *work, int32 segment, Named *named)
{
	Oid			leaf[MBUS_FAMILIES];

	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		(void) mbus_leaf_state(work, (MbusFamily) f, segment, &leaf[f]);
		if (!OidIsValid(leaf[f]))
			continue;
		mbus_segment_depend(leaf[f], work->extension);
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
