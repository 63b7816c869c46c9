/*
 * payload_read.c
 *		Payloads of stored messages, read and verified.
 *
 * What does not match its checksum is never returned.  That is recorded, and
 * the worker looks at the message, unless it is in quarantine already: then its
 * bytes are not even read, unless the session does not verify reads.
 */
#include "postgres.h"

#include "base/payload.h"
#include "base/settings.h"
#include "message/large.h"
#include "message/payload_read.h"
#include "message/quarantine.h"
#include "state/fault.h"
#include "state/scrub_state.h"
#include "state/state.h"

static struct varlena *sound_or_error(Oid schema, const MbusStored *message,
									  struct varlena *payload);
static void missed(Oid schema, const MbusStored *message, bool known);
static struct varlena *body_read(Oid schema, const MbusStored *message,
								 int64 from, int64 count);
static struct varlena *bytes_read(Oid schema, const MbusStored *message,
								  int64 from, int64 count, bool whole,
								  bool known);
static bool payload_matches(const MbusStored *message,
							struct varlena *payload);

/*
 * mbus_message_payload returns a message's payload, verified if the session
 * verifies reads: XX001, recorded, if the bytes are not those published.
 */
struct varlena *
mbus_message_payload(Oid schema, const MbusStored *message)
{
	return sound_or_error(schema, message, mbus_payload_read(schema, message));
}

/*
 * mbus_message_range returns bytes of the payload of a message with a body, as
 * that does: each part is compared with its own checksum.  They lie in it.
 */
struct varlena *
mbus_message_range(Oid schema, const MbusStored *message, int64 from,
				   int64 count)
{
	return sound_or_error(schema, message,
						  body_read(schema, message, from, count));
}

/*
 * sound_or_error errors where there is no payload: with XX001, or with 55000 if
 * its body has gone with the message.
 */
static struct varlena *
sound_or_error(Oid schema, const MbusStored *message, struct varlena *payload)
{
	if (payload)
		return payload;
	if (message->body != 0 && mbus_message_left(schema, message))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message " INT64_FORMAT " has gone while it was read",
						message->id),
				 errdetail("It has expired, or was deleted or purged.")));
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("stored bytes of message " INT64_FORMAT " do not match their checksum",
					message->id),
			 errhint("The storage below the database has changed them; restore the message from its publisher or a backup.")));
}

/*
 * mbus_payload_read returns a message's payload, or NULL, and records that, if
 * the bytes are not those published, or it is in quarantine and the session
 * verifies reads.  What it finds damaged the worker looks at soon, unless it is
 * in quarantine already.
 */
struct varlena *
mbus_payload_read(Oid schema, const MbusStored *message)
{
	struct varlena *payload = NULL;
	bool		known = mbus_quarantined(message->id);

	if (!mbus_verify_on_read || !known)
	{
		payload = bytes_read(schema, message, 0, message->size, true, known);
		if (message->body == 0)
			payload = mbus_payload_decode(payload, message->compression,
										  message->size);
	}
	if (!payload_matches(message, payload))
	{
		missed(schema, message, known);
		return NULL;
	}
	mbus_count(MBUS_C_READ, 1);
	mbus_count(MBUS_C_READ_BYTES, message->size);
	return payload;
}

/* Reads bytes of a message with a body; NULL, and that is recorded, as above. */
static struct varlena *
body_read(Oid schema, const MbusStored *message, int64 from, int64 count)
{
	struct varlena *bytes = NULL;
	bool		known = mbus_quarantined(message->id);

	if (!mbus_verify_on_read || !known)
		bytes = bytes_read(schema, message, from, count, false, known);
	if (bytes == NULL)
	{
		missed(schema, message, known);
		return NULL;
	}
	mbus_count(MBUS_C_READ, 1);
	mbus_count(MBUS_C_READ_BYTES, count);
	return bytes;
}

/*
 * bytes_read reads a payload as it is stored, or bytes of a body: a whole one
 * is compared with its checksum by the caller.  Where an error says that they
 * are damaged, and that is not known, the worker looks at the message.
 */
static struct varlena *
bytes_read(Oid schema, const MbusStored *message, int64 from, int64 count,
		   bool whole, bool known)
{
	struct varlena *volatile payload = NULL;

	PG_TRY();
	{
		if (message->body == 0)
			payload = PG_DETOAST_DATUM(PointerGetDatum(message->stored));
		else
			payload = mbus_large_read(schema, message, from, count,
									  mbus_verify_on_read && !whole);
	}
	PG_CATCH();
	{
		if (!known && mbus_damage_code(geterrcode()))
			mbus_scrub_want(message->id);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return payload;
}

/*
 * Records that a message's bytes are missing or others, unless they have gone
 * with it.
 */
static void
missed(Oid schema, const MbusStored *message, bool known)
{
	if (message->body == 0 || !mbus_message_left(schema, message))
		mbus_message_damaged(message->id, known);
}

/*
 * mbus_message_damaged records that a message's bytes are not those published;
 * the worker looks at it unless that is known: it is in quarantine.
 */
void
mbus_message_damaged(int64 id, bool known)
{
	char		why[100];

	snprintf(why, sizeof(why),
			 "stored bytes of message " INT64_FORMAT
			 " do not match their checksum", id);
	if (!known)
		mbus_scrub_want(id);
	mbus_fault_checksum(id, why);
}

/*
 * payload_matches tells whether the bytes are those published.  Their number
 * counts also where the session does not verify: ranges are cut by it.
 */
static bool
payload_matches(const MbusStored *message, struct varlena *payload)
{
	uint8		sha256[MBUS_SHA256_BYTES];

	if (payload == NULL || VARSIZE_ANY_EXHDR(payload) != message->size)
		return false;
	if (!mbus_verify_on_read)
		return true;
	mbus_sha256(VARDATA_ANY(payload), message->size, sha256);
	return memcmp(sha256, message->sha256, MBUS_SHA256_BYTES) == 0;
}
