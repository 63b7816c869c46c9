/*
 * part_scan.c
 *		The parts of a body, in order.
 *
 * The caller has the table locked.  A table without its index is one that a
 * restore has not finished: 55000.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "utils/rel.h"

#include "body/part_row.h"
#include "body/part_scan.h"
#include "segment/leaf.h"
#include "segment/leaf_keep.h"
#include "segment/leaf_scan.h"
#include "segment/row_whole.h"

static bool is_filled(Relation rel);
static void part_take(MbusPartScan *scan, HeapTuple tuple);
static bool bytes_take(Datum value, bool isnull, uint8 *into);

/*
 * mbus_parts_filled tells whether a body's table can be read, which the caller
 * has locked; false while a restore fills it.
 */
bool
mbus_parts_filled(const MbusBody *body)
{
	Relation	rel = table_open(body->relid, NoLock);
	bool		filled = is_filled(rel);

	table_close(rel, NoLock);
	return filled;
}

/* Whether a table has its index, which a restore makes last. */
static bool
is_filled(Relation rel)
{
	return rel->rd_rel->relhasindex;
}

/*
 * mbus_part_scan_begin begins with a part; the snapshot is the caller's, as
 * long as it scans.
 */
void
mbus_part_scan_begin(MbusPartScan *scan, const MbusBody *body, int32 from,
					 Snapshot snapshot)
{
	scan->rel = table_open(body->relid, AccessShareLock);
	mbus_leaf_keep(scan->rel);
	if (!is_filled(scan->rel))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("store %d is being restored", body->store_no)));
	mbus_leaf_scan_open(&scan->rows, scan->rel, MBUS_PART_BODY, MBUS_PART_N,
						false);
	mbus_leaf_scan_int8(&scan->rows, MBUS_PART_BODY, body->body, body->body);
	mbus_leaf_scan_int4_from(&scan->rows, MBUS_PART_N, from);
	mbus_leaf_scan_begin(&scan->rows, snapshot);
}

/*
 * mbus_part_scan_next goes to the next part; false at the end.
 */
bool
mbus_part_scan_next(MbusPartScan *scan)
{
	HeapTuple	tuple = mbus_leaf_scan_next(&scan->rows);

	if (!HeapTupleIsValid(tuple))
		return false;
	part_take(scan, tuple);
	return true;
}

/*
 * mbus_part_scan_last goes to the last part, in place of the first; false if
 * there is none.
 */
bool
mbus_part_scan_last(MbusPartScan *scan)
{
	HeapTuple	tuple = systable_getnext_ordered(scan->rows.rows,
												 BackwardScanDirection);

	if (!HeapTupleIsValid(tuple))
		return false;
	part_take(scan, tuple);
	return true;
}

/* Takes a row apart, unless its lengths lead out of it. */
static void
part_take(MbusPartScan *scan, HeapTuple tuple)
{
	Datum		values[MBUS_PART_COLUMNS];
	bool		isnull[MBUS_PART_COLUMNS];
	MbusPart   *part = &scan->part;

	scan->sound = mbus_row_whole(tuple, RelationGetDescr(scan->rel),
								 MBUS_PART_DATA,
								 scan->rel->rd_rel->reltoastrelid);
	if (!scan->sound)
	{
		MemSet(part, 0, sizeof(*part));
		part->n = -1;
		return;
	}
	mbus_leaf_deform(tuple, RelationGetDescr(scan->rel), MBUS_PART_COLUMNS,
					 values, isnull);
	part->n = DatumGetInt32(values[MBUS_PART_N - 1]);
	part->size = DatumGetInt32(values[MBUS_PART_SIZE - 1]);
	part->at = DatumGetTimestampTz(values[MBUS_PART_AT - 1]);
	scan->encoding = DatumGetChar(values[MBUS_PART_ENCODING - 1]);
	scan->bytes = values[MBUS_PART_DATA - 1];
	part->has_state = !isnull[MBUS_PART_STATE - 1];
	scan->sound = part->size >= 0 && part->size <= MBUS_PART_BYTES &&
		!isnull[MBUS_PART_DATA - 1] &&
		bytes_take(values[MBUS_PART_SHA256 - 1],
				   isnull[MBUS_PART_SHA256 - 1], part->sha256) &&
		(!part->has_state ||
		 bytes_take(values[MBUS_PART_STATE - 1], false, part->state));
}

/* Takes the bytes of a hash; false if they are not such. */
static bool
bytes_take(Datum value, bool isnull, uint8 *into)
{
	struct varlena *bytes = isnull ? NULL :
	(struct varlena *) DatumGetPointer(value);

	if (bytes == NULL || VARATT_IS_EXTENDED(bytes) != VARATT_IS_SHORT(bytes) ||
		VARSIZE_ANY_EXHDR(bytes) != MBUS_SHA256_BYTES)
		return false;
	memcpy(into, VARDATA_ANY(bytes), MBUS_SHA256_BYTES);
	return true;
}

/*
 * mbus_part_scan_end ends it; the table's lock is the caller's.
 */
void
mbus_part_scan_end(MbusPartScan *scan)
{
	mbus_leaf_scan_close(&scan->rows);
	table_close(scan->rel, AccessShareLock);
}
