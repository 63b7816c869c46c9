/*
 * own_ranges.c
 *		The unfinished ranges of this backend: how few they can be.
 *
 * A transaction may publish any number of messages to any number of channels,
 * in turn with others, and its array of ranges has MBUS_RANGES_PER_BACKEND.
 * In the order of what it costs others:
 *
 *	1. Nobody else has published to the channel since: the channel's newest
 *	   range is drawn on to the new ids.  What lies between is of other
 *	   channels, whose readers do not see this range.
 *	2. Else a new one begins.  Without a key it is a chunk as large as what
 *	   this transaction has used of the channel, less what it could not use,
 *	   so that ranges are few and never more is reserved than twice of what is
 *	   used.  A message with a key takes ids of a chunk only if nobody else has
 *	   published to the channel since; so of two publishes with one key, one of
 *	   which had committed before the other began, the first has the lower id.
 *	3. The array is full: of all pairs of ranges of one channel in a segment
 *	   the two that are nearest become one, which is loose: messages of others
 *	   that lie between wait for this transaction's end where a reader has not
 *	   come to them yet.
 *	4. There is no such pair: a range goes into the overflow, one loose range
 *	   over all of that with a filter of channels (filter.c).
 *
 * The array is in shared memory.  What others need not know of a range is in
 * "own", in the same place.  All functions are called under the state lock,
 * held exclusively; none can fail.
 */
#include "postgres.h"

#include "base/ids.h"
#include "state/filter.h"
#include "state/own_ranges.h"
#include "state/range.h"
#include "state/state_internal.h"

typedef struct Own
{
	int64		next;			/* first id not used; up to the range's end,
								 * these are left */
	int64		used;			/* of the channel, since it came into the
								 * array */
	int64		reserved;		/* likewise */
	int32		before;			/* the channel's range before this; -1: none */
	bool		newest;			/* the channel has none after it */
} Own;

static Own	own[MBUS_RANGES_PER_BACKEND];

static int32 range_newest(const MbusBackend *me, const MbusWant *want);
static bool range_alone(const MbusBackend *me, const MbusWant *want, int32 i);
static int32 chunk_size(const MbusWant *want, int32 newest, int32 left);
static void range_room(MbusBackend *me);
static int32 pair_nearest(const MbusBackend *me);
static void pair_merge(MbusBackend *me, int32 i);
static void range_overflow(MbusBackend *me, int32 i);
static void range_remove(MbusBackend *me, int32 i);

/*
 * mbus_own_rest takes ids that were reserved for the channel before and not
 * used.  Returns how many, and the first.
 */
int32
mbus_own_rest(MbusBackend *me, const MbusWant *want, int64 *first)
{
	int32		i = range_newest(me, want);
	int32		n;

	if (i < 0 || own[i].next >= me->range[i].hi ||
		MbusSegmentOf(me->range[i].lo) != want->segment ||
		(want->ordered && !range_alone(me, want, i)))
		return 0;
	*first = own[i].next;
	n = (int32) Min((int64) want->rows, me->range[i].hi - own[i].next);
	own[i].next += n;
	own[i].used += n;
	return n;
}

/*
 * mbus_own_add registers new ids, from "first" on; so many as "left" can be
 * had.  Call it when mbus_own_rest() has found none.  Returns the end of what
 * is reserved, and how many ids of it the publisher got.
 */
int64
mbus_own_add(MbusBackend *me, const MbusWant *want, int64 first, int32 left,
			 int32 *got)
{
	int32		newest = range_newest(me, want);
	int32		chunk = Min(want->rows, left);
	MbusRange  *range;
	Own		   *mine;

	*got = chunk;
	if (newest >= 0 && range_alone(me, want, newest))
	{
		range = &me->range[newest];
		mine = &own[newest];
	}
	else
	{
		Own			before = {0};

		chunk = chunk_size(want, newest, left);
		if (me->nranges >= MBUS_RANGES_PER_BACKEND)
		{
			range_room(me);
			newest = range_newest(me, want);
		}
		if (newest >= 0)
		{
			before = own[newest];
			own[newest].newest = false;
		}
		range = &me->range[me->nranges];
		mine = &own[me->nranges++];
		range->channel_id = want->channel_id;
		range->loose = false;
		range->lo = first;
		mine->used = before.used;
		mine->reserved = before.reserved;
		mine->before = newest;
		mine->newest = true;
	}
	range->hi = first + chunk;
	mine->next = first + *got;
	mine->used += *got;
	mine->reserved += chunk;
	return range->hi;
}

/*
 * mbus_own_return makes the ids [first, end), which the channel got last and
 * has not used, ids that are left.
 */
void
mbus_own_return(MbusBackend *me, int32 channel_id, int64 first, int64 end)
{
	for (int32 i = 0; i < me->nranges; i++)
	{
		if (me->range[i].channel_id != channel_id || own[i].next != end ||
			me->range[i].lo > first)
			continue;
		own[i].next = first;
		own[i].used -= end - first;
		return;
	}
}

/* The channel's newest range; -1: none. */
static int32
range_newest(const MbusBackend *me, const MbusWant *want)
{
	for (int32 i = me->nranges - 1; i >= 0; i--)
	{
		if (me->range[i].channel_id == want->channel_id && own[i].newest)
			return i;
	}
	return -1;
}

/*
 * range_alone tells whether nobody else has reserved ids of the channel since,
 * and the segment is still open.
 */
static bool
range_alone(const MbusBackend *me, const MbusWant *want, int32 i)
{
	return want->last_id == me->range[i].hi - 1 &&
		MbusSegmentOf(me->range[i].lo) == want->segment;
}

/* How many ids a new range takes. */
static int32
chunk_size(const MbusWant *want, int32 newest, int32 left)
{
	int64		more = 0;

	if (!want->ordered && newest >= 0)
		more = 2 * own[newest].used - own[newest].reserved;
	return (int32) Min(want->rows + Max(more, 0), left);
}

/*
 * range_room makes room in the array for one range.
 */
static void
range_room(MbusBackend *me)
{
	static int32 victim = 0;
	int32		i = pair_nearest(me);

	if (i >= 0)
		pair_merge(me, i);
	else
		range_overflow(me, victim++ % me->nranges);
}

/*
 * pair_nearest returns the range that is nearest to its channel's range before
 * it; -1: none.  Of several, that with the lowest ids: readers have come past
 * what lies between most likely.
 */
static int32
pair_nearest(const MbusBackend *me)
{
	int64		nearest = PG_INT64_MAX;
	int32		found = -1;

	for (int32 i = 0; i < me->nranges; i++)
	{
		const MbusRange *range = &me->range[i];
		const MbusRange *before;

		if (own[i].before < 0)
			continue;
		before = &me->range[own[i].before];
		if (MbusSegmentOf(before->lo) != MbusSegmentOf(range->lo) ||
			range->lo - before->hi > nearest ||
			(range->lo - before->hi == nearest &&
			 range->lo > me->range[found].lo))
			continue;
		nearest = range->lo - before->hi;
		found = i;
	}
	return found;
}

/* Makes a range one with the one before it. */
static void
pair_merge(MbusBackend *me, int32 i)
{
	int32		before = own[i].before;

	me->range[i].lo = me->range[before].lo;
	me->range[i].loose = true;
	own[i].before = own[before].before;
	range_remove(me, before);
}

/* Puts a range into the overflow. */
static void
range_overflow(MbusBackend *me, int32 i)
{
	MbusRange  *overflow = &me->overflow;
	const MbusRange *range = &me->range[i];
	bool		empty = overflow->hi == 0;

	overflow->loose = true;
	overflow->lo = empty ? range->lo : Min(overflow->lo, range->lo);
	overflow->hi = Max(overflow->hi, range->hi);
	mbus_filter_add(me, range->channel_id, empty);
	range_remove(me, i);
}

/*
 * range_remove takes a range out of the array; the last one gets its place.
 * The range after it has none before it, unless it was told otherwise.
 */
static void
range_remove(MbusBackend *me, int32 i)
{
	int32		last = --me->nranges;

	for (int32 k = 0; k <= last; k++)
	{
		if (own[k].before == i)
			own[k].before = own[i].before;
	}
	me->range[i] = me->range[last];
	own[i] = own[last];
	for (int32 k = 0; k < last; k++)
	{
		if (own[k].before == last)
			own[k].before = i;
	}
}
