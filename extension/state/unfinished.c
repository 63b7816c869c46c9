/*
 * unfinished.c
 *		What of a database's publishes has not ended.
 *
 * A reader that wants no gaps first asks mbus_published_limit() for the
 * first id that is unreserved or unfinished, and THEN takes its snapshot.
 * The other order loses messages.  One that goes on behind unfinished ranges
 * asks mbus_unfinished_copy() for the first unreserved id and the ranges, and
 * then takes its snapshot.
 *
 * The answers are made of the ranges of all backends (registry.c) and of what
 * is known of the channel (channel_slot.c), in one step under the state lock,
 * shared.  An answer is old when it is there: more may have ended, or begun
 * above the limit, but nothing below it can begin any more.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/lwlock.h"

#include "base/ids.h"
#include "state/filter.h"
#include "state/range.h"
#include "state/state.h"
#include "state/state_internal.h"
#include "state/unfinished.h"

#define MBUS_RANGES_GUESS	32

/* A walk over the unfinished ranges of a database. */
typedef struct RangeScan
{
	MbusDatabase *db;
	int32		channel_id;		/* 0: of any */
	int			backend;
	int			range;			/* next to look at; behind the array: the
								 * overflow */
} RangeScan;

static void range_scan(RangeScan *scan, MbusDatabase *db, int32 channel_id);
static const MbusRange *range_next(RangeScan *scan);
static int	segment_compare(const void *a, const void *b);
static int	channel_bit(int32 channel_id);
static int64 unreserved(MbusDatabase *db, int32 channel_id, bool tell);
static void limit_tell(MbusDatabase *db, int32 series, int64 limit);
static int	ranges_join(MbusRange *ranges, int n, int64 limit);
static int	range_compare(const void *a, const void *b);

/*
 * mbus_published_limit returns the first id of a channel that is not
 * reserved yet or belongs to a publish that has not ended.  Every message of
 * the channel below it is settled; take the snapshot AFTER this call.
 *
 * This is for a reader that goes on from the last message it has found, not
 * from the limit: what is reserved above may go back.
 */
int64
mbus_published_limit(MbusDatabase *db, Oid schema, int32 channel_id)
{
	RangeScan	scan;
	const MbusRange *range;
	int64		limit = PG_INT64_MAX;

	LWLockAcquire(&db->lock, LW_SHARED);
	/* if not ready, no publish of this extension can have begun */
	if (db->numbering.ready && db->schema == schema)
	{
		limit = unreserved(db, channel_id, false);
		range_scan(&scan, db, channel_id);
		while ((range = range_next(&scan)) != NULL)
			limit = Min(limit, range->lo);
		if (db->numbering.gap != 0)
			limit = Min(limit, MbusFirstId(db->numbering.gap));
	}
	LWLockRelease(&db->lock);
	return limit;
}

/*
 * mbus_unfinished_copy returns the first id of a channel that is not reserved
 * yet, and sets *ranges to the channel's unfinished ranges, by ascending id
 * and apart from each other; take the snapshot AFTER this call.  No id below
 * the limit is given out any more.  The array is the caller's, in the
 * current memory context.  Returns -1, and no ranges, while the worker is not
 * ready: nothing can be said.
 */
int64
mbus_unfinished_copy(MbusDatabase *db, Oid schema, int32 channel_id,
					 MbusRange **ranges, int *nranges)
{
	int			room = MBUS_RANGES_GUESS;
	int64		limit = -1;
	int			n;

	for (;;)
	{
		RangeScan	scan;
		const MbusRange *range;

		*ranges = palloc(room * sizeof(MbusRange));
		n = 0;
		LWLockAcquire(&db->lock, LW_SHARED);
		if (db->numbering.ready && db->schema == schema)
		{
			limit = unreserved(db, channel_id, true);
			range_scan(&scan, db, channel_id);
			while ((range = range_next(&scan)) != NULL)
			{
				if (n < room)
					(*ranges)[n] = *range;
				n++;
			}
		}
		LWLockRelease(&db->lock);
		if (n <= room)
			break;
		pfree(*ranges);
		room = n + MBUS_RANGES_GUESS;
		limit = -1;
	}
	*nranges = ranges_join(*ranges, n, limit);
	return limit;
}

/*
 * mbus_segments_look says how far each open segment is reserved, and which
 * publishes of the database have not ended, in one step; take the snapshot
 * AFTER this call.  The array is the caller's, in the current memory context.
 *
 * No id below a limit is given out any more, though the mark "told" is left
 * alone: what may go back is the end of what is reserved, and unfinished until
 * then.  A limit is below that.
 */
void
mbus_segments_look(MbusDatabase *db, Oid schema, MbusSegmentsSeen *seen)
{
	int			room = MBUS_RANGES_GUESS;

	for (;;)
	{
		RangeScan	scan;
		const MbusRange *range;

		seen->nranges = 0;
		seen->nopen = 0;
		seen->range = palloc(room * sizeof(MbusRange));
		LWLockAcquire(&db->lock, LW_SHARED);
		seen->ready = db->numbering.ready && db->schema == schema;
		for (int s = 1; s <= MBUS_MAX_SERIES && seen->ready; s++)
		{
			const MbusSeries *series = &db->series[s];

			if (series->open_segment == 0)
				continue;
			seen->open[seen->nopen] = series->open_segment;
			seen->limit[seen->nopen++] =
				MbusFirstId(series->open_segment) + series->next_row;
		}
		range_scan(&scan, db, 0);
		while ((range = range_next(&scan)) != NULL)
		{
			if (seen->nranges < room)
				seen->range[seen->nranges] = *range;
			seen->nranges++;
		}
		LWLockRelease(&db->lock);
		if (seen->nranges <= room)
			break;
		pfree(seen->range);
		room = seen->nranges + MBUS_RANGES_GUESS;
	}
	seen->nranges = ranges_join(seen->range, seen->nranges, PG_INT64_MAX);
	for (int i = 0; i < seen->nopen; i++)
	{
		for (int r = seen->nranges - 1; r >= 0; r--)
		{
			const MbusRange *range = &seen->range[r];

			if (range->lo < seen->limit[i] && range->hi >= seen->limit[i])
				seen->limit[i] = Max(range->lo, MbusFirstId(seen->open[i]));
		}
	}
}

/*
 * mbus_segment_hidden tells whether a segment is that of a restore that is at
 * work, or has just been: the worker has not numbered above it, or knows that
 * it is not filled yet.  Without a worker, or before it is ready, none is.
 */
bool
mbus_segment_hidden(MbusDatabase *db, int32 segment)
{
	uint32		known = pg_atomic_read_u32(&db->numbering.known);

	if (known == 0)
		return false;
	if ((uint32) segment >= known)
		return true;
	pg_read_barrier();
	return mbus_segment_listed(db, segment);
}

/*
 * mbus_segment_listed tells whether the worker knows that a restore is filling a
 * segment, which stays hidden then until it is filled.
 */
bool
mbus_segment_listed(MbusDatabase *db, int32 segment)
{
	bool		hidden;

	if (pg_atomic_read_u32(&db->numbering.hiding) == 0)
		return false;
	LWLockAcquire(&db->lock, LW_SHARED);
	hidden = (segment >= db->numbering.crowd_lo &&
			  segment < db->numbering.crowd_hi) ||
		bsearch(&segment, db->numbering.restoring, db->numbering.nrestoring,
				sizeof(int32), segment_compare) != NULL;
	LWLockRelease(&db->lock);
	return hidden;
}

/*
 * mbus_segments_show tells whether none up to the highest is hidden, at once.
 */
bool
mbus_segments_show(MbusDatabase *db, int32 highest)
{
	uint32		known = pg_atomic_read_u32(&db->numbering.known);

	pg_read_barrier();
	return known == 0 || ((uint32) highest < known &&
						  pg_atomic_read_u32(&db->numbering.hiding) == 0);
}

static int
segment_compare(const void *a, const void *b)
{
	return mbus_order(*(const int32 *) a, *(const int32 *) b);
}

/*
 * mbus_unfinished_elsewhere tells whether a publish to the channel into
 * another segment than this one has not ended.
 */
bool
mbus_unfinished_elsewhere(MbusDatabase *db, int32 channel_id, int32 segment)
{
	RangeScan	scan;
	const MbusRange *range;

	LWLockAcquire(&db->lock, LW_SHARED);
	range_scan(&scan, db, channel_id);
	do
		range = range_next(&scan);
	while (range && MbusSegmentOf(range->lo) == segment &&
		   MbusSegmentOf(range->hi - 1) == segment);
	LWLockRelease(&db->lock);
	return range != NULL;
}

/*
 * mbus_reserved_above tells whether ids of the channel may have been reserved
 * in a segment above this one, by a publish that has ended or not.
 */
bool
mbus_reserved_above(MbusDatabase *db, int32 channel_id, int32 segment)
{
	MbusChannelSlot *slot;
	bool		above;

	LWLockAcquire(&db->lock, LW_SHARED);
	slot = mbus_channel_slot_find(db, channel_id);
	/* a slot that was evicted may have said so */
	above = slot == NULL || MbusSegmentOf(slot->last_id) > segment;
	LWLockRelease(&db->lock);
	return above;
}

/*
 * mbus_segments_without lists the open segments that a channel has reserved
 * nothing in, up to MBUS_MAX_SERIES of them; returns how many.  Of others it
 * may have: channels share bits.
 */
int
mbus_segments_without(MbusDatabase *db, Oid schema, int32 channel_id,
					  int32 *segments)
{
	int			bit = channel_bit(channel_id);
	int			n = 0;

	LWLockAcquire(&db->lock, LW_SHARED);
	for (int s = 1; s <= MBUS_MAX_SERIES && db->schema == schema; s++)
	{
		const MbusSeries *series = &db->series[s];

		if (series->open_segment != 0 &&
			(series->channels[bit / 64] & (UINT64CONST(1) << (bit % 64))) == 0)
			segments[n++] = series->open_segment;
	}
	LWLockRelease(&db->lock);
	return n;
}

/*
 * mbus_series_mark notes that a channel reserves in a series' segment; in the
 * step that reserves, under the state lock.
 */
void
mbus_series_mark(MbusSeries *series, int32 channel_id)
{
	int			bit = channel_bit(channel_id);

	series->channels[bit / 64] |= UINT64CONST(1) << (bit % 64);
}

static int
channel_bit(int32 channel_id)
{
	return murmurhash32((uint32) channel_id) % MBUS_SERIES_BITS;
}

/*
 * mbus_segment_unfinished tells whether a publish into a segment has not
 * ended, or a restore of it.  No new one can begin in a segment that is closed.
 */
bool
mbus_segment_unfinished(MbusDatabase *db, int32 segment)
{
	RangeScan	scan;
	const MbusRange *range;

	if (mbus_segment_hidden(db, segment))
		return true;
	LWLockAcquire(&db->lock, LW_SHARED);
	range_scan(&scan, db, 0);
	do
		range = range_next(&scan);
	while (range && (MbusSegmentOf(range->lo) > segment ||
					 MbusSegmentOf(range->hi - 1) < segment));
	LWLockRelease(&db->lock);
	return range != NULL;
}

/*
 * mbus_unfinished_ranges counts the registered ranges of a database.
 */
int
mbus_unfinished_ranges(MbusDatabase *db)
{
	RangeScan	scan;
	int			n = 0;

	LWLockAcquire(&db->lock, LW_SHARED);
	range_scan(&scan, db, 0);
	while (range_next(&scan) != NULL)
		n++;
	LWLockRelease(&db->lock);
	return n;
}

/*
 * range_scan begins a walk over the unfinished ranges of the database's
 * extension, those of one channel or of all (0).  Caller holds the database's
 * lock until the walk is over.
 */
static void
range_scan(RangeScan *scan, MbusDatabase *db, int32 channel_id)
{
	scan->db = db;
	scan->channel_id = channel_id;
	scan->backend = 0;
	scan->range = 0;
}

/* The next range, NULL if there are no more. */
static const MbusRange *
range_next(RangeScan *scan)
{
	for (; scan->backend < mbus_shared->nbackends; scan->backend++)
	{
		const MbusBackend *b = &mbus_shared->backend[scan->backend];

		if (b->nranges > 0 && b->database == scan->db->database &&
			b->schema == scan->db->schema)
		{
			while (scan->range < b->nranges)
			{
				const MbusRange *range = &b->range[scan->range++];

				if (scan->channel_id == 0 ||
					range->channel_id == scan->channel_id)
					return range;
			}
			if (scan->range++ == b->nranges && b->overflow.hi != 0 &&
				(scan->channel_id == 0 ||
				 mbus_filter_has(b, scan->channel_id)))
				return &b->overflow;
		}
		scan->range = 0;
	}
	return NULL;
}

/*
 * unreserved returns the first id of a channel that is not reserved.  "tell":
 * the caller takes it that none below it will be.  Caller holds the database's
 * lock.
 *
 * It is behind the newest that is known, and in no segment below those that
 * the channel's next ids may come from.  So what a restore has brought is
 * below it as soon as the worker numbers above that.
 */
static int64
unreserved(MbusDatabase *db, int32 channel_id, bool tell)
{
	MbusChannelSlot *slot = mbus_channel_slot_find(db, channel_id);
	int64		behind;
	int32		lowest;

	if (slot == NULL)
		return mbus_channel_settled(db) + 1;
	behind = mbus_channel_last(db, slot) + 1;
	if (tell)
		limit_tell(db, slot->series, behind);
	lowest = mbus_lowest_segment(db, MbusSegmentOf(behind));
	return Max(behind, MbusFirstId(lowest));
}

/* Raises a series' mark; others may do so at the same time. */
static void
limit_tell(MbusDatabase *db, int32 series, int64 limit)
{
	uint64		told = pg_atomic_read_u64(&db->told[series]);

	while ((int64) told < limit &&
		   !pg_atomic_compare_exchange_u64(&db->told[series], &told,
										   (uint64) limit))
		 /* somebody else has raised it: look again */ ;
}

/*
 * ranges_join sorts ranges, leaves out what is not below the limit, and makes
 * one of those that overlap; returns how many are left.  Those that touch are
 * not of one transaction, and do not wait for each other.
 */
static int
ranges_join(MbusRange *ranges, int n, int64 limit)
{
	int			kept = 0;

	qsort(ranges, n, sizeof(MbusRange), range_compare);
	for (int i = 0; i < n; i++)
	{
		MbusRange	range = ranges[i];
		MbusRange  *last = kept > 0 ? &ranges[kept - 1] : NULL;

		range.hi = Min(range.hi, limit);
		if (range.lo >= range.hi)
			continue;
		if (last && range.lo < last->hi)
		{
			last->hi = Max(last->hi, range.hi);
			last->loose |= range.loose;
		}
		else
			ranges[kept++] = range;
	}
	return kept;
}

/* By ascending id. */
static int
range_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusRange *) a)->lo,
					  ((const MbusRange *) b)->lo);
}
