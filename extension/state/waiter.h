/*
 * waiter.h
 *		Sleeping until something may be there for a channel.
 */
#ifndef MBUS_WAITER_H
#define MBUS_WAITER_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "state/state.h"

extern void mbus_wait_init(void);
extern void mbus_wait_begin(MbusDatabase *db, const int32 *channels, int n);
extern void mbus_wait_sleep(TimestampTz until);
extern void mbus_wait_end(void);
extern void mbus_wake_all(Oid database);
extern void mbus_wake_channel(Oid database, int32 channel_id);
extern void mbus_wait_hits(void);
extern bool mbus_wait_hit(int32 channel_id);
extern bool mbus_wait_entered(void);
extern void mbus_wait_keep(void);

#endif							/* MBUS_WAITER_H */
