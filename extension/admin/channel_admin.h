/*
 * channel_admin.h
 *		Channels that are changed.
 */
#ifndef MBUS_CHANNEL_ADMIN_H
#define MBUS_CHANNEL_ADMIN_H

#include "postgres.h"

#include "base/compat.h"
#include "channel/channel.h"

extern const MbusChannel *mbus_channel_owned(Oid schema, text *name);
pg_noreturn extern void mbus_channel_unseen(Oid schema, text *name);

#endif							/* MBUS_CHANNEL_ADMIN_H */
