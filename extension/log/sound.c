/*
 * sound.c
 *		Whether a row can be taken apart.
 *
 * A page that was damaged on disk may have rows whose lengths point anywhere.
 * So each is walked through first, as the server would take it apart, and is
 * refused if that leads out of it; so are an array and a jsonb that say that
 * they are larger than they are.  Nothing here takes a lock or keeps memory.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "base/columns.h"
#include "log/entry.h"
#include "log/sound.h"
#include "segment/leaf.h"

/* What is never NULL in a row that has an entry; 0 ends. */
static const AttrNumber needed[MBUS_LOG_KINDS][10] = {
	[MBUS_MESSAGE] = {MBUS_COL_ID, MBUS_COL_CHANNEL_ID, MBUS_COL_SIZE,
	MBUS_COL_PUBLISHER_ID, MBUS_COL_ENCODING, MBUS_COL_SHA256},
	[MBUS_EVENT] = {MBUS_EVENT_MESSAGE_ID, MBUS_EVENT_NO, MBUS_EVENT_KIND},
	[MBUS_ACK] = {MBUS_ACK_LO, MBUS_ACK_HI, MBUS_ACK_NO,
	MBUS_ACK_SUBSCRIPTION_ID, MBUS_ACK_N, MBUS_ACK_ATTEMPT, MBUS_ACK_OUTCOME},
	[MBUS_FAILURE] = {MBUS_FAILURE_MESSAGE_ID, MBUS_FAILURE_NO,
	MBUS_FAILURE_SUBSCRIPTION_ID, MBUS_FAILURE_ATTEMPT, MBUS_FAILURE_KIND},
	[MBUS_LOG_ACTION] = {MBUS_ACTION_NO, MBUS_ACTION_KIND, MBUS_ACTION_K},
};

static bool value_sound(Form_pg_attribute column, const char *value,
						Size room, Size *len);
static bool runs_sound(HeapTuple tuple, TupleDesc desc);
static bool headers_sound(HeapTuple tuple, TupleDesc desc);
static bool container_sound(const JsonbContainer *container, Size len);
static bool element_sound(JEntry entry, const char *data, Size from, Size to);

/*
 * mbus_sound_error tells whether an error, by its code, speaks of damage: an
 * internal one, or one of the system below.
 */
bool
mbus_sound_error(int sqlerrcode)
{
	int			class = ERRCODE_TO_CATEGORY(sqlerrcode);

	return class == ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR) ||
		class == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR);
}

/*
 * mbus_sound tells whether all columns of a row are in it.
 */
bool
mbus_sound(HeapTuple tuple, TupleDesc desc)
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

/*
 * mbus_sound_row tells the same of a row that has an entry: also what is in an
 * ack's runs and a message's headers, and that nothing is NULL that an entry
 * is not without, whatever the table allows.
 */
bool
mbus_sound_row(int kind, HeapTuple tuple, TupleDesc desc)
{
	if (!mbus_sound(tuple, desc))
		return false;
	for (int i = 0; needed[kind][i] != 0; i++)
	{
		if (heap_attisnull(tuple, needed[kind][i], desc))
			return false;
	}
	if (kind == MBUS_ACK)
		return runs_sound(tuple, desc);
	return kind != MBUS_MESSAGE || headers_sound(tuple, desc);
}

/* Whether the runs of an ack are an array that is as large as it says. */
static bool
runs_sound(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, MBUS_ACK_RUNS, desc, &isnull);

	return isnull || mbus_sound_array(value, INT4OID) != NULL;
}

/*
 * mbus_sound_array reads an array of integer or bigint, of one dimension or
 * none and without NULL; NULL if it is not that, or larger than its bytes.
 */
ArrayType *
mbus_sound_array(Datum value, Oid type)
{
	ArrayType  *array = (ArrayType *) PG_DETOAST_DATUM(value);
	Size		len = VARSIZE(array);
	Size		each = type == INT8OID ? sizeof(int64) : sizeof(int32);

	if (len < sizeof(ArrayType) || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != type)
		return NULL;
	if (ARR_NDIM(array) == 0)
		return array;
	if (ARR_NDIM(array) != 1 || len < ARR_OVERHEAD_NONULLS(1) ||
		ARR_DIMS(array)[0] < 0 ||
		(Size) ARR_DIMS(array)[0] > (len - ARR_OVERHEAD_NONULLS(1)) / each)
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
