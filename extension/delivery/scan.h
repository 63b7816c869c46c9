/*
 * scan.h
 *		The scan of a claim.
 */
#ifndef MBUS_SCAN_H
#define MBUS_SCAN_H

#include "postgres.h"

#include "delivery/scanning.h"

extern bool mbus_scan(MbusScan *scan);

#endif							/* MBUS_SCAN_H */
