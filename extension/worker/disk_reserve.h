/*
 * disk_reserve.h
 *		Space that is kept for dropping what has expired on a full disk.
 */
#ifndef MBUS_DISK_RESERVE_H
#define MBUS_DISK_RESERVE_H

#include "worker/task.h"

extern void mbus_disk_look(MbusWork *work);
extern void mbus_disk_forget(MbusWork *work);

#endif							/* MBUS_DISK_RESERVE_H */
