/*
 * scan_range.h
 *		The sources of a scan: ranges of ids.
 */
#ifndef MBUS_SCAN_RANGE_H
#define MBUS_SCAN_RANGE_H

#include "postgres.h"

#include "delivery/scanning.h"

extern void mbus_scan_skipped(MbusScan *scan);
extern void mbus_scan_fresh(MbusScan *scan);

#endif							/* MBUS_SCAN_RANGE_H */
