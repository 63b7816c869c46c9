/*
 * store_open.h
 *		Numbers stores of large bodies, and opens them.
 */
#ifndef MBUS_STORE_OPEN_H
#define MBUS_STORE_OPEN_H

#include "postgres.h"

#include "worker/task.h"

extern int32 mbus_stores_number(int64 skip);
extern int64 mbus_highest_store(void);
extern void mbus_stores_open(MbusWork *work);

#endif							/* MBUS_STORE_OPEN_H */
