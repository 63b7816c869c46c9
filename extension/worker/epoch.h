/*
 * epoch.h
 *		Epochs of leases.
 */
#ifndef MBUS_EPOCH_H
#define MBUS_EPOCH_H

#include "postgres.h"

#include "state/state.h"
#include "worker/task.h"

extern void mbus_epoch_init(void);
extern bool mbus_epoch_raise(MbusWork *work, int64 least);
extern int64 mbus_epoch_store(int64 least);
extern int64 mbus_epoch_floor(MbusDatabase *db, bool fresh,
							  bool other_timeline);
extern void mbus_epoch_await(int64 epoch);
extern void mbus_epoch_begin(MbusDatabase *db, int64 epoch);
extern void mbus_epoch_look(MbusWork *work);

#endif							/* MBUS_EPOCH_H */
