/*
 * audit_log.c
 *		Who did what: the function behind the view audit_log.
 *
 * Two sources: what was changed and what was done to the log
 * (message_bus.log_action), and the facts of messages: acks, failures and
 * redrives, recorded reads, deletions.  Rights come first, as in message_scan.c.
 * Of changes one sees what action/action.c says, of facts those of channels
 * whose messages one may see all.  To monitor is enough for changes, and not
 * for facts: a failure has what a consumer said of a message.
 *
 * "since" saves reading: changes are found by an index on the time.  Facts
 * have none: their tables are gone through once, without a row being made of
 * what is older.
 *
 * Memory: a row at a time; the result spills to disk.  Locks: AccessShare on a
 * table while it is read.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "action/action.h"
#include "base/columns.h"
#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"

/* Columns of audit_log_rows(). */
enum
{
	LOG_NO,
	LOG_AT,
	LOG_KIND,
	LOG_WHAT,
	LOG_CHANNEL,
	LOG_SUBSCRIPTION,
	LOG_MESSAGE_ID,
	LOG_ROLE,
	LOG_SUBJECT,
	LOG_SESSION,
	LOG_DETAILS,
	LOG_COLUMNS
};

/* Where the columns are that facts have in common; 0: it has none. */
typedef struct FactColumns
{
	MbusFamily	family;
	AttrNumber	no;
	AttrNumber	at;
	AttrNumber	what;
	AttrNumber	message_id;
	AttrNumber	subscription_id;
	AttrNumber	role;
	AttrNumber	subject;
	AttrNumber	session;
} FactColumns;

/* What is told of a fact beside, as members of a JSON object. */
typedef struct Detail
{
	MbusFamily	family;
	AttrNumber	column;
	const char *name;
} Detail;

/* One reading. */
typedef struct AuditLog
{
	Oid			schema;
	Snapshot	snapshot;
	TimestampTz since;
	ReturnSetInfo *rsinfo;
	MemoryContext context;		/* for a row */

	/* the row */
	Datum		value[LOG_COLUMNS];
	bool		isnull[LOG_COLUMNS];

	/* its table's columns, from 1 */
	Datum		column[MBUS_MESSAGE_COLUMNS + 1];
	bool		null[MBUS_MESSAGE_COLUMNS + 1];
} AuditLog;

static const FactColumns fact_columns[] = {
	{MBUS_EVENT, MBUS_EVENT_NO, MBUS_EVENT_AT, MBUS_EVENT_KIND,
		MBUS_EVENT_MESSAGE_ID, 0, MBUS_EVENT_ROLE, MBUS_EVENT_SUBJECT,
	MBUS_EVENT_SESSION},
	{MBUS_ACK, MBUS_ACK_NO, MBUS_ACK_AT, MBUS_ACK_OUTCOME, MBUS_ACK_LO,
		MBUS_ACK_SUBSCRIPTION_ID, MBUS_ACK_ROLE, MBUS_ACK_SUBJECT,
	MBUS_ACK_SESSION},
	{MBUS_FAILURE, MBUS_FAILURE_NO, MBUS_FAILURE_AT, MBUS_FAILURE_KIND,
		MBUS_FAILURE_MESSAGE_ID, MBUS_FAILURE_SUBSCRIPTION_ID,
	MBUS_FAILURE_ROLE, MBUS_FAILURE_SUBJECT, MBUS_FAILURE_SESSION},
};

static const Detail fact_details[] = {
	{MBUS_ACK, MBUS_ACK_HI, "to_id"},
	{MBUS_ACK, MBUS_ACK_N, "messages"},
	{MBUS_ACK, MBUS_ACK_LEASE, "lease"},
	{MBUS_ACK, MBUS_ACK_ATTEMPT, "attempt"},
	{MBUS_FAILURE, MBUS_FAILURE_REASON, "reason"},
	{MBUS_FAILURE, MBUS_FAILURE_LEASE, "lease"},
	{MBUS_FAILURE, MBUS_FAILURE_ATTEMPT, "attempt"},
	{MBUS_FAILURE, MBUS_FAILURE_DEAD_LETTER_ID, "dead_letter_id"},
	{MBUS_FAILURE, MBUS_FAILURE_NOT_MOVED, "not_moved"},
};

static const Detail action_details[] = {
	{MBUS_FAMILIES, MBUS_ACTION_SEGMENT_NO, "segment_no"},
	{MBUS_FAMILIES, MBUS_ACTION_ENTRIES, "entries"},
	{MBUS_FAMILIES, MBUS_ACTION_CONTINUES, "continues"},
};

static void row_read(AuditLog *log, HeapTuple tuple, TupleDesc desc);
static void actions_return(AuditLog *log);
static bool action_row(AuditLog *log);
static void action_what(AuditLog *log);
static void facts_return(AuditLog *log);
static void leaf_return(AuditLog *log, Relation leaf,
						const FactColumns *columns);
static bool fact_row(AuditLog *log, const FactColumns *columns);
static const MbusChannel *fact_channel(const AuditLog *log,
									   const FactColumns *columns,
									   const MbusSubscription *subscription);
static int32 message_channel(const AuditLog *log, int64 id);
static void row_return(AuditLog *log);
static void copy(AuditLog *log, int to, AttrNumber from);
static void set_text(AuditLog *log, int to, const char *value);
static void details_set(AuditLog *log, TupleDesc desc, MbusFamily family,
						const Detail *details, int n);

/*
 * audit_log_rows(since) returns who did what at that time or later, as far as
 * the current user may see it.
 */
MBUS_FUNCTION(audit_log_rows)
{
	AuditLog	log = {0};

	log.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	InitMaterializedSRF(fcinfo, 0);
	log.schema = mbus_schema();
	log.since = PG_ARGISNULL(0) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(0);
	log.snapshot = RegisterSnapshot(GetActiveSnapshot());
	log.context = AllocSetContextCreate(CurrentMemoryContext,
										"message_bus audit_log",
										ALLOCSET_DEFAULT_SIZES);
	actions_return(&log);
	facts_return(&log);
	MemoryContextDelete(log.context);
	UnregisterSnapshot(log.snapshot);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * Changes
 * ------------------------------------------------------------------------
 */

/* Takes a row apart. */
static void
row_read(AuditLog *log, HeapTuple tuple, TupleDesc desc)
{
	if (desc->natts >= (int) lengthof(log->column))
		elog(ERROR, "table has %d columns", desc->natts);
	heap_deform_tuple(tuple, desc, log->column + 1, log->null + 1);
}

static void
actions_return(AuditLog *log)
{
	Relation	rel = table_open(mbus_relation(log->schema, "log_action"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, rel, MBUS_ACTION_AT, 0, false);
	mbus_leaf_scan_time(&rows, MBUS_ACTION_AT, log->since, DT_NOEND);
	mbus_leaf_scan_begin(&rows, log->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(log->context);

		row_read(log, tuple, desc);
		if (action_row(log))
		{
			if (log->isnull[LOG_DETAILS])
				details_set(log, desc, MBUS_FAMILIES, action_details,
							lengthof(action_details));
			row_return(log);
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(log->context);
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
}

/* Fills in the row of a change, but its details; false if it is not shown. */
static bool
action_row(AuditLog *log)
{
	int32		channel_id = log->null[MBUS_ACTION_CHANNEL_ID] ? 0 :
	DatumGetInt32(log->column[MBUS_ACTION_CHANNEL_ID]);
	const MbusChannel *channel;

	if (!mbus_action_shown(log->schema,
						   TextDatumGetCString(log->column[MBUS_ACTION_KIND]),
						   channel_id))
		return false;
	memset(log->isnull, true, sizeof(log->isnull));
	copy(log, LOG_NO, MBUS_ACTION_NO);
	/* what has no number yet */
	if (DatumGetInt64(log->value[LOG_NO]) < 0)
		log->isnull[LOG_NO] = true;
	copy(log, LOG_AT, MBUS_ACTION_AT);
	copy(log, LOG_KIND, MBUS_ACTION_KIND);
	copy(log, LOG_ROLE, MBUS_ACTION_ROLE);
	copy(log, LOG_SUBJECT, MBUS_ACTION_SUBJECT);
	copy(log, LOG_SESSION, MBUS_ACTION_SESSION);
	copy(log, LOG_DETAILS, MBUS_ACTION_DETAILS);
	channel = channel_id == 0 ? NULL :
		mbus_channel_by_id(log->schema, channel_id);
	if (channel)
		set_text(log, LOG_CHANNEL, channel->name);
	action_what(log);
	return true;
}

/* What was done is the first member of the details, which we made. */
static void
action_what(AuditLog *log)
{
	static const char first[] = "{\"change\":\"";
	char	   *details;
	char	   *end;

	if (log->isnull[LOG_DETAILS])
		return;
	details = TextDatumGetCString(log->value[LOG_DETAILS]);
	if (strncmp(details, first, sizeof(first) - 1) != 0)
		return;
	details += sizeof(first) - 1;
	end = strchr(details, '"');
	if (end)
		*end = '\0';
	set_text(log, LOG_WHAT, details);
}

/* ------------------------------------------------------------------------
 * Facts
 * ------------------------------------------------------------------------
 */

static void
facts_return(AuditLog *log)
{
	MbusLeaf   *leaves;
	int			n = mbus_channel_any(log->schema) ?
	mbus_leaves(log->schema, &leaves) : 0;

	for (int i = 0; i < n; i++)
	{
		for (int f = 0; f < (int) lengthof(fact_columns); f++)
		{
			Relation	leaf = mbus_leaf_open_written(log->schema,
													  leaves[i].segment,
													  fact_columns[f].family);

			if (leaf == NULL)
				continue;
			leaf_return(log, leaf, &fact_columns[f]);
			table_close(leaf, AccessShareLock);
		}
	}
}

/* Returns the facts of a table. */
static void
leaf_return(AuditLog *log, Relation leaf, const FactColumns *columns)
{
	TupleDesc	desc = RelationGetDescr(leaf);
	SysScanDesc rows = systable_beginscan(leaf, InvalidOid, false,
										  log->snapshot, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		MemoryContext caller;
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (DatumGetTimestampTz(heap_getattr(tuple, columns->at, desc,
											 &isnull)) < log->since)
			continue;
		caller = MemoryContextSwitchTo(log->context);
		row_read(log, tuple, desc);
		if (fact_row(log, columns))
		{
			details_set(log, desc, columns->family, fact_details,
						lengthof(fact_details));
			row_return(log);
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(log->context);
	}
	systable_endscan(rows);
}

/* Fills in the row of a fact, but its details; false if it is not shown. */
static bool
fact_row(AuditLog *log, const FactColumns *columns)
{
	const MbusSubscription *subscription = columns->subscription_id == 0 ?
	NULL : mbus_subscription_by_id(log->schema,
								   DatumGetInt32(log->column[columns->subscription_id]));
	char	   *name = subscription ? pstrdup(subscription->name) : NULL;
	const MbusChannel *channel = fact_channel(log, columns, subscription);

	if (channel == NULL || !mbus_channel_allows(channel, MBUS_SEE_WHOLE))
		return false;
	memset(log->isnull, true, sizeof(log->isnull));
	copy(log, LOG_NO, columns->no);
	copy(log, LOG_AT, columns->at);
	copy(log, LOG_WHAT, columns->what);
	copy(log, LOG_MESSAGE_ID, columns->message_id);
	copy(log, LOG_ROLE, columns->role);
	copy(log, LOG_SUBJECT, columns->subject);
	copy(log, LOG_SESSION, columns->session);
	set_text(log, LOG_CHANNEL, channel->name);
	set_text(log, LOG_SUBSCRIPTION, name);
	/* as in the log's entries */
	if (columns->family == MBUS_ACK)
		set_text(log, LOG_KIND, "ack");
	else if (columns->family == MBUS_FAILURE)
		set_text(log, LOG_KIND,
				 DatumGetInt16(log->column[MBUS_FAILURE_ATTEMPT]) == 0 ?
				 "redrive" : "failure");
	else
		set_text(log, LOG_KIND,
				 strcmp(TextDatumGetCString(log->value[LOG_WHAT]),
						"deleted") == 0 ? "delete" : "access");
	return true;
}

/*
 * The channel of a fact: that of its subscription; if that is gone, or has
 * none, of its message.
 */
static const MbusChannel *
fact_channel(const AuditLog *log, const FactColumns *columns,
			 const MbusSubscription *subscription)
{
	int32		channel_id;

	if (subscription)
		channel_id = subscription->channel_id;
	else
		channel_id = message_channel(log,
									 DatumGetInt64(log->column[columns->message_id]));
	return channel_id == 0 ? NULL :
		mbus_channel_by_id(log->schema, channel_id);
}

/* The channel of a message; 0 if it is not there. */
static int32
message_channel(const AuditLog *log, int64 id)
{
	Relation	leaf = mbus_leaf_open(log->schema, MbusSegmentOf(id),
									  MBUS_MESSAGE, AccessShareLock);
	int32		channel_id = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;

	if (leaf == NULL)
		return 0;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	mbus_leaf_scan_begin(&rows, log->snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple)
		channel_id = DatumGetInt32(heap_getattr(tuple, MBUS_COL_CHANNEL_ID,
												RelationGetDescr(leaf),
												&isnull));
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return channel_id;
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

static void
row_return(AuditLog *log)
{
	tuplestore_putvalues(log->rsinfo->setResult, log->rsinfo->setDesc,
						 log->value, log->isnull);
}

/* Copies a column; one that may be out of line is read whole. */
static void
copy(AuditLog *log, int to, AttrNumber from)
{
	log->value[to] = log->column[from];
	log->isnull[to] = log->null[from];
	if (!log->isnull[to] &&
		TupleDescAttr(log->rsinfo->setDesc, to)->attlen == -1)
		log->value[to] = PointerGetDatum(PG_DETOAST_DATUM(log->value[to]));
}

/* Sets a column; NULL is NULL. */
static void
set_text(AuditLog *log, int to, const char *value)
{
	log->isnull[to] = value == NULL;
	log->value[to] = value ? CStringGetTextDatum(value) : (Datum) 0;
}

/* Sets the details to what is not null of these. */
static void
details_set(AuditLog *log, TupleDesc desc, MbusFamily family,
			const Detail *details, int n)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int i = 0; i < n; i++)
	{
		AttrNumber	column = details[i].column;
		Datum		value = log->column[column];

		if (details[i].family != family || log->null[column])
			continue;
		appendStringInfo(&json, "%c\"%s\":", json.len == 0 ? '{' : ',',
						 details[i].name);
		switch (TupleDescAttr(desc, column - 1)->attlen)
		{
			case 2:
				appendStringInfo(&json, "%d", DatumGetInt16(value));
				break;
			case 4:
				appendStringInfo(&json, "%d", DatumGetInt32(value));
				break;
			case 8:
				appendStringInfo(&json, INT64_FORMAT, DatumGetInt64(value));
				break;
			default:
				escape_json(&json, TextDatumGetCString(value));
				break;
		}
	}
	if (json.len == 0)
		return;
	appendStringInfoChar(&json, '}');
	set_text(log, LOG_DETAILS, json.data);
}
