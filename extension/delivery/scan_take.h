/*
 * scan_take.h
 *		What a scan takes and leaves out, and the sources in memory.
 */
#ifndef MBUS_SCAN_TAKE_H
#define MBUS_SCAN_TAKE_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"

#include "delivery/scanning.h"
#include "facts/facts.h"
#include "state/range.h"

/* Why a message was left out. */
typedef enum MbusScanTaken
{
	MBUS_SCAN_TAKEN,
	MBUS_SCAN_LEFT_OUT,			/* for good, or another source has it */
	MBUS_SCAN_NO_ROOM			/* the batch is full: read no further */
} MbusScanTaken;

/* What of a message decides. */
typedef struct MbusScanRow
{
	int64		id;
	int64		key_hash;
	int64		size;
	TimestampTz available_at;
	TimestampTz expires_at;
	bool		live;
	bool		lost;			/* it would be, but has expired */
} MbusScanRow;

extern void mbus_scan_row(MbusScan *scan, HeapTuple tuple, TupleDesc desc,
						  bool events, MbusScanRow *row);
extern bool mbus_scan_has_events(MbusScan *scan, int32 segment);
extern MbusScanTaken mbus_scan_take(MbusScan *scan, const MbusScanRow *row,
									HeapTuple tuple, const MbusFacts *facts,
									uint32 entry, int attempt);
extern bool mbus_scan_key_on(MbusScan *scan, const MbusScanRow *row);
extern bool mbus_scan_left_to_retry(const MbusScan *scan,
									const MbusFacts *facts);
extern HeapTuple mbus_scan_by_id(MbusScan *scan, int64 id, MbusScanRow *row);
extern int	mbus_scan_range_after(const MbusRange *ranges, int n, int64 id);
extern bool mbus_scan_in_unfinished(MbusScan *scan, int64 lo, int64 hi);
extern bool mbus_scan_in_skipped(MbusScan *scan, int64 id);
extern bool mbus_scan_is_later(MbusScan *scan, const MbusScanRow *row);
extern void mbus_scan_ready(MbusScan *scan);
extern void mbus_scan_nexts(MbusScan *scan);

#endif							/* MBUS_SCAN_TAKE_H */
