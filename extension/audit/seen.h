/*
 * seen.h
 *		The channels whose messages the current user may see.
 */
#ifndef MBUS_SEEN_H
#define MBUS_SEEN_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "channel/channel.h"

typedef struct MbusSeen
{
	int32		channel_id;
	bool		payload;		/* payloads too */
	text	   *name;
	MbusPolicy	policy;			/* what was purged */
} MbusSeen;

extern int	mbus_seen_list(Oid schema, Snapshot snapshot, text *name,
						   MbusSeen **seen, bool *all);
extern const MbusSeen *mbus_seen_find(const MbusSeen *seen, int n,
									  int32 channel_id);

#endif							/* MBUS_SEEN_H */
