/*
 * verify_row.c
 *		One row, compared with its entry.
 *
 * A page that was damaged on disk may have rows whose lengths point anywhere.
 * So each is walked through first, as the server would take it apart, and is
 * refused if that leads out of it; so are an array, a jsonb and a payload that
 * say that they are larger than they are.  Nothing here takes a lock or keeps memory:
 * all is in the context of the row.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "base/payload.h"
#include "log/verify.h"
#include "segment/leaf.h"

static bool value_sound(Form_pg_attribute column, const char *value,
						Size room, Size *len);
static bool runs_sound(HeapTuple tuple, TupleDesc desc);
static bool headers_sound(HeapTuple tuple, TupleDesc desc);
static bool container_sound(const JsonbContainer *container, Size len);
static bool element_sound(JEntry entry, const char *data, Size from, Size to);

/*
 * mbus_verify_row makes the entry of a row and its hash; returns what is wrong
 * with the row, or NULL.
 */
const char *
mbus_verify_row(MbusVerify *v, MbusVerifySegment *segment, int kind,
				HeapTuple tuple, TupleDesc desc, MbusHash *hash)
{
	if (!mbus_verify_sound(tuple, desc) ||
		(kind == MBUS_ACK && !runs_sound(tuple, desc)) ||
		(kind == MBUS_MESSAGE && !headers_sound(tuple, desc)))
		return "unreadable";
	(void) mbus_row_entry(&v->entry, v->schema, kind, tuple, desc,
						  segment->secret);
	mbus_entry_hash(&v->entry, hash);
	return NULL;
}

/*
 * mbus_verify_payload tells whether the bytes of a message, which is sound,
 * are those of its checksum.  It errors where they cannot be read.
 */
bool
mbus_verify_payload(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	struct varlena *stored;
	bytea	   *sha256;
	uint8		digest[MBUS_SHA256_BYTES];
	int32		size;
	MbusCompression used;
	Size		raw;

	size = DatumGetInt32(heap_getattr(tuple, MBUS_COL_SIZE, desc, &isnull));
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
 * mbus_verify_sound tells whether all columns of a row are in it.
 */
bool
mbus_verify_sound(HeapTuple tuple, TupleDesc desc)
{
	HeapTupleHeader header = tuple->t_data;
	int			n = HeapTupleHeaderGetNatts(header);
	bool		nulls = HeapTupleHasNulls(tuple);
	Size		off = header->t_hoff;
	Size		begin = SizeofHeapTupleHeader + (nulls ? BITMAPLEN(n) : 0);

	if (n > desc->natts || off < begin || off > tuple->t_len ||
		off != MAXALIGN(off))
		return false;
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		const char *value;
		Size		len;

		if (nulls && att_isnull(i, header->t_bits))
		{
			if (column->attnotnull)
				return false;
			continue;
		}
		if (off >= tuple->t_len)
			return false;
		off = header->t_hoff +
			att_align_pointer(off - header->t_hoff, column->attalign,
							  column->attlen, (char *) header + off);
		value = (const char *) header + off;
		if (off > tuple->t_len ||
			!value_sound(column, value, tuple->t_len - off, &len))
			return false;
		off += len;
	}
	/* columns that it lacks are NULL */
	for (int i = n; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attnotnull)
			return false;
	}
	return true;
}

/* Whether a value ends where it has room to; how long it is. */
static bool
value_sound(Form_pg_attribute column, const char *value, Size room, Size *len)
{
	if (column->attlen > 0)
		*len = column->attlen;
	else if (room < 1)
		return false;
	else if (VARATT_IS_1B_E(value))
	{
		if (room < VARHDRSZ_EXTERNAL ||
			VARTAG_1B_E(value) != VARTAG_ONDISK)
			return false;
		*len = VARSIZE_EXTERNAL(value);
	}
	else if (VARATT_IS_1B(value))
		*len = VARSIZE_1B(value);
	else
	{
		if (room < VARHDRSZ || VARSIZE_4B(value) < VARHDRSZ ||
			(VARATT_IS_4B_C(value) && VARSIZE_4B(value) < VARHDRSZ_COMPRESSED))
			return false;
		*len = VARSIZE_4B(value);
	}
	return *len <= room;
}

/* Whether the runs of an ack are an array that is as large as it says. */
static bool
runs_sound(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, MBUS_ACK_RUNS, desc, &isnull);

	return isnull || mbus_verify_array(value) != NULL;
}

/*
 * mbus_verify_array reads an array of integers of one dimension or none; NULL
 * if it is not that, or larger than its bytes.
 */
ArrayType *
mbus_verify_array(Datum value)
{
	ArrayType  *array = (ArrayType *) PG_DETOAST_DATUM(value);
	Size		len = VARSIZE(array);

	if (len < sizeof(ArrayType) || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != INT4OID)
		return NULL;
	if (ARR_NDIM(array) == 0)
		return array;
	if (ARR_NDIM(array) != 1 || len < ARR_OVERHEAD_NONULLS(1) ||
		ARR_DIMS(array)[0] < 0 ||
		(Size) ARR_DIMS(array)[0] >
		(len - ARR_OVERHEAD_NONULLS(1)) / sizeof(int32))
		return NULL;
	return array;
}

/* Whether headers can be read: a jsonb, none of whose lengths leads out of it. */
static bool
headers_sound(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, MBUS_COL_HEADERS, desc, &isnull);
	Jsonb	   *headers;

	if (isnull)
		return true;
	headers = DatumGetJsonbP(value);
	return container_sound(&headers->root, VARSIZE(headers) - VARHDRSZ);
}

/* Whether an object or array of jsonb, which has that many bytes, is sound. */
static bool
container_sound(const JsonbContainer *container, Size len)
{
	Size		n;
	Size		head;
	Size		end = 0;
	const char *data;

	check_stack_depth();
	if (len < sizeof(uint32) ||
		JsonContainerIsObject(container) == JsonContainerIsArray(container))
		return false;
	n = JsonContainerSize(container);
	if (JsonContainerIsScalar(container) &&
		(n != 1 || JsonContainerIsObject(container)))
		return false;
	if (JsonContainerIsObject(container))
		n *= 2;
	head = sizeof(uint32) + n * sizeof(JEntry);
	if (head > len)
		return false;
	data = (const char *) container + head;
	for (Size i = 0; i < n; i++)
	{
		JEntry		entry = container->children[i];
		Size		from = end;

		end = JBE_HAS_OFF(entry) ? JBE_OFFLENFLD(entry) :
			from + JBE_OFFLENFLD(entry);
		if (end < from || end > len - head ||
			(JsonContainerIsObject(container) && i < n / 2 &&
			 !JBE_ISSTRING(entry)) ||
			!element_sound(entry, data, from, end))
			return false;
	}
	return true;
}

/* Whether an element is sound that lies there in the data. */
static bool
element_sound(JEntry entry, const char *data, Size from, Size to)
{
	Size		begin = INTALIGN(from);
	Size		len;

	if (JBE_ISSTRING(entry) || JBE_ISBOOL(entry) || JBE_ISNULL(entry))
		return true;
	if (begin >= to)
		return false;
	if (JBE_ISCONTAINER(entry))
		return container_sound((const JsonbContainer *) (data + begin),
							   to - begin);
	if (!JBE_ISNUMERIC(entry) ||
		VARATT_IS_EXTERNAL(data + begin) || VARATT_IS_4B_C(data + begin))
		return false;
	if (!VARATT_IS_1B(data + begin) && to - begin < VARHDRSZ)
		return false;
	len = VARSIZE_ANY(data + begin);
	return len <= to - begin &&
		len >= (VARATT_IS_1B(data + begin) ? VARHDRSZ_SHORT : VARHDRSZ) +
		sizeof(uint16);
}
