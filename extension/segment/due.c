/*
 * due.c
 *		What of all segments is due, by its time.
 *
 * Delayed messages and failures that are to be tried again are found by an
 * index on owner (a channel, a subscription), time and id that each leaf has.
 * A read takes the earliest few of each leaf, keeps the earliest of all, and
 * says up to which moment it has them all: the next read goes on there, also
 * in the midst of many that have one time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/moment.h"
#include "segment/due.h"
#include "segment/era.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

#define WHERE_MAX	10000		/* rows of an owner that are read in a leaf */

/* What was found so far. */
typedef struct Found
{
	int			n;
	int			room;
	MbusMoment *moment;
} Found;

static bool leaf_due(const MbusDue *due, Relation leaf, Found *found,
					 MbusMoment *reached, TimestampTz *next);
static int	rows_due(const MbusDue *due, MbusLeafScan *rows, int most,
					 Found *found, TimestampTz *next, bool *later);
static void found_add(Found *found, MbusMoment moment);
static int	owner_compare(const void *a, const void *b);
static bool leaf_where(const MbusDue *due, Relation leaf, int32 segment,
					   MbusDueOwner *const *owners, int n);
static void indexes_unlock(List *indexes, int n);
static bool owner_next(const MbusDue *due, MbusLeafScan *rows, int32 owner,
					   int32 *next);
static int64 owner_low(const MbusDue *due, MbusLeafScan *rows, int32 segment,
					   const MbusDueOwner *owner);
static void owner_add(MbusDueOwner *owner, int32 segment, int64 low);
static void found_cut(Found *found, MbusMoment reached);

/*
 * mbus_due_delayed asks for delayed messages of a channel.
 */
void
mbus_due_delayed(MbusDue *due, int32 channel_id, Snapshot snapshot)
{
	MemSet(due, 0, sizeof(*due));
	due->family = MBUS_MESSAGE;
	due->owner_column = MBUS_COL_CHANNEL_ID;
	due->time_column = MBUS_COL_AVAILABLE_AT;
	due->id_column = MBUS_COL_ID;
	due->owner = channel_id;
	due->snapshot = snapshot;
}

/*
 * mbus_due_read finds what is due from due->from to due->to, sets *found to
 * it, by time and id, and returns how much it is.  *reached is the moment
 * before which that is all: behind "to" if nothing is left.  *next is the
 * earliest time behind "to", if it is known; else PG_INT64_MAX.
 *
 * Segments that are not in due->among are not opened.  *due->later is good if
 * nothing is left.
 */
int
mbus_due_read(Oid schema, const MbusDue *due, MbusMoment **moments,
			  MbusMoment *reached, TimestampTz *next)
{
	Found		found = {0};
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(schema, &leaves);

	*reached = mbus_moment(due->to, PG_INT64_MAX);
	if (due->to < PG_INT64_MAX)
		*reached = mbus_moment(due->to + 1, 0);
	*next = PG_INT64_MAX;
	if (due->later)
		mbus_set_none(due->later);
	for (int i = 0; i < nleaves; i++)
	{
		int32		segment = leaves[i].segment;
		Relation	leaf;

		if ((due->among && !mbus_set_has(due->among, segment)) ||
			(due->family == MBUS_MESSAGE &&
			 mbus_segment_undelayed(schema, &leaves[i])))
			continue;
		leaf = mbus_leaf_open_written(schema, segment, due->family);
		if (leaf == NULL)
			continue;
		if (leaf_due(due, leaf, &found, reached, next) && due->later)
			mbus_set_add(due->later, segment, segment);
		table_close(leaf, AccessShareLock);
	}
	pfree(leaves);
	if (found.n > 1)
		qsort(found.moment, found.n, sizeof(MbusMoment), mbus_moment_compare);
	found_cut(&found, *reached);
	*moments = found.moment;
	return found.n;
}

/*
 * leaf_due adds a leaf's: first what has the time to begin with, from its id
 * on, then what is later.  Of a leaf that has more, nothing behind the last
 * one is known.  Returns whether it has, or may have, any from "to" on.
 */
static bool
leaf_due(const MbusDue *due, Relation leaf, Found *found,
		 MbusMoment *reached, TimestampTz *next)
{
	MbusLeafScan rows;
	bool		later = false;
	int			n;

	mbus_leaf_scan_open(&rows, leaf, due->owner_column, due->time_column,
						true);
	mbus_leaf_scan_int4(&rows, due->owner_column, due->owner);
	mbus_leaf_scan_time(&rows, due->time_column, due->from.at, due->from.at);
	mbus_leaf_scan_int8(&rows, due->id_column, due->from.id, PG_INT64_MAX);
	n = rows_due(due, &rows, due->most, found, next, &later);
	if (n < due->most)
	{
		mbus_leaf_scan_int4(&rows, due->owner_column, due->owner);
		mbus_leaf_scan_time(&rows, due->time_column, due->from.at + 1,
							PG_INT64_MAX);
		n += rows_due(due, &rows, due->most - n, found, next, &later);
	}
	if (n == due->most && found->n > 0)
	{
		MbusMoment	behind = found->moment[found->n - 1];

		behind.id++;
		*reached = mbus_moment_min(*reached, behind);
		later = true;
	}
	mbus_leaf_scan_close(&rows);
	return later;
}

/* Adds up to "most" that are due; the first that is not says when it is. */
static int
rows_due(const MbusDue *due, MbusLeafScan *rows, int most, Found *found,
		 TimestampTz *next, bool *later)
{
	TupleDesc	desc = RelationGetDescr(rows->leaf);
	HeapTuple	tuple;
	int			n = 0;

	mbus_leaf_scan_begin(rows, due->snapshot);
	while (n < most && (tuple = mbus_leaf_scan_next(rows)) != NULL)
	{
		MbusMoment	moment;
		bool		isnull;

		if (due->lease_column != 0 &&
			DatumGetInt64(heap_getattr(tuple, due->lease_column, desc,
									   &isnull)) < due->since_lease)
			continue;
		moment.at = DatumGetTimestampTz(heap_getattr(tuple, due->time_column,
													 desc, &isnull));
		moment.id = DatumGetInt64(heap_getattr(tuple, due->id_column, desc,
											   &isnull));
		*later |= moment.at >= due->to;
		if (moment.at > due->to)
		{
			*next = Min(*next, moment.at);
			break;
		}
		found_add(found, moment);
		n++;
	}
	mbus_leaf_scan_end(rows);
	return n;
}

static void
found_add(Found *found, MbusMoment moment)
{
	if (found->n >= found->room)
	{
		found->room = Max(16, found->room * 2);
		found->moment = found->moment == NULL ?
			palloc(found->room * sizeof(MbusMoment)) :
			repalloc_huge(found->moment, found->room * sizeof(MbusMoment));
	}
	found->moment[found->n++] = moment;
}

/* Drops what lies behind, and what is there twice. */
static void
found_cut(Found *found, MbusMoment reached)
{
	int			n = 0;

	for (int i = 0; i < found->n; i++)
	{
		if (mbus_moment_order(found->moment[i], reached) >= 0)
			break;
		if (n == 0 ||
			mbus_moment_order(found->moment[i], found->moment[n - 1]) != 0)
			found->moment[n++] = found->moment[i];
	}
	found->n = n;
}

/*
 * mbus_due_where tells in which segments some owners have rows from a time
 * on.  Each leaf is opened once for all of them, and its index asked for the
 * next owner that it has: mostly it has few.  A leaf whose lock, or that of an
 * index, cannot be had at once (REINDEX) may have some of each.
 */
void
mbus_due_where(Oid schema, const MbusDue *due, MbusDueOwner *owners, int n)
{
	MbusDueOwner **sorted = palloc(Max(n, 1) * sizeof(MbusDueOwner *));
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(schema, &leaves);
	int32		upto = 0;

	for (int o = 0; o < n; o++)
	{
		sorted[o] = &owners[o];
		upto = Max(upto, owners[o].upto);
	}
	qsort(sorted, n, sizeof(MbusDueOwner *), owner_compare);
	for (int i = 0; i < nleaves; i++)
	{
		int32		segment = leaves[i].segment;
		Oid			relid = leaves[i].relid[due->family];
		Relation	leaf;
		bool		looked;

		CHECK_FOR_INTERRUPTS();
		if (segment > upto || !OidIsValid(relid) ||
			(due->family == MBUS_MESSAGE &&
			 mbus_segment_undelayed(schema, &leaves[i])))
			continue;
		looked = false;
		if (ConditionalLockRelationOid(relid, AccessShareLock))
		{
			leaf = mbus_leaf_open_written(schema, segment, due->family);
			looked = leaf == NULL ||
				leaf_where(due, leaf, segment, sorted, n);
			if (leaf)
				table_close(leaf, AccessShareLock);
			UnlockRelationOid(relid, AccessShareLock);
		}
		for (int o = 0; o < n && !looked; o++)
			owner_add(&owners[o], segment, MbusFirstId(segment));
	}
	pfree(leaves);
	pfree(sorted);
}

static int
owner_compare(const void *a, const void *b)
{
	return mbus_order((*(MbusDueOwner *const *) a)->owner,
					  (*(MbusDueOwner *const *) b)->owner);
}

/*
 * leaf_where does so in one leaf, for owners in ascending order; false if it
 * would have to wait.
 */
static bool
leaf_where(const MbusDue *due, Relation leaf, int32 segment,
		   MbusDueOwner *const *owners, int n)
{
	List	   *indexes = RelationGetIndexList(leaf);
	int			nlocked = 0;
	MbusLeafScan rows;
	int			o = 0;

	while (nlocked < list_length(indexes) &&
		   ConditionalLockRelationOid(list_nth_oid(indexes, nlocked),
									  AccessShareLock))
		nlocked++;
	if (nlocked < list_length(indexes))
	{
		indexes_unlock(indexes, nlocked);
		return false;
	}
	mbus_leaf_scan_open(&rows, leaf, due->owner_column, due->time_column,
						true);
	for (;;)
	{
		int32		next;

		/* those that need no look, and that it has nothing of */
		while (o < n && owners[o]->upto < segment)
			o++;
		if (o == n || !owner_next(due, &rows, owners[o]->owner, &next))
			break;
		while (o < n && owners[o]->owner < next)
			o++;
		for (; o < n && owners[o]->owner == next; o++)
		{
			int64		low = owner_low(due, &rows, segment, owners[o]);

			if (low != 0)
				owner_add(owners[o], segment, low);
		}
	}
	mbus_leaf_scan_close(&rows);
	indexes_unlock(indexes, nlocked);
	return true;
}

/* Gives back the locks of the first n. */
static void
indexes_unlock(List *indexes, int n)
{
	for (int i = 0; i < n; i++)
		UnlockRelationOid(list_nth_oid(indexes, i), AccessShareLock);
	list_free(indexes);
}

/* The first owner, from one on, that a leaf has rows of; false: none. */
static bool
owner_next(const MbusDue *due, MbusLeafScan *rows, int32 owner, int32 *next)
{
	HeapTuple	tuple;
	bool		isnull;

	mbus_leaf_scan_int4_from(rows, due->owner_column, owner);
	mbus_leaf_scan_begin(rows, due->snapshot);
	tuple = mbus_leaf_scan_next(rows);
	if (tuple != NULL)
		*next = DatumGetInt32(heap_getattr(tuple, due->owner_column,
										   RelationGetDescr(rows->leaf),
										   &isnull));
	mbus_leaf_scan_end(rows);
	return tuple != NULL;
}

/* The lowest id of an owner's rows, or a lower one; 0 if there is none. */
static int64
owner_low(const MbusDue *due, MbusLeafScan *rows, int32 segment,
		  const MbusDueOwner *owner)
{
	TupleDesc	desc = RelationGetDescr(rows->leaf);
	int64		low = 0;
	int			n = 0;
	HeapTuple	tuple;

	mbus_leaf_scan_int4(rows, due->owner_column, owner->owner);
	mbus_leaf_scan_time(rows, due->time_column, owner->from, PG_INT64_MAX);
	mbus_leaf_scan_begin(rows, due->snapshot);
	while ((low == 0 || owner->lowest) &&
		   (tuple = mbus_leaf_scan_next(rows)) != NULL)
	{
		int64		id;
		bool		isnull;

		if (++n > WHERE_MAX)
		{
			low = MbusFirstId(segment);
			break;
		}
		if (due->lease_column != 0 &&
			DatumGetInt64(heap_getattr(tuple, due->lease_column, desc,
									   &isnull)) < owner->since_lease)
			continue;
		id = DatumGetInt64(heap_getattr(tuple, due->id_column, desc,
										&isnull));
		low = low == 0 ? id : Min(low, id);
	}
	mbus_leaf_scan_end(rows);
	return low;
}

static void
owner_add(MbusDueOwner *owner, int32 segment, int64 low)
{
	if (owner->upto < segment)
		return;
	/* room for 8, 16, 32 ... */
	if (owner->segment == NULL)
		owner->segment = palloc(8 * sizeof(int32));
	else if (owner->nsegments >= 8 &&
			 (owner->nsegments & (owner->nsegments - 1)) == 0)
		owner->segment = repalloc(owner->segment,
								  2 * owner->nsegments * sizeof(int32));
	owner->segment[owner->nsegments++] = segment;
	owner->low = owner->low == 0 ? low : Min(owner->low, low);
}
