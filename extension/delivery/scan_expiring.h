/*
 * scan_expiring.h
 *		The scan reads what is about to expire.
 */
#ifndef MBUS_SCAN_EXPIRING_H
#define MBUS_SCAN_EXPIRING_H

#include "postgres.h"

#include "delivery/scanning.h"

extern void mbus_scan_expiring(MbusScan *scan);

#endif							/* MBUS_SCAN_EXPIRING_H */
