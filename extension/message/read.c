/*
 * read.c
 *		What reads and hides single messages: get, get_bytes,
 *		get_by_transaction, retrieve_message, delete_message.
 *
 * Each finds its message (stored.c), checks that the current user may consume
 * the channel, and returns it or records what it did.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/argument.h"
#include "base/caller.h"
#include "base/compat.h"
#include "base/payload.h"
#include "base/schema.h"
#include "base/settings.h"
#include "body/body.h"
#include "channel/channel.h"
#include "message/access.h"
#include "message/insert.h"
#include "message/payload_read.h"
#include "message/quarantine.h"
#include "message/read.h"
#include "message/stored.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/store.h"

#define MBUS_VERIFIED		16

/*
 * Large messages this backend has verified: ranges are not verified anew.  An
 * id may be given out again when its transaction rolls back, so that it says
 * nothing without the checksum that the bytes have matched.
 */
static struct
{
	Oid			schema;
	int64		id;
	uint8		sha256[MBUS_SHA256_BYTES];
}			verified[MBUS_VERIFIED];
static int	next_verified = 0;

static void check_reply(const MbusStored *message, int64 bytes, bool is_json);
static bool is_verified(Oid schema, const MbusStored *message);
static void remember_verified(Oid schema, const MbusStored *message);
static struct varlena *body_or_null(Oid schema, const MbusStored *message);
static void body_let_go(const MbusStored *message);
static void may_read(Oid schema, const MbusStored *message);
static Datum stored_message_result(FunctionCallInfo fcinfo, Oid schema,
								   const MbusStored *message, bool whole);
static void message_values(Oid schema, const MbusStored *message, bool whole,
						   Datum *values, bool *isnull);

/*
 * get(id bigint) returns one message, whole; no row where there is none.
 */
MBUS_FUNCTION(get)
{
	FuncCallContext *call;
	Oid			schema;
	MbusStored	message;

	if (!SRF_IS_FIRSTCALL())
	{
		call = SRF_PERCALL_SETUP();
		SRF_RETURN_DONE(call);
	}
	call = SRF_FIRSTCALL_INIT();
	schema = mbus_schema();
	if (PG_ARGISNULL(0) ||
		!mbus_message_readable(schema, PG_GETARG_INT64(0), &message))
		SRF_RETURN_DONE(call);
	SRF_RETURN_NEXT(call, stored_message_result(fcinfo, schema, &message,
												true));
}

/*
 * get_by_transaction(channel, transaction_id) returns one message; by
 * reference if it is larger than message_bus.inline_max; no row where there is
 * none.
 */
MBUS_CHANNEL_FUNCTION(get_by_transaction)
{
	FuncCallContext *call;
	Oid			schema;
	const MbusChannel *channel;
	MbusStored	message;

	if (!SRF_IS_FIRSTCALL())
	{
		call = SRF_PERCALL_SETUP();
		SRF_RETURN_DONE(call);
	}
	call = SRF_FIRSTCALL_INIT();
	schema = mbus_schema();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		SRF_RETURN_DONE(call);
	mbus_about_transaction(PG_GETARG_TEXT_PP(1));
	channel = mbus_channel_open(schema, PG_GETARG_TEXT_PP(0), MBUS_CONSUME);
	if (!mbus_message_by_transaction(schema, channel, PG_GETARG_TEXT_PP(1),
									 &message) ||
		!mbus_message_visible(schema, &message))
		SRF_RETURN_DONE(call);
	SRF_RETURN_NEXT(call, stored_message_result(fcinfo, schema, &message,
												false));
}

/*
 * retrieve_message(transaction_id) returns the payload of the message with
 * that transaction id on the default channel, and records the access.
 */
MBUS_FUNCTION(retrieve_message)
{
	Oid			schema = mbus_schema();
	const MbusChannel *channel;
	MbusStored	message;
	struct varlena *payload;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	mbus_about_transaction(PG_GETARG_TEXT_PP(0));
	channel = mbus_channel_open(schema,
								cstring_to_text(mbus_default_channel),
								MBUS_CONSUME);
	if (!mbus_message_by_transaction(schema, channel, PG_GETARG_TEXT_PP(0), &message) ||
		!mbus_message_visible(schema, &message) ||
		!mbus_content_is_json(message.content_type) ||
		mbus_message_unchecked(&message))
		PG_RETURN_NULL();
	check_reply(&message, message.size, true);
	payload = mbus_message_payload(schema, &message);
	mbus_access_record(schema, &message.id, 1);
	PG_RETURN_POINTER(payload);
}

/*
 * delete_message(transaction_id) hides the message with that transaction id
 * on the default channel; false if there is none.
 */
MBUS_FUNCTION(delete_message)
{
	Oid			schema = mbus_schema();
	const MbusChannel *channel;
	MbusStored	message;

	if (!PG_ARGISNULL(0))
		mbus_about_transaction(PG_GETARG_TEXT_PP(0));
	mbus_write_check("message_bus.delete_message()");
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	channel = mbus_channel_open(schema,
								cstring_to_text(mbus_default_channel),
								MBUS_CONSUME);
	mbus_channel_check(channel, MBUS_PUBLISH);
	if (!mbus_message_by_transaction(schema, channel, PG_GETARG_TEXT_PP(0), &message) ||
		!mbus_message_visible(schema, &message))
		PG_RETURN_BOOL(false);
	mbus_insert_event(schema, message.id, "deleted", mbus_now());
	body_let_go(&message);
	mbus_count(MBUS_C_DELETED, 1);
	PG_RETURN_BOOL(true);
}

/*
 * record_event(id bigint, kind text, at timestamptz) is what the triggers of
 * the view message_bus.message_bus record with.
 */
MBUS_FUNCTION(record_event)
{
	Oid			schema = mbus_schema();
	char	   *kind = text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		deletes = strcmp(kind, "deleted") == 0;
	const MbusChannel *channel;
	MbusStored	message;

	mbus_write_check("message_bus.record_event()");
	if (!deletes && strcmp(kind, "accessed") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown kind of event \"%s\"", kind),
				 errdetail("An event is accessed or deleted.")));
	if (!mbus_message_readable(schema, PG_GETARG_INT64(0), &message))
		PG_RETURN_BOOL(false);
	if (deletes)
	{
		channel = mbus_channel_by_id(schema, message.channel_id);
		if (channel == NULL)
			PG_RETURN_BOOL(false);	/* dropped meanwhile */
		mbus_channel_check(channel, MBUS_PUBLISH);
		mbus_count(MBUS_C_DELETED, 1);
		body_let_go(&message);
	}
	mbus_insert_event(schema, message.id, kind, PG_GETARG_TIMESTAMPTZ(2));
	PG_RETURN_BOOL(true);
}

/* A deleted message's body gives its space back soon. */
static void
body_let_go(const MbusStored *message)
{
	if (message->size > MBUS_BODY_OVER)
		mbus_stores_look();
}

/*
 * get_bytes(id bigint, from_byte bigint, max_bytes bigint) returns a range of
 * a payload's bytes; an empty one behind its end.
 */
MBUS_FUNCTION(get_bytes)
{
	Oid			schema = mbus_schema();
	MbusStored	message;
	struct varlena *bytes;
	int64		from;
	int64		count;

	if (PG_ARGISNULL(0) ||
		!mbus_message_readable(schema, PG_GETARG_INT64(0), &message))
		PG_RETURN_NULL();
	from = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	count = PG_ARGISNULL(2) ? Max(message.size, 0) : PG_GETARG_INT64(2);
	if (from < 0 || count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid range of bytes: from_byte " INT64_FORMAT ", max_bytes " INT64_FORMAT,
						from, count),
				 errdetail("Both are zero or more.")));
	from = Min(from, message.size);
	count = Min(count, message.size - from);
	check_reply(&message, count, false);
	bytes = mbus_message_bytes(schema, &message, from, count);
	mbus_message_read_record(schema, &message);
	PG_RETURN_BYTEA_P(bytes);
}

/*
 * mbus_message_bytes returns "count" bytes of a message, which has them, from
 * one on.  They are verified as the session wants it, with XX001; of a larger
 * message once in a process, of a body part by part, and whole if all of it is
 * wanted.
 */
struct varlena *
mbus_message_bytes(Oid schema, const MbusStored *message, int64 from,
				   int64 count)
{
	struct varlena *payload;

	/* a whole one is compared with its own checksum, as get() does */
	if (message->body != 0 && count < message->size)
		return mbus_message_range(schema, message, from, count);
	if (message->body == 0 && message->size > mbus_inline_max &&
		is_verified(schema, message) &&
		message->compression <= MBUS_COMPRESS_LZ4)
		return PG_DETOAST_DATUM_SLICE(PointerGetDatum(message->stored), from,
									  count);
	payload = mbus_message_payload(schema, message);
	if (mbus_verify_on_read && message->body == 0)
		remember_verified(schema, message);
	if (from == 0 && count == message->size)
		return payload;
	return cstring_to_text_with_len(VARDATA_ANY(payload) + from, count);
}

/*
 * body_json(id bigint) returns the payload of a message with a body as json;
 * NULL where that was not checked, or is damaged, or get() would not give it:
 * no stored message may make a view fail.
 */
MBUS_FUNCTION(body_json)
{
	Oid			schema = mbus_schema();
	MbusStored	message;
	struct varlena *payload;

	if (!mbus_message_open(schema, PG_GETARG_INT64(0), &message) ||
		message.body == 0 || !message.json)
		PG_RETURN_NULL();
	payload = body_or_null(schema, &message);
	if (payload == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(payload);
}

/*
 * body_or_null reads the payload of a message with a body in a subtransaction;
 * NULL also where the server cannot read it, where it is being restored, and
 * where it is larger than a value can be.
 */
static struct varlena *
body_or_null(Oid schema, const MbusStored *message)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	struct varlena *volatile payload = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		payload = mbus_payload_read(schema, message);
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
		if (!mbus_damage_code(edata->sqlerrcode) &&
			edata->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE &&
			edata->sqlerrcode != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			ReThrowError(edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	return payload;
}

/*
 * mbus_message_preview returns the first bytes of a message that the caller
 * may read, NULL where there is none, where that would mean to decompress all
 * of it, or where it is in quarantine.  They are not verified: a preview is not
 * the message.
 */
struct varlena *
mbus_message_preview(int64 id)
{
	Oid			schema = mbus_schema();
	MbusStored	message;

	if (!mbus_message_readable(schema, id, &message) ||
		(message.body == 0 && message.compression > MBUS_COMPRESS_LZ4) ||
		mbus_quarantined(id))
		return NULL;
	return PG_DETOAST_DATUM_SLICE(PointerGetDatum(message.stored), 0,
								  MBUS_PREVIEW_BYTES);
}

/*
 * check_reply errors with 54000 if a frame's reply cannot take that many bytes
 * of a message: before they are read, decompressed and hashed for nothing.
 * The relay would do so afterwards; what it says is the same.
 */
static void
check_reply(const MbusStored *message, int64 bytes, bool is_json)
{
	int64		len = bytes;

	if (mbus_caller.reply_limit == 0)
		return;
	if (!is_json && !mbus_caller.reply_binary)
		len = (len + 2) / 3 * 4;	/* as base64 */
	len += mbus_caller.reply_len;
	if (len > mbus_caller.reply_limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("reply exceeds the largest message of this connection"),
				 errdetail("It would have at least " INT64_FORMAT " bytes; the limit is " INT64_FORMAT ".",
						   len, mbus_caller.reply_limit),
				 errhint("Read the payload in ranges with get_bytes, or connect with a larger max_message_bytes.")));
}

/* Whether a message was verified by this process, or need not be. */
static bool
is_verified(Oid schema, const MbusStored *message)
{
	if (!mbus_verify_on_read)
		return true;
	if (mbus_quarantined(message->id))
		return false;
	for (int i = 0; i < MBUS_VERIFIED; i++)
	{
		if (verified[i].id == message->id && verified[i].schema == schema &&
			memcmp(verified[i].sha256, message->sha256,
				   MBUS_SHA256_BYTES) == 0)
			return true;
	}
	return false;
}

static void
remember_verified(Oid schema, const MbusStored *message)
{
	if (is_verified(schema, message))
		return;
	verified[next_verified].schema = schema;
	verified[next_verified].id = message->id;
	memcpy(verified[next_verified].sha256, message->sha256,
		   MBUS_SHA256_BYTES);
	next_verified = (next_verified + 1) % MBUS_VERIFIED;
}

/*
 * mbus_message_readable finds a message; false also where its channel has been
 * dropped, or hides it from the current user.  42501 if he may not read it.
 */
bool
mbus_message_readable(Oid schema, int64 id, MbusStored *message)
{
	const MbusChannel *channel;

	if (!mbus_message_fetch(schema, id, message))
		return false;
	channel = mbus_channel_by_id(schema, message->channel_id);
	if (channel == NULL ||
		(channel->by_subject && !mbus_message_visible(schema, message)))
		return false;
	may_read(schema, message);
	return true;
}

/*
 * mbus_message_open finds a message if get() would give it to the current user;
 * it does not error.
 */
bool
mbus_message_open(Oid schema, int64 id, MbusStored *message)
{
	const MbusChannel *channel;

	if (!mbus_message_fetch(schema, id, message))
		return false;
	channel = mbus_channel_by_id(schema, message->channel_id);
	return channel && mbus_channel_allows(channel, MBUS_CONSUME) &&
		mbus_message_visible(schema, message);
}

/* Errors unless the current user may consume the message's channel. */
static void
may_read(Oid schema, const MbusStored *message)
{
	const MbusChannel *channel;

	channel = mbus_channel_by_id(schema, message->channel_id);
	if (channel)
		mbus_about_channel(channel->name, (int) strlen(channel->name));
	mbus_about_transaction(message->transaction_id);
	if (channel == NULL || !mbus_channel_allows(channel, MBUS_CONSUME))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for message " INT64_FORMAT,
						message->id),
				 errdetail("Role \"%s\" has no privilege to consume its channel.",
						   GetUserNameFromId(GetUserId(), false))));
}

/*
 * mbus_message_read_record records a read, if the message's channel wants that.
 */
void
mbus_message_read_record(Oid schema, const MbusStored *message)
{
	const MbusChannel *channel = mbus_channel_by_id(schema,
													message->channel_id);

	if (channel && channel->record_reads)
		mbus_access_record(schema, &message->id, 1);
}

/* One stored_message, in the type the call expects. */
static Datum
stored_message_result(FunctionCallInfo fcinfo, Oid schema,
					  const MbusStored *message, bool whole)
{
	TupleDesc	desc;
	Datum		values[MBUS_STORED_COLUMNS];
	bool		isnull[MBUS_STORED_COLUMNS];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function returning record called in context that cannot accept type record")));
	message_values(schema, message, whole, values, isnull);
	mbus_message_read_record(schema, message);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 isnull));
}

/*
 * message_values fills in the columns of message_bus.stored_message.  With
 * "whole" the payload is there whatever its size.
 */
static void
message_values(Oid schema, const MbusStored *message, bool whole,
			   Datum *values, bool *isnull)
{
	bool		inlined = mbus_message_columns(schema, message, whole, values,
											   isnull);

	if (inlined)
		check_reply(message, message->size,
					mbus_content_is_json(message->content_type));
	isnull[MBUS_STORED_COLUMNS - 1] = !inlined;
	values[MBUS_STORED_COLUMNS - 1] = inlined ?
		PointerGetDatum(mbus_message_payload(schema, message)) : (Datum) 0;
}
