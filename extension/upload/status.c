/*
 * status.c
 *		upload_status and the view uploads: how far uploads are.
 *
 * They write nothing and take no lock but the part table's, AccessShare: what
 * they tell may have changed when it arrives.  Nothing is detoasted: a body of
 * a GiB has 4,096 rows to look at.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/schema.h"
#include "body/part.h"
#include "channel/channel.h"
#include "state/clock.h"
#include "state/fault.h"
#include "upload/extent.h"
#include "upload/upload.h"

#define MISSING_MAX		1000	/* parts that are named */
#define STATUS_COLUMNS	8
#define ROW_COLUMNS		16

/* How far an upload is. */
typedef struct Progress
{
	const char *state;
	int64		size;			/* -1: not known */
	int64		received;
	int64		complete_to;
	int64		hashed_to;
	TimestampTz expires_at;		/* 0: it does not */
	int64		message_id;		/* 0: none */
	int			nmissing;
	Datum		missing[MISSING_MAX];
} Progress;

static void progress_read(Oid schema, const MbusUpload *upload,
						  Progress *progress);
static void parts_read(Oid schema, const MbusUpload *upload,
					   const MbusBody *body, Progress *progress);
static int32 missing_add(Progress *progress, int32 from, int32 to);
static void uploads_put(Oid schema, MbusUploadScan *scan,
						ReturnSetInfo *rsinfo);
static void upload_values(Oid schema, const MbusUpload *upload,
						  Datum *values, bool *isnull);

/*
 * upload_status(upload) tells how far an upload of the caller's is.
 */
MBUS_FUNCTION(upload_status)
{
	Oid			schema = mbus_schema();
	Progress   *progress = palloc(sizeof(Progress));
	MbusUpload	upload;
	TupleDesc	desc;
	Datum		values[STATUS_COLUMNS];
	bool		isnull[STATUS_COLUMNS] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "upload_status: not called for a row");
	mbus_required(fcinfo, 0, "upload");
	mbus_upload_open(schema, PG_GETARG_INT64(0), &upload);
	progress_read(schema, &upload, progress);
	values[0] = CStringGetTextDatum(progress->state);
	values[1] = Int64GetDatum(progress->size);
	isnull[1] = progress->size < 0;
	values[2] = Int64GetDatum(progress->received);
	values[3] = Int64GetDatum(progress->complete_to);
	values[4] = Int64GetDatum(progress->hashed_to);
	values[5] = PointerGetDatum(construct_array(progress->missing,
												progress->nmissing, INT8OID,
												sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[6] = TimestampTzGetDatum(progress->expires_at);
	isnull[6] = progress->expires_at == 0;
	values[7] = Int64GetDatum(progress->message_id);
	isnull[7] = progress->message_id == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* Finds out how far an upload is. */
static void
progress_read(Oid schema, const MbusUpload *upload, Progress *progress)
{
	MbusUploadEnd end = {0};
	MbusBody	body;
	bool		there;

	memset(progress, 0, offsetof(Progress, missing));
	progress->size = upload->size;
	if (mbus_upload_ended(schema, upload->body, &end))
	{
		progress->state = end.kind == MBUS_COMMITTED ? "committed" : "aborted";
		progress->received = end.bytes;
		progress->message_id = end.message_id;
		if (end.kind == MBUS_COMMITTED)
			progress->size = progress->complete_to = progress->hashed_to =
				end.bytes;
		return;
	}
	progress->state = "expired";
	there = mbus_body_find(schema, upload->body, AccessShareLock, &body);
	if (!there)
		return;
	progress->expires_at = mbus_upload_expiry(upload, &body);
	if (progress->expires_at > mbus_now())
		progress->state = "open";
	parts_read(schema, upload, &body, progress);
	/* the view asks of all uploads: not a lock for each to its end */
	UnlockRelationOid(body.relid, AccessShareLock);
}

/* Looks at the parts that are there. */
static void
parts_read(Oid schema, const MbusUpload *upload, const MbusBody *body,
		   Progress *progress)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	uint8		state[MBUS_SHA256_BYTES];
	int32		hashed = mbus_upload_hashed(schema, upload->body, state) + 1;
	bool		whole = true;
	int32		next = 0;
	const MbusPart *part;
	MbusWalk	walk;

	progress->hashed_to = (int64) hashed * MBUS_PART_BYTES;
	mbus_walk_begin(&walk, body, 0, snapshot);
	while ((part = mbus_walk_next(&walk)) != NULL)
	{
		int64		end = (int64) part->n * MBUS_PART_BYTES + part->size;

		whole &= part->n == next;
		next = missing_add(progress, next, part->n) + 1;
		progress->received += part->size;
		if (whole)
			progress->complete_to = end;
		whole &= part->size == MBUS_PART_BYTES;
		if (part->has_state)
			progress->hashed_to = Max(progress->hashed_to, end);
	}
	mbus_walk_end(&walk);
	if (upload->size >= 0)
		missing_add(progress, next, mbus_parts(upload->size));
	UnregisterSnapshot(snapshot);
}

/* Notes the parts of a hole, as far as there is room; returns its end. */
static int32
missing_add(Progress *progress, int32 from, int32 to)
{
	for (int32 n = from; n < to && progress->nmissing < MISSING_MAX; n++)
		progress->missing[progress->nmissing++] =
			Int64GetDatum((int64) n * MBUS_PART_BYTES);
	return to;
}

/*
 * upload_rows() returns the uploads that the view shows: the caller's, and to
 * members of pg_monitor all.
 */
MBUS_FUNCTION(upload_rows)
{
	Oid			schema = mbus_schema();
	MbusUpload	own = {0};

	InitMaterializedSRF(fcinfo, 0);
	if (mbus_monitors())
		uploads_put(schema, mbus_uploads_all(schema),
					(ReturnSetInfo *) fcinfo->resultinfo);
	else if (mbus_upload_owner_set(&own))
		uploads_put(schema, mbus_uploads_of(schema, own.role, own.subject),
					(ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

/* Puts those of a scan into the result, and ends it. */
static void
uploads_put(Oid schema, MbusUploadScan *scan, ReturnSetInfo *rsinfo)
{
	bool		all = mbus_monitors();
	MbusUpload	upload;

	while (mbus_uploads_next(scan, &upload))
	{
		Datum		values[ROW_COLUMNS];
		bool		isnull[ROW_COLUMNS] = {false};

		if (upload.done || !(all || mbus_upload_own(&upload)))
			continue;
		upload_values(schema, &upload, values, isnull);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 isnull);
	}
	mbus_uploads_end(scan);
}

/* The columns of the view. */
static void
upload_values(Oid schema, const MbusUpload *upload, Datum *values,
			  bool *isnull)
{
	Progress   *progress = palloc(sizeof(Progress));
	const MbusChannel *channel = mbus_channel_by_id(schema,
													upload->channel_id);
	int			i = 0;

#define PUT(value, null) \
	(values[i] = (value), isnull[i++] = (null))
#define PUT_TEXT(value)	PUT(PointerGetDatum(value), (value) == NULL)
	progress_read(schema, upload, progress);
	PUT(Int64GetDatum(upload->body), false);
	PUT_TEXT(channel ? cstring_to_text(channel->name) : NULL);
	PUT(CStringGetTextDatum(progress->state), false);
	PUT(CStringGetTextDatum(upload->content_type), false);
	PUT(Int64GetDatum(upload->size), upload->size < 0);
	PUT(Int64GetDatum(upload->reserved), false);
	PUT(Int64GetDatum(progress->received), false);
	PUT(Int64GetDatum(progress->complete_to), false);
	PUT(Int64GetDatum(progress->hashed_to), false);
	PUT(TimestampTzGetDatum(upload->begun_at), false);
	PUT(TimestampTzGetDatum(progress->expires_at), progress->expires_at == 0);
	PUT(BoolGetDatum(upload->own), false);
	PUT_TEXT(upload->key);
	PUT_TEXT(upload->transaction_id);
	PUT_TEXT(upload->role);
	PUT_TEXT(upload->subject);
	Assert(i == ROW_COLUMNS);
	pfree(progress);
}
