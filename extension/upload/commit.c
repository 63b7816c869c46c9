/*
 * commit.c
 *		upload_commit: a message of the parts.
 *
 * Under the body's lock, exclusively, and by a snapshot that is taken after
 * it: so nothing comes beside it, and what is decided is so.  README.md of
 * this room tells the rest.
 *
 * Who waits for a hash waits for a transaction, which holds back the server's
 * cleaning, and in a frame others of its lane: so it is done by the slice.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/argument.h"
#include "base/caller.h"
#include "base/payload.h"
#include "base/schema.h"
#include "base/settings.h"
#include "body/hash.h"
#include "body/part.h"
#include "body/read.h"
#include "channel/channel.h"
#include "message/draft.h"
#include "message/publish.h"
#include "message/stored.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/store.h"
#include "upload/extent.h"
#include "upload/upload.h"

#define FRAME_SHARE		4		/* of the time for hashing, in a frame */
#define PREVIEW_BYTES	1024

/* One call. */
typedef struct Commit
{
	MbusUpload	upload;
	MbusBody	body;
	Snapshot	snapshot;
	int64		size;
	const uint8 *expected;		/* or NULL */
	uint8		sha256[MBUS_SHA256_BYTES];
	int64		hashed_to;
} Commit;

static void commit_arguments(FunctionCallInfo fcinfo, Commit *commit);
static bool commit_repeated(Oid schema, const MbusUpload *upload,
							MbusUploadEnd *end);
static void size_settle(Commit *commit);
static bool hash_settle(Oid schema, Commit *commit);
static bool hash_known(Commit *commit);
pg_noreturn static void is_missing(const Commit *commit, int64 byte);
pg_noreturn static void is_short(const Commit *commit, const MbusPart *part);
static int32 hash_from(Oid schema, Commit *commit, MbusBodyHash *hash);
static bool hash_on(Oid schema, Commit *commit, int32 n, MbusBodyHash *hash);
static int32 part_bytes(const Commit *commit, int32 n);
static struct varlena *part_read(const Commit *commit, int32 n);
pg_noreturn static void is_damaged(const Commit *commit, int32 n);
static int64 message_publish(Oid schema, Commit *commit);
static void body_share(Oid schema, Commit *commit);
static Datum commit_result(FunctionCallInfo fcinfo, int64 id,
						   int64 hashed_to);

/*
 * upload_commit(upload, size, sha256) makes the message and returns its id; or
 * NULL, and how far the hash is.
 */
MBUS_FUNCTION(upload_commit)
{
	Oid			schema = mbus_schema();
	Commit		commit = {0};
	MbusUploadEnd end = {0};
	const MbusChannel *channel;
	bool		hashed;

	mbus_required(fcinfo, 0, "upload");
	mbus_upload_check("message_bus.upload_commit()");
	mbus_upload_open(schema, PG_GETARG_INT64(0), &commit.upload);
	mbus_upload_lock(commit.upload.body, true);
	if (commit_repeated(schema, &commit.upload, &end))
		return commit_result(fcinfo, end.message_id, end.bytes);
	mbus_upload_unfinished(schema, &commit.upload, RowShareLock,
						   &commit.body);
	channel = mbus_upload_channel(schema, &commit.upload);
	commit_arguments(fcinfo, &commit);

	commit.snapshot = RegisterSnapshot(GetLatestSnapshot());
	size_settle(&commit);
	mbus_upload_size_check(channel, commit.size);
	hashed = hash_settle(schema, &commit);
	UnregisterSnapshot(commit.snapshot);
	if (!hashed)
		return commit_result(fcinfo, 0, commit.hashed_to);
	if (commit.expected &&
		memcmp(commit.sha256, commit.expected, MBUS_SHA256_BYTES) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("upload " INT64_FORMAT " does not match the given sha256",
						commit.upload.body),
				 errdetail("The checksum of its " INT64_FORMAT " bytes is another one.",
						   commit.size),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "sha256")));
	end.message_id = message_publish(schema, &commit);
	end.at = mbus_now();
	end.kind = MBUS_COMMITTED;
	end.bytes = commit.size;
	mbus_upload_end(schema, commit.upload.body, &end);
	return commit_result(fcinfo, end.message_id, commit.size);
}

/* What is given here beside what begin was given; 22023 if that differs. */
static void
commit_arguments(FunctionCallInfo fcinfo, Commit *commit)
{
	const MbusUpload *upload = &commit->upload;
	MbusDraft	draft = {0};

	commit->size = PG_ARGISNULL(1) ? upload->size : PG_GETARG_INT64(1);
	if (!PG_ARGISNULL(1) && (commit->size < 0 ||
							 (upload->size >= 0 && commit->size != upload->size)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid size of upload " INT64_FORMAT ": " INT64_FORMAT,
						upload->body, commit->size),
				 upload->size >= 0 ?
				 errdetail("It was begun with " INT64_FORMAT " bytes.",
						   upload->size) : 0));
	mbus_draft_options(&draft, NULL, NULL, NULL, NULL, NULL,
					   PG_ARGISNULL(2) ? NULL : PG_GETARG_BYTEA_PP(2));
	commit->expected = draft.expected_sha256 ? draft.expected_sha256 :
		upload->sha256;
	if (draft.expected_sha256 && upload->sha256 &&
		memcmp(draft.expected_sha256, upload->sha256, MBUS_SHA256_BYTES) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("upload " INT64_FORMAT " was begun with another sha256",
						upload->body)));
}

/*
 * Whether an upload, of which the caller has the lock, was committed; 55000 if
 * its message is not there any more.
 */
static bool
commit_repeated(Oid schema, const MbusUpload *upload, MbusUploadEnd *end)
{
	const char *why;

	if (!mbus_upload_ended(schema, upload->body, end) ||
		end->kind != MBUS_COMMITTED)
		return false;
	why = mbus_message_why_gone(schema, upload->channel_id, end->message_id);
	if (why)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("upload " INT64_FORMAT " was committed, and its message is not there any more",
						upload->body),
				 errdetail("Message " INT64_FORMAT " %s.", end->message_id,
						   why),
				 errhint("To send the bytes again, begin a new upload with another transaction id.")));
	return true;
}

/*
 * size_settle finds out how large the body is, and that nothing lies behind
 * its end.
 */
static void
size_settle(Commit *commit)
{
	MbusPart	last;
	int64		end = 0;

	if (mbus_part_last(&commit->body, commit->snapshot, &last))
		end = (int64) last.n * MBUS_PART_BYTES + last.size;
	if (commit->size < 0)
		commit->size = end;
	if (end > commit->size)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("upload " INT64_FORMAT " has more than " INT64_FORMAT " bytes",
						commit->upload.body, commit->size),
				 errdetail("Its parts end at byte " INT64_FORMAT ".", end)));
	if (end < commit->size)
		is_missing(commit,
				   mbus_extent_whole(&commit->body, 0, commit->snapshot));
}

/*
 * hash_settle finds out the hash of a body whose last part is there.  False: it
 * is not done, and how far it is was noted.
 */
static bool
hash_settle(Oid schema, Commit *commit)
{
	MbusBodyHash hash;
	int32		from;

	commit->hashed_to = commit->size;
	if (hash_known(commit))
		return true;
	from = hash_from(schema, commit, &hash);
	if (!hash_on(schema, commit, from, &hash))
		return false;
	mbus_body_hash_end(&hash, commit->sha256);
	return true;
}

/* Whether the last part knows it, which proves that no part is missing. */
static bool
hash_known(Commit *commit)
{
	int32		parts = mbus_parts(commit->size);
	MbusPart	last;
	MbusBodyHash hash;

	if (parts == 0)
		mbus_body_hash_begin(&hash);
	else if (!mbus_part_find(&commit->body, parts - 1, commit->snapshot,
							 &last) || !last.has_state)
		return false;
	else if (last.size < MBUS_PART_BYTES)
	{
		memcpy(commit->sha256, last.state, MBUS_SHA256_BYTES);
		return true;
	}
	else
		mbus_body_hash_resume(&hash, last.state, commit->size);
	mbus_body_hash_end(&hash, commit->sha256);
	return true;
}

/* Errors with 22023. */
static void
is_missing(const Commit *commit, int64 byte)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("upload " INT64_FORMAT " is not complete: byte " INT64_FORMAT " is missing",
					commit->upload.body, byte),
			 errdetail("The body has " INT64_FORMAT " bytes.", commit->size),
			 errhint("Append what is missing, which upload_status tells, and commit again.")));
}

/* Errors with 22023: two that appended at one time did not agree. */
static void
is_short(const Commit *commit, const MbusPart *part)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("upload " INT64_FORMAT " has parts behind one that is short",
					commit->upload.body),
			 errdetail("That from byte " INT64_FORMAT " on has %d bytes.",
					   (int64) part->n * MBUS_PART_BYTES, part->size),
			 errhint("Parts do not change: abort, and begin another.")));
}

/*
 * hash_from makes sure that no part is missing, and returns the first one that
 * has to be hashed, with the hash's state before it.
 */
static int32
hash_from(Oid schema, Commit *commit, MbusBodyHash *hash)
{
	uint8		state[MBUS_SHA256_BYTES];
	int32		known = mbus_upload_hashed(schema, commit->upload.body, state);
	int32		expected = known + 1;
	const MbusPart *part;
	MbusWalk	walk;

	mbus_walk_begin(&walk, &commit->body, expected, commit->snapshot);
	while ((part = mbus_walk_next(&walk)) != NULL)
	{
		if (part->n != expected)
			break;
		if (part->size != part_bytes(commit, expected))
			is_short(commit, part);
		if (part->has_state && part->size == MBUS_PART_BYTES)
		{
			known = expected;
			memcpy(state, part->state, MBUS_SHA256_BYTES);
		}
		expected++;
	}
	mbus_walk_end(&walk);
	if (expected < mbus_parts(commit->size))
		is_missing(commit, (int64) expected * MBUS_PART_BYTES);
	mbus_upload_hash_resume(hash, known, state);
	return known + 1;
}

/* The size that a part of the body has. */
static int32
part_bytes(const Commit *commit, int32 n)
{
	return Min(commit->size - (int64) n * MBUS_PART_BYTES, MBUS_PART_BYTES);
}

/*
 * hash_on hashes from a part on, and returns true at the end; false: the time
 * is over, and how far it is was noted.
 */
static bool
hash_on(Oid schema, Commit *commit, int32 n, MbusBodyHash *hash)
{
	int			slice = mbus_caller.in_relay ?
	mbus_upload_slice / FRAME_SHARE : mbus_upload_slice;
	int32		parts = mbus_parts(commit->size);
	uint8		state[MBUS_SHA256_BYTES];
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	for (; n < parts; n++)
	{
		struct varlena *bytes;
		instr_time	now;

		bytes = part_read(commit, n);
		mbus_body_hash_part(hash, VARDATA_ANY(bytes),
							VARSIZE_ANY_EXHDR(bytes));
		pfree(bytes);
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		if (INSTR_TIME_GET_MILLISEC(now) >= slice && n + 1 < parts)
			break;
	}
	if (n == parts)
		return true;
	mbus_body_hash_state(hash, state);
	mbus_upload_hash(schema, commit->upload.body, n, state);
	commit->hashed_to = ((int64) n + 1) * MBUS_PART_BYTES;
	return false;
}

/* The bytes of a part; XX001 if they are not those that were sent. */
static struct varlena *
part_read(const Commit *commit, int32 n)
{
	struct varlena *bytes;

	CHECK_FOR_INTERRUPTS();
	bytes = mbus_part_read(&commit->body, n, part_bytes(commit, n), true);
	if (bytes == NULL)
		is_damaged(commit, n);
	return bytes;
}

static void
is_damaged(const Commit *commit, int32 n)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("part of upload " INT64_FORMAT " from byte " INT64_FORMAT " on is damaged",
					commit->upload.body, (int64) n * MBUS_PART_BYTES)));
}

/*
 * message_publish makes the message; a small one has its bytes itself, and is
 * checked as any that is published.
 */
static int64
message_publish(Oid schema, Commit *commit)
{
	bool		large = commit->size > MBUS_BODY_OVER;
	int64		count = large ? PREVIEW_BYTES : commit->size;
	text	   *bytes = palloc(VARHDRSZ + count);
	MbusDraft	draft;

	SET_VARSIZE(bytes, VARHDRSZ + count);
	if (!mbus_body_read(schema, commit->upload.body, commit->size, 0, count,
						VARDATA(bytes), true))
		is_damaged(commit, 0);
	if (large && commit->upload.own &&
		commit->size <= (int64) mbus_own_body_min * 1024 * 1024)
		body_share(schema, commit);
	mbus_upload_draft(&commit->upload, &draft);
	draft.payload = (struct varlena *) bytes;
	draft.size = commit->size;
	draft.check_json = !large &&
		mbus_content_is_json(commit->upload.content_type);
	memcpy(draft.sha256, commit->sha256, MBUS_SHA256_BYTES);
	mbus_publish_body(schema,
					  mbus_upload_channel(schema, &commit->upload), &draft,
					  large ? &commit->body : NULL);
	return draft.id;
}

/*
 * body_share copies a body, which turned out to be small, to a store that it
 * shares: of those for one body there are not so many.
 */
static void
body_share(Oid schema, Commit *commit)
{
	MbusChannel channel = *mbus_upload_channel(schema, &commit->upload);
	MbusPartWriter *writer;
	MbusBodyHash hash;
	MbusBody	shared;
	uint8		sha256[MBUS_SHA256_BYTES];

	mbus_body_new(mbus_database(), schema, channel.series, commit->size,
				  mbus_now() + channel.ttl_us, &shared);
	writer = mbus_part_writer(&shared, channel.compression);
	mbus_body_hash_begin(&hash);
	for (int32 n = 0; n < mbus_parts(commit->size); n++)
	{
		struct varlena *bytes = part_read(commit, n);
		MbusPart	part = {.n = n,.size = VARSIZE_ANY_EXHDR(bytes),
		.at = mbus_now(),.has_state = true};

		mbus_sha256(VARDATA_ANY(bytes), part.size, part.sha256);
		mbus_body_hash_next(&hash, VARDATA_ANY(bytes), part.size, part.state);
		mbus_part_write(writer, &part, VARDATA_ANY(bytes));
		pfree(bytes);
	}
	mbus_part_writer_end(writer);
	CommandCounterIncrement();
	mbus_body_hash_end(&hash, sha256);
	if (memcmp(sha256, commit->sha256, MBUS_SHA256_BYTES) != 0)
		is_damaged(commit, 0);
	commit->body = shared;
	mbus_stores_look();
}

/* The row that the call returns. */
static Datum
commit_result(FunctionCallInfo fcinfo, int64 id, int64 hashed_to)
{
	TupleDesc	desc;
	Datum		values[2] = {Int64GetDatum(id), Int64GetDatum(hashed_to)};
	bool		isnull[2] = {id == 0, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "upload_commit: not called for a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 isnull));
}
