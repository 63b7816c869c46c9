/*
 * segment_set.c
 *		Sets of segments, of a fixed size: they allocate nothing and cannot
 *		fail, so they may lie in shared memory and be changed by callbacks.
 */
#include "postgres.h"

#include "segment/segment_set.h"

static void range_remove(MbusSegmentSet *set, int at, int n);

/*
 * mbus_set_none empties a set.
 */
void
mbus_set_none(MbusSegmentSet *set)
{
	set->n = 0;
}

/*
 * mbus_set_all makes a set that of all segments, also of those to come.
 */
void
mbus_set_all(MbusSegmentSet *set)
{
	set->n = 1;
	set->range[0].lo = 0;
	set->range[0].hi = PG_INT32_MAX;
}

/*
 * mbus_set_add adds the segments from lo to hi, inclusive.
 */
void
mbus_set_add(MbusSegmentSet *set, int32 lo, int32 hi)
{
	int			at = 0;
	int			end;

	/* those from "at" to before "end" touch the new range */
	while (at < set->n && (int64) set->range[at].hi + 1 < lo)
		at++;
	for (end = at; end < set->n && set->range[end].lo <= (int64) hi + 1; end++)
	{
		lo = Min(lo, set->range[end].lo);
		hi = Max(hi, set->range[end].hi);
	}
	if (end == at && set->n == MBUS_SET_RANGES)
	{
		/* no room: it becomes one with what is nearest, before or behind */
		bool		before = at == set->n ||
		(at > 0 && (int64) lo - set->range[at - 1].hi <=
		 (int64) set->range[at].lo - hi);

		at -= before;
		end = at + 1;
		lo = Min(lo, set->range[at].lo);
		hi = Max(hi, set->range[at].hi);
	}
	if (end == at)
	{
		memmove(&set->range[at + 1], &set->range[at],
				(set->n - at) * sizeof(set->range[0]));
		set->n++;
	}
	else
		range_remove(set, at + 1, end - at - 1);
	set->range[at].lo = lo;
	set->range[at].hi = hi;
}

static void
range_remove(MbusSegmentSet *set, int at, int n)
{
	memmove(&set->range[at], &set->range[at + n],
			(set->n - at - n) * sizeof(set->range[0]));
	set->n -= n;
}

/*
 * mbus_set_join adds all that another set has.
 */
void
mbus_set_join(MbusSegmentSet *set, const MbusSegmentSet *other)
{
	for (int i = 0; i < other->n; i++)
		mbus_set_add(set, other->range[i].lo, other->range[i].hi);
}

/*
 * mbus_set_has tells whether a segment is in a set.
 */
bool
mbus_set_has(const MbusSegmentSet *set, int32 segment)
{
	for (int i = 0; i < set->n && set->range[i].lo <= segment; i++)
	{
		if (set->range[i].hi >= segment)
			return true;
	}
	return false;
}
