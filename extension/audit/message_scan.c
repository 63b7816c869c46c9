/*
 * message_scan.c
 *		The messages that the current user may see, one by one: what the views
 *		messages and message_bus are made of.
 *
 * Rights come first: the channels whose messages the user may see are looked
 * up at the beginning, and no row of another leaves this file.  So conditions
 * of a query, which are the user's own code, see nothing else, and what
 * EXPLAIN ANALYZE counts tells nothing of other channels.
 *
 * Segments are read one after the other, without their parents, each in the
 * way that fits what is wanted:
 *
 *	- by ids, through the index on id
 *	- by transaction id, through the index on channel and transaction id, for
 *	  each channel
 *	- by channel, through the index of runs, where the user may see but some
 *	  channels, so that the others' pages are not read either
 *	- a range of ids, through the index on id
 *	- or the whole table
 *
 * Where they are wanted in the order of ids, the index on id is read, unless
 * there is but one channel.
 *
 * Only columns that are wanted are filled in.  Nothing is detoasted: a payload
 * is given as it is stored, and costs nothing to who does not look at it.  It
 * may lie in the segment's TOAST table, so the segment's table stays locked to
 * the end of the transaction where payloads or headers are wanted; else the
 * lock goes when it has been read.
 *
 * What the snapshot shows as deleted is left out, and what was purged, unless it
 * is asked for: then it comes without key, headers, checksum and payload.  What
 * has expired is marked.  A segment that a restore is filling is not read.
 *
 * Who may audit a channel, and not consume, gets no payload.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "segment/row_whole.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit/message_scan.h"
#include "audit/seen.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/payload.h"
#include "base/schema.h"
#include "channel/publisher.h"
#include "channel/purged.h"
#include "segment/channel_scan.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/clock.h"

#define CHANNELS_FEW	64		/* that are read one by one */

/* How a segment is read. */
typedef enum How
{
	BY_TABLE,
	BY_RANGE,
	BY_IDS,
	BY_TRANSACTION,
	BY_CHANNEL
} How;

struct MbusMessageScan
{
	MbusMessageFilter filter;
	Oid			schema;
	Snapshot	snapshot;
	MemoryContext context;
	MemoryContext leaf_context; /* until the segment has been read */
	MemoryContext row_context;	/* until the next row */
	int			nseen;
	MbusSeen   *seen;			/* by ascending id */
	bool		all;			/* there are no other channels */
	const MbusSeen *last;		/* of the last row */
	MbusLeaf   *leaves;
	int			nleaves;
	int			next_leaf;

	/* the segment that is being read */
	Relation	leaf;			/* NULL: none is */
	int32		segment;
	How			how;
	int			at;				/* the next of the ids or channels */
	TableScanDesc table;
	TupleTableSlot *slot;
	MbusLeafScan rows;
	MbusChannelScan runs;
	bool		reading;		/* of rows or runs */
	bool		deleted_read;
	int			ndeleted;
	int			deleted_room;
	int64	   *deleted;		/* ascending */
};

static bool leaf_next(MbusMessageScan *scan);
static bool leaf_wanted(const MbusMessageScan *scan, int32 segment);
static How	leaf_how(const MbusMessageScan *scan);
static void leaf_begin(MbusMessageScan *scan);
static void leaf_end(MbusMessageScan *scan);
static HeapTuple tuple_next(MbusMessageScan *scan);
static HeapTuple tuple_of_table(MbusMessageScan *scan);
static bool rows_begin(MbusMessageScan *scan);
static bool is_deleted(MbusMessageScan *scan, int64 id);
static void deleted_read(MbusMessageScan *scan);
static bool wants(const MbusMessageScan *scan, int column);
static bool row_read(MbusMessageScan *scan, HeapTuple tuple, Datum *values,
					 bool *isnull);
static void row_fill(MbusMessageScan *scan, const MbusSeen *seen, HeapTuple tuple,
					 bool gone, bool whole, Datum *values, bool *isnull);
static void front_deform(HeapTuple tuple, TupleDesc desc, Datum *column,
						 bool *null);

/*
 * mbus_message_filter_init wants all messages, with these columns.
 */
void
mbus_message_filter_init(MbusMessageFilter *filter, uint32 columns)
{
	MemSet(filter, 0, sizeof(*filter));
	filter->columns = columns;
	filter->lo = 0;
	filter->hi = PG_INT64_MAX;
	filter->nids = -1;
}

/*
 * mbus_message_scan_begin looks up what the current user may see, and begins.
 * The filter is copied, what it points to and the snapshot are the caller's, as
 * long as it reads.  All memory is below the caller's context.
 */
MbusMessageScan *
mbus_message_scan_begin(const MbusMessageFilter *filter, Snapshot snapshot)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "message_bus messages",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	MbusMessageScan *scan = palloc0(sizeof(MbusMessageScan));

	scan->filter = *filter;
	scan->schema = mbus_schema();
	scan->snapshot = snapshot;
	scan->context = context;
	scan->leaf_context = AllocSetContextCreate(context,
											   "message_bus segment",
											   ALLOCSET_DEFAULT_SIZES);
	scan->row_context = AllocSetContextCreate(context, "message_bus message",
											  ALLOCSET_DEFAULT_SIZES);
	if (!filter->none)
		scan->nseen = mbus_seen_list(scan->schema, snapshot, filter->channel,
									 &scan->seen, &scan->all);
	if (scan->nseen > 0)
		scan->nleaves = mbus_leaves(scan->schema, &scan->leaves);
	MemoryContextSwitchTo(caller);
	return scan;
}

/*
 * mbus_message_scan_next fills in the next row, which is good until the call
 * after; false if there is none.
 */
bool
mbus_message_scan_next(MbusMessageScan *scan, Datum *values, bool *isnull)
{
	MemoryContext caller = CurrentMemoryContext;
	bool		found = false;

	while (!found)
	{
		HeapTuple	tuple;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(scan->row_context);
		if (scan->leaf == NULL && !leaf_next(scan))
			break;
		MemoryContextSwitchTo(scan->leaf_context);
		tuple = tuple_next(scan);
		if (tuple == NULL)
		{
			leaf_end(scan);
			continue;
		}
		MemoryContextSwitchTo(scan->row_context);
		found = row_read(scan, tuple, values, isnull);
	}
	MemoryContextSwitchTo(caller);
	return found;
}

/*
 * mbus_message_scan_end stops reading, wherever it is.
 */
void
mbus_message_scan_end(MbusMessageScan *scan)
{
	if (scan->leaf)
		leaf_end(scan);
	MemoryContextDelete(scan->context);
}

/* ------------------------------------------------------------------------
 * Segments
 * ------------------------------------------------------------------------
 */

/* Opens the next segment that may have what is wanted; false at the end. */
static bool
leaf_next(MbusMessageScan *scan)
{
	while (scan->next_leaf < scan->nleaves)
	{
		scan->segment = scan->leaves[scan->next_leaf++].segment;
		if (!leaf_wanted(scan, scan->segment))
			continue;
		MemoryContextSwitchTo(scan->leaf_context);
		scan->leaf = mbus_leaf_open(scan->schema, scan->segment, MBUS_MESSAGE,
									AccessShareLock);
		if (scan->leaf == NULL)
			continue;
		leaf_begin(scan);
		return true;
	}
	return false;
}

/* Whether ids that are wanted are of a segment. */
static bool
leaf_wanted(const MbusMessageScan *scan, int32 segment)
{
	int64		first = MbusFirstId(segment);
	int64		end = MbusFirstId((int64) segment + 1);

	if (scan->filter.hi < first || scan->filter.lo >= end)
		return false;
	for (int i = 0; i < scan->filter.nids; i++)
	{
		if (scan->filter.ids[i] >= first && scan->filter.ids[i] < end)
			return true;
	}
	return scan->filter.nids < 0;
}

/* Chooses how to read a segment, as the top of this file says. */
static How
leaf_how(const MbusMessageScan *scan)
{
	int			few = scan->filter.ordered ? 1 : CHANNELS_FEW;

	if (scan->filter.nids >= 0)
		return BY_IDS;
	if (scan->nseen <= few && scan->filter.transaction_id)
		return BY_TRANSACTION;
	if (scan->nseen <= few && !scan->all)
		return BY_CHANNEL;
	if (scan->filter.ordered || scan->filter.lo > MbusFirstId(scan->segment) ||
		scan->filter.hi < MbusFirstId((int64) scan->segment + 1) - 1)
		return BY_RANGE;
	return BY_TABLE;
}

/* Begins to read the segment that is open. */
static void
leaf_begin(MbusMessageScan *scan)
{
	scan->how = leaf_how(scan);
	scan->at = 0;
	scan->reading = false;
	scan->deleted_read = false;
	scan->ndeleted = 0;
	scan->deleted_room = 0;
	scan->deleted = NULL;
	switch (scan->how)
	{
		case BY_TABLE:
			scan->slot = table_slot_create(scan->leaf, NULL);
			scan->table = table_beginscan(scan->leaf, scan->snapshot, 0, NULL);
			break;
		case BY_RANGE:
		case BY_IDS:
			mbus_leaf_scan_open(&scan->rows, scan->leaf, MBUS_COL_ID, 0,
								false);
			break;
		case BY_TRANSACTION:
			mbus_leaf_scan_open(&scan->rows, scan->leaf, MBUS_COL_CHANNEL_ID,
								MBUS_COL_TRANSACTION_ID, true);
			break;
		case BY_CHANNEL:
			mbus_channel_scan_open(&scan->runs, scan->leaf, 0);
			break;
	}
}

/* Closes the segment. */
static void
leaf_end(MbusMessageScan *scan)
{
	bool		toasted = wants(scan, MBUS_SEEN_STORED) ||
	wants(scan, MBUS_SEEN_HEADERS);

	switch (scan->how)
	{
		case BY_TABLE:
			ExecDropSingleTupleTableSlot(scan->slot);
			table_endscan(scan->table);
			break;
		case BY_RANGE:
		case BY_IDS:
		case BY_TRANSACTION:
			mbus_leaf_scan_close(&scan->rows);
			break;
		case BY_CHANNEL:
			mbus_channel_scan_close(&scan->runs);
			break;
	}
	table_close(scan->leaf, toasted ? NoLock : AccessShareLock);
	scan->leaf = NULL;
	MemoryContextReset(scan->leaf_context);
}

/* The segment's next row, good until the call after, or NULL. */
static HeapTuple
tuple_next(MbusMessageScan *scan)
{
	HeapTuple	tuple;

	if (scan->how == BY_TABLE)
		return tuple_of_table(scan);
	for (;;)
	{
		if (!scan->reading && !rows_begin(scan))
			return NULL;
		scan->reading = true;
		tuple = scan->how == BY_CHANNEL ?
			mbus_channel_scan_next(&scan->runs) :
			mbus_leaf_scan_next(&scan->rows);
		if (tuple)
			return tuple;
		scan->reading = false;
		if (scan->how == BY_CHANNEL)
			mbus_channel_scan_end(&scan->runs);
		else
			mbus_leaf_scan_end(&scan->rows);
	}
}

static HeapTuple
tuple_of_table(MbusMessageScan *scan)
{
	if (!table_scan_getnextslot(scan->table, ForwardScanDirection,
								scan->slot))
		return NULL;
	return ExecFetchSlotHeapTuple(scan->slot, false, NULL);
}

/*
 * rows_begin begins to read the segment's next id, channel, or its range;
 * false if there is no other.
 */
static bool
rows_begin(MbusMessageScan *scan)
{
	const MbusMessageFilter *filter = &scan->filter;
	int64		end = MbusFirstId((int64) scan->segment + 1);
	int			i = scan->at;

	switch (scan->how)
	{
		case BY_IDS:
			while (i < filter->nids &&
				   filter->ids[i] < Max(MbusFirstId(scan->segment), filter->lo))
				i++;
			scan->at = i + 1;
			if (i >= filter->nids || filter->ids[i] >= end ||
				filter->ids[i] > filter->hi)
				return false;
			mbus_leaf_scan_int8(&scan->rows, MBUS_COL_ID, filter->ids[i],
								filter->ids[i]);
			break;
		case BY_RANGE:
			scan->at++;
			if (i > 0)
				return false;
			mbus_leaf_scan_int8(&scan->rows, MBUS_COL_ID, filter->lo,
								filter->hi);
			break;
		default:
			scan->at++;
			if (i >= scan->nseen)
				return false;
			if (scan->how == BY_CHANNEL)
			{
				scan->runs.channel_id = scan->seen[i].channel_id;
				mbus_channel_scan_begin(&scan->runs, filter->lo,
										Min(filter->hi, end - 1),
										scan->snapshot);
				return true;
			}
			mbus_leaf_scan_int4(&scan->rows, MBUS_COL_CHANNEL_ID,
								scan->seen[i].channel_id);
			mbus_leaf_scan_text(&scan->rows, MBUS_COL_TRANSACTION_ID,
								filter->transaction_id);
			break;
	}
	mbus_leaf_scan_begin(&scan->rows, scan->snapshot);
	return true;
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/* Whether a message of this segment was deleted. */
static bool
is_deleted(MbusMessageScan *scan, int64 id)
{
	int			lo = 0;
	int			hi;

	if (!scan->deleted_read)
		deleted_read(scan);
	hi = scan->ndeleted;
	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (scan->deleted[middle] < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo < scan->ndeleted && scan->deleted[lo] == id;
}

/* Reads which of the ids that are wanted were deleted. */
static void
deleted_read(MbusMessageScan *scan)
{
	MemoryContext caller = MemoryContextSwitchTo(scan->leaf_context);
	Relation	leaf = mbus_leaf_open_written(scan->schema, scan->segment,
											  MBUS_EVENT);
	int64		lo = scan->filter.lo;
	int64		hi = scan->filter.hi;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;

	scan->deleted_read = true;
	if (leaf == NULL)
	{
		MemoryContextSwitchTo(caller);
		return;
	}
	if (scan->filter.nids > 0)
	{
		lo = Max(lo, scan->filter.ids[0]);
		hi = Min(hi, scan->filter.ids[scan->filter.nids - 1]);
	}
	/* the partial index has only deletions */
	mbus_leaf_scan_open(&rows, leaf, MBUS_EVENT_MESSAGE_ID, 0, true);
	mbus_leaf_scan_int8(&rows, MBUS_EVENT_MESSAGE_ID, lo, hi);
	mbus_leaf_scan_begin(&rows, scan->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		if (scan->ndeleted == scan->deleted_room)
		{
			scan->deleted_room = Max(64, scan->deleted_room * 2);
			scan->deleted = scan->deleted ?
				repalloc_huge(scan->deleted, scan->deleted_room * sizeof(int64)) :
				palloc(scan->deleted_room * sizeof(int64));
		}
		scan->deleted[scan->ndeleted++] =
			DatumGetInt64(heap_getattr(tuple, MBUS_EVENT_MESSAGE_ID,
									   RelationGetDescr(leaf), &isnull));
	}
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	MemoryContextSwitchTo(caller);
}

static bool
wants(const MbusMessageScan *scan, int column)
{
	return (scan->filter.columns & MBUS_SEEN(column)) != 0;
}

/* row_read fills in a row, unless it may not be seen. */
static bool
row_read(MbusMessageScan *scan, HeapTuple tuple, Datum *values, bool *isnull)
{
	TupleDesc	desc = RelationGetDescr(scan->leaf);
	const MbusSeen *seen;
	int32		channel_id;
	bool		null;
	bool		gone;
	bool		whole;
	int64		id;

	channel_id = DatumGetInt32(heap_getattr(tuple, MBUS_COL_CHANNEL_ID, desc,
											&null));
	seen = scan->last;
	if (seen == NULL || seen->channel_id != channel_id)
		seen = mbus_seen_find(scan->seen, scan->nseen, channel_id);
	if (seen == NULL)
		return false;
	scan->last = seen;
	whole = mbus_row_whole(tuple, desc, MBUS_COL_PAYLOAD, InvalidOid);
	if (seen->own &&
		(!whole || !mbus_row_visible(scan->schema, tuple, desc)))
		return false;
	id = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc, &null));
	gone = mbus_channel_purged(&seen->policy, id) || is_deleted(scan, id);
	if (gone && !scan->filter.gone)
		return false;
	row_fill(scan, seen, tuple, gone, whole, values, isnull);
	return true;
}

/* Reads the columns in front of what may be damaged; others are NULL. */
static void
front_deform(HeapTuple tuple, TupleDesc desc, Datum *column, bool *null)
{
	memset(null, true, (MBUS_MESSAGE_COLUMNS + 1) * sizeof(bool));
	for (int i = 1; i < MBUS_COL_SHA256; i++)
		column[i] = heap_getattr(tuple, i, desc, &null[i]);
}

/*
 * row_fill fills in the columns that are wanted.  What a row does not need is
 * not looked at: the first columns of a message are where they always are.  Of a
 * row that is not whole only these are told.
 */
static void
row_fill(MbusMessageScan *scan, const MbusSeen *seen, HeapTuple tuple,
		 bool gone, bool whole, Datum *values, bool *isnull)
{
	TupleDesc	desc = RelationGetDescr(scan->leaf);
	Datum		column[MBUS_MESSAGE_COLUMNS + 1];
	bool		null[MBUS_MESSAGE_COLUMNS + 1];
	TimestampTz expires_at;
	text	   *publisher;

#define PUT(to, value, absent) \
	(values[(to) - 1] = (value), isnull[(to) - 1] = (absent))
#define COPY(to, from)	PUT(to, column[from], null[from])

	memset(isnull, true, MBUS_SEEN_COLUMNS * sizeof(bool));
	memset(values, 0, MBUS_SEEN_COLUMNS * sizeof(Datum));
	column[MBUS_COL_EXPIRES_AT] = heap_getattr(tuple, MBUS_COL_EXPIRES_AT,
											   desc,
											   &null[MBUS_COL_EXPIRES_AT]);
	expires_at = DatumGetTimestampTz(column[MBUS_COL_EXPIRES_AT]);
	if (wants(scan, MBUS_SEEN_LIVE))
		PUT(MBUS_SEEN_LIVE, BoolGetDatum(!gone && expires_at > mbus_now()),
			false);
	if ((scan->filter.columns & ~MBUS_SEEN(MBUS_SEEN_LIVE)) == 0)
		return;

	if (whole)
		mbus_leaf_deform(tuple, desc, MBUS_MESSAGE_COLUMNS, column + 1,
						 null + 1);
	else
		front_deform(tuple, desc, column, null);
	COPY(MBUS_SEEN_ID, MBUS_COL_ID);
	COPY(MBUS_SEEN_CHANNEL_ID, MBUS_COL_CHANNEL_ID);
	PUT(MBUS_SEEN_CHANNEL, PointerGetDatum(seen->name), false);
	COPY(MBUS_SEEN_CREATED_AT, MBUS_COL_CREATED_AT);
	COPY(MBUS_SEEN_EXPIRES_AT, MBUS_COL_EXPIRES_AT);
	if (null[MBUS_COL_AVAILABLE_AT])
		COPY(MBUS_SEEN_AVAILABLE_AT, MBUS_COL_CREATED_AT);
	else
		COPY(MBUS_SEEN_AVAILABLE_AT, MBUS_COL_AVAILABLE_AT);
	COPY(MBUS_SEEN_TRANSACTION_ID, MBUS_COL_TRANSACTION_ID);
	COPY(MBUS_SEEN_SUBJECT, MBUS_COL_SUBJECT);
	COPY(MBUS_SEEN_SESSION, MBUS_COL_SESSION);
	COPY(MBUS_SEEN_CONTENT_TYPE, MBUS_COL_CONTENT_TYPE);
	COPY(MBUS_SEEN_SIZE, MBUS_COL_SIZE);
	COPY(MBUS_SEEN_ENCODING, MBUS_COL_ENCODING);
	COPY(MBUS_SEEN_RECIPIENT, MBUS_COL_RECIPIENT);
	COPY(MBUS_SEEN_BODY, MBUS_COL_BODY);
	if (!gone)
	{
		COPY(MBUS_SEEN_KEY, MBUS_COL_KEY);
		COPY(MBUS_SEEN_HEADERS, MBUS_COL_HEADERS);
		COPY(MBUS_SEEN_SHA256, MBUS_COL_SHA256);
	}
	if (seen->payload && !gone)
		COPY(MBUS_SEEN_STORED, MBUS_COL_PAYLOAD);

	/* and what has to be made */
	if (wants(scan, MBUS_SEEN_CONTENT_TYPE) && null[MBUS_COL_CONTENT_TYPE] &&
		whole)
		PUT(MBUS_SEEN_CONTENT_TYPE, CStringGetTextDatum(MBUS_CONTENT_JSON),
			false);
	if (wants(scan, MBUS_SEEN_STORED_SIZE) && null[MBUS_COL_BODY] && whole)
		PUT(MBUS_SEEN_STORED_SIZE,
			Int32GetDatum(toast_datum_size(column[MBUS_COL_PAYLOAD])), false);
	if (wants(scan, MBUS_SEEN_PUBLISHER))
	{
		publisher = mbus_publisher_name(scan->schema,
										DatumGetInt32(column[MBUS_COL_PUBLISHER_ID]));
		PUT(MBUS_SEEN_PUBLISHER, PointerGetDatum(publisher),
			publisher == NULL);
	}
#undef COPY
#undef PUT
}
