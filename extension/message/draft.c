/*
 * draft.c
 *		A message as its publisher gives it: options, limits, checksum.
 *
 * All that can be wrong with a message is found here, and what costs time,
 * checksum and compression, is done here: before ids are reserved, so that
 * neither uses up ids nor holds up readers of the channel.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/caller.h"
#include "base/compat.h"
#include "base/limits.h"
#include "base/media_type.h"
#include "base/payload.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "channel/series.h"
#include "message/draft.h"
#include "message/stored.h"
#include "state/clock.h"

static void delay_set(MbusDraft *draft, Interval *delay,
					  const TimestampTz *available_at);
static void delay_check(MbusDraft *draft);
static void payload_size_check(const MbusChannel *channel, size_t size);
static void text_size_check(const char *what, size_t size);
static void recipient_check(MbusDraft *draft);
static void headers_check(Datum headers);

/*
 * mbus_call_too_large errors with 54000.
 */
void
mbus_call_too_large(int messages)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("too many messages in one call: %d", messages),
			 errdetail("The limit is %d.", MBUS_CALL_MAX)));
}

/*
 * mbus_draft_init starts a draft from its payload, as it came from the
 * caller (possibly toasted).
 */
void
mbus_draft_init(MbusDraft *draft, struct varlena *payload,
				const char *content_type, bool check_json)
{
	MemSet(draft, 0, sizeof(*draft));
	draft->payload = pg_detoast_datum_packed(payload);
	draft->size = VARSIZE_ANY_EXHDR(draft->payload);
	draft->content_type = content_type;
	draft->check_json = check_json;
}

/*
 * mbus_draft_options sets what else a publisher may give; NULL is not given.
 * 22023 for a ttl, delay, available_at or sha256 that cannot be.
 */
void
mbus_draft_options(MbusDraft *draft, text *key, text *transaction_id,
				   Interval *ttl, Interval *delay,
				   const TimestampTz *available_at, bytea *sha256)
{
	draft->key = key;
	draft->transaction_id = transaction_id;
	if (ttl)
		draft->ttl_us = mbus_ttl_check(ttl);
	delay_set(draft, delay, available_at);
	if (sha256)
	{
		uint8	   *digest = palloc(MBUS_SHA256_BYTES);
		size_t		len = VARSIZE_ANY_EXHDR(sha256);
		bool		valid = true;

		if (len == MBUS_SHA256_BYTES)
			memcpy(digest, VARDATA_ANY(sha256), MBUS_SHA256_BYTES);
		else if (len == 2 * MBUS_SHA256_BYTES &&
				 strspn(text_to_cstring((text *) sha256),
						"0123456789abcdefABCDEF") == len)
			hex_decode(VARDATA_ANY(sha256), len, (char *) digest);
		else
			valid = false;
		if (!valid)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid sha256 of %zu bytes", len),
					 errdetail("It is 32 bytes, or 64 hexadecimal digits.")));
		draft->expected_sha256 = digest;
	}
}

/* Sets when a message is delivered; a time that has passed is now. */
static void
delay_set(MbusDraft *draft, Interval *delay, const TimestampTz *available_at)
{
	if (delay && available_at)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and available_at are both given"),
				 errhint("Give one of them, or neither.")));
	if (delay)
	{
		draft->delay_us = mbus_interval_us(delay);
		if (draft->delay_us < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("delay must not be negative")));
	}
	if (available_at == NULL)
		return;
	if (TIMESTAMP_NOT_FINITE(*available_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("available_at must be finite")));
	draft->available_at = *available_at;
}

/*
 * mbus_draft_check checks one draft against its channel and the limits, and
 * fills in its checksum and stored bytes; of a large one those of the row.
 */
void
mbus_draft_check(const MbusChannel *channel, MbusDraft *draft)
{
	size_t		size = VARSIZE_ANY_EXHDR(draft->payload);

	payload_size_check(channel, size);
	mbus_draft_check_head(channel, draft);
	if (draft->check_json)
		mbus_json_check(draft->payload);
	mbus_sha256(VARDATA_ANY(draft->payload), size, draft->sha256);
	if (draft->expected_sha256 &&
		memcmp(draft->sha256, draft->expected_sha256, MBUS_SHA256_BYTES) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("payload does not match the given sha256"),
				 errdetail("The checksum of the %zu bytes received is another one.",
						   size),
				 errhint("It is over the exact bytes: JSON that was parsed and written again has others. The view message_bus.message_bus takes the exact text as payload_text."),
				 err_generic_string(PG_DIAG_CONSTRAINT_NAME, "sha256")));
	if (MbusDraftLarge(draft))
	{
		draft->body_json = mbus_content_is_json(draft->content_type);
		mbus_draft_preview(draft);
	}
	else
		draft->stored = mbus_payload_encode(channel->compression,
											draft->payload,
											&draft->compression);
}

/*
 * mbus_draft_preview lets a draft's row have the first bytes of its payload.
 */
void
mbus_draft_preview(MbusDraft *draft)
{
	int			len = Min(VARSIZE_ANY_EXHDR(draft->payload),
						  MBUS_PREVIEW_BYTES);

	draft->stored = palloc(VARHDRSZ + len);
	SET_VARSIZE(draft->stored, VARHDRSZ + len);
	memcpy(VARDATA(draft->stored), VARDATA_ANY(draft->payload), len);
	draft->compression = MBUS_COMPRESS_NONE;
}

/*
 * mbus_draft_check_head checks all but the payload.
 */
void
mbus_draft_check_head(const MbusChannel *channel, MbusDraft *draft)
{
	text_size_check("content_type", strlen(draft->content_type));
	mbus_content_type_check(draft->content_type);
	if (draft->key)
		text_size_check("key", VARSIZE_ANY_EXHDR(draft->key));
	if (draft->transaction_id)
		text_size_check("transaction_id",
						VARSIZE_ANY_EXHDR(draft->transaction_id));
	if (draft->recipient)
		recipient_check(draft);
	if (draft->headers != (Datum) 0)
		headers_check(draft->headers);

	if (draft->ttl_us == 0)
		draft->ttl_us = channel->ttl_us;
	else if (draft->ttl_us > channel->ttl_us)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("ttl of %.3f seconds is longer than that of channel \"%s\"",
						draft->ttl_us / 1e6, channel->name),
				 errdetail("The channel's time to live is %.3f seconds.",
						   channel->ttl_us / 1e6)));
	delay_check(draft);
}

/*
 * A message must be there to be delivered when its time has come.  A time that
 * is given counts as a delay from here on, too.
 */
static void
delay_check(MbusDraft *draft)
{
	if (draft->available_at != 0)
		draft->delay_us = Max(draft->available_at - mbus_now(), 0);
	if (draft->delay_us < draft->ttl_us)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 draft->available_at != 0 ?
			 errmsg("available_at %s is not before the message expires",
					timestamptz_to_str(draft->available_at)) :
			 errmsg("delay of %.3f seconds is not shorter than the ttl",
					draft->delay_us / 1e6),
			 errdetail("The message lives for %.3f seconds.",
					   draft->ttl_us / 1e6)));
}

/*
 * Compares a payload with the lowest of the three limits, which the error
 * names.
 */
static void
payload_size_check(const MbusChannel *channel, size_t size)
{
	int64		limit = mbus_max_payload;
	const char *whose = "message_bus.max_payload";

	if (mbus_client_max_payload > 0 && mbus_client_max_payload < limit)
	{
		limit = mbus_client_max_payload;
		whose = "message_bus.client_max_payload";
	}
	if (channel->max_payload > 0 && channel->max_payload < limit)
	{
		limit = channel->max_payload;
		whose = "the channel's max_payload";
	}
	if ((int64) size > limit)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload of %zu bytes is too large for channel \"%s\"",
						size, channel->name),
				 errdetail("The limit is " INT64_FORMAT " bytes (%s).",
						   limit, whose)));
}

/* Keys, transaction ids and content types are 1 to 255 bytes. */
static void
text_size_check(const char *what, size_t size)
{
	if (size < 1 || size > MBUS_TRANSACTION_ID_MAX)
		ereport(ERROR,
				(errcode(size < 1 ? ERRCODE_INVALID_PARAMETER_VALUE :
						 ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s of %zu bytes", what, size),
				 errdetail("It has from 1 to %d bytes.",
						   MBUS_TRANSACTION_ID_MAX)));
}

/* A recipient is a subject, and is cut as those are. */
static void
recipient_check(MbusDraft *draft)
{
	size_t		size = VARSIZE_ANY_EXHDR(draft->recipient);
	char	   *subject;

	if (size < 1 || size > MBUS_RECIPIENT_MAX)
		ereport(ERROR,
				(errcode(size < 1 ? ERRCODE_INVALID_PARAMETER_VALUE :
						 ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("recipient of %zu bytes", size),
				 errdetail("It has from 1 to %d bytes.",
						   MBUS_RECIPIENT_MAX)));
	if (size <= MBUS_TRANSACTION_ID_MAX)
		return;
	subject = text_to_cstring(draft->recipient);
	mbus_subject_cut(subject);
	draft->recipient = cstring_to_text(subject);
}

/* Headers are an object of limited size. */
static void
headers_check(Datum headers)
{
	Jsonb	   *jsonb = DatumGetJsonbP(headers);

	if (!JB_ROOT_IS_OBJECT(jsonb))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers must be a JSON object")));
	if (VARSIZE(jsonb) > MBUS_HEADERS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("headers of %zu bytes", (size_t) VARSIZE(jsonb)),
				 errdetail("The limit is %d bytes, as jsonb.",
						   MBUS_HEADERS_MAX)));
}

/*
 * mbus_draft_id_used errors with 23505: a message, which the caller may
 * know of, has a draft's transaction id, and "why" it is not the same.
 */
void
mbus_draft_id_used(const MbusChannel *channel, const MbusDraft *draft,
				   int64 id, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("transaction id \"%s\" was used before in channel \"%s\"",
					text_to_cstring(draft->transaction_id), channel->name),
			 errdetail("Message " INT64_FORMAT " with that transaction id %s.",
					   id, why),
			 errhint("A transaction id is unique in its channel until the space of its first message is returned, some time after its expiry.")));
}
