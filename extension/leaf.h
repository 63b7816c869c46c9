/*
 * leaf.h
 *		The tables of a segment, found and opened without their parents.
 */
#ifndef MBUS_LEAF_H
#define MBUS_LEAF_H

#include "postgres.h"

#include "storage/lockdefs.h"
#include "utils/relcache.h"

#include "state.h"

/* Columns of message_bus.message and message_bus.event. */
enum
{
	MBUS_COL_ID = 1,
	MBUS_COL_CREATED_AT,
	MBUS_COL_EXPIRES_AT,
	MBUS_COL_AVAILABLE_AT,
	MBUS_COL_SESSION,
	MBUS_COL_CHANNEL_ID,
	MBUS_COL_SIZE,
	MBUS_COL_PUBLISHER,
	MBUS_COL_CONTENT_TYPE,
	MBUS_COL_ENCODING,
	MBUS_COL_SHA256,
	MBUS_COL_SUBJECT,
	MBUS_COL_KEY,
	MBUS_COL_TRANSACTION_ID,
	MBUS_COL_HEADERS,
	MBUS_COL_PAYLOAD,
	MBUS_MESSAGE_COLUMNS = MBUS_COL_PAYLOAD,

	MBUS_EVENT_MESSAGE_ID = 1,
	MBUS_EVENT_AT,
	MBUS_EVENT_SESSION,
	MBUS_EVENT_KIND,
	MBUS_EVENT_ROLE,
	MBUS_EVENT_SUBJECT,
	MBUS_EVENT_COLUMNS = MBUS_EVENT_SUBJECT
};

/* The tables of one segment; InvalidOid where one is missing. */
typedef struct MbusLeaf
{
	int32		segment;
	Oid			relid[MBUS_FAMILIES];
} MbusLeaf;

extern void mbus_leaf_init(void);
extern const char *mbus_family_name(MbusFamily family);
extern int	mbus_leaves(Oid schema, MbusLeaf **leaves);
extern Relation mbus_leaf_open(Oid schema, int32 segment, MbusFamily family,
							   LOCKMODE lockmode);
extern Relation mbus_leaf_index(Relation leaf, AttrNumber first,
								AttrNumber second, bool partial);

#endif							/* MBUS_LEAF_H */
