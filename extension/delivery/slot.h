/*
 * slot.h
 *		The slot of a subscription, once the worker has loaded it.
 */
#ifndef MBUS_SLOT_H
#define MBUS_SLOT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "channel/subscription.h"
#include "state/state.h"

extern uint32 mbus_slot_open(Oid schema, MbusDatabase *db,
							 const MbusSubscription *subscription);
extern uint64 mbus_slot_want(MbusDatabase *db, int32 subscription_id);
extern void mbus_slot_want_default(MbusDatabase *db, int32 channel_id);
extern void mbus_slot_drop_default(MbusDatabase *db, int32 channel_id);

#endif							/* MBUS_SLOT_H */
