/*
 * load.h
 *		Subscriptions into shared memory.
 */
#ifndef MBUS_LOAD_H
#define MBUS_LOAD_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_subscriptions_load(MbusWork *work);

#endif							/* MBUS_LOAD_H */
