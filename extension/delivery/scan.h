/*
 * scan.h
 *		The scan of a claim.
 */
#ifndef MBUS_SCAN_H
#define MBUS_SCAN_H

#include "postgres.h"

#include "delivery/scanning.h"

extern bool mbus_scan(MbusScan *scan);
extern void mbus_scan_undo(uint32 slot);

#endif							/* MBUS_SCAN_H */
