/*
 * series.c
 *		Series of segments: one for each range of times to live, and then one
 *		for each channel with retention "acked".
 *
 * Which series a channel has stands in its row, chosen when its TTL or its
 * retention is set; the worker opens and closes segments by the window that is
 * told here.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "channel/series.h"

#define MBUS_TTL_MAX_DAYS	36525	/* a hundred years */
#define MBUS_OWN_WINDOW_MINUTES 10	/* of a series that is one channel's own */

/*
 * The TTL buckets: each is a series, so that messages that expire together
 * lie together.  A segment's window is about an eighth of the TTL, at least
 * ten minutes where the TTL allows.  The series above these each belong to
 * one channel with retention "acked".
 */
typedef struct MbusBucket
{
	int64		ttl_minutes;	/* longest TTL */
	int64		window_minutes;
} MbusBucket;

static const MbusBucket buckets[] = {
	{10, 5},
	{60, 10},
	{6 * 60, 45},
	{24 * 60, 3 * 60},
	{48 * 60, 6 * 60},
	{7 * 24 * 60, 21 * 60},
	{30 * 24 * 60, 90 * 60},
	{366 * 24 * 60, 45 * 24 * 60},
	{INT64CONST(1440) * MBUS_TTL_MAX_DAYS, 366 * 24 * 60},
};

/*
 * mbus_ttl_check returns a TTL in microseconds; 22023 if it is not positive
 * or longer than a hundred years.
 */
int64
mbus_ttl_check(const Interval *interval)
{
	int64		us = mbus_interval_us(interval);

	if (us <= 0 || us > MBUS_TTL_MAX_DAYS * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid ttl: %s",
						DatumGetCString(DirectFunctionCall1(interval_out,
															IntervalPGetDatum(interval)))),
				 errdetail("A time to live is positive and at most 100 years.")));
	return us;
}

/*
 * mbus_series_for_ttl returns the series of a TTL's bucket.
 */
int32
mbus_series_for_ttl(int64 ttl_us)
{
	for (int i = 0; i < (int) lengthof(buckets); i++)
	{
		if (ttl_us <= buckets[i].ttl_minutes * 60 * USECS_PER_SEC)
			return i + 1;
	}
	return lengthof(buckets);
}

/*
 * mbus_own_series returns the first of the series that are one channel's own.
 */
int32
mbus_own_series(void)
{
	return lengthof(buckets) + 1;
}

/*
 * mbus_series_window_us returns for how long a series' segment takes
 * messages before it rolls.
 */
int64
mbus_series_window_us(int32 series)
{
	int64		minutes = MBUS_OWN_WINDOW_MINUTES;

	if (series < mbus_own_series())
		minutes = buckets[Max(1, series) - 1].window_minutes;
	return minutes * 60 * USECS_PER_SEC;
}
