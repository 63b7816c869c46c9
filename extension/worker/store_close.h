/*
 * store_close.h
 *		Closes stores of large bodies.
 */
#ifndef MBUS_STORE_CLOSE_H
#define MBUS_STORE_CLOSE_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_store_close(MbusWork *work, int32 series);
extern void mbus_store_closed(MbusWork *work, const MbusOpenStore *old);
extern void mbus_stores_close_lost(MbusWork *work);
extern bool mbus_store_ready(MbusDatabase *db, int32 store_no);

#endif							/* MBUS_STORE_CLOSE_H */
