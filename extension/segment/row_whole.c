/*
 * row_whole.c
 *		Whether a row can be taken apart.
 *
 * The server believes what a row says of lengths: one that the disk has changed
 * leads it anywhere, out of the page and out of memory.  So whoever reads more
 * of a message than the columns in front of its payload, or a part of a body,
 * looks here first.  A row may end at its last column that is not null
 * (segment/inserter.c).
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "utils/memutils.h"

#include "segment/row_whole.h"

static bool row_walk(HeapTuple tuple, TupleDesc desc, Oid toast);
static bool value_inside(const char *value, const char *end, int16 len,
						 Oid toast);
static bool external_sane(const char *value, Oid toast);

/*
 * mbus_row_whole tells whether a row can be taken apart: its lengths, and its
 * columns that are never null, are what they can be, and it does not end
 * before the column "least".  "toast" is the table that it may point into, or
 * InvalidOid.
 */
bool
mbus_row_whole(HeapTuple tuple, TupleDesc desc, AttrNumber least, Oid toast)
{
	HeapTupleHeader header = tuple->t_data;
	int			natts = HeapTupleHeaderGetNatts(header);
	Size		head = offsetof(HeapTupleHeaderData, t_bits);

	if (tuple->t_len < head || tuple->t_len > BLCKSZ ||
		natts > desc->natts || natts < least)
		return false;
	if (HeapTupleHasNulls(tuple))
	{
		head += BITMAPLEN(natts);
		if (header->t_hoff != MAXALIGN(head) || header->t_hoff > tuple->t_len)
			return false;
		for (int i = 0; i < natts; i++)
		{
			if (TupleDescAttr(desc, i)->attnotnull &&
				att_isnull(i, header->t_bits))
				return false;
		}
	}
	if (header->t_hoff != MAXALIGN(head) || header->t_hoff > tuple->t_len ||
		!row_walk(tuple, desc, toast))
		return false;
	return true;
}

/* Whether all columns lie within the row. */
static bool
row_walk(HeapTuple tuple, TupleDesc desc, Oid toast)
{
	const char *data = (const char *) tuple->t_data + tuple->t_data->t_hoff;
	const char *end = (const char *) tuple->t_data + tuple->t_len;
	int			natts = HeapTupleHeaderGetNatts(tuple->t_data);
	Size		offset = 0;

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (HeapTupleHasNulls(tuple) && att_isnull(i, tuple->t_data->t_bits))
			continue;
		/* padding is looked at too: one byte must be there */
		if (data + offset >= end)
			return false;
		offset = att_align_pointer(offset, att->attalign, att->attlen,
								   data + offset);
		if (!value_inside(data + offset, end, att->attlen, toast))
			return false;
		offset = att_addlength_pointer(offset, att->attlen, data + offset);
	}
	return true;
}

/* Whether a value lies before "end"; a TOAST pointer must be one on disk. */
static bool
value_inside(const char *value, const char *end, int16 len, Oid toast)
{
	if (value >= end)
		return false;
	if (len > 0)
		return end - value >= len;
	if (VARATT_IS_1B_E(value))
		return end - value >= (Size) TOAST_POINTER_SIZE &&
			VARTAG_EXTERNAL(value) == VARTAG_ONDISK &&
			external_sane(value, toast);
	if (VARATT_IS_1B(value))
		return end - value >= VARSIZE_1B(value);
	if (end - value < VARHDRSZ || VARSIZE_4B(value) < VARHDRSZ ||
		end - value < VARSIZE_4B(value))
		return false;
	return !VARATT_IS_4B_C(value) || VARSIZE_4B(value) >= VARHDRSZ_COMPRESSED;
}

/* Whether a TOAST pointer's sizes can be, and it points into the leaf's own. */
static bool
external_sane(const char *value, Oid toast)
{
	struct varatt_external pointer;

	VARATT_EXTERNAL_GET_POINTER(pointer, value);
	return (!OidIsValid(toast) || pointer.va_toastrelid == toast) &&
		pointer.va_rawsize >= VARHDRSZ &&
		AllocSizeIsValid(pointer.va_rawsize) &&
		VARATT_EXTERNAL_GET_EXTSIZE(pointer) <=
		(Size) pointer.va_rawsize - VARHDRSZ;
}
