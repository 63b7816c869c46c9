/*
 * part.c
 *		Rows of a table of parts.
 *
 * A part is a row, compressed by itself, with the hash of its plain bytes.  No
 * row is updated or deleted: the table goes as a whole.  Rows are put there as
 * those of segments are (segment/inserter.c), and found through the one index
 * on (body, n).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "body/part.h"
#include "body/part_scan.h"
#include "segment/inserter.h"
#include "segment/leaf.h"
#include "state/store.h"

struct MbusPartWriter
{
	MbusInserter *inserter;
	int64		body;
	MbusCompression compression;
	MemoryContext context;		/* of one part */
};

static void part_is_there(int64 body, int32 n);
static void part_fill(MbusPartWriter *writer, const MbusPart *part,
					  const char *bytes);
static struct varlena *varlena_of(const void *bytes, int32 size);

/*
 * mbus_part_writer opens the table of a body, which the caller has locked, for
 * parts that are compressed in a way.
 */
MbusPartWriter *
mbus_part_writer(const MbusBody *body, MbusCompression compression)
{
	MbusPartWriter *writer = palloc0(sizeof(MbusPartWriter));

	mbus_store_written(body->store_no);
	writer->inserter = mbus_inserter_open(body->relid, MBUS_PART_COLUMNS,
										  false);
	writer->body = body->body;
	writer->compression = compression;
	writer->context = AllocSetContextCreate(CurrentMemoryContext,
											"message_bus part",
											ALLOCSET_DEFAULT_SIZES);
	return writer;
}

/*
 * mbus_part_write writes one part; 55000 if it is there.
 */
void
mbus_part_write(MbusPartWriter *writer, const MbusPart *part,
				const char *bytes)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->context);

	part_fill(writer, part, bytes);
	PG_TRY();
	{
		mbus_inserter_put(writer->inserter);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		if (geterrcode() == ERRCODE_UNIQUE_VIOLATION)
			part_is_there(writer->body, part->n);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextReset(writer->context);
}

/* 23505 would say that the message is published already. */
static void
part_is_there(int64 body, int32 n)
{
	FlushErrorState();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("part %d of body " INT64_FORMAT " is there already", n,
					body),
			 errdetail("Somebody else has written into the store."),
			 errhint("Try again.")));
}

/* Fills in the slot of the inserter. */
static void
part_fill(MbusPartWriter *writer, const MbusPart *part, const char *bytes)
{
	TupleTableSlot *slot = mbus_inserter_slot(writer->inserter);
	Datum	   *values = slot->tts_values;
	MbusCompression used;
	struct varlena *stored;

	stored = mbus_payload_encode(writer->compression,
								 varlena_of(bytes, part->size), &used);
	values[MBUS_PART_BODY - 1] = Int64GetDatum(writer->body);
	values[MBUS_PART_N - 1] = Int32GetDatum(part->n);
	values[MBUS_PART_SIZE - 1] = Int32GetDatum(part->size);
	values[MBUS_PART_AT - 1] = TimestampTzGetDatum(part->at);
	values[MBUS_PART_ENCODING - 1] = CharGetDatum(mbus_compression_code(used));
	values[MBUS_PART_SHA256 - 1] =
		PointerGetDatum(varlena_of(part->sha256, MBUS_SHA256_BYTES));
	values[MBUS_PART_DATA - 1] = PointerGetDatum(stored);
	slot->tts_isnull[MBUS_PART_STATE - 1] = !part->has_state;
	if (part->has_state)
		values[MBUS_PART_STATE - 1] =
			PointerGetDatum(varlena_of(part->state, MBUS_SHA256_BYTES));
}

static struct varlena *
varlena_of(const void *bytes, int32 size)
{
	struct varlena *result = palloc(VARHDRSZ + size);

	SET_VARSIZE(result, VARHDRSZ + size);
	memcpy(VARDATA(result), bytes, size);
	return result;
}

/*
 * mbus_part_writer_end closes the table; its lock stays.
 */
void
mbus_part_writer_end(MbusPartWriter *writer)
{
	mbus_inserter_close(writer->inserter);
	MemoryContextDelete(writer->context);
	pfree(writer);
}

/*
 * mbus_part_find tells what the row of one part says; false if there is none
 * under the snapshot, or the row is damaged.
 */
bool
mbus_part_find(const MbusBody *body, int32 n, Snapshot snapshot,
			   MbusPart *part)
{
	return mbus_parts_list(body, n, snapshot, part, 1) == 1 && part->n == n;
}

/*
 * mbus_parts_list lists at most "max" parts from a number on, ascending;
 * returns how many.  Rows that are damaged are left out.
 */
int
mbus_parts_list(const MbusBody *body, int32 from, Snapshot snapshot,
				MbusPart *parts, int max)
{
	int			n = 0;
	MbusPartScan scan;

	mbus_part_scan_begin(&scan, body, from, snapshot);
	while (n < max && mbus_part_scan_next(&scan))
	{
		if (scan.sound)
			parts[n++] = scan.part;
	}
	mbus_part_scan_end(&scan);
	return n;
}

/*
 * mbus_part_last tells what the row of the last part says, the one with the
 * highest number; false if there is none under the snapshot, or it is damaged.
 */
bool
mbus_part_last(const MbusBody *body, Snapshot snapshot, MbusPart *part)
{
	MbusPartScan scan;
	bool		found;

	mbus_part_scan_begin(&scan, body, 0, snapshot);
	found = mbus_part_scan_last(&scan) && scan.sound;
	if (found)
		*part = scan.part;
	mbus_part_scan_end(&scan);
	return found;
}

/*
 * mbus_parts_since tells whether a part has come after a time.  The one with
 * the highest number mostly says so; else the rows of all are looked at, without
 * their bytes.
 */
bool
mbus_parts_since(const MbusBody *body, TimestampTz since)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MbusPart	last;
	MbusPartScan scan;
	bool		found;

	found = mbus_part_last(body, snapshot, &last) && last.at > since;
	if (!found)
	{
		mbus_part_scan_begin(&scan, body, 0, snapshot);
		while (!found && mbus_part_scan_next(&scan))
			found = scan.part.at > since;
		mbus_part_scan_end(&scan);
	}
	UnregisterSnapshot(snapshot);
	return found;
}

/*
 * mbus_parts_last_at tells when the last part of a body came; 0 if there is
 * none.  It reads the rows of all parts, without their bytes.
 */
TimestampTz
mbus_parts_last_at(const MbusBody *body)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TimestampTz last = 0;
	MbusPartScan scan;

	mbus_part_scan_begin(&scan, body, 0, snapshot);
	while (mbus_part_scan_next(&scan))
		last = Max(last, scan.part.at);
	mbus_part_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return last;
}
