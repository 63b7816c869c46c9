/*
 * leaf_scan.c
 *		The rows of a leaf in the order of one of its indexes.
 *
 * Open a scan on the index that is wanted, give a key for each column, in the
 * index's order, begin, take rows, close:
 *
 *		mbus_leaf_scan_open(&rows, leaf, MBUS_COL_CHANNEL_ID,
 *							MBUS_COL_KEY_HASH, true);
 *		mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, channel_id);
 *		mbus_leaf_scan_int8(&rows, MBUS_COL_KEY_HASH, hash, hash);
 *		mbus_leaf_scan_int8(&rows, MBUS_COL_ID, from, PG_INT64_MAX);
 *		mbus_leaf_scan_begin(&rows, snapshot);
 *		while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
 *			...
 *		mbus_leaf_scan_close(&rows);
 *
 * Who reads several times through one index ends each reading, and gives the
 * keys of the next.  Nothing is allocated but what the server's scan needs;
 * an error leaves nothing that the end of the transaction does not see to.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "segment/leaf.h"
#include "segment/leaf_scan.h"

static void range_add(MbusLeafScan *scan, AttrNumber column, RegProcedure eq,
					  RegProcedure ge, RegProcedure le, int64 lo, int64 hi);
static ScanKey key_add(MbusLeafScan *scan, AttrNumber column,
					   StrategyNumber strategy, RegProcedure compare,
					   Datum value);

/*
 * mbus_leaf_scan_open opens an index of the leaf as mbus_leaf_index() does;
 * mbus_leaf_scan_close() closes it.
 */
void
mbus_leaf_scan_open(MbusLeafScan *scan, Relation leaf, AttrNumber first,
					AttrNumber second, bool partial)
{
	mbus_leaf_scan_on(scan, leaf,
					  mbus_leaf_index(leaf, first, second, partial));
}

/*
 * mbus_leaf_scan_on uses an index that the caller has open: who keeps it ends
 * the scan, and does not close it.
 */
void
mbus_leaf_scan_on(MbusLeafScan *scan, Relation leaf, Relation index)
{
	scan->leaf = leaf;
	scan->index = index;
	scan->rows = NULL;
	scan->nkeys = 0;
}

/*
 * mbus_leaf_scan_int4 asks for rows with a value.
 */
void
mbus_leaf_scan_int4(MbusLeafScan *scan, AttrNumber column, int32 value)
{
	key_add(scan, column, BTEqualStrategyNumber, F_INT4EQ,
			Int32GetDatum(value));
}

/*
 * mbus_leaf_scan_int4_from asks for rows with a value, or one above it.
 */
void
mbus_leaf_scan_int4_from(MbusLeafScan *scan, AttrNumber column, int32 value)
{
	key_add(scan, column, BTGreaterEqualStrategyNumber, F_INT4GE,
			Int32GetDatum(value));
}

/*
 * mbus_leaf_scan_int8 asks for rows with a value from lo to hi, inclusive.
 */
void
mbus_leaf_scan_int8(MbusLeafScan *scan, AttrNumber column, int64 lo, int64 hi)
{
	range_add(scan, column, F_INT8EQ, F_INT8GE, F_INT8LE, lo, hi);
}

/*
 * mbus_leaf_scan_time does the same with a column of times.
 */
void
mbus_leaf_scan_time(MbusLeafScan *scan, AttrNumber column, TimestampTz lo,
					TimestampTz hi)
{
	range_add(scan, column, F_TIMESTAMPTZ_EQ, F_TIMESTAMPTZ_GE,
			  F_TIMESTAMPTZ_LE, lo, hi);
}

/*
 * mbus_leaf_scan_text asks for rows with a text.  Each key before it is of
 * another column: its place is that of its column in the index.
 */
void
mbus_leaf_scan_text(MbusLeafScan *scan, AttrNumber column, text *value)
{
	Oid			collation = scan->index->rd_indcollation[scan->nkeys];

	key_add(scan, column, BTEqualStrategyNumber, F_TEXTEQ,
			PointerGetDatum(value))->sk_collation = collation;
}

/*
 * mbus_leaf_scan_null asks for rows that have none.
 */
void
mbus_leaf_scan_null(MbusLeafScan *scan, AttrNumber column)
{
	Assert(scan->nkeys < MBUS_LEAF_KEYS);
	ScanKeyEntryInitialize(&scan->key[scan->nkeys++],
						   SK_ISNULL | SK_SEARCHNULL, column,
						   InvalidStrategy, InvalidOid, InvalidOid,
						   InvalidOid, (Datum) 0);
}

/* One key or two; nothing is above PG_INT64_MAX. */
static void
range_add(MbusLeafScan *scan, AttrNumber column, RegProcedure eq,
		  RegProcedure ge, RegProcedure le, int64 lo, int64 hi)
{
	if (lo == hi)
	{
		key_add(scan, column, BTEqualStrategyNumber, eq, Int64GetDatum(lo));
		return;
	}
	key_add(scan, column, BTGreaterEqualStrategyNumber, ge,
			Int64GetDatum(lo));
	if (hi < PG_INT64_MAX)
		key_add(scan, column, BTLessEqualStrategyNumber, le,
				Int64GetDatum(hi));
}

static ScanKey
key_add(MbusLeafScan *scan, AttrNumber column, StrategyNumber strategy,
		RegProcedure compare, Datum value)
{
	ScanKey		key = &scan->key[scan->nkeys++];

	Assert(scan->nkeys <= MBUS_LEAF_KEYS);
	ScanKeyInit(key, column, strategy, compare, value);
	return key;
}

/*
 * mbus_leaf_scan_begin starts to read; the snapshot is the caller's, as long
 * as it reads.
 */
void
mbus_leaf_scan_begin(MbusLeafScan *scan, Snapshot snapshot)
{
	scan->rows = systable_beginscan_ordered(scan->leaf, scan->index, snapshot,
											scan->nkeys, scan->key);
}

/*
 * mbus_leaf_scan_end stops reading; it can begin again with other keys.
 */
void
mbus_leaf_scan_end(MbusLeafScan *scan)
{
	systable_endscan_ordered(scan->rows);
	scan->rows = NULL;
	scan->nkeys = 0;
}

/*
 * mbus_leaf_scan_close stops reading, if need be, and closes the index.
 */
void
mbus_leaf_scan_close(MbusLeafScan *scan)
{
	if (scan->rows)
		mbus_leaf_scan_end(scan);
	index_close(scan->index, AccessShareLock);
}
