/*
 * append.c
 *		upload_append: parts of a body, in any order.
 *
 * What is written is decided under locks of the body and of each part, by a
 * snapshot that is taken after them: so a part is written once, and who brings
 * it again finds it (README.md of this room).  All parts of a call are there
 * when its transaction commits, or none.
 *
 * A part of whole size that is known to follow on all before it is stored with
 * the hash's state behind it; the last one, if it is short, with the hash.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/argument.h"
#include "base/payload.h"
#include "base/schema.h"
#include "body/hash.h"
#include "body/part.h"
#include "channel/channel.h"
#include "state/clock.h"
#include "state/fault.h"
#include "upload/extent.h"
#include "upload/upload.h"

/* One call. */
typedef struct Append
{
	MbusUpload	upload;
	MbusBody	body;
	int64		from;			/* first byte */
	const char *bytes;
	int32		size;
	int32		first;			/* part */
	int32		behind;			/* the last one */
	bool		ends;			/* the last part is a short one */
	Snapshot	snapshot;
	MbusPart	part[MBUS_APPEND_PARTS];
	int			there;			/* bits: which of them are */
	bool		chained;		/* all parts before the next are there, and */
	MbusBodyHash hash;			/* this is their hash */
} Append;

static struct varlena *payload_argument(FunctionCallInfo fcinfo, int argno);
static void range_check(const Append *append);
static void ends_check(const Append *append);
static void behind_end(const Append *append, int64 end);
static void parts_lock(const Append *append);
static void chain_begin(Oid schema, Append *append);
static void parts_look(Append *append);
static void part_differs(const Append *append, const MbusPart *there);
static void parts_write(Append *append, MbusCompression compression);
static void part_chain(Append *append, MbusPart *part, bool there,
					   const char *bytes);
static int64 complete_to(const Append *append, int32 known);

/*
 * upload_append(upload, from_byte, payload) stores parts of a body and returns
 * the first byte that is missing.
 */
MBUS_FUNCTION(upload_append)
{
	Oid			schema = mbus_schema();
	Append		append = {0};
	struct varlena *payload;
	MbusCompression compression;
	int32		known;
	int64		result;

	mbus_required(fcinfo, 0, "upload");
	mbus_required(fcinfo, 1, "from_byte");
	mbus_upload_check("message_bus.upload_append()");
	mbus_upload_open(schema, PG_GETARG_INT64(0), &append.upload);
	payload = payload_argument(fcinfo, 2);
	append.from = PG_GETARG_INT64(1);
	append.bytes = VARDATA_ANY(payload);
	append.size = VARSIZE_ANY_EXHDR(payload);
	range_check(&append);
	append.first = append.from / MBUS_PART_BYTES;
	append.behind = append.first + mbus_parts(append.size);
	append.ends = append.size % MBUS_PART_BYTES != 0;
	compression = mbus_upload_channel(schema, &append.upload)->compression;

	parts_lock(&append);
	mbus_upload_unfinished(schema, &append.upload, RowExclusiveLock,
						   &append.body);
	append.snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (append.upload.size < 0)
		ends_check(&append);
	mbus_upload_disk(append.size);
	chain_begin(schema, &append);
	known = append.chained ? 0 :
		mbus_extent_known(&append.body, append.snapshot);
	parts_look(&append);
	parts_write(&append, compression);
	UnregisterSnapshot(append.snapshot);
	append.snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (!append.chained)
		mbus_upload_hash_ahead(schema, &append.body, append.snapshot);
	result = complete_to(&append, known);
	UnregisterSnapshot(append.snapshot);
	PG_RETURN_INT64(result);
}

/* The payload, which is looked at only if it is not too large. */
static struct varlena *
payload_argument(FunctionCallInfo fcinfo, int argno)
{
	Size		size;

	mbus_required(fcinfo, argno, "payload");
	size = toast_raw_datum_size(PG_GETARG_DATUM(argno)) - VARHDRSZ;
	if (size > MBUS_APPEND_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload of %zu bytes is too large for one append",
						size),
				 errdetail("The limit is %d bytes.", MBUS_APPEND_MAX),
				 errhint("Send the body in pieces.")));
	if (size == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payload of an append is empty"),
				 errhint("An empty body is committed without an append.")));
	return (struct varlena *) PG_GETARG_VARLENA_PP(argno);
}

/* Whole parts, within what was reserved, and the last one where the body ends. */
static void
range_check(const Append *append)
{
	const MbusUpload *upload = &append->upload;
	int64		limit = upload->size >= 0 ? upload->size : upload->reserved;

	if (append->from < 0 || append->from % MBUS_PART_BYTES != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid from_byte: " INT64_FORMAT, append->from),
				 errdetail("It is a multiple of %d.", MBUS_PART_BYTES)));
	if (append->from > limit - append->size)
	{
		if (upload->size >= 0)
			behind_end(append, upload->size);
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("upload " INT64_FORMAT " has reserved " INT64_FORMAT " bytes",
						upload->body, upload->reserved),
				 errdetail("An append of %d bytes from byte " INT64_FORMAT " goes beyond.",
						   append->size, append->from),
				 errhint("Begin it with its size, up to the channel's max_payload and \"message_bus.max_body\".")));
	}
	if (append->size % MBUS_PART_BYTES != 0 && upload->size >= 0 &&
		append->from + append->size != upload->size)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("append of %d bytes does not end where a part ends",
						append->size),
				 errdetail("Parts have %d bytes but for the last one, which ends at byte " INT64_FORMAT ".",
						   MBUS_PART_BYTES, upload->size)));
}

/* Errors with 22023. */
static void
behind_end(const Append *append, int64 end)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("append goes beyond the end of upload " INT64_FORMAT,
					append->upload.body),
			 errdetail("The body has " INT64_FORMAT " bytes; %d from byte " INT64_FORMAT " on are more.",
					   end, append->size, append->from)));
}

/*
 * ends_check finds out, where the size is not known, whether the parts fit to
 * a short part, which is where the body ends.  Who is beside it at this moment
 * is not seen: the commit looks again.
 */
static void
ends_check(const Append *append)
{
	MbusPart	last;

	if (!mbus_part_last(&append->body, append->snapshot, &last))
		return;
	if (last.size < MBUS_PART_BYTES && append->behind > last.n + 1)
		behind_end(append, (int64) last.n * MBUS_PART_BYTES + last.size);
	if (append->ends && last.n >= append->behind)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("append of %d bytes does not end where a part ends",
						append->size),
				 errdetail("Parts have %d bytes but for the last one, and there are parts behind these.",
						   MBUS_PART_BYTES)));
}

/* Takes the locks of the body and of all parts; 55000. */
static void
parts_lock(const Append *append)
{
	mbus_upload_lock(append->upload.body, false);
	for (int32 n = append->first; n < append->behind; n++)
		mbus_upload_lock_part(append->upload.body, n);
}

/*
 * chain_begin goes on with the hash behind the part before, if that knows it,
 * or somebody has noted it.
 */
static void
chain_begin(Oid schema, Append *append)
{
	uint8		state[MBUS_SHA256_BYTES];
	MbusPart	before;

	append->chained = true;
	if (append->first == 0)
		mbus_body_hash_begin(&append->hash);
	else if (mbus_part_find(&append->body, append->first - 1,
							append->snapshot, &before) &&
			 before.has_state && before.size == MBUS_PART_BYTES)
		mbus_body_hash_resume(&append->hash, before.state, append->from);
	else if (mbus_upload_hashed(schema, append->body.body, state) ==
			 append->first - 1)
		mbus_body_hash_resume(&append->hash, state, append->from);
	else
		append->chained = false;
}

/*
 * parts_look finds out which parts are there; 22023 if one has other bytes.
 * That is said before any is written: rows of a transaction that fails take
 * room, too.
 */
static void
parts_look(Append *append)
{
	TimestampTz now = mbus_now();

	for (int i = 0; append->first + i < append->behind; i++)
	{
		MbusPart   *part = &append->part[i];
		int32		at = i * MBUS_PART_BYTES;
		MbusPart	there;

		part->n = append->first + i;
		part->size = Min(MBUS_PART_BYTES, append->size - at);
		part->at = now;
		mbus_sha256(append->bytes + at, part->size, part->sha256);
		if (!mbus_part_find(&append->body, part->n, append->snapshot, &there))
			continue;
		if (there.size != part->size ||
			memcmp(there.sha256, part->sha256, MBUS_SHA256_BYTES) != 0)
			part_differs(append, &there);
		*part = there;
		append->there |= 1 << i;
	}
}

/* Errors with 22023. */
static void
part_differs(const Append *append, const MbusPart *there)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("upload " INT64_FORMAT " has other bytes from byte " INT64_FORMAT " on",
					append->upload.body,
					(int64) there->n * MBUS_PART_BYTES),
			 errdetail("The part that is there has %d bytes and another checksum.",
					   there->size)));
}

/* Writes the parts that are not there. */
static void
parts_write(Append *append, MbusCompression compression)
{
	int			n = append->behind - append->first;
	MbusPartWriter *writer;

	if (append->there == (1 << n) - 1)
		return;
	writer = mbus_part_writer(&append->body, compression);
	for (int i = 0; i < n; i++)
	{
		const char *bytes = append->bytes + i * MBUS_PART_BYTES;
		bool		there = (append->there & 1 << i) != 0;

		CHECK_FOR_INTERRUPTS();
		part_chain(append, &append->part[i], there, bytes);
		if (!there)
			mbus_part_write(writer, &append->part[i], bytes);
	}
	mbus_part_writer_end(writer);
	CommandCounterIncrement();
}

/*
 * part_chain sets the state of a part that is new, if all before it are known.
 * One that is there may know it where the call did not.
 */
static void
part_chain(Append *append, MbusPart *part, bool there, const char *bytes)
{
	if (!append->chained && there && part->has_state &&
		part->size == MBUS_PART_BYTES)
	{
		append->chained = true;
		mbus_body_hash_resume(&append->hash, part->state,
							  ((int64) part->n + 1) * MBUS_PART_BYTES);
		return;
	}
	if (!append->chained)
		return;
	part->has_state = true;
	mbus_body_hash_next(&append->hash, bytes, part->size, part->state);
}

/*
 * complete_to returns the first byte that is missing; "known": so many parts
 * at the beginning were there before.
 */
static int64
complete_to(const Append *append, int32 known)
{
	if (append->chained && append->ends)
		return append->from + append->size;
	return mbus_extent_whole(&append->body,
							 append->chained ? append->behind : known,
							 append->snapshot);
}
