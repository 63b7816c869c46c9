/*
 * scrub.c
 *		Looks at stored messages: whether they are as they were published.
 *
 * A look reads a message's row and payload, decompresses it and compares its
 * length and SHA-256.  It trusts nothing: the row's lengths are checked before
 * they are used, which the server itself leaves to who asks for it; an error
 * in reading (a piece of TOAST is missing, a page is damaged) is what was
 * looked for, and ends the look at this message alone.  So a segment is read
 * by its index of ids, which tells the id before the row is fetched, and in a
 * subtransaction, which takes the locks, pins and memory of what failed.
 * Where the index itself cannot be read the rest of its segment is passed
 * over and counted.
 *
 * Errors that say nothing about what is stored (a lock, a cancel, no memory;
 * mbus_damage_code) are the caller's.  What the disk errs over is looked at
 * again by the next slice before it counts as damaged.
 *
 * A slice ends after so many bytes or milliseconds, or with a segment in which
 * it has read something.  It does not end in a message, but behind any part of
 * one that has a body (large_read.c): the next slice goes on there if it is
 * given scrub->look, and begins the message anew if not.  It holds AccessShare
 * on one leaf and one table of parts, and only as long as it reads; its
 * snapshot likewise.  Who wants to drop the segment
 * waits for a slice at most, in a session; the worker does both itself.
 * What has expired is not looked at, nor what a restore is filling.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "segment/row_whole.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "base/payload.h"
#include "message/quarantine.h"
#include "message/scrub.h"
#include "segment/channel_scan.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/state.h"

#define ROW_COST	128			/* of a message beside its payload */
#define ONE_BYTES	(16 * 1024 * 1024)	/* of one body, in a slice */

static bool slice_over(const MbusScrub *scrub);
static int32 segment_next(Oid schema, int32 from);
static void segment_look(Oid schema, MbusScrub *scrub, int32 segment);
static void segment_read(Oid schema, MbusScrub *scrub, int32 segment);
static bool channel_in(Relation leaf, const MbusScrub *scrub, int32 segment);
static void rows_read(Oid schema, MbusScrub *scrub, Relation leaf,
					  int32 segment);
static IndexScanDesc rows_begin(const MbusScrub *scrub, Relation leaf,
								Relation index, Snapshot snapshot,
								int32 segment);
static bool row_next(MbusScrub *scrub, IndexScanDesc rows);
static void row_look(Oid schema, MbusScrub *scrub, TupleTableSlot *slot,
					 Oid toast);
static void payload_look(Oid schema, MbusScrub *scrub, const Datum *column,
						 const bool *null, TupleDesc desc);
static void body_look(Oid schema, MbusScrub *scrub, const Datum *column);
static void others_read(const Datum *column, const bool *null,
						TupleDesc desc);
static const char *payload_damage(const Datum *column);
static const char *body_detail(const MbusStored *message,
							   const MbusBodyLook *look);
static void found_add(MbusScrub *scrub, const char *kind, const char *detail);
static void error_note(MbusScrub *scrub, int32 segment,
					   const ErrorData *edata);

/*
 * mbus_scrub_slice looks at messages from scrub->next on, and moves it.  It
 * ends with the segment in which it has read something: where an error ends it
 * scrub->next is in the segment that is in the way.
 */
void
mbus_scrub_slice(Oid schema, MbusScrub *scrub)
{
	scrub->started_at = GetCurrentTimestamp();
	scrub->messages = scrub->bytes = scrub->cost = scrub->bad = 0;
	scrub->unread = scrub->n = 0;
	scrub->channel_seen = 0;
	scrub->kind = NULL;
	scrub->doubt = scrub->sure = scrub->whole = false;
	do
	{
		int32		segment = segment_next(schema, MbusSegmentOf(scrub->next));

		CHECK_FOR_INTERRUPTS();
		if (segment == 0 || MbusFirstId(segment) > scrub->last)
			scrub->ended = true;
		else if (scrub->cost > 0 && MbusFirstId(segment) >= scrub->next)
			break;
		else
		{
			scrub->next = Max(scrub->next, MbusFirstId(segment));
			segment_look(schema, scrub, segment);
			scrub->ended = scrub->next > scrub->last;
		}
	} while (!scrub->ended && !slice_over(scrub));
	scrub->whole = true;
	mbus_count(MBUS_C_SCRUBBED, scrub->messages);
	mbus_count(MBUS_C_SCRUBBED_BYTES, scrub->bytes);
}

/*
 * mbus_scrub_one looks at one message, however long that takes, and twice if
 * the disk errs; not at its payload if "head".
 */
void
mbus_scrub_one(Oid schema, MbusScrub *scrub, int64 id, bool head)
{
	MemSet(scrub, 0, sizeof(*scrub));
	if (id <= 0 || id >> MBUS_ROW_BITS > MBUS_SEGMENT_MAX)
		return;
	scrub->next = scrub->last = id;
	scrub->bytes_max = ONE_BYTES;
	scrub->head = head;
	do
	{
		mbus_scrub_slice(schema, scrub);
	} while (!scrub->ended);
}

/*
 * mbus_scrub_sound looks at one message, settles what it finds, and returns
 * whether the message is sound.
 */
bool
mbus_scrub_sound(Oid schema, int64 id)
{
	MbusScrub	scrub;

	mbus_scrub_one(schema, &scrub, id, false);
	(void) mbus_quarantine_settle(schema, scrub.found, scrub.n);
	return scrub.messages > 0 && scrub.bad == 0;
}

/* Whether the slice has done what it may. */
static bool
slice_over(const MbusScrub *scrub)
{
	return scrub->doubt || scrub->n >= MBUS_SCRUB_FOUND ||
		scrub->cost >= scrub->bytes_max ||
		(scrub->ms_max > 0 &&
		 TimestampDifferenceExceeds(scrub->started_at, GetCurrentTimestamp(),
									scrub->ms_max));
}

/* The first segment that exists, "from" or above; 0: there is none. */
static int32
segment_next(Oid schema, int32 from)
{
	uint64		version;
	int			n;
	const MbusLeaf *leaves = mbus_leaves_borrow(schema, &n, &version);
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (leaves[middle].segment < from)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo < n ? leaves[lo].segment : 0;
}

/*
 * segment_look reads on in a segment in a subtransaction.  An error that says
 * that something is damaged ends it behind what was looked at.
 */
static void
segment_look(Oid schema, MbusScrub *scrub, int32 segment)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext room = AllocSetContextCreate(caller, "message_bus segment",
											   ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;

	scrub->at = 0;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(room);
	PG_TRY();
	{
		segment_read(schema, scrub, segment);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		if (!mbus_damage_code(edata->sqlerrcode))
			ReThrowError(edata);
		error_note(scrub, segment, edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextDelete(room);
}

/*
 * error_note takes note of a message that is unreadable, or a segment that is.
 * What the disk says may be another tomorrow: at the first such error the slice
 * ends before the message; it is damaged if the next slice has it again, and
 * what follows there is believed.
 */
static void
error_note(MbusScrub *scrub, int32 segment, const ErrorData *edata)
{
	scrub->cost += ROW_COST;
	if (scrub->at == 0)
	{
		scrub->unread++;
		scrub->next = MbusFirstId(segment + 1);
		return;
	}
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_SYSTEM_ERROR &&
		!scrub->sure && scrub->doubted != scrub->at)
	{
		scrub->doubted = scrub->next = scrub->at;
		scrub->doubt = true;
		return;
	}
	scrub->sure |= scrub->doubted == scrub->at;
	scrub->look.id = 0;
	found_add(scrub, "unreadable", edata->message);
	scrub->next = scrub->at + 1;
}

/* Reads on in a segment; one that is gone, or hidden, is passed over. */
static void
segment_read(Oid schema, MbusScrub *scrub, int32 segment)
{
	Relation	leaf = mbus_leaf_open(schema, segment, MBUS_MESSAGE,
									  AccessShareLock);

	if (leaf == NULL)
	{
		scrub->next = MbusFirstId(segment + 1);
		return;
	}
	if (RelationGetNumberOfAttributes(leaf) != MBUS_MESSAGE_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"message_bus.%s\" has %d columns, not %d",
						RelationGetRelationName(leaf),
						RelationGetNumberOfAttributes(leaf),
						MBUS_MESSAGE_COLUMNS),
				 errhint("Do not change the columns of segments.")));
	if (channel_in(leaf, scrub, segment))
		rows_read(schema, scrub, leaf, segment);
	else
		scrub->next = MbusFirstId(segment + 1);
	table_close(leaf, AccessShareLock);
}

/* Whether what is wanted of a segment may have messages of the channel. */
static bool
channel_in(Relation leaf, const MbusScrub *scrub, int32 segment)
{
	Snapshot	snapshot;
	MbusChannelScan rows;
	bool		any;

	if (scrub->channel_id == 0)
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	mbus_channel_scan_open(&rows, leaf, scrub->channel_id);
	mbus_channel_scan_begin(&rows, scrub->next, MbusFirstId(segment + 1) - 1,
							snapshot);
	any = mbus_channel_scan_next(&rows) != NULL;
	mbus_channel_scan_end(&rows);
	mbus_channel_scan_close(&rows);
	UnregisterSnapshot(snapshot);
	return any;
}

/* Looks at the rows of a segment until the slice is over. */
static void
rows_read(Oid schema, MbusScrub *scrub, Relation leaf, int32 segment)
{
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext,
											   "message_bus scrub",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(each);
	Relation	index = mbus_leaf_index(leaf, MBUS_COL_ID, 0, false);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc rows = rows_begin(scrub, leaf, index, snapshot, segment);
	TupleTableSlot *slot = table_slot_create(leaf, NULL);
	int64		id = 0;
	bool		over = false;

	while (!over && row_next(scrub, rows))
	{
		/* rows of one id that are dead come before the one that lives */
		over = id != 0 && id != scrub->at && slice_over(scrub);
		id = scrub->next = scrub->at;
		if (over || !index_fetch_heap(rows, slot))
			continue;
		row_look(schema, scrub, slot, leaf->rd_rel->reltoastrelid);
		/* the rest of a body is another slice's */
		over = slice_over(scrub) || scrub->inside;
		if (!scrub->inside)
			scrub->next = id + 1;
	}
	if (!over)
		scrub->next = MbusFirstId(segment + 1);
	ExecDropSingleTupleTableSlot(slot);
	index_endscan(rows);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(each);
}

/*
 * rows_begin begins to read by the index of ids, which tells the id before the
 * row: no id of another segment, which the index has if it is damaged.
 */
static IndexScanDesc
rows_begin(const MbusScrub *scrub, Relation leaf, Relation index,
		   Snapshot snapshot, int32 segment)
{
	IndexScanDesc rows = MbusIndexBeginScan(leaf, index, snapshot, 2);
	ScanKeyData key[2];

	ScanKeyInit(&key[0], 1, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(scrub->next));
	ScanKeyInit(&key[1], 1, BTLessEqualStrategyNumber, F_INT8LE,
				Int64GetDatum(Min(scrub->last, MbusFirstId(segment + 1) - 1)));
	rows->xs_want_itup = true;
	index_rescan(rows, key, 2, NULL, 0);
	return rows;
}

/* Goes to the next row, whose id is then scrub->at; false: there is none. */
static bool
row_next(MbusScrub *scrub, IndexScanDesc rows)
{
	bool		isnull;

	CHECK_FOR_INTERRUPTS();
	scrub->at = 0;
	scrub->channel_seen = 0;
	if (index_getnext_tid(rows, ForwardScanDirection) == NULL)
		return false;
	scrub->at = DatumGetInt64(index_getattr(rows->xs_itup, 1,
											rows->xs_itupdesc, &isnull));
	return true;
}

/* Looks at one row, in the memory of its own. */
static void
row_look(Oid schema, MbusScrub *scrub, TupleTableSlot *slot, Oid toast)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	MemoryContext each = AllocSetContextCreate(CurrentMemoryContext,
											   "message_bus look",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(each);
	HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);
	Datum		column[MBUS_MESSAGE_COLUMNS];
	bool		null[MBUS_MESSAGE_COLUMNS];
	const char *kind = mbus_row_whole(tuple, desc, MBUS_COL_PAYLOAD, toast) ? NULL : "row";

	scrub->inside = false;
	scrub->cost += ROW_COST;
	if (kind == NULL)
	{
		heap_deform_tuple(tuple, desc, column, null);
		scrub->channel_seen = DatumGetInt32(column[MBUS_COL_CHANNEL_ID - 1]);
		if ((scrub->channel_id == 0 ||
			 scrub->channel_seen == scrub->channel_id) &&
			DatumGetTimestampTz(column[MBUS_COL_EXPIRES_AT - 1]) > mbus_now())
		{
			payload_look(schema, scrub, column, null, desc);
			scrub->messages += !scrub->inside;
		}
	}
	else
		found_add(scrub, kind, NULL);
	if (!scrub->inside)
		scrub->look.id = 0;		/* it may have expired within its body */
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(each);
}

/*
 * payload_look looks at what a row points to, unless its head is all that is
 * wanted.
 */
static void
payload_look(Oid schema, MbusScrub *scrub, const Datum *column,
			 const bool *null, TupleDesc desc)
{
	int64		size;

	if (scrub->head)
		return;
	others_read(column, null, desc);
	if (!null[MBUS_COL_BODY - 1])
	{
		body_look(schema, scrub, column);
		return;
	}
	/* it may be damaged */
	size = Max(DatumGetInt64(column[MBUS_COL_SIZE - 1]), 0);
	size = Min(size, MBUS_PAYLOAD_MAX);
	scrub->bytes += size;
	scrub->cost += size;
	found_add(scrub, payload_damage(column), NULL);
}

/*
 * body_look looks on at a message's body, until the slice is over.  Where it
 * was not read to its end scrub->inside is set.
 */
static void
body_look(Oid schema, MbusScrub *scrub, const Datum *column)
{
	MbusStored	message = {.id = scrub->at,.channel_id = scrub->channel_seen};
	bytea	   *digest = DatumGetByteaPP(column[MBUS_COL_SHA256 - 1]);
	int64		bytes;
	MbusLooked	found;

	message.size = DatumGetInt64(column[MBUS_COL_SIZE - 1]);
	message.body = DatumGetInt64(column[MBUS_COL_BODY - 1]);
	message.expires_at = DatumGetTimestampTz(column[MBUS_COL_EXPIRES_AT - 1]);
	memcpy(message.sha256, VARDATA_ANY(digest),
		   Min(VARSIZE_ANY_EXHDR(digest), MBUS_SHA256_BYTES));
	do
	{
		found = mbus_large_look(schema, &message, &scrub->look, &bytes);
		scrub->bytes += bytes;
		scrub->cost += bytes;
	} while (found == MBUS_LOOK_ON && !slice_over(scrub));
	scrub->inside = found == MBUS_LOOK_ON;
	if (found == MBUS_LOOK_DAMAGED)
		found_add(scrub, "checksum", body_detail(&message, &scrub->look));
	else if (found == MBUS_LOOK_SOUND)
		found_add(scrub, NULL, NULL);
}

/* Says what of a body is damaged. */
static const char *
body_detail(const MbusStored *message, const MbusBodyLook *look)
{
	if (look->parts < mbus_parts(message->size))
		return psprintf("part %d of its body is missing or damaged",
						look->parts);
	return "its body has other parts than were published";
}

/*
 * found_add takes note of a message that is damaged (kind) and not in
 * quarantine yet, or sound and in quarantine; not where a channel is wanted
 * and its own could not be read.  The caller has made room.
 */
static void
found_add(MbusScrub *scrub, const char *kind, const char *detail)
{
	MbusDamage *damage = &scrub->found[scrub->n];
	int			len;

	if (scrub->channel_id != 0 && scrub->channel_seen != scrub->channel_id)
		return;
	scrub->kind = kind;
	scrub->bad += kind != NULL;
	if (mbus_quarantined(scrub->at) == (kind != NULL))
		return;
	damage->id = scrub->at;
	damage->channel_id = scrub->channel_seen;
	damage->kind = kind;
	len = detail ? pg_mbcliplen(detail, strlen(detail),
								sizeof(damage->detail) - 1) : 0;
	memcpy(damage->detail, detail ? detail : "", len);
	damage->detail[len] = '\0';
	scrub->n++;
}

/* ------------------------------------------------------------------------
 * One row
 * ------------------------------------------------------------------------
 */

/* Reads all that a row points to but its payload. */
static void
others_read(const Datum *column, const bool *null, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		if (!null[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			i != MBUS_COL_PAYLOAD - 1)
			(void) PG_DETOAST_DATUM_PACKED(column[i]);
	}
}

/*
 * payload_damage reads a payload that is in the row, and returns what it is
 * not: "compression" (it cannot be decompressed), "checksum"; NULL: it is the
 * one published.
 */
static const char *
payload_damage(const Datum *column)
{
	int64		size = DatumGetInt64(column[MBUS_COL_SIZE - 1]);
	MbusCompression used =
	mbus_compression_of(DatumGetChar(column[MBUS_COL_ENCODING - 1]));
	struct varlena *payload;
	bytea	   *digest;
	uint8		sha256[MBUS_SHA256_BYTES];

	payload = PG_DETOAST_DATUM(column[MBUS_COL_PAYLOAD - 1]);
	payload = mbus_payload_decode(payload, used, size);
	if (payload == NULL)
		return "compression";
	digest = DatumGetByteaPP(column[MBUS_COL_SHA256 - 1]);
	if (VARSIZE_ANY_EXHDR(payload) != size ||
		VARSIZE_ANY_EXHDR(digest) != MBUS_SHA256_BYTES)
		return "checksum";
	mbus_sha256(VARDATA_ANY(payload), size, sha256);
	return memcmp(sha256, VARDATA_ANY(digest), MBUS_SHA256_BYTES) == 0 ?
		NULL : "checksum";
}
