/*
 * purged.c
 *		Which of a channel's messages a purge has taken.
 *
 * A purge deletes nothing (admin/purge.c): the channel's row says that ids up
 * to purged_to are gone, but for some ranges: those in which publishes had not
 * ended, and all that is in no segment that the purge has seen.  So what a
 * restore brings later, from below, is not purged, and two purges of the same
 * channel that come together each take what their bus had.  Every reader asks
 * here.
 */
#include "postgres.h"

#include "channel/channel.h"
#include "channel/purged.h"

static bool ranges_hold(const int64 *pairs, int n, int64 id);
static int	ranges_above(const int64 *pairs, int n, int64 id);

/*
 * mbus_channel_purged tells whether a purge has taken a message.
 */
bool
mbus_channel_purged(const MbusPolicy *policy, int64 id)
{
	return id <= policy->purged_to &&
		!ranges_hold(policy->kept, policy->nkept, id);
}

/*
 * mbus_channel_purged_below returns an id at and below which, from an id on, all
 * messages are purged: nobody need look there.
 */
int64
mbus_channel_purged_below(const MbusPolicy *policy, int64 from)
{
	int			above;

	if (!mbus_channel_purged(policy, from))
		return from - 1;
	above = ranges_above(policy->kept, policy->nkept, from);
	if (above == policy->nkept)
		return policy->purged_to;
	return Min(policy->purged_to, policy->kept[2 * above] - 1);
}

/* Whether one of the ascending ranges [lo, hi) holds the id. */
static bool
ranges_hold(const int64 *pairs, int n, int64 id)
{
	int			above = ranges_above(pairs, n, id);

	return above > 0 && id < pairs[2 * above - 1];
}

/* The first range that begins above the id; n if none does. */
static int
ranges_above(const int64 *pairs, int n, int64 id)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (pairs[2 * middle] <= id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}
