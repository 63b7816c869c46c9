/*
 * outcome.h
 *		What has become of a message.
 */
#ifndef MBUS_OUTCOME_H
#define MBUS_OUTCOME_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/snapshot.h"

#include "segment/leaf_scan.h"

/* A subscription whose failures one may know of. */
typedef struct MbusReader
{
	int32		subscription_id;
	int32		channel_id;
	int64		since_lease;
	bool		own;			/* only of the current user's messages */
} MbusReader;

/* dead_letter_view.c */
extern int	mbus_readers_list(Oid schema, Snapshot snapshot,
							  MbusReader **readers);

/* outcome.c */
extern bool mbus_message_is_of(Oid schema, int64 id, int32 channel_id,
							   bool own);
extern bool mbus_died(Oid schema, int32 subscription_id, int64 id,
					  int64 lease);
extern void mbus_acks_begin(MbusLeafScan *rows, Relation leaf, bool wide,
							int32 subscription_id, int64 id,
							Snapshot snapshot);
extern bool mbus_ack_row_covers(HeapTuple tuple, TupleDesc desc, int64 id);

#endif							/* MBUS_OUTCOME_H */
