/*
 * sub.h
 *		Slots of subscriptions in the pools.
 */
#ifndef MBUS_SUB_H
#define MBUS_SUB_H

#include "postgres.h"

extern uint32 mbus_sub_find(Oid database, Oid schema, int32 subscription_id);
extern bool mbus_sub_is(uint32 slot, Oid database, Oid schema,
						int32 subscription_id);
extern uint32 mbus_sub_create(Oid database, Oid schema,
							  int32 subscription_id, int32 channel_id);
extern void mbus_subs_rewind(Oid database, Oid schema, int64 from,
							 int64 check_below);
extern void mbus_subs_forget(Oid database, Oid schema);
extern void mbus_sub_drop(uint32 slot);
extern void mbus_sub_let_go(uint32 slot);
extern void mbus_sub_void(uint32 slot);
extern const MbusSegmentSet *mbus_sub_retries_in(const MbusSub *sub);
extern void mbus_sub_reread(uint32 slot, int64 from);
extern bool mbus_sub_holds_nothing(uint32 slot);
extern void mbus_sub_give_up(uint32 slot);

#endif							/* MBUS_SUB_H */
