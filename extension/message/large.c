/*
 * large.c
 *		Messages of more than MBUS_BODY_OVER bytes on their way in.
 *
 * The bytes go into a body (body/): in parts, in a table apart from segments,
 * which is locked from then on to the end of the transaction.  They are written
 * when the message has been checked and before ids are reserved, so that no
 * reader of the channel waits for them.  The row has the first bytes as
 * preview, the size and checksum of the whole, and the body's number.  What
 * keeps the body is made with the row (mbus_large_keep), in one transaction:
 * an error or a crash leaves parts that nobody refers to, which go with their
 * store.
 *
 * Where a message is there that the transaction id repeats, with the same
 * bytes, none are written.  Should that one be gone when it is looked for in
 * earnest (transaction_id.c) they are written then, behind the reservation.
 */
#include "postgres.h"

#include "body/write.h"
#include "message/large.h"
#include "state/clock.h"

static bool is_repeated(Oid schema, const MbusChannel *channel,
						const MbusDraft *draft);

/*
 * mbus_large_refer lets a draft have a body that is there; its payload is what
 * it begins with.  Size, checksum and body_json are the caller's to set, and
 * the body's table is locked to the end of the transaction.
 */
void
mbus_large_refer(MbusDraft *draft, const MbusBody *body)
{
	mbus_draft_preview(draft);
	draft->body = body;
	draft->refers = true;
}

/*
 * mbus_large_write writes the body of a draft that has been checked, if it is
 * large and none is there yet.  Errors: 53400, 53100, 55000.
 */
void
mbus_large_write(Oid schema, MbusDatabase *db, const MbusChannel *channel,
				 MbusDraft *draft)
{
	if (MbusDraftLarge(draft) && draft->body == NULL &&
		!is_repeated(schema, channel, draft))
		mbus_large_write_new(schema, db, channel, draft);
}

/*
 * mbus_large_write_new does that whatever is there, unless it has a body.
 */
void
mbus_large_write_new(Oid schema, MbusDatabase *db, const MbusChannel *channel,
					 MbusDraft *draft)
{
	MbusBody   *body;
	uint8		sha256[MBUS_SHA256_BYTES];

	if (!MbusDraftLarge(draft) || draft->body)
		return;
	body = palloc(sizeof(MbusBody));
	mbus_body_new(db, schema, channel->series, draft->size,
				  mbus_now() + draft->ttl_us, body);
	mbus_body_write(body, channel->compression, VARDATA_ANY(draft->payload),
					draft->size, sha256);
	if (memcmp(sha256, draft->sha256, MBUS_SHA256_BYTES) != 0)
		elog(ERROR, "payload has changed while it was written");
	draft->body = body;
}

/*
 * Whether a message has the transaction id and the bytes of a draft, and its
 * publisher may know of it: how long a call takes tells him as much.  23505 if
 * it has other bytes: none are written for that.
 */
static bool
is_repeated(Oid schema, const MbusChannel *channel, const MbusDraft *draft)
{
	MbusStored	message;

	if (draft->transaction_id == NULL ||
		!mbus_message_by_transaction(schema, channel, draft->transaction_id,
									 &message) ||
		!mbus_message_visible(schema, &message))
		return false;
	if (message.size != draft->size ||
		memcmp(message.sha256, draft->sha256, MBUS_SHA256_BYTES) != 0)
		mbus_draft_id_used(channel, draft, message.id,
						   "has other bytes");
	return true;
}

/*
 * mbus_large_keep keeps the body of a message that was inserted, if it has one,
 * as long as it lives.
 */
void
mbus_large_keep(Oid schema, MbusDatabase *db, const MbusDraft *draft)
{
	if (draft->body && !draft->duplicate)
		mbus_body_keep(db, schema, draft->body,
					   draft->created_at + draft->ttl_us, draft->id,
					   draft->refers);
}
