/*
 * channel_slot.h
 *		What is known of channels that were published to lately.
 */
#ifndef MBUS_CHANNEL_SLOT_H
#define MBUS_CHANNEL_SLOT_H

#include "postgres.h"

extern void mbus_channel_slot_init(void);
extern void mbus_channel_dropped(int32 channel_id);

#endif							/* MBUS_CHANNEL_SLOT_H */
