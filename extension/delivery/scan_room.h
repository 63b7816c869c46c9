/*
 * scan_room.h
 *		Entries that the scan at work has set aside.
 */
#ifndef MBUS_SCAN_ROOM_H
#define MBUS_SCAN_ROOM_H

#include "postgres.h"

#include "base/compat.h"
#include "delivery/scanning.h"

extern int	mbus_scan_room_begin(MbusScan *scan);
extern bool mbus_scan_room_grow(MbusScan *scan);
extern uint32 mbus_scan_room_entry(void);
extern void mbus_scan_room_claimed(uint32 entry);
extern void mbus_scan_room_undo(void);
pg_noreturn extern void mbus_scan_room_refuse(const MbusScan *scan);

#endif							/* MBUS_SCAN_ROOM_H */
