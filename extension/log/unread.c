/*
 * unread.c
 *		Segments with rows that cannot be read.
 *
 * A row that cannot be read (a damaged page or TOAST chunk, a secret that is
 * missing) ends the pass that reads it, and its transaction.  Where that was is
 * noted here, and the next pass leaves it out: the row, if the error came when
 * it was taken apart, else, or if there are many, its segment.  A row that is
 * left out is as one of a transaction that has not ended: it stays pending.  So
 * the log goes on with all others, and what is left out is tried again after
 * 1 s, doubling to an hour, each time at the price of one pass.
 *
 * A segment with such rows is never sealed.  When all in it has expired, and it
 * was tried MBUS_UNREAD_TRIES times, it goes all the same, as a gap.
 *
 * The list is the worker's own memory: another worker finds them again.  There
 * are as many at most as segments.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "log/unread.h"
#include "state/clock.h"

#define PAUSE_FIRST_MS		1000
#define PAUSE_LONGEST_MS	3600000

static MbusUnread *unread_place(MbusLog *log, int32 segment);
static bool unread_row(MbusUnread *unread, const MbusLogReading *at);

/*
 * mbus_unread_failed notes where the error was that has ended a transaction;
 * false if nothing was being read.  NULL: there was none, or it says nothing of
 * the row, and the pass did not commit.
 */
bool
mbus_unread_failed(MbusLog *log, const char *error)
{
	MbusLogReading at = log->reading;
	MbusUnread *unread;
	bool		added;

	memset(&log->reading, 0, sizeof(log->reading));
	for (int i = 0; i < log->nunread; i++)
		log->unread[i].tried = false;
	/* an action that is not known, or many: all fail until it is mended */
	if (error == NULL || !at.at || (at.segment == 0 && at.number == 0))
		return false;
	unread = unread_place(log, at.segment);
	added = unread_row(unread, &at);
	strlcpy(unread->error, error, sizeof(unread->error));
	if (unread->failures == 0)
		ereport(LOG,
				(errmsg("the log of message_bus leaves out what it cannot read of segment %d",
						at.segment),
				 errdetail("%s", unread->error),
				 errhint("It is tried again, and shown as \"log_fault\" in the view segments. When all in it has expired the segment goes, and the log has a gap.")));
	/* another row of a segment that is known is no other try */
	if (!added || unread->failures == 0)
		unread->failures++;
	unread->retry_at =
		TimestampTzPlusMilliseconds(mbus_now(),
									Min(PAUSE_FIRST_MS << Min(unread->failures - 1, 12),
										PAUSE_LONGEST_MS));
	return true;
}

/* The record of a segment, made if there is none. */
static MbusUnread *
unread_place(MbusLog *log, int32 segment)
{
	MbusUnread *place;

	for (int i = 0; i < log->nunread; i++)
	{
		if (log->unread[i].segment == segment)
			return &log->unread[i];
	}
	if (log->nunread == log->unread_room)
	{
		int			room = Max(2 * log->unread_room, 4);

		log->unread = log->unread ?
			repalloc(log->unread, room * sizeof(MbusUnread)) :
			MemoryContextAlloc(TopMemoryContext, room * sizeof(MbusUnread));
		log->unread_room = room;
	}
	place = &log->unread[log->nunread++];
	memset(place, 0, sizeof(*place));
	place->segment = segment;
	return place;
}

/*
 * Adds a row, by ascending number, or takes the segment as a whole; false if
 * that was known.
 */
static bool
unread_row(MbusUnread *unread, const MbusLogReading *at)
{
	int			i = unread->n;

	for (int k = 0; k < unread->n; k++)
	{
		if (unread->number[k] == at->number && unread->kind[k] == at->kind)
			return false;
	}
	if (at->number == 0 || unread->n == MBUS_UNREAD_ROWS)
	{
		bool		known = unread->whole;

		unread->whole = true;
		return !known;
	}
	for (; i > 0 && unread->number[i - 1] > at->number; i--)
	{
		unread->number[i] = unread->number[i - 1];
		unread->kind[i] = unread->kind[i - 1];
	}
	unread->number[i] = at->number;
	unread->kind[i] = at->kind;
	unread->n++;
	return true;
}

/*
 * mbus_unread_find returns what is to be left out of a segment, or NULL.
 */
const MbusUnread *
mbus_unread_find(const MbusLog *log, int32 segment)
{
	for (int i = 0; i < log->nunread; i++)
	{
		if (log->unread[i].segment == segment)
			return log->unread[i].tried ? NULL : &log->unread[i];
	}
	return NULL;
}

/*
 * mbus_unread_due tells whether it is time to try some again.
 */
bool
mbus_unread_due(const MbusLog *log)
{
	TimestampTz now = mbus_now();

	for (int i = 0; i < log->nunread; i++)
	{
		if (log->unread[i].retry_at <= now)
			return true;
	}
	return false;
}

/*
 * mbus_unread_try leaves nothing out of the first segment that it is time for,
 * in the pass that begins.
 */
void
mbus_unread_try(MbusLog *log)
{
	TimestampTz now = mbus_now();
	bool		tried = false;

	for (int i = 0; i < log->nunread; i++)
	{
		log->unread[i].tried = !tried && log->unread[i].retry_at <= now;
		tried = tried || log->unread[i].tried;
	}
}

/*
 * mbus_unread_passed takes note that a pass has committed: what it has tried
 * could be read, if it has read all.
 */
void
mbus_unread_passed(MbusLog *log, bool all)
{
	for (int i = log->nunread - 1; i >= 0; i--)
	{
		if (!log->unread[i].tried)
			continue;
		log->unread[i].tried = false;
		if (all)
			mbus_unread_forget(log, log->unread[i].segment);
	}
}

/*
 * mbus_unread_forget forgets a segment.
 */
void
mbus_unread_forget(MbusLog *log, int32 segment)
{
	for (int i = 0; i < log->nunread; i++)
	{
		if (log->unread[i].segment == segment)
		{
			log->unread[i] = log->unread[--log->nunread];
			return;
		}
	}
}

/*
 * mbus_unread_without adds the actions that are left out to what is unfinished.
 */
MbusSpans
mbus_unread_without(const MbusLog *log, MbusSpans unfinished)
{
	const MbusUnread *actions = mbus_unread_find(log, 0);
	MbusSpans	rows;

	if (actions == NULL)
		return unfinished;
	rows = mbus_unread_spans(actions, true);
	return mbus_spans_union(&unfinished, &rows);
}

/*
 * mbus_unread_spans returns the rows that are left out: messages or facts.
 */
MbusSpans
mbus_unread_spans(const MbusUnread *unread, bool facts)
{
	MbusSpans	spans = {0};

	for (int i = 0; i < unread->n; i++)
	{
		if ((unread->kind[i] != MBUS_MESSAGE) == facts)
			mbus_spans_add(&spans, unread->number[i], unread->number[i] + 1);
	}
	return spans;
}
