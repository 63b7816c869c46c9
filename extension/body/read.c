/*
 * read.c
 *		Bytes of a body.
 *
 * A part is read, decompressed and compared with its own hash, one after the
 * other: what is needed beside the caller's room is the memory of one part.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "fmgr.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/payload.h"
#include "base/sha256.h"
#include "body/part.h"
#include "body/part_scan.h"
#include "body/read.h"

static bool parts_copy(MbusPartScan *scan, MemoryContext context, int64 size,
					   int64 from, int64 count, char *into, bool verify);
static struct varlena *part_bytes(const MbusPartScan *scan, int32 n,
								  int32 size, bool verify);
static struct varlena *stored_bytes(struct varlena *stored);
static int32 part_size(int64 size, int32 n);

/*
 * mbus_body_read copies "count" bytes of a body of a size, from a byte on; all
 * of them lie in it.  With "verify" each part is compared with its hash.
 * False if the body has gone, or a part is missing or damaged; what the server
 * finds damaged itself it throws.  The table stays locked (AccessShare) to the
 * end of the transaction.
 */
bool
mbus_body_read(Oid schema, int64 number, int64 size, int64 from, int64 count,
			   char *into, bool verify)
{
	MemoryContext context;
	Snapshot	snapshot;
	MbusPartScan scan;
	MbusBody	body;
	bool		found;

	Assert(from >= 0 && count >= 0 && from + count <= size);
	if (!mbus_body_find(schema, number, AccessShareLock, &body))
		return false;
	if (count == 0)
		return true;
	context = AllocSetContextCreate(CurrentMemoryContext, "message_bus part",
									ALLOCSET_DEFAULT_SIZES);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	mbus_part_scan_begin(&scan, &body, (int32) (from / MBUS_PART_BYTES),
						 snapshot);
	found = parts_copy(&scan, context, size, from, count, into, verify);
	mbus_part_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(context);
	return found;
}

/*
 * parts_copy copies from one part after the other.  The memory context is for
 * one part's bytes; what the scan needs is in the caller's.
 */
static bool
parts_copy(MbusPartScan *scan, MemoryContext context, int64 size, int64 from,
		   int64 count, char *into, bool verify)
{
	int64		end = from + count;

	while (from < end)
	{
		int32		n = (int32) (from / MBUS_PART_BYTES);
		int32		skip = (int32) (from % MBUS_PART_BYTES);
		int32		whole = part_size(size, n);
		int32		len = (int32) Min(end - from, whole - skip);
		struct varlena *bytes;
		MemoryContext caller;

		if (!mbus_part_scan_next(scan))
			return false;
		caller = MemoryContextSwitchTo(context);
		bytes = part_bytes(scan, n, whole, verify);
		MemoryContextSwitchTo(caller);
		if (bytes == NULL)
			return false;
		memcpy(into, VARDATA_ANY(bytes) + skip, len);
		into += len;
		from += len;
		MemoryContextReset(context);
	}
	return true;
}

/* The plain bytes of one part of a body. */
static int32
part_size(int64 size, int32 n)
{
	return (int32) Min(size - (int64) n * MBUS_PART_BYTES, MBUS_PART_BYTES);
}

/*
 * part_bytes returns the plain bytes of the part that a scan is at, in the
 * current memory context; NULL if it is not the one that is wanted, or
 * damaged.
 */
static struct varlena *
part_bytes(const MbusPartScan *scan, int32 n, int32 size, bool verify)
{
	struct varlena *bytes;
	uint8		sha256[MBUS_SHA256_BYTES];

	if (!scan->sound || scan->part.n != n || scan->part.size != size)
		return NULL;
	bytes = stored_bytes((struct varlena *) DatumGetPointer(scan->bytes));
	if (bytes == NULL)
		return NULL;
	bytes = mbus_payload_decode(bytes, mbus_compression_of(scan->encoding),
								size);
	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != size)
		return NULL;
	if (verify)
	{
		mbus_sha256(VARDATA_ANY(bytes), size, sha256);
		if (memcmp(sha256, scan->part.sha256, sizeof(sha256)) != 0)
			return NULL;
	}
	return bytes;
}

/*
 * stored_bytes returns what is stored of a part, detoasted; NULL if its sizes
 * say that this is more than a part has: no memory is taken for that.
 */
static struct varlena *
stored_bytes(struct varlena *stored)
{
	if (toast_raw_datum_size(PointerGetDatum(stored)) >
		VARHDRSZ + MBUS_PART_BYTES)
		return NULL;
	stored = detoast_external_attr(stored);
	if (toast_raw_datum_size(PointerGetDatum(stored)) >
		VARHDRSZ + MBUS_PART_BYTES)
		return NULL;
	return pg_detoast_datum_packed(stored);
}

/*
 * mbus_part_read returns the plain bytes of one part, which has a size, in the
 * current memory context; NULL if it is missing or damaged.
 */
struct varlena *
mbus_part_read(const MbusBody *body, int32 n, int32 size, bool verify)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	struct varlena *bytes = NULL;
	MbusPartScan scan;

	mbus_part_scan_begin(&scan, body, n, snapshot);
	if (mbus_part_scan_next(&scan))
	{
		bytes = part_bytes(&scan, n, size, verify);
		/* what was stored plain in the row itself goes with it */
		if (bytes && DatumGetPointer(scan.bytes) == (Pointer) bytes)
			bytes = (struct varlena *)
				DatumGetPointer(datumCopy(scan.bytes, false, -1));
	}
	mbus_part_scan_end(&scan);
	UnregisterSnapshot(snapshot);
	return bytes;
}
