/*
 * disk.h
 *		Whether there is room on the database's disk.
 */
#ifndef MBUS_DISK_H
#define MBUS_DISK_H

#include "state/state.h"

extern void mbus_disk_check(MbusDatabase *db);

/* the database's worker only */
extern TimestampTz mbus_disk_full_since(MbusDatabase *db);
extern bool mbus_disk_told(MbusDatabase *db);
extern void mbus_disk_set(MbusDatabase *db, bool full);

#endif							/* MBUS_DISK_H */
