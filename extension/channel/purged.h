/*
 * purged.h
 *		Which of a channel's messages a purge has taken.
 */
#ifndef MBUS_PURGED_H
#define MBUS_PURGED_H

#include "postgres.h"

#include "channel/channel.h"

extern bool mbus_channel_purged(const MbusPolicy *policy, int64 id);
extern int64 mbus_channel_purged_below(const MbusPolicy *policy, int64 from);

#endif							/* MBUS_PURGED_H */
