/*
 * restored.c
 *		One segment that a restore has brought: whether it is filled, what its
 *		facts name, and making it ours.
 *
 * All of it is called by restore.c, which tells what these words mean and when
 * it is done.  A lock is not waited for: ShareLock on a table is had for a
 * moment if nobody is writing to it.
 */
#include "postgres.h"

#include "access/table.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/foreign.h"
#include "worker/restored.h"
#include "worker/segment_catalog.h"
#include "worker/segment_secret.h"
#include "worker/task.h"

#define UNCHANGED_US	(60 * 60 * USECS_PER_SEC)	/* until nobody waits for
													 * what is missing */

static bool table_written(Oid table);
static int64 highest(const char *what, MbusFamily family, int32 segment,
					 int64 least);

/*
 * Whether a table of messages has rows, and nobody is writing to it.  One that
 * is written to for long is not unchanged.
 */
bool
mbus_restored_begun(MbusWork *work, int32 segment)
{
	bool		begun = false;
	Relation	rel;
	Oid			leaf;

	leaf = get_relname_relid(psprintf("message_%d", segment), work->schema);
	if (!OidIsValid(leaf))
		return false;
	if (!ConditionalLockRelationOid(leaf, ShareLock))
	{
		work->restore.changed_at = mbus_now();
		return false;
	}
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
 * mbus_restored_filled tells whether a whole segment has its rows.  A writer's lock
 * is not waited for.
 */
bool
mbus_restored_filled(MbusWork *work, int32 segment)
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
		(mbus_restored_unchanged(work) || mbus_secret_filled(work, segment));
}

/*
 * Whether for long nothing was made that is to be filled, nor filled, nor
 * settled.
 */
bool
mbus_restored_unchanged(MbusWork *work)
{
	TimestampTz filled_at =
	(TimestampTz) pg_atomic_read_u64(&work->db->numbering.filled_at);

	return work->restore.changed_at != 0 &&
		mbus_now() - Max(work->restore.changed_at, filled_at) > UNCHANGED_US;
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
 * mbus_restored_names raises what is named to the highest in a segment.
 */
void
mbus_restored_names(MbusWork *work, int32 segment, MbusRestoredNames *named)
{
	for (int f = MBUS_EVENT; f < MBUS_FAMILIES; f++)
	{
		Oid			leaf;

		(void) mbus_leaf_state(work, (MbusFamily) f, segment, &leaf);
		if (!OidIsValid(leaf))
			continue;
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
}

/*
 * mbus_restored_settle makes a segment one of ours.
 */
void
mbus_restored_settle(MbusWork *work, int32 segment)
{
	mbus_channels_above(segment);
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		Oid			leaf;

		(void) mbus_leaf_state(work, (MbusFamily) f, segment, &leaf);
		if (!OidIsValid(leaf))
			continue;
		mbus_segment_depend(leaf, work->extension);
		mbus_segment_revoke(psprintf("%s_%d",
									 mbus_family_name((MbusFamily) f),
									 segment), leaf);
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
