/*
 * fact_view.c
 *		The facts of one message: what trace() and the view deliveries are made
 *		of.
 *
 * Rights come first, as in message_scan.c: of a message that the current user
 * may not see there is no fact.  Who sees only his own of a channel is not told
 * by which subject, session and lease others have claimed it.
 *
 * A message that has expired, was deleted or purged has its facts as long as its
 * segment is there.  All are found by indexes: events by the message, acks and
 * failures by subscription and message, of each subscription that has any in the
 * segment, also of one that was dropped.  Which those are is looked up once for a
 * query, by steps through the index, and kept until its end: it has one
 * snapshot.
 *
 * Leaves are read one by one, AccessShare; what is returned is whole, so that
 * none stays locked.  Nothing is written.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit/outcome.h"
#include "audit/seen.h"
#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"

/* Columns of fact_rows(). */
enum
{
	FACT_KIND,
	FACT_NO,
	FACT_AT,
	FACT_SUBSCRIPTION,
	FACT_WHAT,
	FACT_ATTEMPT,
	FACT_LEASE,
	FACT_CLAIMED_AT,
	FACT_RETRY_AT,
	FACT_DEAD_LETTER_ID,
	FACT_NOT_MOVED,
	FACT_REASON,
	FACT_ROLE,
	FACT_SUBJECT,
	FACT_SESSION,
	FACT_COLUMNS
};

/* The subscriptions that have rows in a table of a segment, ascending. */
typedef struct Subscribers
{
	int32		segment;
	int			n;
	int			room;
	int32	   *id;
} Subscribers;

/* What a query remembers from call to call. */
typedef struct Known
{
	Subscribers of[MBUS_FAMILIES];
} Known;

/* One call. */
typedef struct FactScan
{
	Oid			schema;
	Snapshot	snapshot;
	int64		id;
	int32		channel_id;
	bool		own;			/* he sees only his own messages */
	Known	   *known;
	MemoryContext kept;			/* of what is known */
	ReturnSetInfo *rsinfo;
} FactScan;

static bool message_seen(FactScan *scan);
static void events_put(FactScan *scan);
static void acks_put(FactScan *scan);
static void acks_of(FactScan *scan, Relation leaf, int32 subscription_id,
					bool wide);
static void failures_put(FactScan *scan);
static void failures_of(FactScan *scan, Relation leaf, int32 subscription_id);
static const Subscribers *subscribers_in(FactScan *scan, Relation leaf,
										 MbusFamily family);
static bool subscriber_next(FactScan *scan, Relation leaf, MbusFamily family,
							int32 *id);
static bool is_of_channel(const FactScan *scan, int32 subscription_id);
static void fact_put(FactScan *scan, MbusFamily family, HeapTuple tuple,
					 TupleDesc desc);
static const char *fact_kind(MbusFamily family, const Datum *value);
static Datum subscription_label(Oid schema, int32 id);

/* Which columns of a table the columns are; 0: none, or made of others. */
static const AttrNumber columns[MBUS_FAMILIES][FACT_COLUMNS] = {
	[MBUS_EVENT] = {
		[FACT_NO] = MBUS_EVENT_NO,
		[FACT_AT] = MBUS_EVENT_AT,
		[FACT_WHAT] = MBUS_EVENT_KIND,
		[FACT_ROLE] = MBUS_EVENT_ROLE,
		[FACT_SUBJECT] = MBUS_EVENT_SUBJECT,
		[FACT_SESSION] = MBUS_EVENT_SESSION,
	},
	[MBUS_ACK] = {
		[FACT_NO] = MBUS_ACK_NO,
		[FACT_AT] = MBUS_ACK_AT,
		[FACT_SUBSCRIPTION] = MBUS_ACK_SUBSCRIPTION_ID,
		[FACT_WHAT] = MBUS_ACK_OUTCOME,
		[FACT_ATTEMPT] = MBUS_ACK_ATTEMPT,
		[FACT_LEASE] = MBUS_ACK_LEASE,
		[FACT_CLAIMED_AT] = MBUS_ACK_CLAIMED_AT,
		[FACT_ROLE] = MBUS_ACK_ROLE,
		[FACT_SUBJECT] = MBUS_ACK_SUBJECT,
		[FACT_SESSION] = MBUS_ACK_SESSION,
	},
	[MBUS_FAILURE] = {
		[FACT_NO] = MBUS_FAILURE_NO,
		[FACT_AT] = MBUS_FAILURE_AT,
		[FACT_SUBSCRIPTION] = MBUS_FAILURE_SUBSCRIPTION_ID,
		[FACT_WHAT] = MBUS_FAILURE_KIND,
		[FACT_ATTEMPT] = MBUS_FAILURE_ATTEMPT,
		[FACT_LEASE] = MBUS_FAILURE_LEASE,
		[FACT_CLAIMED_AT] = MBUS_FAILURE_CLAIMED_AT,
		[FACT_RETRY_AT] = MBUS_FAILURE_RETRY_AT,
		[FACT_DEAD_LETTER_ID] = MBUS_FAILURE_DEAD_LETTER_ID,
		[FACT_NOT_MOVED] = MBUS_FAILURE_NOT_MOVED,
		[FACT_REASON] = MBUS_FAILURE_REASON,
		[FACT_ROLE] = MBUS_FAILURE_ROLE,
		[FACT_SUBJECT] = MBUS_FAILURE_SUBJECT,
		[FACT_SESSION] = MBUS_FAILURE_SESSION,
	},
};

/*
 * fact_rows(message_id bigint) returns the facts of a message that the current
 * user may see, in no order.
 */
MBUS_FUNCTION(fact_rows)
{
	FactScan	scan = {0};

	scan.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	InitMaterializedSRF(fcinfo, 0);
	scan.id = PG_GETARG_INT64(0);
	if (scan.id <= 0 || (scan.id >> MBUS_ROW_BITS) > MBUS_SEGMENT_MAX)
		return (Datum) 0;
	scan.kept = fcinfo->flinfo->fn_mcxt;
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = MemoryContextAllocZero(scan.kept,
														  sizeof(Known));
	scan.known = fcinfo->flinfo->fn_extra;
	scan.schema = mbus_schema();
	scan.snapshot = RegisterSnapshot(GetActiveSnapshot());
	if (message_seen(&scan))
	{
		events_put(&scan);
		acks_put(&scan);
		failures_put(&scan);
	}
	UnregisterSnapshot(scan.snapshot);
	return (Datum) 0;
}

/* Whether there is such a message, live or not, and one may see it. */
static bool
message_seen(FactScan *scan)
{
	Relation	leaf = mbus_leaf_open_written(scan->schema,
											  MbusSegmentOf(scan->id),
											  MBUS_MESSAGE);
	const MbusChannel *channel = NULL;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;
	bool		seen;

	if (leaf == NULL)
		return false;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, scan->id, scan->id);
	mbus_leaf_scan_begin(&rows, scan->snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple)
	{
		scan->channel_id =
			DatumGetInt32(heap_getattr(tuple, MBUS_COL_CHANNEL_ID,
									   RelationGetDescr(leaf), &isnull));
		channel = mbus_channel_by_id(scan->schema, scan->channel_id);
	}
	seen = channel && mbus_channel_allows(channel, MBUS_SEE);
	scan->own = seen && !mbus_channel_allows(channel, MBUS_SEE_WHOLE);
	if (scan->own)
		seen = mbus_row_visible(scan->schema, tuple, RelationGetDescr(leaf));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return seen;
}

/* ------------------------------------------------------------------------
 * Recorded reads, and deletions
 * ------------------------------------------------------------------------
 */

static void
events_put(FactScan *scan)
{
	Relation	leaf = mbus_leaf_open_written(scan->schema,
											  MbusSegmentOf(scan->id),
											  MBUS_EVENT);
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (leaf == NULL)
		return;
	mbus_leaf_scan_open(&rows, leaf, MBUS_EVENT_MESSAGE_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_EVENT_MESSAGE_ID, scan->id, scan->id);
	mbus_leaf_scan_begin(&rows, scan->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
		fact_put(scan, MBUS_EVENT, tuple, RelationGetDescr(leaf));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
}

/* ------------------------------------------------------------------------
 * Acks
 * ------------------------------------------------------------------------
 */

static void
acks_put(FactScan *scan)
{
	Relation	leaf = mbus_leaf_open_written(scan->schema,
											  MbusSegmentOf(scan->id),
											  MBUS_ACK);
	const Subscribers *subscribers;

	if (leaf == NULL)
		return;
	subscribers = subscribers_in(scan, leaf, MBUS_ACK);
	for (int i = 0; i < subscribers->n; i++)
	{
		if (!is_of_channel(scan, subscribers->id[i]))
			continue;
		acks_of(scan, leaf, subscribers->id[i], false);
		acks_of(scan, leaf, subscribers->id[i], true);
	}
	table_close(leaf, AccessShareLock);
}

/* Those that begin with the message; "wide": below it, and may hold it. */
static void
acks_of(FactScan *scan, Relation leaf, int32 subscription_id, bool wide)
{
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_acks_begin(&rows, leaf, wide, subscription_id, scan->id,
					scan->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		if (mbus_ack_row_covers(tuple, RelationGetDescr(leaf), scan->id))
			fact_put(scan, MBUS_ACK, tuple, RelationGetDescr(leaf));
	}
	mbus_leaf_scan_close(&rows);
}

/* ------------------------------------------------------------------------
 * Failures, and new starts
 * ------------------------------------------------------------------------
 */

static void
failures_put(FactScan *scan)
{
	Relation	leaf = mbus_leaf_open_written(scan->schema,
											  MbusSegmentOf(scan->id),
											  MBUS_FAILURE);
	const Subscribers *subscribers;

	if (leaf == NULL)
		return;
	subscribers = subscribers_in(scan, leaf, MBUS_FAILURE);
	for (int i = 0; i < subscribers->n; i++)
	{
		if (is_of_channel(scan, subscribers->id[i]))
			failures_of(scan, leaf, subscribers->id[i]);
	}
	table_close(leaf, AccessShareLock);
}

static void
failures_of(FactScan *scan, Relation leaf, int32 subscription_id)
{
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID, subscription_id);
	mbus_leaf_scan_int8(&rows, MBUS_FAILURE_MESSAGE_ID, scan->id, scan->id);
	mbus_leaf_scan_begin(&rows, scan->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
		fact_put(scan, MBUS_FAILURE, tuple, RelationGetDescr(leaf));
	mbus_leaf_scan_close(&rows);
}

/* ------------------------------------------------------------------------
 * Subscriptions
 * ------------------------------------------------------------------------
 */

/* The subscriptions that have rows in the table, looked up if need be. */
static const Subscribers *
subscribers_in(FactScan *scan, Relation leaf, MbusFamily family)
{
	Subscribers *known = &scan->known->of[family];
	int32		id = PG_INT32_MIN;

	if (known->segment == MbusSegmentOf(scan->id))
		return known;
	known->segment = 0;
	known->n = 0;
	while (subscriber_next(scan, leaf, family, &id))
	{
		if (known->n == known->room)
		{
			known->room = Max(16, known->room * 2);
			known->id = known->id ?
				repalloc_huge(known->id, known->room * sizeof(int32)) :
				MemoryContextAlloc(scan->kept, known->room * sizeof(int32));
		}
		known->id[known->n++] = id;
		if (id == PG_INT32_MAX)
			break;
		id++;
	}
	known->segment = MbusSegmentOf(scan->id);
	return known;
}

/* The lowest that is not below *id; false if there is none. */
static bool
subscriber_next(FactScan *scan, Relation leaf, MbusFamily family, int32 *id)
{
	bool		acks = family == MBUS_ACK;
	AttrNumber	column = acks ? MBUS_ACK_SUBSCRIPTION_ID :
	MBUS_FAILURE_SUBSCRIPTION_ID;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;

	mbus_leaf_scan_open(&rows, leaf, column,
						acks ? MBUS_ACK_LO : MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4_from(&rows, column, *id);
	mbus_leaf_scan_begin(&rows, scan->snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple)
		*id = DatumGetInt32(heap_getattr(tuple, column, RelationGetDescr(leaf),
										 &isnull));
	mbus_leaf_scan_close(&rows);
	return tuple != NULL;
}

/* Whether a subscription is, or may have been, one of the message's channel. */
static bool
is_of_channel(const FactScan *scan, int32 subscription_id)
{
	const MbusSubscription *subscription;

	CHECK_FOR_INTERRUPTS();
	subscription = mbus_subscription_by_id(scan->schema, subscription_id);
	return subscription == NULL ||
		subscription->channel_id == scan->channel_id;
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/* Returns a row, whole, as far as the current user is told. */
static void
fact_put(FactScan *scan, MbusFamily family, HeapTuple tuple, TupleDesc desc)
{
	Datum		value[MBUS_MESSAGE_COLUMNS + 1] = {0};
	bool		isnull[MBUS_MESSAGE_COLUMNS + 1] = {0};
	Datum		out[FACT_COLUMNS] = {0};
	bool		null[FACT_COLUMNS];

	if (desc->natts > MBUS_MESSAGE_COLUMNS)
		elog(ERROR, "table of a segment has %d columns", desc->natts);
	heap_deform_tuple(tuple, desc, value + 1, isnull + 1);
	for (int i = 0; i < FACT_COLUMNS; i++)
	{
		AttrNumber	from = columns[family][i];

		null[i] = from == 0 || isnull[from];
		if (null[i])
			continue;
		out[i] = value[from];
		if (i == FACT_SUBSCRIPTION)
			out[i] = subscription_label(scan->schema,
										DatumGetInt32(value[from]));
		else if (TupleDescAttr(desc, from - 1)->attlen == -1)
			out[i] = PointerGetDatum(PG_DETOAST_DATUM(value[from]));
	}
	out[FACT_KIND] = CStringGetTextDatum(fact_kind(family, value));
	null[FACT_KIND] = false;
	if (scan->own)
		null[FACT_LEASE] = null[FACT_SUBJECT] = null[FACT_SESSION] = true;
	tuplestore_putvalues(scan->rsinfo->setResult, scan->rsinfo->setDesc, out,
						 null);
}

/* What the log calls a fact. */
static const char *
fact_kind(MbusFamily family, const Datum *value)
{
	if (family == MBUS_ACK)
		return "ack";
	if (family == MBUS_FAILURE)
		return DatumGetInt16(value[MBUS_FAILURE_ATTEMPT]) == 0 ?
			"redrive" : "failure";
	return strcmp(TextDatumGetCString(value[MBUS_EVENT_KIND]),
				  "deleted") == 0 ? "delete" : "access";
}

/* A subscription's name, as long as it has one. */
static Datum
subscription_label(Oid schema, int32 id)
{
	const MbusSubscription *subscription = mbus_subscription_by_id(schema, id);

	return CStringGetTextDatum(subscription ? subscription->name :
							   psprintf("(dropped) %d", id));
}
