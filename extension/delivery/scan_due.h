/*
 * scan_due.h
 *		The sources of a scan: times.
 */
#ifndef MBUS_SCAN_DUE_H
#define MBUS_SCAN_DUE_H

#include "postgres.h"

#include "delivery/scanning.h"

extern void mbus_scan_retries(MbusScan *scan, int most);
extern void mbus_scan_due(MbusScan *scan, int most);

#endif							/* MBUS_SCAN_DUE_H */
