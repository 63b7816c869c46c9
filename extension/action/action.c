/*
 * action.c
 *		What was changed, by whom: rows of message_bus.log_action.
 *
 * Who changes a channel, a grant, a subscription or the keys calls this in the
 * same transaction: the row is there if the change is, and never without it.
 * It is inserted by the table's access method, without a planner; no right is
 * asked for, since who may change what was settled before.
 *
 * "details" is a JSON object: "change", then what the caller adds, mostly the
 * row that was changed, as it is behind the change (of a drop: before it),
 * without what is null.  Times are UTC, so the same row is the same text in
 * every session.  Secrets are not in it.  "k" is 32 random bytes that the
 * salts of the log's entry are made of.
 *
 * The number is one of those of facts, taken and registered in one step, for
 * no segment (0): so whoever reads facts by number finds it (fact_number.c).
 * A change waits for nobody: where no numbers are given out (CREATE EXTENSION,
 * a database without a worker, the moment before one has begun) the row gets
 * a random number below MBUS_ACTION_UNNUMBERED, and the log gives it one
 * later (log/action.c).
 *
 * What a restore brings, the worker writes of roles that were dropped, or a
 * superuser writes to the tables by hand, is no action.
 *
 * Locks: log_action RowExclusive, to the end of the transaction; the state
 * lock for the number.  An error is the change's, too.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "action/action.h"
#include "base/caller.h"
#include "base/columns.h"
#include "base/random.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "segment/inserter.h"
#include "state/clock.h"
#include "state/fact_number.h"
#include "state/state.h"

static void action_name(MbusAction *action, const char *name);
static void action_fill(const MbusAction *action, Oid schema,
						TupleTableSlot *slot);
static int64 number_of_action(Oid schema);

/*
 * mbus_action_begin begins one; channel_id 0: it is about no channel.
 */
void
mbus_action_begin(MbusAction *action, const char *kind, int32 channel_id,
				  const char *change)
{
	action->kind = kind;
	action->channel_id = channel_id;
	mbus_random(action->key, sizeof(action->key));
	initStringInfo(&action->details);
	appendStringInfoString(&action->details, "{\"change\":");
	escape_json(&action->details, change);
}

/*
 * mbus_action_text adds a text to its details, unless it is NULL.
 */
void
mbus_action_text(MbusAction *action, const char *name, const char *value)
{
	if (value == NULL)
		return;
	action_name(action, name);
	escape_json(&action->details, value);
}

/*
 * mbus_action_number adds a number.
 */
void
mbus_action_number(MbusAction *action, const char *name, int64 value)
{
	action_name(action, name);
	appendStringInfo(&action->details, INT64_FORMAT, value);
}

static void
action_name(MbusAction *action, const char *name)
{
	appendStringInfoChar(&action->details, ',');
	escape_json(&action->details, name);
	appendStringInfoChar(&action->details, ':');
}

/*
 * mbus_action_tuple adds the columns of a row that are not null.
 */
void
mbus_action_tuple(MbusAction *action, HeapTuple tuple, TupleDesc desc)
{
	int			nestlevel = NewGUCNestLevel();
	Datum		json;
	char	   *object;

	/* the text of times and intervals, whatever the session's settings are */
	(void) set_config_option("TimeZone", "UTC", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("IntervalStyle", "postgres", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	json = DirectFunctionCall1(row_to_json,
							   heap_copy_tuple_as_datum(tuple, desc));
	json = DirectFunctionCall1(json_strip_nulls, json);
	AtEOXact_GUC(true, nestlevel);
	object = TextDatumGetCString(json);
	if (strcmp(object, "{}") == 0)
		return;
	/* without its braces */
	appendStringInfoChar(&action->details, ',');
	appendBinaryStringInfo(&action->details, object + 1,
						   (int) strlen(object) - 2);
}

/*
 * mbus_action_row adds the row that a table has under a number, by an index on
 * its first column, as this transaction sees it now.
 */
void
mbus_action_row(MbusAction *action, Oid schema, const char *table,
				const char *index, int32 number)
{
	Relation	rel = table_open(mbus_relation(schema, table),
								 AccessShareLock);
	ScanKeyData key;
	SysScanDesc rows;
	HeapTuple	tuple;

	CommandCounterIncrement();
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(number));
	rows = systable_beginscan(rel, mbus_relation(schema, index), true, NULL,
							  1, &key);
	tuple = systable_getnext(rows);
	if (HeapTupleIsValid(tuple))
		mbus_action_tuple(action, tuple, RelationGetDescr(rel));
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
}

/*
 * mbus_action_end inserts the row.
 */
void
mbus_action_end(MbusAction *action, Oid schema)
{
	MbusInserter *inserter =
	mbus_inserter_open(mbus_relation(schema, "log_action"),
					   MBUS_ACTION_DETAILS, false);

	appendStringInfoChar(&action->details, '}');
	action_fill(action, schema, mbus_inserter_slot(inserter));
	mbus_inserter_put(inserter);
	mbus_inserter_close(inserter);
	CommandCounterIncrement();
	pfree(action->details.data);
}

/*
 * mbus_action_channel records a change of a channel, whose row is there.
 */
void
mbus_action_channel(Oid schema, int32 channel_id, const char *change)
{
	MbusAction	action;

	mbus_action_begin(&action, "channel", channel_id, change);
	mbus_action_row(&action, schema, "channel", "channel_pkey", channel_id);
	mbus_action_end(&action, schema);
}

/*
 * mbus_action_subscription records that of a subscription.
 */
void
mbus_action_subscription(Oid schema, int32 channel_id, int32 subscription_id,
						 const char *change)
{
	MbusAction	action;

	mbus_action_begin(&action, "subscription", channel_id, change);
	mbus_action_row(&action, schema, "subscription", "subscription_pkey",
					subscription_id);
	mbus_action_end(&action, schema);
}

/*
 * mbus_action_shown tells whether the current user may see what was done: who
 * monitors everything, who sees all messages of a channel what was done to it,
 * but its grants only who owns it.
 */
bool
mbus_action_shown(Oid schema, const char *kind, int32 channel_id)
{
	const MbusChannel *channel;

	if (mbus_monitors())
		return true;
	channel = channel_id == 0 ? NULL : mbus_channel_by_id(schema, channel_id);
	if (channel == NULL)
		return false;
	return strcmp(kind, "grant") == 0 ?
		has_privs_of_role(GetUserId(), channel->owner) :
		mbus_channel_allows(channel, MBUS_SEE_WHOLE);
}

/* Fills in the row. */
static void
action_fill(const MbusAction *action, Oid schema, TupleTableSlot *slot)
{
	Datum	   *values = slot->tts_values - 1;	/* columns count from 1 */
	bool	   *isnull = slot->tts_isnull - 1;
	bytea	   *key = palloc(VARHDRSZ + MBUS_ACTION_KEY_BYTES);

	SET_VARSIZE(key, VARHDRSZ + MBUS_ACTION_KEY_BYTES);
	memcpy(VARDATA(key), action->key, MBUS_ACTION_KEY_BYTES);
	values[MBUS_ACTION_NO] = Int64GetDatum(number_of_action(schema));
	values[MBUS_ACTION_AT] = TimestampTzGetDatum(mbus_now());
	mbus_slot_text(slot, MBUS_ACTION_KIND, action->kind);
	values[MBUS_ACTION_K] = PointerGetDatum(key);
	isnull[MBUS_ACTION_SEGMENT_NO] = true;
	isnull[MBUS_ACTION_ENTRIES] = true;
	isnull[MBUS_ACTION_CONTINUES] = true;
	isnull[MBUS_ACTION_REASON] = true;
	values[MBUS_ACTION_CHANNEL_ID] = Int32GetDatum(action->channel_id);
	isnull[MBUS_ACTION_CHANNEL_ID] = action->channel_id == 0;
	mbus_slot_text(slot, MBUS_ACTION_ROLE,
				   GetUserNameFromId(GetUserId(), false));
	mbus_slot_text(slot, MBUS_ACTION_SUBJECT, mbus_subject());
	values[MBUS_ACTION_SESSION] = Int64GetDatum(mbus_caller.session);
	isnull[MBUS_ACTION_SESSION] = mbus_caller.session == 0;
	mbus_slot_text(slot, MBUS_ACTION_DETAILS, action->details.data);
}

/* A fact's number, or a random one below MBUS_ACTION_UNNUMBERED. */
static int64
number_of_action(Oid schema)
{
	MbusDatabase *db = mbus_database_or_null();
	int64		no = db ? mbus_fact_number_now(db, schema, 0) : 0;
	uint64		random;

	if (no >= MBUS_ACTION_FIRST)
		return no;
	mbus_random(&random, sizeof(random));
	return MBUS_ACTION_UNNUMBERED - 1 - (int64) (random >> 2);
}
