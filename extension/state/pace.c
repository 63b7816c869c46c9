/*
 * pace.c
 *		How seldom segments are opened, so that their numbers last.
 *
 * A node has 16,777,215 ordinals, each for one segment.  A segment that is full
 * is followed by the next one: with the defaults that is each 12 million
 * messages or 4 GB.  Apart from that
 *
 *	- a segment stays open for message_bus.segment_interval, in which it is
 *	  "young", and in proportion longer where more than MBUS_PACE_SERIES are
 *	  open: so a database opens at most MBUS_PACE_SERIES in an interval,
 *	  however many series it has
 *	- out of turn, MBUS_PACE_BURST may be opened or closed (expire(), the
 *	  segment of a dropped channel, a channel that has gone over to another
 *	  series), and one more in each interval
 *
 * With an interval of ten minutes that is at most 473,000 in a year, and the
 * numbers last for 35 years, whatever clients do.  A start of the server, which
 * begins new segments, costs one for each series that is used.
 *
 * A channel that goes over to another series (its TTL or its retention was
 * changed), or that had its slot evicted, needs a segment above its newest id.
 * If that of its series is lower and young, a new one is opened out of turn.
 * When nothing is left for that the channel goes on in a segment that is high
 * enough of another series: the one whose times to live are nearest, or the
 * channel's own of before.  What is in that goes later then, as the longest of
 * its messages does.
 *
 * All functions are called under the state lock, held exclusively by those that
 * write; none can fail.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/settings.h"
#include "state/clock.h"
#include "state/pace.h"
#include "state/state.h"
#include "state/state_internal.h"

static int32 place_nearest(const MbusDatabase *db,
						   const MbusChannelSlot *slot, int32 series_no,
						   int32 least);
static bool place_fits(const MbusSeries *series, int32 least);

/*
 * mbus_series_young tells whether the series' open segment is to stay open.
 */
bool
mbus_series_young(const MbusDatabase *db, int32 series_no)
{
	const MbusSeries *series = &db->series[series_no];
	int64		interval = mbus_segment_interval * USECS_PER_SEC;
	int			open = 0;

	if (series->open_segment == 0 || interval == 0)
		return false;
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		if (db->series[s].open_segment != 0)
			open++;
	}
	interval = Max(interval, interval / MBUS_PACE_SERIES * open);
	return mbus_now() - series->opened_at < interval;
}

/*
 * mbus_pace_take lets a segment be opened or closed out of turn, if that may
 * be done once more.
 */
bool
mbus_pace_take(MbusDatabase *db)
{
	MbusPace   *pace = &db->pace;
	TimestampTz now = mbus_now();
	int64		interval = mbus_segment_interval * USECS_PER_SEC;
	int64		due;

	if (interval == 0)
		return true;
	if (pace->since == 0 || pace->since > now)
	{
		pace->left = pace->since == 0 ? MBUS_PACE_BURST : pace->left;
		pace->since = now;
	}
	due = (now - pace->since) / interval;
	pace->since += due * interval;
	pace->left = (int32) Min(pace->left + due, MBUS_PACE_BURST);
	if (pace->left == 0)
		return false;
	pace->left--;
	return true;
}

/*
 * mbus_series_place returns the series whose segment a channel publishes to:
 * its own series_no, but where that has a young segment below "least", which
 * the channel needs, and none can be opened out of turn.
 */
int32
mbus_series_place(MbusDatabase *db, const MbusChannelSlot *slot,
				  int32 series_no, int32 least)
{
	const MbusSeries *series = &db->series[series_no];

	if (series->open_segment == 0 || series->open_segment >= least ||
		series->wanted > series->open_segment ||
		!mbus_series_young(db, series_no) || mbus_pace_take(db))
		return series_no;
	return place_nearest(db, slot, series_no, least);
}

/* Another series that the channel can publish to; series_no if none can. */
static int32
place_nearest(const MbusDatabase *db, const MbusChannelSlot *slot,
			  int32 series_no, int32 least)
{
	if (db->series[slot->series].own &&
		place_fits(&db->series[slot->series], least))
		return slot->series;
	for (int32 apart = 1; apart < MBUS_MAX_SERIES; apart++)
	{
		int32		longer = series_no + apart;
		int32		shorter = series_no - apart;

		if (longer <= MBUS_MAX_SERIES && !db->series[longer].own &&
			place_fits(&db->series[longer], least))
			return longer;
		if (shorter >= 1 && !db->series[shorter].own &&
			place_fits(&db->series[shorter], least))
			return shorter;
	}
	return series_no;
}

/* Whether a segment is open that is high enough and has room. */
static bool
place_fits(const MbusSeries *series, int32 least)
{
	return series->open_segment != 0 && series->open_segment >= least &&
		series->next_row < series->max_rows;
}
