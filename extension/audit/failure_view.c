/*
 * failure_view.c
 *		Which messages failed lately: what failures() begins with.
 *
 * The view deliveries goes from message to message; where most did not fail it
 * takes long to find those that did.  Here the tables of failures are read, by
 * subscription, the newest segments first, and no table of messages but where
 * one sees only his own.  Rights come first, as in message_scan.c.
 *
 * IDS_MAX bounds what is returned.  What is read is all failures of the segments
 * that are there, until there are as many.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit/outcome.h"
#include "base/schema.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"

#define IDS_MAX		10000

static int	ids_return(Oid schema, Relation leaf, const MbusReader *reader,
					   TimestampTz since, Snapshot snapshot, int left,
					   ReturnSetInfo *rsinfo);

/*
 * failure_ids(since) returns the messages that had a failure since then, of
 * those that the current user may see; one may come more than once.
 */
MBUS_FUNCTION(failure_ids)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz since = PG_GETARG_TIMESTAMPTZ(0);
	Oid			schema = mbus_schema();
	Snapshot	snapshot;
	MbusReader *readers;
	MbusLeaf   *leaves;
	int			nreaders;
	int			nleaves;
	int			left = IDS_MAX;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	nreaders = mbus_readers_list(schema, snapshot, &readers);
	nleaves = nreaders > 0 ? mbus_leaves(schema, &leaves) : 0;
	for (int i = nleaves - 1; i >= 0 && left > 0; i--)
	{
		Relation	leaf = mbus_leaf_open_written(schema, leaves[i].segment,
												  MBUS_FAILURE);

		if (leaf == NULL)
			continue;
		for (int r = 0; r < nreaders && left > 0; r++)
			left -= ids_return(schema, leaf, &readers[r], since, snapshot,
							   left, rsinfo);
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/* Returns those of a segment and a subscription, and how many they are. */
static int
ids_return(Oid schema, Relation leaf, const MbusReader *reader,
		   TimestampTz since, Snapshot snapshot, int left,
		   ReturnSetInfo *rsinfo)
{
	TupleDesc	desc = RelationGetDescr(leaf);
	MbusLeafScan rows;
	HeapTuple	tuple;
	int			n = 0;

	mbus_leaf_scan_open(&rows, leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID,
						reader->subscription_id);
	mbus_leaf_scan_begin(&rows, snapshot);
	while (n < left && (tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		bool		isnull = false;
		Datum		id;

		if (DatumGetTimestampTz(heap_getattr(tuple, MBUS_FAILURE_AT, desc,
											 &isnull)) < since)
			continue;
		id = heap_getattr(tuple, MBUS_FAILURE_MESSAGE_ID, desc, &isnull);
		if (reader->own &&
			!mbus_message_is_of(schema, DatumGetInt64(id),
								reader->channel_id, true))
			continue;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &id,
							 &isnull);
		n++;
	}
	mbus_leaf_scan_close(&rows);
	return n;
}
