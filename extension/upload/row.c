/*
 * row.c
 *		Rows of uploads: the tables upload, upload_end and upload_hash.
 *
 * They are read as they are committed or own by now, whatever the
 * transaction's snapshot is: an upload's state is decided under its lock,
 * after that was taken.  A row of "upload" changes once, when the upload is
 * committed: it leaves the index of what counts for the quota.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/columns.h"
#include "base/owner.h"
#include "base/schema.h"
#include "segment/leaf_scan.h"
#include "segment/row_whole.h"
#include "upload/upload.h"

/* A table of uploads, one of its indexes, and what is read through it. */
struct MbusUploadScan
{
	Relation	table;
	MbusLeafScan rows;
	Snapshot	snapshot;
	MemoryContext context;		/* of one row that is read */
};

static MbusUploadScan *scan_open(Oid schema, const char *table,
								 const char *index);
static MbusUploadScan *scan_body(Oid schema, const char *table,
								 const char *index, int64 number);
static HeapTuple hashed_back(MbusUploadScan *scan);
static int32 hashed_before(Oid schema, int64 number);
static void upload_read(HeapTuple tuple, TupleDesc desc, MbusUpload *upload);
static text *column_text(HeapTuple tuple, TupleDesc desc, AttrNumber column);
static int64 column_int8(HeapTuple tuple, TupleDesc desc, AttrNumber column,
						 int64 if_null);

/*
 * mbus_upload_find reads an upload, whoever's it is, into the current memory
 * context; false if there is none.
 */
bool
mbus_upload_find(Oid schema, int64 number, MbusUpload *upload)
{
	MbusUploadScan *scan = scan_body(schema, "upload", "upload_pkey", number);
	HeapTuple	tuple = mbus_leaf_scan_next(&scan->rows);

	if (tuple)
		upload_read(tuple, RelationGetDescr(scan->table), upload);
	mbus_uploads_end(scan);
	return tuple != NULL;
}

/*
 * mbus_uploads_all begins to read all uploads, in the order of their numbers.
 */
MbusUploadScan *
mbus_uploads_all(Oid schema)
{
	MbusUploadScan *scan = scan_open(schema, "upload", "upload_pkey");

	mbus_leaf_scan_begin(&scan->rows, scan->snapshot);
	return scan;
}

/*
 * mbus_uploads_of begins to read those of a role and subject that are not
 * committed.
 */
MbusUploadScan *
mbus_uploads_of(Oid schema, text *role, text *subject)
{
	MbusUploadScan *scan = scan_open(schema, "upload", "upload_owner_idx");

	mbus_leaf_scan_text(&scan->rows, MBUS_UPLOAD_ROLE, role);
	if (subject)
		mbus_leaf_scan_text(&scan->rows, MBUS_UPLOAD_SUBJECT, subject);
	else
		mbus_leaf_scan_null(&scan->rows, MBUS_UPLOAD_SUBJECT);
	mbus_leaf_scan_begin(&scan->rows, scan->snapshot);
	return scan;
}

/*
 * mbus_uploads_of_role begins to read those of a role's subjects, likewise.
 */
MbusUploadScan *
mbus_uploads_of_role(Oid schema, text *role)
{
	MbusUploadScan *scan = scan_open(schema, "upload", "upload_owner_idx");

	mbus_leaf_scan_text(&scan->rows, MBUS_UPLOAD_ROLE, role);
	mbus_leaf_scan_begin(&scan->rows, scan->snapshot);
	return scan;
}

/*
 * mbus_uploads_with begins to read those that have a transaction id.
 */
MbusUploadScan *
mbus_uploads_with(Oid schema, int32 channel_id, text *transaction_id)
{
	MbusUploadScan *scan = scan_open(schema, "upload",
									 "upload_transaction_idx");

	mbus_leaf_scan_int4(&scan->rows, MBUS_UPLOAD_CHANNEL_ID, channel_id);
	mbus_leaf_scan_text(&scan->rows, MBUS_UPLOAD_TRANSACTION_ID,
						transaction_id);
	mbus_leaf_scan_begin(&scan->rows, scan->snapshot);
	return scan;
}

/*
 * mbus_uploads_next reads the next one, good until the call after; false: there
 * is none.
 */
bool
mbus_uploads_next(MbusUploadScan *scan, MbusUpload *upload)
{
	HeapTuple	tuple = mbus_leaf_scan_next(&scan->rows);
	MemoryContext caller;

	if (tuple == NULL)
		return false;
	MemoryContextReset(scan->context);
	caller = MemoryContextSwitchTo(scan->context);
	upload_read(tuple, RelationGetDescr(scan->table), upload);
	MemoryContextSwitchTo(caller);
	return true;
}

/*
 * mbus_uploads_end ends that.
 */
void
mbus_uploads_end(MbusUploadScan *scan)
{
	mbus_leaf_scan_close(&scan->rows);
	UnregisterSnapshot(scan->snapshot);
	MemoryContextDelete(scan->context);
	table_close(scan->table, AccessShareLock);
	pfree(scan);
}

/* Opens a table and its index, for keys that the caller gives. */
static MbusUploadScan *
scan_open(Oid schema, const char *table, const char *index)
{
	MbusUploadScan *scan = palloc(sizeof(MbusUploadScan));

	scan->context = AllocSetContextCreate(CurrentMemoryContext,
										  "message_bus upload",
										  ALLOCSET_SMALL_SIZES);
	scan->table = table_open(mbus_relation(schema, table), AccessShareLock);
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	mbus_leaf_scan_on(&scan->rows, scan->table,
					  index_open(mbus_relation(schema, index),
								 AccessShareLock));
	return scan;
}

/* Begins to read the rows of one body, of any of the tables. */
static MbusUploadScan *
scan_body(Oid schema, const char *table, const char *index, int64 number)
{
	MbusUploadScan *scan = scan_open(schema, table, index);

	mbus_leaf_scan_int8(&scan->rows, MBUS_UPLOAD_BODY, number, number);
	mbus_leaf_scan_begin(&scan->rows, scan->snapshot);
	return scan;
}

/* Reads a row of "upload"; what it has is copied to the current context. */
static void
upload_read(HeapTuple tuple, TupleDesc desc, MbusUpload *upload)
{
	bool		isnull;
	Datum		headers;
	text	   *sha256;

	upload->body = column_int8(tuple, desc, MBUS_UPLOAD_BODY, 0);
	upload->begun_at = column_int8(tuple, desc, MBUS_UPLOAD_BEGUN_AT, 0);
	upload->channel_id = DatumGetInt32(heap_getattr(tuple,
													MBUS_UPLOAD_CHANNEL_ID,
													desc, &isnull));
	upload->role_oid = DatumGetObjectId(heap_getattr(tuple,
													 MBUS_UPLOAD_ROLE_OID,
													 desc, &isnull));
	upload->role = column_text(tuple, desc, MBUS_UPLOAD_ROLE);
	upload->subject = column_text(tuple, desc, MBUS_UPLOAD_SUBJECT);
	upload->reserved = column_int8(tuple, desc, MBUS_UPLOAD_RESERVED, 0);
	upload->own = DatumGetBool(heap_getattr(tuple, MBUS_UPLOAD_OWN, desc,
											&isnull));
	upload->done = DatumGetBool(heap_getattr(tuple, MBUS_UPLOAD_DONE, desc,
											 &isnull));
	upload->size = column_int8(tuple, desc, MBUS_UPLOAD_SIZE, -1);
	sha256 = column_text(tuple, desc, MBUS_UPLOAD_SHA256);
	upload->sha256 = sha256 && VARSIZE_ANY_EXHDR(sha256) == MBUS_SHA256_BYTES ?
		(const uint8 *) VARDATA_ANY(sha256) : NULL;
	upload->content_type = text_to_cstring(column_text(tuple, desc,
													   MBUS_UPLOAD_CONTENT_TYPE));
	upload->transaction_id = column_text(tuple, desc,
										 MBUS_UPLOAD_TRANSACTION_ID);
	upload->key = column_text(tuple, desc, MBUS_UPLOAD_KEY);
	upload->recipient = column_text(tuple, desc, MBUS_UPLOAD_RECIPIENT);
	headers = heap_getattr(tuple, MBUS_UPLOAD_HEADERS, desc, &isnull);
	upload->headers = isnull ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(headers));
	upload->ttl_us = column_int8(tuple, desc, MBUS_UPLOAD_TTL, 0);
	upload->delay_us = column_int8(tuple, desc, MBUS_UPLOAD_DELAY, 0);
}

/* A column of text or bytes, copied; NULL is NULL. */
static text *
column_text(HeapTuple tuple, TupleDesc desc, AttrNumber column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, desc, &isnull);

	return isnull ? NULL : DatumGetTextPCopy(value);
}

/* A column of eight bytes. */
static int64
column_int8(HeapTuple tuple, TupleDesc desc, AttrNumber column, int64 if_null)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, desc, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

/*
 * mbus_upload_insert inserts the row of a new upload.
 */
void
mbus_upload_insert(Oid schema, const MbusUpload *upload)
{
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT4OID, OIDOID, TEXTOID,
		TEXTOID, INT8OID, BOOLOID, BOOLOID, INT8OID, BYTEAOID, TEXTOID, TEXTOID, TEXTOID,
	TEXTOID, JSONBOID, INT8OID, INT8OID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types) + 1];
	int			n = 0;

#define PUT(value, isnull) \
	(values[n] = (value), nulls[n++] = (isnull) ? 'n' : ' ')
#define PUT_TEXT(value)	PUT(PointerGetDatum(value), (value) == NULL)
	PUT(Int64GetDatum(upload->body), false);
	PUT(TimestampTzGetDatum(upload->begun_at), false);
	PUT(Int32GetDatum(upload->channel_id), false);
	PUT(ObjectIdGetDatum(upload->role_oid), false);
	PUT_TEXT(upload->role);
	PUT_TEXT(upload->subject);
	PUT(Int64GetDatum(upload->reserved), false);
	PUT(BoolGetDatum(upload->own), false);
	PUT(BoolGetDatum(upload->done), false);
	PUT(Int64GetDatum(upload->size), upload->size < 0);
	PUT_TEXT(upload->sha256 ?
			 cstring_to_text_with_len((const char *) upload->sha256,
									  MBUS_SHA256_BYTES) : NULL);
	PUT(CStringGetTextDatum(upload->content_type), false);
	PUT_TEXT(upload->transaction_id);
	PUT_TEXT(upload->key);
	PUT_TEXT(upload->recipient);
	PUT(upload->headers, upload->headers == (Datum) 0);
	PUT(Int64GetDatum(upload->ttl_us), upload->ttl_us == 0);
	PUT(Int64GetDatum(upload->delay_us), upload->delay_us == 0);
	Assert(n == lengthof(types));
	nulls[n] = '\0';
	mbus_run_as_owner(schema, "INSERT INTO message_bus.upload"
					  " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,"
					  " $11, $12, $13, $14, $15, $16, $17, $18)",
					  n, types, values, nulls);
	CommandCounterIncrement();
}

/*
 * mbus_upload_ended tells how an upload ended; false: it has not.
 */
bool
mbus_upload_ended(Oid schema, int64 number, MbusUploadEnd *end)
{
	MbusUploadScan *scan = scan_body(schema, "upload_end", "upload_end_pkey",
									 number);
	TupleDesc	desc = RelationGetDescr(scan->table);
	HeapTuple	tuple = mbus_leaf_scan_next(&scan->rows);
	bool		isnull;

	if (tuple)
	{
		end->at = column_int8(tuple, desc, MBUS_ENDED_AT, 0);
		end->kind = DatumGetChar(heap_getattr(tuple, MBUS_ENDED_KIND,
											  desc, &isnull));
		end->message_id = column_int8(tuple, desc, MBUS_ENDED_MESSAGE_ID,
									  0);
		end->bytes = column_int8(tuple, desc, MBUS_ENDED_BYTES, 0);
	}
	mbus_uploads_end(scan);
	return tuple != NULL;
}

/*
 * mbus_upload_end says how an upload has ended, under its lock.  One that is
 * committed does not count for the quota any more, and needs no hash.
 */
void
mbus_upload_end(Oid schema, int64 number, const MbusUploadEnd *end)
{
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, CHAROID, INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(number),
		TimestampTzGetDatum(end->at), CharGetDatum(end->kind),
	Int64GetDatum(end->message_id), Int64GetDatum(end->bytes)};

	mbus_run_as_owner(schema, "INSERT INTO message_bus.upload_end"
					  " (body, at, kind, message_id, bytes)"
					  " VALUES ($1, $2, $3, $4, $5)",
					  5, types, values, end->message_id ? NULL : "   n ");
	mbus_run_as_owner_latest(schema, "DELETE FROM message_bus.upload_hash"
							 " WHERE body OPERATOR(pg_catalog.=) $1",
							 1, types, values);
	if (end->kind == MBUS_COMMITTED)
		mbus_run_as_owner_latest(schema, "UPDATE message_bus.upload"
								 " SET done = true"
								 " WHERE body OPERATOR(pg_catalog.=) $1",
								 1, types, values);
	CommandCounterIncrement();
}

/*
 * mbus_upload_hashed returns the last part behind which a state was noted,
 * and the hash's state behind it; -1: none.
 */
int32
mbus_upload_hashed(Oid schema, int64 number, uint8 *state)
{
	MbusUploadScan *scan = scan_body(schema, "upload_hash",
									 "upload_hash_pkey", number);
	TupleDesc	desc = RelationGetDescr(scan->table);
	int32		last = -1;
	HeapTuple	tuple;
	bool		isnull;

	while (last < 0 && (tuple = hashed_back(scan)) != NULL)
	{
		text	   *value = column_text(tuple, desc, MBUS_HASHED_STATE);

		if (VARSIZE_ANY_EXHDR(value) != MBUS_SHA256_BYTES)
			continue;
		last = DatumGetInt32(heap_getattr(tuple, MBUS_HASHED_N, desc,
										  &isnull));
		memcpy(state, VARDATA_ANY(value), MBUS_SHA256_BYTES);
	}
	mbus_uploads_end(scan);
	return last;
}

/* The next note backwards; one that is damaged is passed over. */
static HeapTuple
hashed_back(MbusUploadScan *scan)
{
	HeapTuple	tuple;

	do
		tuple = systable_getnext_ordered(scan->rows.rows,
										 BackwardScanDirection);
	while (tuple && !mbus_row_whole(tuple, RelationGetDescr(scan->table),
									MBUS_HASHED_STATE, InvalidOid));
	return tuple;
}

/* The part of the last note but one; -1: there are not two. */
static int32
hashed_before(Oid schema, int64 number)
{
	MbusUploadScan *scan = scan_body(schema, "upload_hash",
									 "upload_hash_pkey", number);
	HeapTuple	tuple = hashed_back(scan);
	int32		n = -1;
	bool		isnull;

	if (tuple)
		tuple = hashed_back(scan);
	if (tuple)
		n = DatumGetInt32(heap_getattr(tuple, MBUS_HASHED_N,
									   RelationGetDescr(scan->table),
									   &isnull));
	mbus_uploads_end(scan);
	return n;
}

/*
 * mbus_upload_hash notes the state behind a part, under the upload's lock,
 * exclusively, or that of who hashes on.  Of the notes before the last one
 * stays: a body that comes out of order has one for each append.
 */
void
mbus_upload_hash(Oid schema, int64 number, int32 n, const uint8 *state)
{
	Oid			types[] = {INT8OID, INT4OID, BYTEAOID};
	Datum		values[] = {Int64GetDatum(number), Int32GetDatum(n),
		PointerGetDatum(cstring_to_text_with_len((const char *) state,
												 MBUS_SHA256_BYTES))};
	Datum		old[] = {values[0],
	Int32GetDatum(hashed_before(schema, number))};

	mbus_run_as_owner_latest(schema, "INSERT INTO message_bus.upload_hash"
							 " (body, n, state) VALUES ($1, $2, $3)"
							 " ON CONFLICT (body, n)"
							 " DO UPDATE SET state = EXCLUDED.state",
							 3, types, values);
	if (DatumGetInt32(old[1]) >= 0)
		mbus_run_as_owner_latest(schema, "DELETE FROM message_bus.upload_hash"
								 " WHERE body OPERATOR(pg_catalog.=) $1"
								 " AND n OPERATOR(pg_catalog.=) $2",
								 2, types, old);
	CommandCounterIncrement();
}
