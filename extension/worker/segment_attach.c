/*
 * segment_attach.c
 *		Attaches the tables of segments to their parents: when they are made,
 *		or later if a lock was in the way.
 *
 * Attaching takes ShareUpdateExclusive on the parent, which ANALYZE and others
 * hold for as long as their transaction is open.  A publisher must not wait
 * for that.  So a segment may be open, and closed, and dropped, without being
 * attached: its number is then in message_bus.unattached.  Whoever opens
 * tables by segment (segment/leaf.c) finds it there, so publishing, claiming,
 * acks and reads by id know no difference; queries over the parents, and the
 * views made of these, do not see it yet.
 *
 * Attaching later takes AccessExclusive on the table, too, for some
 * milliseconds.  All locks are taken without waiting, in the order parents,
 * tables; each full pass tries.  If a table is in use and its segment open, a
 * new one is opened, so that this one's use comes to an end.
 *
 * Attaching and deleting from message_bus.unattached are one transaction;
 * after a crash it is done or not.
 *
 * A restore may bring such a segment, and the row before the tables or after
 * them.  It is hidden as all that a restore brings (restore.c), attached here
 * as soon as its tables are there, and taken in when it is whole.
 */
#include "postgres.h"

#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "base/ids.h"
#include "segment/leaf.h"
#include "state/state.h"
#include "worker/segment_attach.h"
#include "worker/segment_catalog.h"
#include "worker/task.h"

static MbusOutcome segments_unattached(MbusWork *work, void *arg);
static MbusOutcome segment_attach(MbusWork *work, void *arg);
static bool leaves_lock(MbusWork *work, int32 segment, bool *missing);
static void segment_follow(MbusDatabase *db, int32 segment);

/*
 * mbus_segments_attach attaches what has been left out and can be attached
 * now.  What has expired is dropped without.
 */
void
mbus_segments_attach(MbusWork *work)
{
	MbusNumbers found = {.context = CurrentMemoryContext};

	if (!mbus_tasks_begin(work, MBUS_TASK_ATTACH, false))
		return;
	(void) mbus_task_run(work, MBUS_TASK_ATTACH, segments_unattached, &found,
						 "looking for segments to attach");
	for (int i = 0; i < found.n; i++)
	{
		work->serve(work);
		if (mbus_task_run(work, MBUS_TASK_ATTACH, segment_attach,
						  &found.number[i], "attaching segment %d",
						  found.number[i]) == MBUS_BLOCKED)
			break;				/* most often by what locks all parents */
	}
	mbus_tasks_end(work, MBUS_TASK_ATTACH);
}

static MbusOutcome
segments_unattached(MbusWork *work, void *arg)
{
	mbus_segments_query(work, arg, "SELECT segment_no"
						" FROM message_bus.unattached u WHERE NOT EXISTS"
						" (SELECT FROM message_bus.segment s"
						"  WHERE s.segment_no = u.segment_no"
						"  AND s.closed_at IS NOT NULL"
						"  AND s.expires_at < message_bus.clock())"
						" ORDER BY segment_no");
	return MBUS_DONE;
}

/*
 * segment_attach attaches one segment, unless a lock is in the way.
 */
static MbusOutcome
segment_attach(MbusWork *work, void *arg)
{
	int32		segment = *(int32 *) arg;
	bool		missing = false;
	bool		free;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_become_owner(work);
	free = mbus_parents_lock(work);
	if (free && !leaves_lock(work, segment, &missing))
	{
		segment_follow(work->db, segment);
		free = false;
	}
	if (free && !missing)
	{
		mbus_leaves_attach(segment);
		mbus_sql("DELETE FROM message_bus.unattached WHERE segment_no = %d",
				 segment);
	}
	mbus_task_commit();
	return free ? MBUS_DONE : MBUS_BLOCKED;
}

/*
 * mbus_parents_lock locks all parents for attaching, without waiting; false if
 * one is not to be had.
 */
bool
mbus_parents_lock(MbusWork *work)
{
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		if (!ConditionalLockRelationOid(work->parent[f],
										ShareUpdateExclusiveLock))
			return false;
	}
	return true;
}

/*
 * leaves_lock locks a segment's tables, without waiting; false if one is not
 * to be had.  *missing: a restore has not made one yet, or somebody has
 * dropped it.
 */
static bool
leaves_lock(MbusWork *work, int32 segment, bool *missing)
{
	for (int f = 0; f < MBUS_FAMILIES && !*missing; f++)
	{
		char	   *name = psprintf("%s_%d", mbus_family_name((MbusFamily) f),
									segment);
		Oid			leaf = get_relname_relid(name, work->schema);

		*missing = !OidIsValid(leaf);
		if (!*missing && !ConditionalLockRelationOid(leaf, AccessExclusiveLock))
			return false;
	}
	return true;
}

/* Has another segment opened after one, if that is open. */
static void
segment_follow(MbusDatabase *db, int32 segment)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		if (db->series[s].open_segment == segment)
			db->series[s].wanted = Max(db->series[s].wanted, segment + 1);
	}
	LWLockRelease(&db->lock);
}

/*
 * mbus_leaves_attach attaches the tables of a segment, in the caller's
 * transaction, which has locked the parents.  The tables have a CHECK
 * constraint that implies the partition's: they are not read.
 */
void
mbus_leaves_attach(int32 segment)
{
	for (int f = 0; f < MBUS_FAMILIES; f++)
		mbus_leaf_attach((MbusFamily) f, segment);
}

/*
 * mbus_leaf_attach attaches one of them.
 */
void
mbus_leaf_attach(MbusFamily family, int32 segment)
{
	mbus_sql("ALTER TABLE message_bus.%s ATTACH PARTITION"
			 " message_bus.%s_%d FOR VALUES FROM (" INT64_FORMAT
			 ") TO (" INT64_FORMAT ")",
			 mbus_family_name(family), mbus_family_name(family), segment,
			 MbusFirstId(segment), MbusFirstId((int64) segment + 1));
}

/*
 * mbus_leaves_set_aside notes that a segment which is being opened is not
 * attached, and has all who keep a list of tables read that again.
 */
void
mbus_leaves_set_aside(MbusWork *work, int32 segment)
{
	mbus_sql("INSERT INTO message_bus.unattached VALUES (%d)", segment);
	CacheInvalidateRelcacheByRelid(work->parent[0]);
}
