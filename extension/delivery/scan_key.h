/*
 * scan_key.h
 *		Keys of an ordered subscription, as a scan meets them.
 */
#ifndef MBUS_SCAN_KEY_H
#define MBUS_SCAN_KEY_H

#include "postgres.h"

#include "delivery/scanning.h"

extern bool mbus_scan_key_blocked(MbusScan *scan, int64 key_hash, int64 id,
								  bool failed);
extern int64 mbus_scan_key_behind(MbusScan *scan, int64 id);
extern bool mbus_scan_key_pass(MbusScan *scan, int64 key_hash, int64 id,
							   bool *may_wait);
extern void mbus_scan_key_taken(MbusScan *scan, int64 key_hash);

#endif							/* MBUS_SCAN_KEY_H */
