/*
 * dead_letter_view.c
 *		The deaths that the current user may see: what the view dead_letters is
 *		made of.
 *
 * Rights come first, as in message_scan.c: conditions of a query see no other
 * row.  To monitor is not enough: a failure has what a consumer said of a
 * message.  Of a dead letter in another channel key, size and content type are
 * told, which are those of the message that died; of one in quarantine the size
 * alone.
 *
 * Leaves are read one by one.  What is returned is whole, so that none stays
 * locked.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit/outcome.h"
#include "audit/seen.h"
#include "base/columns.h"
#include "base/ids.h"
#include "base/payload.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/purged.h"
#include "message/quarantine.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/clock.h"
#include "state/fault.h"

/* Columns of death_rows(). */
enum
{
	DEATH_SUBSCRIPTION_ID,
	DEATH_MESSAGE_ID,
	DEATH_ATTEMPTS,
	DEATH_REASON,
	DEATH_KIND,
	DEATH_DIED_AT,
	DEATH_DEAD_LETTER_ID,
	DEATH_DEAD_LETTER,
	DEATH_CLAIMED_AT,
	DEATH_ROLE,
	DEATH_KEY,
	DEATH_SIZE,
	DEATH_CONTENT_TYPE,
	DEATH_NOT_MOVED,
	DEATH_COLUMNS
};

/* What is told of a message. */
typedef struct Told
{
	const char *channel;
	text	   *key;			/* or NULL */
	int64		size;
	text	   *content_type;	/* or NULL */
} Told;

static void deaths_return(Oid schema, Relation leaf, const MbusReader *reader,
						  Snapshot snapshot, ReturnSetInfo *rsinfo);
static bool is_death(Oid schema, const MbusReader *reader, HeapTuple tuple,
					 TupleDesc desc);
static bool death_values(Oid schema, const MbusReader *reader, HeapTuple tuple,
						 TupleDesc desc, Snapshot snapshot, Datum *values,
						 bool *isnull);
static bool message_find(Oid schema, int64 id, bool own, Snapshot snapshot,
						 Told *told);
static bool message_read(Oid schema, HeapTuple tuple, TupleDesc desc,
						 Told *told);
static bool is_deleted(Oid schema, int64 id, Snapshot snapshot);

/*
 * death_rows() returns the messages that died for subscriptions of channels that
 * the current user may consume or audit, as long as they can be redriven.
 */
MBUS_FUNCTION(death_rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	Snapshot	snapshot;
	MbusReader *readers;
	MbusLeaf   *leaves;
	int			nreaders;
	int			nleaves;

	InitMaterializedSRF(fcinfo, 0);
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	nreaders = mbus_readers_list(schema, snapshot, &readers);
	nleaves = nreaders > 0 ? mbus_leaves(schema, &leaves) : 0;
	for (int i = 0; i < nleaves; i++)
	{
		Relation	leaf = mbus_leaf_open_written(schema, leaves[i].segment,
												  MBUS_FAILURE);

		if (leaf == NULL)
			continue;
		for (int r = 0; r < nreaders; r++)
			deaths_return(schema, leaf, &readers[r], snapshot, rsinfo);
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/*
 * mbus_readers_list lists the subscriptions of channels that one may consume or
 * audit.
 */
int
mbus_readers_list(Oid schema, Snapshot snapshot, MbusReader **readers)
{
	Relation	rel = table_open(mbus_relation(schema, "subscription"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	int			room = 16;
	int			n = 0;
	SysScanDesc rows;
	HeapTuple	tuple;

	*readers = palloc(room * sizeof(MbusReader));
	rows = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		const MbusChannel *channel;
		bool		isnull;

		channel = mbus_channel_by_id(schema,
									 DatumGetInt32(heap_getattr(tuple,
																MBUS_SUBSCRIPTION_CHANNEL_ID,
																desc, &isnull)));
		if (channel == NULL || !mbus_channel_allows(channel, MBUS_SEE))
			continue;
		if (n == room)
		{
			room *= 2;
			*readers = repalloc_huge(*readers, room * sizeof(MbusReader));
		}
		(*readers)[n].subscription_id =
			DatumGetInt32(heap_getattr(tuple, MBUS_SUBSCRIPTION_ID, desc,
									   &isnull));
		(*readers)[n].since_lease =
			DatumGetInt64(heap_getattr(tuple, MBUS_SUBSCRIPTION_SINCE_LEASE,
									   desc, &isnull));
		(*readers)[n].channel_id = channel->channel_id;
		(*readers)[n].own = !mbus_channel_allows(channel, MBUS_SEE_WHOLE);
		n++;
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	return n;
}

/* Returns the deaths of a segment's messages for one subscription. */
static void
deaths_return(Oid schema, Relation leaf, const MbusReader *reader,
			  Snapshot snapshot, ReturnSetInfo *rsinfo)
{
	TupleDesc	desc = RelationGetDescr(leaf);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "message_bus deaths",
												  ALLOCSET_DEFAULT_SIZES);
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID,
						reader->subscription_id);
	mbus_leaf_scan_begin(&rows, snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(context);
		Datum		values[DEATH_COLUMNS];
		bool		isnull[DEATH_COLUMNS];

		if (is_death(schema, reader, tuple, desc) &&
			death_values(schema, reader, tuple, desc, snapshot, values,
						 isnull))
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
	}
	mbus_leaf_scan_close(&rows);
	MemoryContextDelete(context);
}

/*
 * Whether a failure is a death that still counts: not one that a seek has
 * voided, unless its dead letter is elsewhere.
 */
static bool
is_death(Oid schema, const MbusReader *reader, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	int64		lease;
	Datum		kind;

	if (!heap_attisnull(tuple, MBUS_FAILURE_RETRY_AT, desc))
		return false;
	lease = DatumGetInt64(heap_getattr(tuple, MBUS_FAILURE_LEASE, desc,
									   &isnull));
	if (lease < reader->since_lease &&
		heap_attisnull(tuple, MBUS_FAILURE_DEAD_LETTER_ID, desc))
		return false;
	kind = heap_getattr(tuple, MBUS_FAILURE_KIND, desc, &isnull);
	if (strcmp(TextDatumGetCString(kind), "redriven") == 0)
		return false;
	return mbus_died(schema, reader->subscription_id,
					 DatumGetInt64(heap_getattr(tuple,
												MBUS_FAILURE_MESSAGE_ID, desc,
												&isnull)), lease);
}

/*
 * death_values fills in a row; false if the message, or its dead letter, is not
 * there any more.
 */
static bool
death_values(Oid schema, const MbusReader *reader, HeapTuple tuple,
			 TupleDesc desc, Snapshot snapshot, Datum *values, bool *isnull)
{
	Datum		column[MBUS_FAILURE_COLUMNS + 1];
	bool		null[MBUS_FAILURE_COLUMNS + 1];
	bool		moved;
	Told		told;

#define COPY(to, from)	(values[to] = column[from], isnull[to] = null[from])
	mbus_leaf_deform(tuple, desc, MBUS_FAILURE_COLUMNS, column + 1, null + 1);
	moved = !null[MBUS_FAILURE_DEAD_LETTER_ID];
	if (!message_find(schema,
					  DatumGetInt64(moved ? column[MBUS_FAILURE_DEAD_LETTER_ID] :
									column[MBUS_FAILURE_MESSAGE_ID]),
					  reader->own, snapshot, &told))
		return false;
	COPY(DEATH_SUBSCRIPTION_ID, MBUS_FAILURE_SUBSCRIPTION_ID);
	COPY(DEATH_MESSAGE_ID, MBUS_FAILURE_MESSAGE_ID);
	COPY(DEATH_ATTEMPTS, MBUS_FAILURE_ATTEMPT);
	COPY(DEATH_REASON, MBUS_FAILURE_REASON);
	if (!isnull[DEATH_REASON])
		values[DEATH_REASON] =
			PointerGetDatum(PG_DETOAST_DATUM(values[DEATH_REASON]));
	COPY(DEATH_KIND, MBUS_FAILURE_KIND);
	/* what would have expired unclaimed: that attempt was none */
	if (!isnull[DEATH_REASON] &&
		strcmp(TextDatumGetCString(values[DEATH_KIND]), "expired") == 0 &&
		strcmp(TextDatumGetCString(values[DEATH_REASON]), "expired") == 0)
		values[DEATH_ATTEMPTS] =
			Int16GetDatum(DatumGetInt16(values[DEATH_ATTEMPTS]) - 1);
	COPY(DEATH_DIED_AT, MBUS_FAILURE_AT);
	COPY(DEATH_DEAD_LETTER_ID, MBUS_FAILURE_DEAD_LETTER_ID);
	COPY(DEATH_CLAIMED_AT, MBUS_FAILURE_CLAIMED_AT);
	COPY(DEATH_ROLE, MBUS_FAILURE_ROLE);
	COPY(DEATH_NOT_MOVED, MBUS_FAILURE_NOT_MOVED);
#undef COPY
	isnull[DEATH_DEAD_LETTER] = !moved;
	values[DEATH_DEAD_LETTER] = moved ?
		CStringGetTextDatum(told.channel) : (Datum) 0;
	isnull[DEATH_KEY] = told.key == NULL;
	values[DEATH_KEY] = PointerGetDatum(told.key);
	isnull[DEATH_SIZE] = false;
	values[DEATH_SIZE] = Int64GetDatum(told.size);
	isnull[DEATH_CONTENT_TYPE] = told.content_type == NULL;
	values[DEATH_CONTENT_TYPE] = PointerGetDatum(told.content_type);
	return true;
}

/* Finds a live message, with "own" one of the current user's. */
static bool
message_find(Oid schema, int64 id, bool own, Snapshot snapshot, Told *told)
{
	Relation	leaf = NULL;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		found;

	if (id > 0 && (id >> MBUS_ROW_BITS) <= MBUS_SEGMENT_MAX)
		leaf = mbus_leaf_open(schema, MbusSegmentOf(id), MBUS_MESSAGE,
							  AccessShareLock);
	if (leaf == NULL)
		return false;
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	mbus_leaf_scan_begin(&rows, snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	found = tuple != NULL &&
		(!own || mbus_row_visible(schema, tuple, RelationGetDescr(leaf))) &&
		message_read(schema, tuple, RelationGetDescr(leaf), told);
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return found && !is_deleted(schema, id, snapshot);
}

/* Reads a message, unless it has expired or was purged. */
static bool
message_read(Oid schema, HeapTuple tuple, TupleDesc desc, Told *told)
{
	const MbusChannel *channel;
	const MbusPolicy *policy;
	int32		channel_id;
	int64		id;
	Datum		value;
	bool		isnull;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	if (DatumGetTimestampTz(READ(MBUS_COL_EXPIRES_AT)) <= mbus_now())
		return false;
	id = DatumGetInt64(READ(MBUS_COL_ID));
	channel_id = DatumGetInt32(READ(MBUS_COL_CHANNEL_ID));
	channel = mbus_channel_by_id(schema, channel_id);
	if (channel == NULL)
		return false;
	told->channel = pstrdup(channel->name);
	policy = mbus_channel_policy(schema, channel_id);
	if (policy == NULL || mbus_channel_purged(policy, id))
		return false;
	told->size = DatumGetInt64(READ(MBUS_COL_SIZE));
	told->key = told->content_type = NULL;
	/* what is behind its payload may lie anywhere */
	if (mbus_quarantined(id))
		return true;
	value = READ(MBUS_COL_KEY);
	told->key = isnull ? NULL : (text *) PG_DETOAST_DATUM_COPY(value);
	value = READ(MBUS_COL_CONTENT_TYPE);
	told->content_type = isnull ? cstring_to_text(MBUS_CONTENT_JSON) :
		(text *) PG_DETOAST_DATUM_COPY(value);
#undef READ
	return true;
}

/* Whether the snapshot shows a message as deleted. */
static bool
is_deleted(Oid schema, int64 id, Snapshot snapshot)
{
	Relation	leaf = mbus_leaf_open_written(schema, MbusSegmentOf(id),
											  MBUS_EVENT);
	MbusLeafScan rows;
	bool		deleted;

	if (leaf == NULL)
		return false;
	/* the partial index has only deletions */
	mbus_leaf_scan_open(&rows, leaf, MBUS_EVENT_MESSAGE_ID, 0, true);
	mbus_leaf_scan_int8(&rows, MBUS_EVENT_MESSAGE_ID, id, id);
	mbus_leaf_scan_begin(&rows, snapshot);
	deleted = mbus_leaf_scan_next(&rows) != NULL;
	mbus_leaf_scan_close(&rows);
	table_close(leaf, AccessShareLock);
	return deleted;
}
