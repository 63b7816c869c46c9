/*
 * dead_letter_target.h
 *		Where a channel's dead letters go, and whether they may.
 */
#ifndef MBUS_DEAD_LETTER_TARGET_H
#define MBUS_DEAD_LETTER_TARGET_H

#include "postgres.h"

#include "channel/channel.h"

typedef enum MbusTarget
{
	MBUS_TARGET_NONE,			/* it has no dead-letter channel */
	MBUS_TARGET_READY,
	MBUS_TARGET_DROPPED,		/* that is not there any more */
	MBUS_TARGET_DENIED			/* the channel's owner may not publish there */
} MbusTarget;

extern MbusTarget mbus_target_find(Oid schema, int32 channel_id,
								   const MbusChannel **target);
extern const char *mbus_target_name(MbusTarget target);

#endif							/* MBUS_DEAD_LETTER_TARGET_H */
