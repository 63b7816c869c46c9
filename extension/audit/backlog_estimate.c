/*
 * backlog_estimate.c
 *		How many messages there may be where not all are looked at.
 *
 * A range, of ids or of times, is cut into PARTS of one width.  At the beginning
 * of each some messages are read; where they come to the part's end, that is
 * how many it has, else the rest of it is taken to be as dense as what was
 * read.  The range ends at its last message, so that what nobody published
 * to does not count as sparse.  So an estimate costs PARTS + 1 descents of an
 * index for a segment.  It is right where messages come at a rate that does not
 * change much within a part, and wrong where they come in bursts that the
 * beginnings of parts meet or miss.
 */
#include "postgres.h"

#include <math.h>

#include "access/genam.h"

#include "audit/backlog_internal.h"
#include "base/ids.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"

#define PARTS	8
#define READ	16				/* messages, at the beginning of each */

/* One part that is read. */
typedef struct Part
{
	int64		lo;
	int64		hi;				/* inclusive */
	int			read;
	int			wanted;			/* of these */
	int64		reached;		/* where the last of these is */
} Part;

/* Messages of a key, or that are due at one time. */
typedef struct Among
{
	AttrNumber	column;
	int64		value;
} Among;

static bool part_next(Part *part, int n, int64 lo, int64 hi);
static double part_messages(const Part *part, bool whole);
static bool range_row(Count *count, HeapTuple tuple, Part *part);
static double times_estimate(Count *count, MbusLeafScan *rows, TimestampTz lo,
							 TimestampTz hi);
static bool times_next(Count *count, MbusLeafScan *rows, TimestampTz lo,
					   TimestampTz hi, TimestampTz *at);
static double time_estimate(Count *count, MbusLeafScan *rows, TimestampTz at,
							int *read);
static void times_begin(Count *count, MbusLeafScan *rows, TimestampTz lo,
						TimestampTz hi);
static double ids_estimate(Count *count, MbusLeafScan *rows,
						   const Among *among, int64 from);
static void among_begin(Count *count, MbusLeafScan *rows, const Among *among,
						int64 lo, int64 hi);
static bool among_row(Count *count, HeapTuple tuple, const Among *among,
					  Part *part);

/*
 * mbus_backlog_estimate_range adds an estimate of the channel's messages with
 * ids in [lo, hi) of the segment that is being read.
 */
void
mbus_backlog_estimate_range(Count *count, MbusChannelScan *rows, int64 lo,
							int64 hi)
{
	int64		last = mbus_channel_scan_last(rows, hi - 1, count->snapshot);
	double		messages = 0;
	Part		part;

	for (int n = 0; part_next(&part, n, lo, last); n++)
	{
		HeapTuple	tuple;

		mbus_channel_scan_begin(rows, part.lo, part.hi, count->snapshot);
		while ((tuple = mbus_channel_scan_next(rows)) != NULL &&
			   range_row(count, tuple, &part))
			;
		mbus_channel_scan_end(rows);
		messages += part_messages(&part, tuple == NULL);
	}
	count->backlog->messages += (int64) rint(messages);
}

/* Takes a part's next message; false if there are enough. */
static bool
range_row(Count *count, HeapTuple tuple, Part *part)
{
	Row			row;

	if (part->read == READ)
		return false;
	part->read++;
	if (mbus_backlog_row_read(count, tuple, &row) &&
		!mbus_ids_have(&count->busy, row.id))
	{
		part->wanted++;
		mbus_backlog_oldest(count, row.id, row.created_at);
	}
	part->reached = row.id;
	return true;
}

/*
 * mbus_backlog_estimate_key adds an estimate of the messages of a key that were
 * passed over, from an id on.
 */
void
mbus_backlog_estimate_key(Count *count, const KeyPassed *key, int64 from,
						  double weight)
{
	Among		among = {MBUS_COL_KEY_HASH, key->key_hash};
	MbusLeafScan rows;

	mbus_leaf_scan_open(&rows, count->leaf, MBUS_COL_CHANNEL_ID,
						MBUS_COL_KEY_HASH, true);
	count->backlog->messages += (int64) rint(weight *
											 ids_estimate(count, &rows, &among,
														  from));
	mbus_leaf_scan_close(&rows);
}

/*
 * mbus_backlog_estimate_delayed adds an estimate of the delayed messages at or
 * below the cursor that are due from a time on; of those due then, if "after"
 * is not -1, the ones with higher ids.
 */
void
mbus_backlog_estimate_delayed(Count *count, TimestampTz from, int64 after)
{
	Among		among = {MBUS_COL_AVAILABLE_AT, from};
	MbusLeafScan rows;
	TimestampTz last = from - 1;
	double		messages = 0;
	HeapTuple	tuple;
	Row			row;
	Part		part;

	mbus_leaf_scan_open(&rows, count->leaf, MBUS_COL_CHANNEL_ID,
						MBUS_COL_AVAILABLE_AT, true);
	if (after >= 0)
	{
		messages = ids_estimate(count, &rows, &among, after + 1);
		last = from++;
	}
	times_begin(count, &rows, from, PG_INT64_MAX);
	tuple = systable_getnext_ordered(rows.rows, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		(void) mbus_backlog_row_read(count, tuple, &row);
		last = row.available_at;
	}
	mbus_leaf_scan_end(&rows);
	for (int n = 0; part_next(&part, n, from, last); n++)
		messages += times_estimate(count, &rows, part.lo, part.hi);
	mbus_leaf_scan_close(&rows);
	count->backlog->messages += (int64) rint(messages);
}

/*
 * times_estimate estimates the messages that are due from lo to hi.  Many may
 * be due at one time, as those of a batch are: what is looked at is how many
 * are due at one time, and how far it is to the next.
 */
static double
times_estimate(Count *count, MbusLeafScan *rows, TimestampTz lo,
			   TimestampTz hi)
{
	TimestampTz first = lo;
	double		before = 0;
	double		at_last = 0;
	int			read = 0;

	for (int times = 1;; times++)
	{
		TimestampTz at;

		if (!times_next(count, rows, lo, hi, &at))
			return before + at_last;
		before += at_last;
		if (times == 1)
			first = at;
		else if (read >= READ)
			return before * ((double) (hi - first) + 1) / (at - first);
		at_last = time_estimate(count, rows, at, &read);
		lo = at + 1;
	}
}

/* Finds the first time from lo to hi at which a message is due. */
static bool
times_next(Count *count, MbusLeafScan *rows, TimestampTz lo, TimestampTz hi,
		   TimestampTz *at)
{
	HeapTuple	tuple = NULL;
	Row			row;

	if (lo > hi)
		return false;
	times_begin(count, rows, lo, hi);
	tuple = mbus_leaf_scan_next(rows);
	if (tuple)
	{
		(void) mbus_backlog_row_read(count, tuple, &row);
		*at = row.available_at;
	}
	mbus_leaf_scan_end(rows);
	return tuple != NULL;
}

/* How many messages are due at one time; *read counts what is looked at. */
static double
time_estimate(Count *count, MbusLeafScan *rows, TimestampTz at, int *read)
{
	Among		among = {MBUS_COL_AVAILABLE_AT, at};
	Part		part = {0};
	HeapTuple	tuple;

	times_begin(count, rows, at, at);
	while ((tuple = mbus_leaf_scan_next(rows)) != NULL &&
		   among_row(count, tuple, &among, &part))
		;
	mbus_leaf_scan_end(rows);
	*read += part.read;
	return tuple ? ids_estimate(count, rows, &among, 0) : part.wanted;
}

static void
times_begin(Count *count, MbusLeafScan *rows, TimestampTz lo, TimestampTz hi)
{
	mbus_leaf_scan_int4(rows, MBUS_COL_CHANNEL_ID, count->sub->channel_id);
	mbus_leaf_scan_time(rows, MBUS_COL_AVAILABLE_AT, lo, hi);
	mbus_leaf_scan_begin(rows, count->snapshot);
}

/*
 * ids_estimate estimates how many messages there are of some, from an id to
 * the cursor.
 */
static double
ids_estimate(Count *count, MbusLeafScan *rows, const Among *among, int64 from)
{
	double		messages = 0;
	int64		lo = 0;
	int64		hi = -1;
	HeapTuple	tuple;
	Part		part;
	Row			row;

	from = Max(from, MbusFirstId(count->segment));
	among_begin(count, rows, among, from, count->sub->cursor);
	tuple = mbus_leaf_scan_next(rows);
	if (tuple)
	{
		(void) mbus_backlog_row_read(count, tuple, &row);
		lo = row.id;
	}
	mbus_leaf_scan_end(rows);
	among_begin(count, rows, among, from, count->sub->cursor);
	tuple = systable_getnext_ordered(rows->rows, BackwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		(void) mbus_backlog_row_read(count, tuple, &row);
		hi = row.id;
	}
	mbus_leaf_scan_end(rows);

	for (int n = 0; part_next(&part, n, lo, hi); n++)
	{
		among_begin(count, rows, among, part.lo, part.hi);
		while ((tuple = mbus_leaf_scan_next(rows)) != NULL &&
			   among_row(count, tuple, among, &part))
			;
		mbus_leaf_scan_end(rows);
		messages += part_messages(&part, tuple == NULL);
	}
	return messages;
}

static void
among_begin(Count *count, MbusLeafScan *rows, const Among *among, int64 lo,
			int64 hi)
{
	mbus_leaf_scan_int4(rows, MBUS_COL_CHANNEL_ID, count->sub->channel_id);
	if (among->column == MBUS_COL_KEY_HASH)
		mbus_leaf_scan_int8(rows, MBUS_COL_KEY_HASH, among->value,
							among->value);
	else
		mbus_leaf_scan_time(rows, MBUS_COL_AVAILABLE_AT, among->value,
							among->value);
	mbus_leaf_scan_int8(rows, MBUS_COL_ID, lo, hi);
	mbus_leaf_scan_begin(rows, count->snapshot);
}

/* Takes a part's next message; false if there are enough. */
static bool
among_row(Count *count, HeapTuple tuple, const Among *among, Part *part)
{
	Row			row;

	if (part->read == READ)
		return false;
	part->read++;
	if (mbus_backlog_row_read(count, tuple, &row) &&
		row.id <= count->sub->cursor &&
		!mbus_backlog_skipped(count, row.id) &&
		!mbus_ids_have(&count->busy, row.id) &&
		(among->column != MBUS_COL_KEY_HASH ||
		 !mbus_backlog_late(count, &row)))
	{
		part->wanted++;
		mbus_backlog_oldest(count, row.id, row.created_at);
	}
	part->reached = row.id;
	return true;
}

/* Begins part n of a range, inclusive; false if there is none. */
static bool
part_next(Part *part, int n, int64 lo, int64 hi)
{
	int64		width;

	MemSet(part, 0, sizeof(*part));
	if (n == PARTS || lo > hi)
		return false;
	width = (hi - lo) / PARTS + 1;
	part->lo = lo + n * width;
	part->hi = Min(part->lo + width - 1, hi);
	return part->lo <= hi;
}

/* How many messages a part may have; "whole" if all of it was read. */
static double
part_messages(const Part *part, bool whole)
{
	if (whole || part->read == 0)
		return part->wanted;
	return (double) part->wanted * (part->hi - part->lo + 1) /
		Max(part->reached - part->lo + 1, 1);
}
