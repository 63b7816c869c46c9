/*
 * outcome.c
 *		What has become of a message: for the views message_bus and
 *		dead_letters.
 *
 * An ack says what a subscription is done with, and how: outcome 'acked', or
 * 'dead', 'kept' or 'corrupt'.  It counts as facts/facts.c says: not below the
 * subscription's since_lease, and above the message's last redrive.
 *
 * These functions read the leaves, with the snapshot of the query that calls
 * them, where a subquery of the view would have to plan and lock all segments
 * for one message.  Everybody may call them; they tell nothing of a channel
 * that the current user may not consume or audit.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit/outcome.h"
#include "audit/seen.h"
#include "base/columns.h"
#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"

#define NEVER			PG_INT64_MIN

typedef struct Subscriber
{
	int32		subscription_id;
	int64		start_id;
	TimestampTz start_at;		/* or NEVER */
	int64		since_lease;
} Subscriber;

/* What the acks of one subscription say of one message. */
typedef struct AckOutcome
{
	TimestampTz acked_at;		/* the latest, or NEVER */
	int64		dead;			/* lease of the latest other end; 0: none */
} AckOutcome;

static TimestampTz last_event(Oid schema, int64 id);
static bool may_see(Oid schema, int64 id, int32 channel_id);
static int	subscribers_of(Oid schema, int32 channel_id,
						   Subscriber **subscribers);
static void outcome_read(Oid schema, int32 subscription_id,
						 int64 since_lease, int64 id, AckOutcome *outcome);
static void acks_read(Relation leaf, bool wide, int32 subscription_id,
					  int64 since_lease, int64 id, AckOutcome *outcome);
static void ack_read(HeapTuple tuple, TupleDesc desc, int64 since_lease,
					 int64 id, AckOutcome *outcome);
static int64 last_redrive(Oid schema, int32 subscription_id, int64 id);

extern Datum mbus_ack_covers(PG_FUNCTION_ARGS); /* facts/facts.c */

/*
 * delivery_status(message_id, channel_id, created_at) returns error if the
 * message is dead for a subscription of its channel, pending if one that
 * wants it is not done with it, else complete.
 */
MBUS_FUNCTION(delivery_status)
{
	Oid			schema = mbus_schema();
	int64		id = PG_GETARG_INT64(0);
	int32		channel_id = PG_GETARG_INT32(1);
	TimestampTz created_at = PG_GETARG_TIMESTAMPTZ(2);
	const char *status = "complete";
	Subscriber *subscribers;
	int			nsubscribers;

	if (!may_see(schema, id, channel_id))
		PG_RETURN_NULL();
	nsubscribers = subscribers_of(schema, channel_id, &subscribers);
	for (int i = 0; i < nsubscribers; i++)
	{
		AckOutcome	outcome;

		if (id < subscribers[i].start_id ||
			created_at < subscribers[i].start_at)
			continue;
		outcome_read(schema, subscribers[i].subscription_id,
					 subscribers[i].since_lease, id, &outcome);
		if (outcome.dead != 0)
		{
			status = "error";
			break;
		}
		if (outcome.acked_at == NEVER)
			status = "pending";
	}
	PG_RETURN_TEXT_P(cstring_to_text(status));
}

/*
 * last_access(message_id, channel_id) returns when the message was last acked
 * by a subscription of the channel, also before a seek, or recorded to have
 * been read; NULL if it never was.
 */
MBUS_FUNCTION(last_access)
{
	Oid			schema = mbus_schema();
	int64		id = PG_GETARG_INT64(0);
	int32		channel_id = PG_GETARG_INT32(1);
	TimestampTz latest = NEVER;
	TimestampTz event;
	Subscriber *subscribers;
	int			nsubscribers;

	if (!may_see(schema, id, channel_id))
		PG_RETURN_NULL();
	nsubscribers = subscribers_of(schema, channel_id, &subscribers);
	for (int i = 0; i < nsubscribers; i++)
	{
		AckOutcome	outcome;

		outcome_read(schema, subscribers[i].subscription_id, 0, id, &outcome);
		latest = Max(latest, outcome.acked_at);
	}
	/* events do not say whose message it is */
	event = last_event(schema, id);
	if (event > latest && mbus_message_is_of(schema, id, channel_id, false))
		latest = event;
	if (latest == NEVER)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(latest);
}

/* When an access was recorded last, or NEVER. */
static TimestampTz
last_event(Oid schema, int64 id)
{
	Relation	leaf = mbus_leaf_open_written(schema, MbusSegmentOf(id), MBUS_EVENT);
	TimestampTz latest = NEVER;
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (leaf == NULL)
		return NEVER;
	mbus_leaf_scan_open(&rows, leaf, MBUS_EVENT_MESSAGE_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_EVENT_MESSAGE_ID, id, id);
	mbus_leaf_scan_begin(&rows, GetActiveSnapshot());
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(leaf);
		bool		isnull;
		char	   *kind;

		kind = TextDatumGetCString(heap_getattr(tuple, MBUS_EVENT_KIND, desc,
												&isnull));
		if (strcmp(kind, "accessed") == 0)
			latest = Max(latest,
						 DatumGetTimestampTz(heap_getattr(tuple,
														  MBUS_EVENT_AT,
														  desc, &isnull)));
		pfree(kind);
	}
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return latest;
}

/*
 * mbus_message_is_of tells whether a message, live or not, is one of the
 * channel, with "own" one of the current user's.
 */
bool
mbus_message_is_of(Oid schema, int64 id, int32 channel_id, bool own)
{
	Relation	leaf = mbus_leaf_open_written(schema, MbusSegmentOf(id), MBUS_MESSAGE);
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;
	bool		found;

	if (leaf == NULL)
		return false;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	mbus_leaf_scan_begin(&rows, GetActiveSnapshot());
	tuple = mbus_leaf_scan_next(&rows);
	found = HeapTupleIsValid(tuple) &&
		DatumGetInt32(heap_getattr(tuple, MBUS_COL_CHANNEL_ID,
								   RelationGetDescr(leaf),
								   &isnull)) == channel_id &&
		(!own || mbus_row_visible(schema, tuple, RelationGetDescr(leaf)));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return found;
}

/*
 * mbus_died tells whether a subscription gave the message up under that lease,
 * and nobody has redriven it since.
 */
bool
mbus_died(Oid schema, int32 subscription_id, int64 id, int64 lease)
{
	AckOutcome	outcome;

	outcome_read(schema, subscription_id, 0, id, &outcome);
	return outcome.dead == lease;
}

/* Whether the current user may see a message of the channel. */
static bool
may_see(Oid schema, int64 id, int32 channel_id)
{
	const MbusChannel *channel = mbus_channel_by_id(schema, channel_id);

	return channel && mbus_channel_allows(channel, MBUS_SEE) &&
		(mbus_channel_allows(channel, MBUS_SEE_WHOLE) ||
		 mbus_message_is_of(schema, id, channel_id, true));
}

/*
 * subscribers_of reads the subscriptions of a channel.
 */
static int
subscribers_of(Oid schema, int32 channel_id, Subscriber **subscribers)
{
	Relation	rel = table_open(mbus_relation(schema, "subscription"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	int			room = 8;
	int			n = 0;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	*subscribers = palloc(room * sizeof(Subscriber));
	ScanKeyInit(&key, MBUS_SUBSCRIPTION_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(channel_id));
	scan = systable_beginscan(rel,
							  mbus_relation(schema, "subscription_channel_id_name_key"),
							  true, GetActiveSnapshot(), 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Subscriber *subscriber;
		bool		isnull;

		if (n == room)
		{
			room *= 2;
			*subscribers = repalloc(*subscribers, room * sizeof(Subscriber));
		}
		subscriber = &(*subscribers)[n++];
		subscriber->subscription_id =
			DatumGetInt32(heap_getattr(tuple, MBUS_SUBSCRIPTION_ID, desc,
									   &isnull));
		subscriber->start_id =
			DatumGetInt64(heap_getattr(tuple, MBUS_SUBSCRIPTION_START_ID, desc,
									   &isnull));
		subscriber->since_lease =
			DatumGetInt64(heap_getattr(tuple, MBUS_SUBSCRIPTION_SINCE_LEASE,
									   desc, &isnull));
		subscriber->start_at =
			DatumGetTimestampTz(heap_getattr(tuple, MBUS_SUBSCRIPTION_START_AT,
											 desc, &isnull));
		if (isnull)
			subscriber->start_at = NEVER;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return n;
}

/*
 * outcome_read reads what counts of a subscription's acks of one message.
 */
static void
outcome_read(Oid schema, int32 subscription_id, int64 since_lease, int64 id,
			 AckOutcome *outcome)
{
	Relation	leaf = mbus_leaf_open_written(schema, MbusSegmentOf(id), MBUS_ACK);

	outcome->acked_at = NEVER;
	outcome->dead = 0;
	if (leaf == NULL)
		return;
	acks_read(leaf, false, subscription_id, since_lease, id, outcome);
	acks_read(leaf, true, subscription_id, since_lease, id, outcome);
	table_close(leaf, AccessShareLock);
	if (outcome->dead != 0 &&
		outcome->dead <= last_redrive(schema, subscription_id, id))
		outcome->dead = 0;
}

/*
 * acks_read reads the rows that begin with an id; with "wide" those that
 * begin below and may hold it.
 */
static void
acks_read(Relation leaf, bool wide, int32 subscription_id, int64 since_lease,
		  int64 id, AckOutcome *outcome)
{
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_acks_begin(&rows, leaf, wide, subscription_id, id,
					GetActiveSnapshot());
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
		ack_read(tuple, RelationGetDescr(leaf), since_lease, id, outcome);
	mbus_leaf_scan_close(&rows);
}

/*
 * mbus_acks_begin begins to read the rows of a subscription that begin with an
 * id, "wide": that begin below it and may hold it; mbus_leaf_scan_close() ends
 * that.
 */
void
mbus_acks_begin(MbusLeafScan *rows, Relation leaf, bool wide,
				int32 subscription_id, int64 id, Snapshot snapshot)
{
	mbus_leaf_scan_open(rows, leaf, MBUS_ACK_SUBSCRIPTION_ID, MBUS_ACK_LO,
						wide);
	mbus_leaf_scan_int4(rows, MBUS_ACK_SUBSCRIPTION_ID, subscription_id);
	mbus_leaf_scan_int8(rows, MBUS_ACK_LO,
						wide ? id - MBUS_ACK_SPAN + 1 : id,
						wide ? id - 1 : id);
	if (wide)
		mbus_leaf_scan_int8(rows, MBUS_ACK_HI, id, PG_INT64_MAX);
	mbus_leaf_scan_begin(rows, snapshot);
}

/*
 * mbus_ack_row_covers tells whether a row of acks holds an id.
 */
bool
mbus_ack_row_covers(HeapTuple tuple, TupleDesc desc, int64 id)
{
	LOCAL_FCINFO(covers, 4);

#define PUT(n, column) \
	(covers->args[n].value = heap_getattr(tuple, column, desc, \
										  &covers->args[n].isnull))
	InitFunctionCallInfoData(*covers, NULL, 4, InvalidOid, NULL, NULL);
	PUT(0, MBUS_ACK_LO);
	PUT(1, MBUS_ACK_RUNS);
	PUT(2, MBUS_ACK_HI);
#undef PUT
	covers->args[3].value = Int64GetDatum(id);
	covers->args[3].isnull = false;
	return DatumGetBool(mbus_ack_covers(covers));
}

/*
 * ack_read takes note of a row of acks if it counts and covers the id: of the
 * last one that says the message died here, and of the time of an ack.
 */
static void
ack_read(HeapTuple tuple, TupleDesc desc, int64 since_lease, int64 id,
		 AckOutcome *outcome)
{
	int64		lease;
	TimestampTz at;
	bool		isnull;
	char	   *how;

#define READ(column, null) heap_getattr(tuple, column, desc, null)
	lease = DatumGetInt64(READ(MBUS_ACK_LEASE, &isnull));
	if (lease < since_lease)
		return;
	if (!mbus_ack_row_covers(tuple, desc, id))
		return;

	how = TextDatumGetCString(READ(MBUS_ACK_OUTCOME, &isnull));
	if (strcmp(how, "acked") != 0)
		outcome->dead = Max(outcome->dead, lease);
	else
	{
		at = DatumGetTimestampTz(READ(MBUS_ACK_AT, &isnull));
		outcome->acked_at = Max(outcome->acked_at, at);
	}
	pfree(how);
#undef READ
}

/* The lease of a message's last redrive; 0 if there was none. */
static int64
last_redrive(Oid schema, int32 subscription_id, int64 id)
{
	Relation	leaf = mbus_leaf_open_written(schema, MbusSegmentOf(id), MBUS_FAILURE);
	int64		last = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (leaf == NULL)
		return 0;
	mbus_leaf_scan_open(&rows, leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID, subscription_id);
	mbus_leaf_scan_int8(&rows, MBUS_FAILURE_MESSAGE_ID, id, id);
	mbus_leaf_scan_begin(&rows, GetActiveSnapshot());
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(leaf);
		bool		isnull;

		if (DatumGetInt16(heap_getattr(tuple, MBUS_FAILURE_ATTEMPT, desc,
									   &isnull)) == 0)
			last = Max(last,
					   DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE,
												  desc, &isnull)));
	}
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return last;
}
