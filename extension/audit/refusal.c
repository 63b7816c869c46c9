/*
 * refusal.c
 *		What failed about a transaction id, for whom it concerns: what
 *		trace_transaction() tells beside lives.
 *
 * Rights come first, as in message_scan.c.  Of a channel all is told to who may
 * see all of it, or monitors; to who else may publish or consume, what he was
 * refused himself, as far as it can be known: the same role and the same
 * subject (channel/visibility.c has the rules).  To a stranger nothing, not
 * even whether there is such a channel.
 *
 * Rows are found by the index on transaction ids, and written the last first.
 * Who fails with one again and again costs no more than ROWS_MAX rows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/caller.h"
#include "base/columns.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"

#define ROWS_MAX		10000	/* that are looked at */
#define REFUSALS_MAX	100		/* that are told */

/* Which columns of message_bus.error are told. */
static const int told[] = {
	MBUS_ERROR_AT, MBUS_ERROR_SQLSTATE, MBUS_ERROR_MESSAGE,
	MBUS_ERROR_DETAIL, MBUS_ERROR_FUNCTION, MBUS_ERROR_ROLE,
	MBUS_ERROR_SUBJECT, MBUS_ERROR_SESSION
};

static bool refusal_put(ReturnSetInfo *rsinfo, HeapTuple tuple,
						TupleDesc desc, const char *channel,
						TimestampTz since, bool all);
static TimestampTz channel_created(Oid schema, Snapshot snapshot,
								   int32 channel_id);
static bool is_own(const char *role, const char *subject);

/*
 * refusal_rows(channel, transaction_id) returns the failures about it that the
 * current user may know of, at most REFUSALS_MAX.
 */
MBUS_FUNCTION(refusal_rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	const MbusChannel *channel = mbus_channel_by_name(schema, name);
	Snapshot	snapshot;
	Relation	rel;
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		all;
	TimestampTz since;
	int			left = REFUSALS_MAX;

	InitMaterializedSRF(fcinfo, 0);
	if (channel == NULL)
		return (Datum) 0;
	all = mbus_channel_allows(channel, MBUS_SEE_WHOLE) || mbus_monitors();
	if (!all && !mbus_channel_allows(channel, MBUS_PUBLISH | MBUS_SEE))
		return (Datum) 0;
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	since = channel_created(schema, snapshot, channel->channel_id);
	rel = table_open(mbus_relation(schema, "error"), AccessShareLock);
	mbus_leaf_scan_open(&rows, rel, MBUS_ERROR_TRANSACTION_ID, 0, true);
	mbus_leaf_scan_text(&rows, MBUS_ERROR_TRANSACTION_ID,
						PG_GETARG_TEXT_PP(1));
	mbus_leaf_scan_begin(&rows, snapshot);
	for (int i = 0; i < ROWS_MAX && left > 0; i++)
	{
		CHECK_FOR_INTERRUPTS();
		tuple = systable_getnext_ordered(rows.rows, BackwardScanDirection);
		if (tuple == NULL)
			break;
		left -= refusal_put(rsinfo, tuple, RelationGetDescr(rel), name, since,
							all);
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/* Returns one, unless it is of another channel, or somebody else's. */
static bool
refusal_put(ReturnSetInfo *rsinfo, HeapTuple tuple, TupleDesc desc,
			const char *channel, TimestampTz since, bool all)
{
	Datum		value[MBUS_ERROR_DETAIL + 1] = {0};
	bool		isnull[MBUS_ERROR_DETAIL + 1] = {0};
	Datum		out[lengthof(told)];
	bool		null[lengthof(told)];

	if (desc->natts != MBUS_ERROR_DETAIL)
		elog(ERROR, "table of errors has %d columns", desc->natts);
	heap_deform_tuple(tuple, desc, value + 1, isnull + 1);
	if (isnull[MBUS_ERROR_CHANNEL] ||
		DatumGetTimestampTz(value[MBUS_ERROR_AT]) < since ||
		strcmp(TextDatumGetCString(value[MBUS_ERROR_CHANNEL]), channel) != 0)
		return false;
	if (!all && !is_own(TextDatumGetCString(value[MBUS_ERROR_ROLE]),
						isnull[MBUS_ERROR_SUBJECT] ? NULL :
						TextDatumGetCString(value[MBUS_ERROR_SUBJECT])))
		return false;
	for (int i = 0; i < (int) lengthof(told); i++)
	{
		out[i] = value[told[i]];
		null[i] = isnull[told[i]];
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, out, null);
	return true;
}

/*
 * When a channel was made: what is older is of another one of that name, which
 * may have been somebody else's.
 */
static TimestampTz
channel_created(Oid schema, Snapshot snapshot, int32 channel_id)
{
	Relation	rel = table_open(mbus_relation(schema, "channel"),
								 AccessShareLock);
	MbusLeafScan rows;
	HeapTuple	tuple;
	TimestampTz created = DT_NOEND;
	bool		isnull;

	mbus_leaf_scan_open(&rows, rel, MBUS_CHANNEL_ID, 0, false);
	mbus_leaf_scan_int4(&rows, MBUS_CHANNEL_ID, channel_id);
	mbus_leaf_scan_begin(&rows, snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple)
		created = DatumGetTimestampTz(heap_getattr(tuple,
												   MBUS_CHANNEL_CREATED_AT,
												   RelationGetDescr(rel),
												   &isnull));
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return created;
}

/* Whether a role and a subject are the caller's. */
static bool
is_own(const char *role, const char *subject)
{
	const char *own = mbus_subject();
	Oid			who = get_role_oid(role, true);
	bool		same = own ? subject && strcmp(own, subject) == 0 :
	subject == NULL;

	if (!OidIsValid(who))
		return false;
	if (mbus_caller.in_relay)
		return same && who == GetUserId();
	if (mbus_claims_given() && (!same || mbus_subject_unusable()))
		return false;
	return has_privs_of_role(GetUserId(), who);
}
