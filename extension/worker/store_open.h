/*
 * store_open.h
 *		Numbers stores of large bodies, opens and closes them.
 */
#ifndef MBUS_STORE_OPEN_H
#define MBUS_STORE_OPEN_H

#include "postgres.h"

#include "worker/task.h"

extern int32 mbus_stores_number(int64 skip);
extern int64 mbus_highest_store(void);
extern void mbus_stores_open(MbusWork *work);
extern void mbus_stores_close_lost(MbusWork *work);
extern bool mbus_store_ready(MbusDatabase *db, int32 store_no);

#endif							/* MBUS_STORE_OPEN_H */
