/*
 * store_settle.h
 *		Takes in the stores that a restore has brought.
 */
#ifndef MBUS_STORE_SETTLE_H
#define MBUS_STORE_SETTLE_H

#include "worker/task.h"

extern void mbus_stores_settle(MbusWork *work);
extern bool mbus_stores_none(MbusWork *work);
extern bool mbus_stores_restoring(MbusWork *work);

#endif							/* MBUS_STORE_SETTLE_H */
