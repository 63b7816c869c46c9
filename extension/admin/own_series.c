/*
 * own_series.c
 *		Series of channels that have one to themselves.
 *
 * A channel with retention "acked" has a series of segments to itself, so that
 * its unread messages keep nobody else's space.  Who gives out or takes back
 * such a series holds a lock on message_bus.channel until its transaction
 * ends that all changes to channels wait for, and looks at the tables as they
 * are then, whatever its snapshot.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

#include "admin/own_series.h"
#include "base/columns.h"
#include "base/schema.h"
#include "channel/series.h"
#include "state/state.h"

static void series_mark(Relation rel, AttrNumber series, AttrNumber closed_at,
						bool *used);

/*
 * mbus_own_series_lock waits for other changes to channels, and keeps them
 * waiting.
 */
void
mbus_own_series_lock(Oid schema)
{
	LockRelationOid(mbus_relation(schema, "channel"), ShareRowExclusiveLock);
}

/*
 * mbus_own_series_choose returns the lowest series above the TTL's that no
 * channel has and no open segment; 53400 if there is none.  Caller holds the lock.
 */
int32
mbus_own_series_choose(Oid schema)
{
	bool		used[MBUS_MAX_SERIES + 1] = {false};
	Relation	rel;

	rel = table_open(mbus_relation(schema, "channel"), AccessShareLock);
	series_mark(rel, MBUS_CHANNEL_SERIES, 0, used);
	table_close(rel, AccessShareLock);
	rel = table_open(mbus_relation(schema, "segment"), AccessShareLock);
	series_mark(rel, MBUS_SEGMENT_SERIES, MBUS_SEGMENT_CLOSED_AT, used);
	table_close(rel, AccessShareLock);

	for (int32 series = mbus_own_series(); series <= MBUS_MAX_SERIES; series++)
	{
		if (!used[series])
			return series;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many channels with retention \"acked\""),
			 errdetail("Each has segments of its own; there can be %d of them.",
					   MBUS_MAX_SERIES - mbus_own_series() + 1),
			 errhint("The place of one that was dropped is free when its last segment is closed.")));
}

/*
 * series_mark notes the series in a table's rows, with closed_at only in
 * those where that is NULL.
 */
static void
series_mark(Relation rel, AttrNumber series, AttrNumber closed_at, bool *used)
{
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		int32		number;

		if (closed_at != 0)
		{
			(void) heap_getattr(tuple, closed_at, desc, &isnull);
			if (!isnull)
				continue;
		}
		number = DatumGetInt32(heap_getattr(tuple, series, desc, &isnull));
		if (number > 0 && number <= MBUS_MAX_SERIES)
			used[number] = true;
	}
	systable_endscan(scan);
}
