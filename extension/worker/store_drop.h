/*
 * store_drop.h
 *		Drops the stores of large bodies that nobody can want any more.
 */
#ifndef MBUS_STORE_DROP_H
#define MBUS_STORE_DROP_H

#include "worker/task.h"

extern void mbus_stores_drop(MbusWork *work);

#endif							/* MBUS_STORE_DROP_H */
