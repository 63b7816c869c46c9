/*
 * seen.h
 *		The channels whose messages the current user may see.
 */
#ifndef MBUS_SEEN_H
#define MBUS_SEEN_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/snapshot.h"

#include "channel/channel.h"

typedef struct MbusSeen
{
	int32		channel_id;
	bool		payload;		/* payloads too */
	bool		own;			/* only what mbus_row_visible() says */
	text	   *name;
	MbusPolicy	policy;			/* what was purged */
} MbusSeen;

extern int	mbus_seen_list(Oid schema, Snapshot snapshot, text *name,
						   MbusSeen **seen, bool *all);
extern bool mbus_row_visible(Oid schema, HeapTuple tuple, TupleDesc desc);
extern const MbusSeen *mbus_seen_find(const MbusSeen *seen, int n,
									  int32 channel_id);

#endif							/* MBUS_SEEN_H */
