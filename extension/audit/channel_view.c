/*
 * channel_view.c
 *		The channels and subscriptions that the current user may see: what the
 *		views channels, subscriptions and leases are made of.
 *
 * These functions return rows of the tables.  Rights come first, as in
 * message_scan.c: conditions of a query see no other row.  Members of
 * pg_monitor see all of them.
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

#include "base/columns.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/dead_letter_target.h"
#include "state/fault.h"

static void rows_return(FunctionCallInfo fcinfo, const char *table,
						AttrNumber channel_id, int privileges);
static bool row_seen(Oid schema, HeapTuple tuple, TupleDesc desc,
					 AttrNumber channel_id, int privileges);

/*
 * channel_rows() returns the channels that the current user may use, audit or
 * monitor.
 */
MBUS_FUNCTION(channel_rows)
{
	rows_return(fcinfo, "channel", MBUS_CHANNEL_ID,
				MBUS_PUBLISH | MBUS_SEE);
	return (Datum) 0;
}

/*
 * subscription_rows() returns the subscriptions of the channels that the
 * current user may consume, audit or monitor.
 */
MBUS_FUNCTION(subscription_rows)
{
	rows_return(fcinfo, "subscription", MBUS_SUBSCRIPTION_CHANNEL_ID,
				MBUS_SEE);
	return (Datum) 0;
}

/*
 * quarantine_rows() returns the damaged messages of the channels all of whose
 * messages the current user may see, or that he may monitor.
 */
MBUS_FUNCTION(quarantine_rows)
{
	rows_return(fcinfo, "quarantine", MBUS_QUARANTINED_CHANNEL_ID,
				MBUS_SEE_WHOLE);
	return (Datum) 0;
}

/*
 * dead_letter_target(channel_id) returns the name of a channel's dead-letter
 * channel, and whether dead letters go there.
 */
MBUS_FUNCTION(dead_letter_target)
{
	Oid			schema = mbus_schema();
	const MbusChannel *channel = mbus_channel_by_id(schema,
													PG_GETARG_INT32(0));
	TupleDesc	desc;
	Datum		values[2];
	bool		isnull[2] = {true, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (channel && (mbus_monitors() ||
					mbus_channel_allows(channel, MBUS_PUBLISH | MBUS_SEE)))
	{
		const MbusChannel *target;
		const char *state =
		mbus_target_name(mbus_target_find(schema, PG_GETARG_INT32(0),
										  &target));

		isnull[0] = target == NULL;
		isnull[1] = state == NULL;
		values[0] = target ? CStringGetTextDatum(target->name) : (Datum) 0;
		values[1] = state ? CStringGetTextDatum(state) : (Datum) 0;
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 isnull));
}

/* Returns those rows of a table that may be seen. */
static void
rows_return(FunctionCallInfo fcinfo, const char *table, AttrNumber channel_id,
			int privileges)
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
		if (row_seen(schema, tuple, RelationGetDescr(rel), channel_id,
					 privileges))
			tuplestore_puttuple(rsinfo->setResult, tuple);
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	UnregisterSnapshot(snapshot);
}

/*
 * Whether the current user monitors, or has one of the privileges for the
 * channel whose id is in a column.
 */
static bool
row_seen(Oid schema, HeapTuple tuple, TupleDesc desc, AttrNumber channel_id,
		 int privileges)
{
	bool		isnull;
	const MbusChannel *channel;

	if (mbus_monitors())
		return true;
	channel = mbus_channel_by_id(schema,
								 DatumGetInt32(heap_getattr(tuple, channel_id,
															desc, &isnull)));
	return channel && mbus_channel_allows(channel, privileges);
}
