/*
 * channel_scan.h
 *		A channel's messages in a leaf, by ascending id.
 */
#ifndef MBUS_CHANNEL_SCAN_H
#define MBUS_CHANNEL_SCAN_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "segment/leaf_scan.h"

/* On the stack of who scans; see channel_scan.c for the order of the calls. */
typedef struct MbusChannelScan
{
	int32		channel_id;
	Snapshot	snapshot;		/* the caller's */
	MbusLeafScan runs;			/* their first rows */
	MbusLeafScan rows;			/* the others of one run */
	int64		hi;				/* up to which ids are wanted */
	int64		next;			/* what of the current run is to be read: */
	int64		last;			/* from "next" to this; none: it is lower */
} MbusChannelScan;

extern void mbus_channel_scan_open(MbusChannelScan *scan, Relation leaf,
								   int32 channel_id);
extern void mbus_channel_scan_begin(MbusChannelScan *scan, int64 lo, int64 hi,
									Snapshot snapshot);
extern HeapTuple mbus_channel_scan_next(MbusChannelScan *scan);
extern int64 mbus_channel_scan_last(MbusChannelScan *scan, int64 hi,
									Snapshot snapshot);
extern void mbus_channel_scan_end(MbusChannelScan *scan);
extern void mbus_channel_scan_close(MbusChannelScan *scan);

#endif							/* MBUS_CHANNEL_SCAN_H */
