/*
 * channel_admin.h
 *		What purge_channel needs of channels.
 */
#ifndef MBUS_CHANNEL_ADMIN_H
#define MBUS_CHANNEL_ADMIN_H

#include "postgres.h"

#include "channel/channel.h"

extern const MbusChannel *mbus_channel_owned(Oid schema, text *name);

#endif							/* MBUS_CHANNEL_ADMIN_H */
