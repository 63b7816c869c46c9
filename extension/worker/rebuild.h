/*
 * rebuild.h
 *		A subscription's part of shared memory, from the tables.
 */
#ifndef MBUS_REBUILD_H
#define MBUS_REBUILD_H

#include "postgres.h"

#include "worker/task.h"

extern bool mbus_subscriptions_rebuild(MbusWork *work, const int32 *ids,
									   int n, bool *full);

#endif							/* MBUS_REBUILD_H */
