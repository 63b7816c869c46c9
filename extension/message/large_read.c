/*
 * large_read.c
 *		Messages whose bytes are in a body, read and looked at.
 *
 * A read takes the parts it needs, one after the other: the whole of a payload
 * is in memory only where it is the answer.  A look goes part by part, and can
 * be stopped behind each and gone on with in another transaction: parts never
 * change.
 *
 * A range is compared with the checksums of its parts.  That the parts are those
 * of the message, and not of another one that has its number (rows that were
 * restored where there is another bus), tells the last of them: what it says of
 * the hash behind it, if that is known, gives the checksum of the whole.
 *
 * A body goes when its message has expired or was deleted, at once if its store
 * is its own.  So who misses it asks whether the message is still there before
 * that counts as damage.
 *
 * Locks: AccessShare on the table of parts, by a read to the end of the
 * transaction, by a look as long as it looks.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "body/part.h"
#include "body/part_scan.h"
#include "body/read.h"
#include "message/large.h"

#define LOOK_BYTES	(4 * MBUS_PART_BYTES)

static bool body_is_of(Oid schema, const MbusStored *message);
static bool parts_look(const MbusBody *body, int64 size, MbusBodyLook *look,
					   int64 *bytes);

/*
 * mbus_large_read returns "count" bytes of a message with a body, from a byte
 * on; NULL if they are not all there, or, with "verify", not those published, as
 * far as parts can tell.
 * 54000 if they are more than a value can have.
 */
struct varlena *
mbus_large_read(Oid schema, const MbusStored *message, int64 from, int64 count,
				bool verify)
{
	struct varlena *bytes;

	/* it may be damaged */
	if (from < 0 || count < 0 || message->size < count ||
		from > message->size - count)
		return NULL;
	if (verify && !body_is_of(schema, message))
		return NULL;
	if (count > MBUS_WHOLE_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("cannot return " INT64_FORMAT " bytes of message " INT64_FORMAT " at once",
						count, message->id),
				 errdetail("The limit is " INT64_FORMAT " bytes.",
						   (int64) MBUS_WHOLE_MAX),
				 errhint("Read the payload in ranges with get_bytes.")));
	bytes = mbus_payload_alloc(count);
	SET_VARSIZE(bytes, VARHDRSZ + count);
	if (!mbus_body_read(schema, message->body, message->size, from, count,
						VARDATA(bytes), verify))
	{
		pfree(bytes);
		return NULL;
	}
	return bytes;
}

/*
 * body_is_of tells whether a body is that of a message, by its last part alone;
 * also where that does not know.
 */
static bool
body_is_of(Oid schema, const MbusStored *message)
{
	int32		last = mbus_parts(message->size) - 1;
	Snapshot	snapshot;
	MbusBody	body;
	MbusPart	part;
	MbusBodyHash hash;
	bool		found;

	if (!mbus_body_find(schema, message->body, AccessShareLock, &body))
		return false;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = mbus_part_find(&body, last, snapshot, &part);
	UnregisterSnapshot(snapshot);
	if (!found ||
		part.size != message->size - (int64) last * MBUS_PART_BYTES)
		return false;
	if (!part.has_state)
		return true;
	if (part.size == MBUS_PART_BYTES)
	{
		mbus_body_hash_resume(&hash, part.state, message->size);
		mbus_body_hash_end(&hash, part.state);
	}
	return memcmp(part.state, message->sha256, MBUS_SHA256_BYTES) == 0;
}

/*
 * mbus_large_look looks at a few parts of a message's body, from where the last
 * look has ended, and sets *bytes to how many bytes they have.  What the server
 * itself finds damaged it throws.  What a restore has not brought yet is as one
 * that has gone.
 */
MbusLooked
mbus_large_look(Oid schema, const MbusStored *message, MbusBodyLook *look,
				int64 *bytes)
{
	MbusBody	body;
	bool		filled = true;
	bool		sound = false;
	uint8		sha256[MBUS_SHA256_BYTES];

	if (look->id != message->id)
	{
		memset(look, 0, sizeof(*look));
		look->id = message->id;
		mbus_body_hash_begin(&look->hash);
	}
	*bytes = 0;
	if (mbus_body_find(schema, message->body, AccessShareLock, &body))
	{
		filled = mbus_parts_filled(&body);
		sound = filled && parts_look(&body, message->size, look, bytes);
		UnlockRelationOid(body.relid, AccessShareLock);
	}
	if (!filled)
	{
		look->id = 0;
		return MBUS_LOOK_GONE;
	}
	if (sound && look->parts < mbus_parts(message->size))
		return MBUS_LOOK_ON;
	look->id = 0;
	mbus_body_hash_end(&look->hash, sha256);
	if (sound && memcmp(sha256, message->sha256, MBUS_SHA256_BYTES) == 0)
		return MBUS_LOOK_SOUND;
	return mbus_message_left(schema, message) ? MBUS_LOOK_GONE :
		MBUS_LOOK_DAMAGED;
}

/* Reads on; false if a part is missing or damaged, then look->parts. */
static bool
parts_look(const MbusBody *body, int64 size, MbusBodyLook *look, int64 *bytes)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "message_bus part",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool		sound = true;

	while (sound && look->parts < mbus_parts(size) &&
		   *bytes < LOOK_BYTES)
	{
		int32		len = (int32) Min(size - look->hash.bytes,
									  MBUS_PART_BYTES);
		struct varlena *part = mbus_part_read(body, look->parts, len, true);

		CHECK_FOR_INTERRUPTS();
		sound = part != NULL;
		if (sound)
		{
			mbus_body_hash_part(&look->hash, VARDATA_ANY(part), len);
			look->parts++;
			*bytes += len;
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return sound;
}
