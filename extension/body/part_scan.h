/*
 * part_scan.h
 *		The parts of a body, in order.
 */
#ifndef MBUS_PART_SCAN_H
#define MBUS_PART_SCAN_H

#include "postgres.h"

#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "body/body.h"
#include "body/part_row.h"
#include "segment/leaf_scan.h"

/* On the stack of who scans. */
typedef struct MbusPartScan
{
	Relation	rel;
	MbusLeafScan rows;
	bool		sound;			/* the row is as one can be; else only n and
								 * at are said, -1 and 0 where that is not */
	MbusPart	part;			/* what the row says */
	char		encoding;
	Datum		bytes;			/* stored, not detoasted; good until the next */
} MbusPartScan;

extern bool mbus_parts_filled(const MbusBody *body);
extern void mbus_part_scan_begin(MbusPartScan *scan, const MbusBody *body,
								 int32 from, Snapshot snapshot);
extern bool mbus_part_scan_next(MbusPartScan *scan);
extern bool mbus_part_scan_last(MbusPartScan *scan);
extern void mbus_part_scan_end(MbusPartScan *scan);

#endif							/* MBUS_PART_SCAN_H */
