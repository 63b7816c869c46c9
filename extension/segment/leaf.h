/*
 * leaf.h
 *		The tables of a segment, found and opened without their parents.
 */
#ifndef MBUS_LEAF_H
#define MBUS_LEAF_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "base/ids.h"

/* Columns of message_bus.message, event, ack and failure. */
enum
{
	MBUS_COL_ID = 1,
	MBUS_COL_CREATED_AT,
	MBUS_COL_EXPIRES_AT,
	MBUS_COL_SIZE,
	MBUS_COL_CHANNEL_ID,
	MBUS_COL_PUBLISHER_ID,
	MBUS_COL_RUN,
	MBUS_COL_ENCODING,
	MBUS_COL_SHA256,
	MBUS_COL_PAYLOAD,
	MBUS_COL_CONTENT_TYPE,
	MBUS_COL_SESSION,
	MBUS_COL_SUBJECT,
	MBUS_COL_KEY,
	MBUS_COL_KEY_HASH,
	MBUS_COL_AVAILABLE_AT,
	MBUS_COL_TRANSACTION_ID,
	MBUS_COL_HEADERS,
	MBUS_COL_RECIPIENT,
	MBUS_COL_BODY,
	MBUS_MESSAGE_COLUMNS = MBUS_COL_BODY,

	MBUS_EVENT_MESSAGE_ID = 1,
	MBUS_EVENT_AT,
	MBUS_EVENT_NO,
	MBUS_EVENT_SESSION,
	MBUS_EVENT_KIND,
	MBUS_EVENT_ROLE,
	MBUS_EVENT_SUBJECT,
	MBUS_EVENT_COLUMNS = MBUS_EVENT_SUBJECT,

	MBUS_ACK_LO = 1,
	MBUS_ACK_HI,
	MBUS_ACK_AT,
	MBUS_ACK_CLAIMED_AT,
	MBUS_ACK_LEASE,
	MBUS_ACK_NO,
	MBUS_ACK_SESSION,
	MBUS_ACK_SUBSCRIPTION_ID,
	MBUS_ACK_N,
	MBUS_ACK_ATTEMPT,
	MBUS_ACK_OUTCOME,
	MBUS_ACK_ROLE,
	MBUS_ACK_SUBJECT,
	MBUS_ACK_RUNS,
	MBUS_ACK_COLUMNS = MBUS_ACK_RUNS,

	MBUS_FAILURE_MESSAGE_ID = 1,
	MBUS_FAILURE_AT,
	MBUS_FAILURE_NO,
	MBUS_FAILURE_CLAIMED_AT,
	MBUS_FAILURE_RETRY_AT,
	MBUS_FAILURE_LEASE,
	MBUS_FAILURE_DEAD_LETTER_ID,
	MBUS_FAILURE_SESSION,
	MBUS_FAILURE_KEY_HASH,
	MBUS_FAILURE_SUBSCRIPTION_ID,
	MBUS_FAILURE_ATTEMPT,
	MBUS_FAILURE_KIND,
	MBUS_FAILURE_ROLE,
	MBUS_FAILURE_SUBJECT,
	MBUS_FAILURE_REASON,
	MBUS_FAILURE_NOT_MOVED,
	MBUS_FAILURE_COLUMNS = MBUS_FAILURE_NOT_MOVED
};

/* What the encoding of a message says whose bytes are in a body. */
#define MbusBodyEncoding(json)	((json) ? 'j' : 'n')
#define MbusEncodingJson(code)	((code) == 'j')

/* The tables of one segment; InvalidOid where one is missing. */
typedef struct MbusLeaf
{
	int32		segment;
	Oid			relid[MBUS_FAMILIES];
	uint8		looks[MBUS_FAMILIES];	/* at its file; leaf.c */
} MbusLeaf;

extern void mbus_leaf_init(void);
extern const char *mbus_family_name(MbusFamily family);
extern int	mbus_leaves(Oid schema, MbusLeaf **leaves);
extern const MbusLeaf *mbus_leaves_borrow(Oid schema, int *nleaves,
										  uint64 *version);
extern MbusLeaf *mbus_leaf_search(MbusLeaf *leaves, int n, int32 segment);
extern Relation mbus_leaf_open(Oid schema, int32 segment, MbusFamily family,
							   LOCKMODE lockmode);
extern Relation mbus_leaf_open_written(Oid schema, int32 segment,
									   MbusFamily family);
extern bool mbus_leaf_attached(Oid schema, int32 segment, MbusFamily family);
extern void mbus_leaf_deform(HeapTuple tuple, TupleDesc desc, int ncolumns,
							 Datum *values, bool *isnull);
extern Relation mbus_leaf_index(Relation leaf, AttrNumber first,
								AttrNumber second, bool partial);

#endif							/* MBUS_LEAF_H */
