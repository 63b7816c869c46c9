/*
 * action.h
 *		What was changed, by whom: rows of message_bus.log_action.
 */
#ifndef MBUS_ACTION_H
#define MBUS_ACTION_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "lib/stringinfo.h"

#define MBUS_ACTION_KEY_BYTES	32

/*
 * Facts have numbers from here on.  The log's own actions, whose number is
 * their place in it, are below; actions that could not get a number in time
 * are below MBUS_ACTION_UNNUMBERED.
 */
#define MBUS_ACTION_FIRST		(INT64CONST(1) << 56)
#define MBUS_ACTION_UNNUMBERED	(-(INT64CONST(1) << 40))

/* One that is being written; in the memory context it was begun in. */
typedef struct MbusAction
{
	const char *kind;			/* channel, grant, subscription, purge, keys */
	int32		channel_id;		/* 0: none */
	uint8		key[MBUS_ACTION_KEY_BYTES];
	StringInfoData details;		/* a JSON object, open */
} MbusAction;

extern void mbus_action_begin(MbusAction *action, const char *kind,
							  int32 channel_id, const char *change);
extern void mbus_action_text(MbusAction *action, const char *name,
							 const char *value);
extern void mbus_action_number(MbusAction *action, const char *name,
							   int64 value);
extern void mbus_action_tuple(MbusAction *action, HeapTuple tuple,
							  TupleDesc desc);
extern void mbus_action_row(MbusAction *action, Oid schema, const char *table,
							const char *index, int32 number);
extern void mbus_action_end(MbusAction *action, Oid schema);
extern void mbus_action_channel(Oid schema, int32 channel_id,
								const char *change);
extern void mbus_action_subscription(Oid schema, int32 channel_id,
									 int32 subscription_id,
									 const char *change);
extern bool mbus_action_shown(Oid schema, const char *kind, int32 channel_id);

#endif							/* MBUS_ACTION_H */
