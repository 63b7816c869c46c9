/*
 * leaf_scan.h
 *		The rows of a leaf in the order of one of its indexes.
 */
#ifndef MBUS_LEAF_SCAN_H
#define MBUS_LEAF_SCAN_H

#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define MBUS_LEAF_KEYS	4

/* On the stack of who scans; see leaf_scan.c for the order of the calls. */
typedef struct MbusLeafScan
{
	Relation	leaf;			/* the caller's */
	Relation	index;
	SysScanDesc rows;			/* NULL: not begun */
	int			nkeys;
	ScanKeyData key[MBUS_LEAF_KEYS];
} MbusLeafScan;

extern void mbus_leaf_scan_open(MbusLeafScan *scan, Relation leaf,
								AttrNumber first, AttrNumber second,
								bool partial);
extern void mbus_leaf_scan_on(MbusLeafScan *scan, Relation leaf,
							  Relation index);
extern void mbus_leaf_scan_int4(MbusLeafScan *scan, AttrNumber column,
								int32 value);
extern void mbus_leaf_scan_int4_from(MbusLeafScan *scan, AttrNumber column,
									 int32 value);
extern void mbus_leaf_scan_int8(MbusLeafScan *scan, AttrNumber column,
								int64 lo, int64 hi);
extern void mbus_leaf_scan_time(MbusLeafScan *scan, AttrNumber column,
								TimestampTz lo, TimestampTz hi);
extern void mbus_leaf_scan_text(MbusLeafScan *scan, AttrNumber column,
								text *value);
extern void mbus_leaf_scan_null(MbusLeafScan *scan, AttrNumber column);
extern void mbus_leaf_scan_begin(MbusLeafScan *scan, Snapshot snapshot);
extern void mbus_leaf_scan_end(MbusLeafScan *scan);
extern void mbus_leaf_scan_close(MbusLeafScan *scan);

/*
 * mbus_leaf_scan_next returns the next row, good until the call after, or
 * NULL.
 */
static inline HeapTuple
mbus_leaf_scan_next(MbusLeafScan *scan)
{
	CHECK_FOR_INTERRUPTS();
	return systable_getnext_ordered(scan->rows, ForwardScanDirection);
}

#endif							/* MBUS_LEAF_SCAN_H */
