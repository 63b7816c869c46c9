/*
 * acked_read.c
 *		Reads whether a segment holds a message that a subscription of its
 *		channel still wants.
 *
 * Acks are read into a bitmap of the segment's rows for each subscription, and
 * then the index (channel_id, id) of the messages is walked; only for ids
 * that lack an ack the row is looked at.  A million acknowledged messages
 * cost some megabytes of index, not the messages.
 *
 * What counts is as in facts/facts.c, but that a message which is kept dead in its
 * place, or is corrupt, is not acknowledged here.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/itup.h"
#include "access/table.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "channel/purged.h"
#include "facts/facts.h"
#include "message/stored.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "worker/acked_read.h"

#define GROUP	32				/* subscriptions looked at in one walk */

static void deleted_read(MbusLook *look);
static void redriven_read(const MbusLook *look, MbusReader *reader, int64 id);
static void redriven_add(MbusReader *reader, int64 id, int64 lease);
static void acks_read(const MbusLook *look, MbusReader *readers, int n);
static void ack_read_one(const MbusLook *look, MbusReader *reader, int64 id);
static void ack_row(const MbusLook *look, MbusReader *reader, HeapTuple tuple,
					TupleDesc desc);
static void ack_span(const MbusLook *look, MbusReader *reader, int64 lease,
					 int64 lo, int64 n);
static int64 redriven_lease(const MbusReader *reader, int64 id);
static bool messages_walk(const MbusLook *look, const MbusReader *readers,
						  int n, MbusWanted *why);
static bool message_wanted(const MbusLook *look, const MbusReader *readers,
						   int n, int64 id, TupleTableSlot *row,
						   MbusWanted *why);
static uint8 *bitmap_new(const MbusLook *look);
static bool bitmap_has(const uint8 *bitmap, const MbusLook *look, int64 id);
static void bitmap_add(uint8 *bitmap, const MbusLook *look, int64 lo, int64 n);

/*
 * mbus_still_wanted tells whether what kept the segment when it was last read
 * still does.
 */
bool
mbus_still_wanted(const MbusLook *look, const MbusWanted *why)
{
	if (why->expires_at <= look->now)
		return false;
	if (why->subscription_id == 0)
		return true;
	if (look->policy == NULL || mbus_channel_purged(look->policy, why->id) ||
		mbus_message_deleted(look->schema, why->id))
		return false;
	for (int i = 0; i < look->nreaders; i++)
	{
		MbusReader	reader = look->reader[i];

		if (reader.subscription_id != why->subscription_id)
			continue;
		reader.acked = bitmap_new(look);
		redriven_read(look, &reader, why->id);
		ack_read_one(look, &reader, why->id);
		return why->id >= reader.start_id &&
			why->created_at >= reader.start_at &&
			!bitmap_has(reader.acked, look, why->id);
	}
	return false;
}

/*
 * mbus_wanted_read reads the segment's tables; true if something is wanted,
 * and says what.
 */
bool
mbus_wanted_read(const MbusLook *look, MbusWanted *why)
{
	MbusLook	copy = *look;
	int			done = 0;

	why->id = 0;
	deleted_read(&copy);
	do
	{
		MbusReader *readers = copy.reader + done;
		int			n = Min(copy.nreaders - done, GROUP);
		bool		found;

		for (int i = 0; i < n; i++)
		{
			readers[i].acked = bitmap_new(&copy);
			redriven_read(&copy, &readers[i], 0);
		}
		acks_read(&copy, readers, n);
		found = messages_walk(&copy, readers, n, why);
		for (int i = 0; i < n; i++)
			pfree(readers[i].acked);
		if (found)
			return true;
		done += n;
	} while (done < copy.nreaders);
	return false;
}

/* Notes which messages were deleted. */
static void
deleted_read(MbusLook *look)
{
	Relation	leaf = mbus_leaf_open_written(look->schema, look->segment,
											  MBUS_EVENT);
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;

	look->deleted = bitmap_new(look);
	if (leaf == NULL)
		return;
	/* the partial index has only deletions */
	mbus_leaf_scan_open(&rows, leaf, MBUS_EVENT_MESSAGE_ID, 0, true);
	mbus_leaf_scan_begin(&rows, look->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
		bitmap_add(look->deleted, look,
				   DatumGetInt64(heap_getattr(tuple, MBUS_EVENT_MESSAGE_ID,
											  RelationGetDescr(leaf),
											  &isnull)), 1);
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
}

/*
 * redriven_read reads a subscription's redrives in the segment, or those of
 * one message.
 */
static void
redriven_read(const MbusLook *look, MbusReader *reader, int64 id)
{
	Relation	leaf = mbus_leaf_open_written(look->schema, look->segment,
											  MBUS_FAILURE);
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (leaf == NULL)
		return;
	mbus_leaf_scan_open(&rows, leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID,
						reader->subscription_id);
	if (id != 0)
		mbus_leaf_scan_int8(&rows, MBUS_FAILURE_MESSAGE_ID, id, id);
	mbus_leaf_scan_begin(&rows, look->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(leaf);
		int64		lease;
		bool		isnull;

		lease = DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE, desc,
										   &isnull));
		if (DatumGetInt16(heap_getattr(tuple, MBUS_FAILURE_ATTEMPT, desc,
									   &isnull)) == 0 &&
			lease >= reader->since_lease)
			redriven_add(reader,
						 DatumGetInt64(heap_getattr(tuple,
													MBUS_FAILURE_MESSAGE_ID,
													desc, &isnull)), lease);
	}
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
}

/* Notes a redrive; they come by ascending id. */
static void
redriven_add(MbusReader *reader, int64 id, int64 lease)
{
	MbusRedriven *last = NULL;

	if (reader->nredriven > 0)
		last = &reader->redriven[reader->nredriven - 1];
	if (last && last->id == id)
	{
		last->lease = Max(last->lease, lease);
		return;
	}
	if (reader->nredriven >= reader->maxredriven)
	{
		reader->maxredriven = Max(64, reader->maxredriven * 2);
		if (reader->redriven)
			reader->redriven = repalloc_huge(reader->redriven,
											 reader->maxredriven *
											 sizeof(MbusRedriven));
		else
			reader->redriven = palloc(reader->maxredriven * sizeof(MbusRedriven));
	}
	reader->redriven[reader->nredriven].id = id;
	reader->redriven[reader->nredriven].lease = lease;
	reader->nredriven++;
}

/* Reads all acks in the segment, for several subscriptions. */
static void
acks_read(const MbusLook *look, MbusReader *readers, int n)
{
	Relation	leaf = mbus_leaf_open_written(look->schema, look->segment,
											  MBUS_ACK);
	SysScanDesc scan;
	HeapTuple	tuple;

	if (leaf == NULL)
		return;
	scan = systable_beginscan(leaf, InvalidOid, false, look->snapshot, 0,
							  NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(leaf);
		bool		isnull;
		int32		subscription_id =
		DatumGetInt32(heap_getattr(tuple, MBUS_ACK_SUBSCRIPTION_ID, desc,
								   &isnull));

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
		{
			if (readers[i].subscription_id == subscription_id)
				ack_row(look, &readers[i], tuple, desc);
		}
	}
	systable_endscan(scan);
	table_close(leaf, AccessShareLock);
}

/* Reads the acks of one subscription that may hold an id. */
static void
ack_read_one(const MbusLook *look, MbusReader *reader, int64 id)
{
	Relation	leaf = mbus_leaf_open_written(look->schema, look->segment,
											  MBUS_ACK);
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (leaf == NULL)
		return;
	mbus_leaf_scan_open(&rows, leaf, MBUS_ACK_SUBSCRIPTION_ID, MBUS_ACK_LO,
						false);
	mbus_leaf_scan_int4(&rows, MBUS_ACK_SUBSCRIPTION_ID,
						reader->subscription_id);
	mbus_leaf_scan_int8(&rows, MBUS_ACK_LO, id - MBUS_ACK_SPAN + 1, id);
	mbus_leaf_scan_begin(&rows, look->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
		ack_row(look, reader, tuple, RelationGetDescr(leaf));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
}

/* Notes what a row of acks says, if it counts. */
static void
ack_row(const MbusLook *look, MbusReader *reader, HeapTuple tuple,
		TupleDesc desc)
{
	int64		lease;
	int64		lo;
	int64		hi;
	Datum		runs;
	text	   *outcome;
	bool		isnull;

	lease = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_LEASE, desc, &isnull));
	outcome = DatumGetTextPP(heap_getattr(tuple, MBUS_ACK_OUTCOME, desc,
										  &isnull));
	if (lease < reader->since_lease ||
		!((VARSIZE_ANY_EXHDR(outcome) == 5 &&
		   memcmp(VARDATA_ANY(outcome), "acked", 5) == 0) ||
		  (VARSIZE_ANY_EXHDR(outcome) == 4 &&
		   memcmp(VARDATA_ANY(outcome), "dead", 4) == 0)))
		return;
	lo = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_LO, desc, &isnull));
	hi = DatumGetInt64(heap_getattr(tuple, MBUS_ACK_HI, desc, &isnull));
	runs = heap_getattr(tuple, MBUS_ACK_RUNS, desc, &isnull);
	if (isnull)
		ack_span(look, reader, lease, lo, hi - lo + 1);
	else
	{
		ArrayType  *array = DatumGetArrayTypeP(runs);
		const int32 *pair = (const int32 *) ARR_DATA_PTR(array);
		int			n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));

		for (int i = 0; i + 1 < n; i += 2)
			ack_span(look, reader, lease, lo + pair[i], pair[i + 1]);
		if ((Pointer) array != DatumGetPointer(runs))
			pfree(array);
	}
}

/* Notes n ids from lo on as acked, but for those that were redriven since. */
static void
ack_span(const MbusLook *look, MbusReader *reader, int64 lease, int64 lo,
		 int64 n)
{
	if (reader->nredriven == 0)
		bitmap_add(reader->acked, look, lo, n);
	else
	{
		for (int64 id = lo; id < lo + n; id++)
		{
			if (lease > redriven_lease(reader, id))
				bitmap_add(reader->acked, look, id, 1);
		}
	}
}

/* The lease of a message's last redrive; 0 if there was none. */
static int64
redriven_lease(const MbusReader *reader, int64 id)
{
	int			lo = 0;
	int			hi = reader->nredriven;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (reader->redriven[middle].id < id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo < reader->nredriven && reader->redriven[lo].id == id ?
		reader->redriven[lo].lease : 0;
}

/*
 * messages_walk looks for a message that one of the readers wants; true if
 * there is one.  It reads the index, and the rows of those without an ack.
 */
static bool
messages_walk(const MbusLook *look, const MbusReader *readers, int n,
			  MbusWanted *why)
{
	Relation	leaf = mbus_leaf_open(look->schema, look->segment,
									  MBUS_MESSAGE, AccessShareLock);
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *row;
	bool		found = false;

	if (leaf == NULL)
		return false;
	index = mbus_leaf_index(leaf, MBUS_COL_ID, 0, false);
	row = table_slot_create(leaf, NULL);
	scan = MbusIndexBeginScan(leaf, index, look->snapshot, 0);
	scan->xs_want_itup = true;
	index_rescan(scan, NULL, 0, NULL, 0);
	while (!found &&
		   index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool		isnull;
		int64		id;
		bool		acked = true;

		CHECK_FOR_INTERRUPTS();
		id = DatumGetInt64(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc,
										 &isnull));
		for (int i = 0; i < n && acked; i++)
			acked = bitmap_has(readers[i].acked, look, id);
		if (!(acked && n > 0) && !bitmap_has(look->deleted, look, id) &&
			index_fetch_heap(scan, row))
			found = message_wanted(look, readers, n, id, row, why);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(row);
	index_close(index, AccessShareLock);
	table_close(leaf, AccessShareLock);
	return found;
}

/*
 * message_wanted tells whether a message that lacks an ack is wanted.
 */
static bool
message_wanted(const MbusLook *look, const MbusReader *readers, int n,
			   int64 id, TupleTableSlot *row, MbusWanted *why)
{
	int32		channel_id;
	TimestampTz created_at;
	TimestampTz expires_at;
	bool		isnull;

	channel_id = DatumGetInt32(slot_getattr(row, MBUS_COL_CHANNEL_ID,
											&isnull));
	created_at = DatumGetTimestampTz(slot_getattr(row, MBUS_COL_CREATED_AT,
												  &isnull));
	expires_at = DatumGetTimestampTz(slot_getattr(row, MBUS_COL_EXPIRES_AT,
												  &isnull));
	if (expires_at <= look->now)
		return false;
	why->id = id;
	why->created_at = created_at;
	why->expires_at = expires_at;
	why->subscription_id = 0;
	if (channel_id != look->channel_id)
		return true;
	if (look->policy == NULL)
		return false;			/* the channel is gone */
	for (int i = 0; i < n; i++)
	{
		if (id >= readers[i].start_id && created_at >= readers[i].start_at &&
			!mbus_channel_purged(look->policy, id) &&
			!bitmap_has(readers[i].acked, look, id))
		{
			why->subscription_id = readers[i].subscription_id;
			return true;
		}
	}
	why->id = 0;
	return false;
}

static uint8 *
bitmap_new(const MbusLook *look)
{
	return palloc0((look->last - look->first) / 8 + 1);
}

static bool
bitmap_has(const uint8 *bitmap, const MbusLook *look, int64 id)
{
	int64		bit = id - look->first;

	return bit >= 0 && id <= look->last &&
		(bitmap[bit / 8] & (1 << (bit % 8))) != 0;
}

static void
bitmap_add(uint8 *bitmap, const MbusLook *look, int64 lo, int64 n)
{
	int64		bit = Max(lo - look->first, 0);
	int64		end = Min(lo + n, look->last + 1) - look->first;

	for (; bit < end; bit++)
		bitmap[bit / 8] |= 1 << (bit % 8);
}
