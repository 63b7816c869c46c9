/*
 * segment_ahead.c
 *		Extends the tables of open segments before publishers need the pages.
 *
 * Publishers ask when few empty pages are left ahead of them (state/ahead.c).
 * How many they get follows how soon they asked again: AHEAD_MIN at first,
 * twice as many as the last time if those lasted less than a second, up to
 * AHEAD_MAX.  So a table that grows slowly has at most some pages too many.
 *
 * Pages are added as the server itself does when several wait for one: they
 * stay zero, are in no WAL, and the free space map has them.  The lock for
 * extending is held for one page at a time before PostgreSQL 16 and for a few
 * from then on.  After a crash, pages that nobody had used are zero or missing;
 * they are used when a scan of the free space map finds them, or never.  A
 * segment is dropped as a whole, so nothing is lost but their room.
 *
 * The table's lock is taken without waiting: whoever drops or rewrites it
 * comes first.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "storage/bufmgr.h"
#include "storage/freespace.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/segment_ahead.h"
#include "worker/task.h"

#define AHEAD_MIN		32		/* pages */
#define AHEAD_MAX		256
#define SOON_US			INT64CONST(1000000)

static MbusOutcome segment_extend(MbusWork *work, void *arg);
static BlockNumber pages_add(Relation rel, BlockNumber wanted);
static void page_tell(Relation rel, BlockNumber block);

/*
 * mbus_segments_ahead extends the tables that publishers have asked to have
 * extended.
 */
void
mbus_segments_ahead(MbusWork *work)
{
	if (!mbus_tasks_begin(work, MBUS_TASK_AHEAD, false))
		return;
	for (int32 series = 1; series <= MBUS_MAX_SERIES; series++)
	{
		if (pg_atomic_read_u32(&work->db->ahead[series].asked) != 0)
			(void) mbus_task_run(work, MBUS_TASK_AHEAD, segment_extend,
								 &series, "extending the segment of series %d",
								 series);
	}
	mbus_tasks_end(work, MBUS_TASK_AHEAD);
}

/*
 * segment_extend adds pages to the table of one series' open segment.
 */
static MbusOutcome
segment_extend(MbusWork *work, void *arg)
{
	int32		series = *(int32 *) arg;
	MbusAhead  *ahead = &work->db->ahead[series];
	TimestampTz now = mbus_now();
	Relation	rel;
	Oid			leaf;
	uint32		pages;
	BlockNumber limit;

	LWLockAcquire(&work->db->lock, LW_SHARED);
	leaf = work->db->series[series].open_segment == 0 ? InvalidOid :
		work->db->series[series].leaf[MBUS_MESSAGE];
	LWLockRelease(&work->db->lock);

	pages = ahead->pages;
	pages = now - ahead->at < SOON_US ? Min(pages * 2, AHEAD_MAX) : pages / 2;
	ahead->pages = Max(pages, AHEAD_MIN);
	ahead->at = now;

	StartTransactionCommand();
	if (OidIsValid(leaf) && ConditionalLockRelationOid(leaf, RowExclusiveLock))
	{
		rel = try_table_open(leaf, NoLock);
		if (rel != NULL)
		{
			limit = pages_add(rel, pg_atomic_read_u32(&ahead->used) +
							  ahead->pages);
			table_close(rel, NoLock);
			pg_atomic_write_u32(&ahead->low, limit - ahead->pages / 2);
			pg_atomic_write_u32(&ahead->limit, limit);
		}
	}
	CommitTransactionCommand();
	pg_atomic_write_u32(&ahead->asked, 0);
	return MBUS_DONE;
}

/*
 * pages_add extends a table to so many pages, by at most AHEAD_MAX, and
 * returns how many it has then.
 */
static BlockNumber
pages_add(Relation rel, BlockNumber wanted)
{
	BlockNumber first = RelationGetNumberOfBlocks(rel);
	BlockNumber end = first;

	wanted = Min(wanted, first + AHEAD_MAX);
	while (end < wanted)
	{
#if PG_VERSION_NUM >= 160000
		Buffer		buffers[16];
		uint32		n = Min(wanted - end, lengthof(buffers));
		uint32		got = n;

		end = ExtendBufferedRelBy(BMR_REL(rel), MAIN_FORKNUM, NULL, 0, n,
								  buffers, &got);
		for (uint32 i = 0; i < got; i++)
		{
			page_tell(rel, BufferGetBlockNumber(buffers[i]));
			ReleaseBuffer(buffers[i]);
		}
		end += got;
#else
		Buffer		buffer;

		LockRelationForExtension(rel, ExclusiveLock);
		buffer = ReadBuffer(rel, P_NEW);
		UnlockRelationForExtension(rel, ExclusiveLock);
		end = BufferGetBlockNumber(buffer);
		ReleaseBuffer(buffer);
		page_tell(rel, end);
		end++;
#endif
	}
	if (end > first)
		FreeSpaceMapVacuumRange(rel, first, end);
	return end;
}

/* Lets the free space map have an empty page. */
static void
page_tell(Relation rel, BlockNumber block)
{
	RecordPageWithFreeSpace(rel, block, BLCKSZ - SizeOfPageHeaderData);
}
