/*
 * verify_row.c
 *		One row, compared with its entry.
 *
 * It is looked through before it is taken apart (sound.c), and refused if its
 * payload says that it is larger than it is.  All memory is in the context of
 * the row.  A large message's body is read part by part and hashed as a whole:
 * parts with checksums of their own prove nothing.  Its table is locked
 * (AccessShare) as long as that takes.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"

#include "base/compat.h"
#include "base/payload.h"
#include "log/verify.h"
#include "message/large.h"
#include "segment/leaf.h"

static bool body_right(Oid schema, HeapTuple tuple, TupleDesc desc);

/*
 * mbus_verify_row makes the entry of a row and its hash; returns what is wrong
 * with the row, or NULL.
 */
const char *
mbus_verify_row(MbusVerify *v, MbusVerifySegment *segment, int kind,
				HeapTuple tuple, TupleDesc desc, MbusHash *hash)
{
	if (!mbus_row_entry_sound(&v->entry, v->schema, kind, tuple, desc,
							  segment->secret))
		return "unreadable";
	mbus_entry_hash(&v->entry, hash);
	return NULL;
}

/*
 * mbus_verify_payload tells whether the bytes of a message, which is sound,
 * are those of its checksum.  It errors where they cannot be read.
 */
bool
mbus_verify_payload(Oid schema, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	struct varlena *stored;
	bytea	   *sha256;
	uint8		digest[MBUS_SHA256_BYTES];
	int64		size;
	MbusCompression used;
	Size		raw;

	if (!heap_attisnull(tuple, MBUS_COL_BODY, desc))
		return body_right(schema, tuple, desc);
	size = DatumGetInt64(heap_getattr(tuple, MBUS_COL_SIZE, desc, &isnull));
	used = mbus_compression_of(DatumGetChar(heap_getattr(tuple,
														 MBUS_COL_ENCODING,
														 desc, &isnull)));
	sha256 = DatumGetByteaPP(heap_getattr(tuple, MBUS_COL_SHA256, desc,
										  &isnull));
	stored = (struct varlena *)
		DatumGetPointer(heap_getattr(tuple, MBUS_COL_PAYLOAD, desc, &isnull));
	if (isnull || size < 0 || size > MBUS_PAYLOAD_MAX ||
		used == MBUS_COMPRESS_UNKNOWN ||
		VARSIZE_ANY_EXHDR(sha256) != MBUS_SHA256_BYTES)
		return false;
	raw = toast_raw_datum_size(PointerGetDatum(stored)) - VARHDRSZ;
	if (used <= MBUS_COMPRESS_LZ4 ? raw != (Size) size : raw > (Size) size)
		return false;
	stored = mbus_payload_decode(PG_DETOAST_DATUM_PACKED(PointerGetDatum(stored)),
								 used, size);
	if (stored == NULL || VARSIZE_ANY_EXHDR(stored) != size)
		return false;
	mbus_sha256(VARDATA_ANY(stored), size, digest);
	return memcmp(digest, VARDATA_ANY(sha256), MBUS_SHA256_BYTES) == 0;
}

/*
 * Whether the body of a message is there and as it was published, or gone
 * because the message has expired or was deleted.
 */
static bool
body_right(Oid schema, HeapTuple tuple, TupleDesc desc)
{
	MbusBodyLook look = {0};
	MbusStored	message;
	MbusLooked	found;
	int64		bytes;

	mbus_message_read(tuple, desc, &message);
	do
		found = mbus_large_look(schema, &message, &look, &bytes);
	while (found == MBUS_LOOK_ON);
	return found != MBUS_LOOK_DAMAGED;
}
