/*
 * begin.c
 *		upload_begin: all of a message but its bytes.
 *
 * What a publish would refuse is refused here, before anything is sent; the
 * commit looks at it again, since all of it may have changed.  The body comes
 * last of what can fail: a store that was taken for nothing is of no use to
 * others for a while.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/argument.h"
#include "base/payload.h"
#include "base/schema.h"
#include "base/settings.h"
#include "body/body.h"
#include "channel/channel.h"
#include "message/draft.h"
#include "message/stored.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "upload/upload.h"

#define UNKNOWN_MOST	(INT64CONST(1) << 30)	/* reserved, where no size is
												 * given */

static void begin_arguments(FunctionCallInfo fcinfo, MbusUpload *upload);
static void begin_check(const MbusChannel *channel, MbusUpload *upload);
static int64 begin_same(Oid schema, const MbusChannel *channel,
						const MbusUpload *upload, bool has_message);
static bool is_same(const MbusUpload *one, const MbusUpload *other);
static bool message_check(Oid schema, const MbusChannel *channel,
						  const MbusUpload *upload);
pg_noreturn static void used_before(const MbusChannel *channel,
									const MbusUpload *upload, const char *by);

/*
 * upload_begin(channel, content_type, size, sha256, transaction_id, key,
 * headers, ttl, delay, recipient) returns the upload's number.
 */
MBUS_CHANNEL_FUNCTION(upload_begin)
{
	Oid			schema = mbus_schema();
	MbusUpload	upload = {0};
	MbusChannel channel;
	MbusBody	body;
	bool		has_message;
	int64		same;

	if (!PG_ARGISNULL(4))
		mbus_about_transaction(PG_GETARG_TEXT_PP(4));
	mbus_required(fcinfo, 0, "channel");
	mbus_upload_check("message_bus.upload_begin()");
	channel = *mbus_channel_open(schema, PG_GETARG_TEXT_PP(0), MBUS_PUBLISH);
	mbus_upload_owner(&upload);
	begin_arguments(fcinfo, &upload);
	begin_check(&channel, &upload);

	mbus_upload_lock_owner(upload.role, upload.subject);
	has_message = message_check(schema, &channel, &upload);
	same = begin_same(schema, &channel, &upload, has_message);
	if (same != 0)
		PG_RETURN_INT64(same);
	mbus_upload_quota(schema, upload.role, upload.subject, upload.reserved);
	mbus_upload_own_share(schema, upload.role, upload.size);
	mbus_upload_disk(upload.reserved);
	upload.begun_at = mbus_now();
	mbus_body_new(mbus_database(), schema, channel.series, upload.size,
				  upload.begun_at + channel.ttl_us, &body);
	upload.body = body.body;
	upload.own = body.own;
	mbus_upload_insert(schema, &upload);
	PG_RETURN_INT64(upload.body);
}

/* Takes the arguments as they are; 22023 for a ttl, delay or sha256 that cannot
 * be. */
static void
begin_arguments(FunctionCallInfo fcinfo, MbusUpload *upload)
{
	MbusDraft	draft = {0};

#define ARG(n, get) (PG_ARGISNULL(n) ? NULL : get(n))
	mbus_draft_options(&draft, NULL, NULL, ARG(7, PG_GETARG_INTERVAL_P),
					   ARG(8, PG_GETARG_INTERVAL_P), NULL,
					   ARG(3, PG_GETARG_BYTEA_PP));
	upload->content_type = PG_ARGISNULL(1) ? "application/octet-stream" :
		text_to_cstring(PG_GETARG_TEXT_PP(1));
	upload->size = PG_ARGISNULL(2) ? -1 : PG_GETARG_INT64(2);
	if (!PG_ARGISNULL(2) && upload->size < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("size must not be negative")));
	upload->sha256 = draft.expected_sha256;
	upload->transaction_id = ARG(4, PG_GETARG_TEXT_PP);
	upload->key = ARG(5, PG_GETARG_TEXT_PP);
	if (!PG_ARGISNULL(6))
		upload->headers = PointerGetDatum(PG_DETOAST_DATUM(PG_GETARG_DATUM(6)));
	upload->ttl_us = draft.ttl_us;
	upload->delay_us = draft.delay_us;
	upload->recipient = ARG(9, PG_GETARG_TEXT_PP);
#undef ARG
}

/*
 * begin_check checks what a publish checks, and the size; sets what is to be
 * reserved.
 */
static void
begin_check(const MbusChannel *channel, MbusUpload *upload)
{
	MbusDraft	draft;

	mbus_upload_draft(upload, &draft);
	mbus_draft_check_head(channel, &draft);
	upload->recipient = draft.recipient;
	mbus_upload_size_check(channel, upload->size);
	upload->channel_id = channel->channel_id;
	upload->reserved = upload->size >= 0 ? upload->size :
		Min(mbus_upload_limit(channel), UNKNOWN_MOST);
}

/*
 * mbus_upload_draft sets what an upload says of its message.  It borrows.
 */
void
mbus_upload_draft(const MbusUpload *upload, MbusDraft *draft)
{
	MemSet(draft, 0, sizeof(*draft));
	draft->content_type = upload->content_type;
	draft->headers = upload->headers;
	draft->key = upload->key;
	draft->transaction_id = upload->transaction_id;
	draft->recipient = upload->recipient;
	draft->ttl_us = upload->ttl_us;
	draft->delay_us = upload->delay_us;
}

/*
 * begin_same returns the number of the same upload, open or committed; 0 if
 * there is none.  One that was committed counts as long as there is a message
 * with the transaction id.  23505 if another one that is open has the
 * transaction id; no more is said of somebody else's.
 */
static int64
begin_same(Oid schema, const MbusChannel *channel, const MbusUpload *upload,
		   bool has_message)
{
	MbusUploadScan *scan;
	MbusUploadEnd end;
	MbusUpload	other;
	int64		same = 0;
	bool		another = false;
	const char *why = NULL;

	if (upload->transaction_id == NULL)
		return 0;
	scan = mbus_uploads_with(schema, channel->channel_id,
							 upload->transaction_id);
	while (mbus_uploads_next(scan, &other))
	{
		if (other.done ? !has_message :
			(mbus_upload_ended(schema, other.body, &end) ||
			 mbus_upload_expired(schema, &other)))
			continue;
		if (mbus_upload_own(&other) && is_same(upload, &other))
			same = other.body;
		else if (!other.done)
		{
			another = true;		/* a message says so itself */
			if (mbus_upload_own(&other))
				why = "An upload with another size, sha256 or recipient has it.";
		}
	}
	mbus_uploads_end(scan);
	if (another && same == 0)
		used_before(channel, upload, why);
	return same;
}

static bool
is_same(const MbusUpload *one, const MbusUpload *other)
{
	if (one->size != other->size ||
		!mbus_same_text(one->recipient, other->recipient) ||
		(one->sha256 == NULL) != (other->sha256 == NULL))
		return false;
	return one->sha256 == NULL ||
		memcmp(one->sha256, other->sha256, MBUS_SHA256_BYTES) == 0;
}

/*
 * message_check tells whether there is a message with the transaction id; 23505
 * if the commit would say so: it is not there any more but in its segment, has
 * other bytes, or must not be known of.
 */
static bool
message_check(Oid schema, const MbusChannel *channel,
			  const MbusUpload *upload)
{
	MbusStored	message;
	const char *why;

	if (upload->transaction_id == NULL ||
		!mbus_message_with_transaction(schema, channel,
									   upload->transaction_id, &message))
		return false;
	if (channel->by_subject && !mbus_message_visible(schema, &message))
		used_before(channel, upload, NULL);
	why = mbus_message_why_gone(schema, channel->channel_id, message.id);
	if (why == NULL &&
		((upload->size >= 0 && upload->size != message.size) ||
		 (upload->sha256 && memcmp(upload->sha256, message.sha256,
								   MBUS_SHA256_BYTES) != 0)))
		why = "has other bytes";
	if (why)
		used_before(channel, upload,
					psprintf("Message " INT64_FORMAT " with that transaction id %s.",
							 message.id, why));
	return true;
}

static void
used_before(const MbusChannel *channel, const MbusUpload *upload,
			const char *by)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("transaction id \"%s\" was used before in channel \"%s\"",
					text_to_cstring(upload->transaction_id), channel->name),
			 by ? errdetail_internal("%s", by) : 0));
}
