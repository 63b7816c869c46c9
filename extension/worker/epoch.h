/*
 * epoch.h
 *		Epochs of leases.
 */
#ifndef MBUS_EPOCH_H
#define MBUS_EPOCH_H

#include "postgres.h"

#include "state/state.h"
#include "worker/task.h"

extern bool mbus_epoch_raise(MbusWork *work, int64 least);
extern int64 mbus_epoch_store(int64 least);
extern int64 mbus_epoch_next(MbusDatabase *db, int64 stored, bool known,
							 bool other_timeline);
extern void mbus_epoch_wait(int64 epoch);
extern void mbus_epoch_begin(MbusDatabase *db, int64 epoch);
extern void mbus_epoch_look(MbusWork *work);

#endif							/* MBUS_EPOCH_H */
