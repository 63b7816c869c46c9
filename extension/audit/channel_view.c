/*
 * channel_view.c
 *		The channels, subscriptions and deaths that the current user may see:
 *		what the views channels, subscriptions, leases and dead_letters are
 *		made of.
 *
 * These functions return rows of the tables.  Rights come first, as in
 * message_scan.c: conditions of a query see no other row.  Members of
 * pg_monitor see all channels and subscriptions, and no deaths: a failure has
 * what a consumer said of a message.
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

#include "audit/outcome.h"
#include "base/columns.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"

/* A subscription whose deaths are read. */
typedef struct Reader
{
	int32		subscription_id;
	int64		since_lease;
} Reader;

/* Whether a row of a table may be seen. */
typedef bool (*SeenFunction) (Oid schema, HeapTuple tuple, TupleDesc desc);

static void rows_return(FunctionCallInfo fcinfo, const char *table,
						SeenFunction seen);
static bool channel_seen(Oid schema, HeapTuple tuple, TupleDesc desc);
static bool subscription_seen(Oid schema, HeapTuple tuple, TupleDesc desc);
static int	readers_list(Oid schema, Snapshot snapshot, Reader **readers);
static void deaths_return(Oid schema, Relation leaf, const Reader *reader,
						  Snapshot snapshot, ReturnSetInfo *rsinfo);
static bool is_death(Oid schema, const Reader *reader, HeapTuple tuple,
					 TupleDesc desc);

/*
 * channel_rows() returns the channels that the current user may use, audit or
 * monitor.
 */
MBUS_FUNCTION(channel_rows)
{
	rows_return(fcinfo, "channel", channel_seen);
	return (Datum) 0;
}

/*
 * subscription_rows() returns the subscriptions of the channels that the
 * current user may consume, audit or monitor.
 */
MBUS_FUNCTION(subscription_rows)
{
	rows_return(fcinfo, "subscription", subscription_seen);
	return (Datum) 0;
}

/* Returns those rows of a table that may be seen. */
static void
rows_return(FunctionCallInfo fcinfo, const char *table, SeenFunction seen)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	Snapshot	snapshot;
	Relation	rel;
	SysScanDesc rows;
	HeapTuple	tuple;

	InitMaterializedSRF(fcinfo, 0);
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	rel = table_open(mbus_relation(schema, table), AccessShareLock);
	rows = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		CHECK_FOR_INTERRUPTS();
		if (seen(schema, tuple, RelationGetDescr(rel)))
			tuplestore_puttuple(rsinfo->setResult, tuple);
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	UnregisterSnapshot(snapshot);
}

static bool
channel_seen(Oid schema, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	const MbusChannel *channel;

	if (mbus_monitors())
		return true;
	channel = mbus_channel_by_id(schema,
								 DatumGetInt32(heap_getattr(tuple,
															MBUS_CHANNEL_ID,
															desc, &isnull)));
	return channel &&
		mbus_channel_allows(channel, MBUS_PUBLISH | MBUS_SEE);
}

static bool
subscription_seen(Oid schema, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	const MbusChannel *channel;

	if (mbus_monitors())
		return true;
	channel = mbus_channel_by_id(schema,
								 DatumGetInt32(heap_getattr(tuple,
															MBUS_SUBSCRIPTION_CHANNEL_ID,
															desc, &isnull)));
	return channel && mbus_channel_allows(channel, MBUS_SEE);
}

/*
 * death_rows() returns the failures by which messages died for subscriptions
 * of channels that the current user may consume or audit, if they have not
 * been redriven since.
 */
MBUS_FUNCTION(death_rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	Snapshot	snapshot;
	Reader	   *readers;
	MbusLeaf   *leaves;
	int			nreaders;
	int			nleaves;

	InitMaterializedSRF(fcinfo, 0);
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	nreaders = readers_list(schema, snapshot, &readers);
	nleaves = nreaders > 0 ? mbus_leaves(schema, &leaves) : 0;
	for (int i = 0; i < nleaves; i++)
	{
		Relation	leaf = mbus_leaf_open_written(schema, leaves[i].segment,
												  MBUS_FAILURE);

		if (leaf == NULL)
			continue;
		for (int r = 0; r < nreaders; r++)
			deaths_return(schema, leaf, &readers[r], snapshot, rsinfo);
		/* what was returned is whole; nothing of it is looked up later */
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/* Lists the subscriptions of channels that one may consume or audit. */
static int
readers_list(Oid schema, Snapshot snapshot, Reader **readers)
{
	Relation	rel = table_open(mbus_relation(schema, "subscription"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	int			room = 16;
	int			n = 0;
	SysScanDesc rows;
	HeapTuple	tuple;

	*readers = palloc(room * sizeof(Reader));
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
			*readers = repalloc_huge(*readers, room * sizeof(Reader));
		}
		(*readers)[n].subscription_id =
			DatumGetInt32(heap_getattr(tuple, MBUS_SUBSCRIPTION_ID, desc,
									   &isnull));
		(*readers)[n].since_lease =
			DatumGetInt64(heap_getattr(tuple, MBUS_SUBSCRIPTION_SINCE_LEASE,
									   desc, &isnull));
		n++;
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	return n;
}

/* Returns the deaths of a segment's messages for one subscription. */
static void
deaths_return(Oid schema, Relation leaf, const Reader *reader,
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

		if (is_death(schema, reader, tuple, desc))
		{
			Datum		values[MBUS_FAILURE_COLUMNS];
			bool		isnull[MBUS_FAILURE_COLUMNS];

			heap_deform_tuple(tuple, desc, values, isnull);
			if (!isnull[MBUS_FAILURE_REASON - 1])
				values[MBUS_FAILURE_REASON - 1] =
					PointerGetDatum(PG_DETOAST_DATUM(values[MBUS_FAILURE_REASON - 1]));
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
		}
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
is_death(Oid schema, const Reader *reader, HeapTuple tuple, TupleDesc desc)
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
