/*
 * scan_due.c
 *		The scan reads by time: what is to be tried again, what was delayed.
 *
 * Both are read from a position, a moment, and taken in the order of time and
 * id.  When there is no room for more, the position is that of the first that
 * had none; what is before it was taken or is nobody's any more.
 *
 * A message of a key that was to be tried again, and is no more, has its key
 * go on (scan_take.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/moment.h"
#include "delivery/scan_due.h"
#include "delivery/scan_facts.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "facts/facts.h"
#include "segment/due.h"
#include "segment/leaf.h"

#define READ_MIN	2			/* looked at at a time */
#define READ_MAX	8192

static bool due_read(MbusScan *scan, int most, bool retries,
					 MbusMoment *position, TimestampTz *next);
static int	moments_read(MbusScan *scan, MbusMoment from, int most,
						 bool retries, MbusMoment **moments,
						 MbusMoment *reached, TimestampTz *next);
static int	delayed_read(MbusScan *scan, MbusMoment from, int most,
						 MbusMoment **moments, MbusMoment *reached,
						 TimestampTz *next);
static bool moments_take(MbusScan *scan, const MbusMoment *moments, int n,
						 int most, bool retries, MbusMoment *position);
static MbusFacts *moments_facts(MbusScan *scan, const MbusMoment *moments,
								int n, bool retries, int *nfacts);
static bool is_passed(MbusScan *scan, int64 id, bool retries);
static bool moment_take(MbusScan *scan, MbusMoment moment, bool retries,
						const MbusFacts *facts);

/*
 * mbus_scan_retries takes up to "most" messages that failed and are to be
 * tried again now.
 */
void
mbus_scan_retries(MbusScan *scan, int most)
{
	if (!scan->read_retries || scan->full || scan->nfound >= scan->batch)
		return;
	scan->retries_left = !due_read(scan, most, true, &scan->retry_position,
								   &scan->next_retry);
	/* one that fails at this very time is looked for once more */
	if (scan->retries_left)
		scan->retry_in = scan->sub.retry_in;
	else
		scan->retry_position = mbus_moment(scan->now, 0);
}

/*
 * mbus_scan_due takes up to "most" delayed messages whose time has come.
 */
void
mbus_scan_due(MbusScan *scan, int most)
{
	if (scan->full || scan->nfound >= scan->batch)
		return;
	if (scan->next_due > scan->now)
	{
		/* what the cursor comes to and is due by now is not left to later */
		scan->due_position = mbus_moment(scan->now + 1, 0);
		return;
	}
	scan->read_due = true;
	scan->due_left = !due_read(scan, most, false, &scan->due_position,
							   &scan->next_due);
	if (!scan->due_left)
		scan->due_in = scan->due_later;
}

/*
 * due_read reads from *position to now.  False if there was no room for more,
 * and *position is where that was.
 */
static bool
due_read(MbusScan *scan, int most, bool retries, MbusMoment *position,
		 TimestampTz *next)
{
	int			before = scan->nfound;
	int			want = Min(Max(most, READ_MIN), READ_MAX);

	for (;;)
	{
		MbusMoment *moments;
		MbusMoment	reached;
		int			n;
		bool		all;

		CHECK_FOR_INTERRUPTS();
		n = moments_read(scan, *position, want, retries, &moments, &reached,
						 next);
		all = moments_take(scan, moments, n, most - (scan->nfound - before),
						   retries, position);
		if (n > 0)
			pfree(moments);
		if (!all)
		{
			*next = PG_INT64_MIN;
			return false;
		}
		*position = reached;
		if (reached.at > scan->now)
			return true;
		/* few of these are left to take */
		want = Min(2 * want, READ_MAX);
	}
}

static int
moments_read(MbusScan *scan, MbusMoment from, int most, bool retries,
			 MbusMoment **moments, MbusMoment *reached, TimestampTz *next)
{
	if (retries)
		return mbus_facts_retries(scan->schema, scan->sub.subscription_id,
								  scan->sub.since_lease, from, scan->now,
								  most, scan->snapshot, &scan->sub.retry_in,
								  moments, reached, next, &scan->retry_in);
	return delayed_read(scan, from, most, moments, reached, next);
}

/* Delayed messages of the channel. */
static int
delayed_read(MbusScan *scan, MbusMoment from, int most, MbusMoment **moments,
			 MbusMoment *reached, TimestampTz *next)
{
	MbusDue		due;

	mbus_due_delayed(&due, scan->channel_id, scan->snapshot);
	due.from = from;
	due.to = scan->now;
	due.most = most;
	due.among = &scan->due_in;
	due.later = &scan->due_later;
	return mbus_due_read(scan->schema, &due, moments, reached, next);
}

/*
 * moments_take takes those that are not busy, done or waiting.  False if there
 * was no room for all, and *position is the first that had none.
 */
static bool
moments_take(MbusScan *scan, const MbusMoment *moments, int n, int most,
			 bool retries, MbusMoment *position)
{
	int			before = scan->nfound;
	int			nfacts;
	MbusFacts  *facts = moments_facts(scan, moments, n, retries, &nfacts);
	bool		all = true;

	for (int i = 0; i < n && all; i++)
	{
		const MbusFacts *told = mbus_facts_search(facts, nfacts,
												  moments[i].id);

		all = scan->nfound - before < most &&
			(told == NULL || moment_take(scan, moments[i], retries, told));
		if (!all)
			*position = moments[i];
	}
	pfree(facts);
	return all;
}

/* Looks up those that the cursor has passed and that are not busy. */
static MbusFacts *
moments_facts(MbusScan *scan, const MbusMoment *moments, int n, bool retries,
			  int *nfacts)
{
	MbusFacts  *facts = palloc0(Max(n, 1) * sizeof(MbusFacts));
	int64	   *ids = palloc(Max(n, 1) * sizeof(int64));
	int			nids = 0;

	for (int i = 0; i < n; i++)
	{
		if (is_passed(scan, moments[i].id, retries))
			ids[nids++] = moments[i].id;
	}
	qsort(ids, nids, sizeof(int64), mbus_int64_compare);
	n = 0;
	for (int i = 0; i < nids; i++)
	{
		/* one may have failed twice */
		if (n == 0 || facts[n - 1].id != ids[i])
			facts[n++].id = ids[i];
	}
	pfree(ids);
	*nfacts = mbus_scan_facts(scan, facts, n);
	return facts;
}

/*
 * is_passed tells whether the cursor has passed a message, so that nothing
 * else finds it.  A retry above it, of a dead letter that was redriven after a
 * seek, comes when the cursor gets there; unless it is of before the server's
 * start: then that source leaves it to this one.  A delayed message is passed
 * by the cursor of now: when it comes last, fresh ones were read before.  What
 * lies below where the cursor stood before is settled for good: a range that
 * has grown over it since does not ask for it to be read again.
 */
static bool
is_passed(MbusScan *scan, int64 id, bool retries)
{
	if (retries)
		return id <= scan->sub.cursor || id < scan->sub.check_below;
	return id <= scan->cursor &&
		(id <= scan->sub.cursor ||
		 !mbus_scan_in_unfinished(scan, id, id + 1)) &&
		!mbus_scan_in_skipped(scan, id);
}

/*
 * moment_take takes one, if it is to be had, or has its key go on if it is no
 * more; false if there is no room.  A
 * failure that is not the newest has been followed by another, which is found
 * by its own time.
 */
static bool
moment_take(MbusScan *scan, MbusMoment moment, bool retries,
			const MbusFacts *facts)
{
	MbusScanRow row;
	HeapTuple	tuple;
	bool		room = true;

	if (facts->done ||
		(retries ? !facts->failed || facts->retry_at != moment.at :
		 mbus_scan_left_to_retry(scan, facts)))
		return true;
	tuple = mbus_scan_by_id(scan, moment.id, &row);
	if (tuple == NULL)
		return true;
	if (row.live)
		room = mbus_scan_take(scan, &row, tuple, facts, MBUS_NONE,
							  1) != MBUS_SCAN_NO_ROOM;
	else if (retries)
		room = mbus_scan_key_on(scan, &row);
	heap_freetuple(tuple);		/* what was found is a copy */
	return room;
}
