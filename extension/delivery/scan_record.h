/*
 * scan_record.h
 *		What a scan sets aside, and its end.
 */
#ifndef MBUS_SCAN_RECORD_H
#define MBUS_SCAN_RECORD_H

#include "postgres.h"

#include "delivery/scanning.h"

extern int	mbus_scan_reserve(MbusScan *scan);
extern void mbus_scan_reserve_skips(MbusScan *scan);
extern void mbus_scan_undo(uint32 slot);
extern bool mbus_scan_record(MbusScan *scan);

#endif							/* MBUS_SCAN_RECORD_H */
