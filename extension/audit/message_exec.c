/*
 * message_exec.c
 *		message_rows() and message_rows_kept(): the functions, and the node that
 *		stands for their calls in most plans (message_plan.c).
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "access/sysattr.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "audit/message_scan.h"
#include "audit/message_view.h"
#include "base/compat.h"
#include "base/ids.h"
#include "state/fault.h"

typedef struct MessageScanState
{
	CustomScanState css;		/* must be first */
	uint32		columns;		/* that are looked at */
	bool		ordered;		/* by id */
	bool		gone;			/* also what was deleted or purged */
	List	   *kinds;			/* of conditions, ... */
	List	   *values;			/* ... and their ExprStates */
	MbusMessageScan *scan;		/* NULL: not begun */
	MemoryContext context;		/* of it, and of the values it looks for */
} MessageScanState;

static Datum rows_return(FunctionCallInfo fcinfo, bool gone);
static void exec_begin(CustomScanState *node, EState *estate, int eflags);
static uint32 columns_wanted(const Plan *plan);
static TupleTableSlot *exec_run(CustomScanState *node);
static TupleTableSlot *exec_next(ScanState *node);
static bool exec_recheck(ScanState *node, TupleTableSlot *slot);
static void exec_end(CustomScanState *node);
static void exec_rescan(CustomScanState *node);
static void exec_explain(CustomScanState *node, List *ancestors,
						 ExplainState *es);
static void filter_read(MessageScanState *state, MbusMessageFilter *filter);
static void filter_add(MbusMessageFilter *filter, MbusConditionKind kind,
					   Datum value, Oid type);
static void filter_among(MbusMessageFilter *filter, ArrayType *array);
static int64 integer_of(Datum value, Oid type);
static int	id_compare(const void *a, const void *b);

const CustomExecMethods mbus_message_exec = {
	.CustomName = "message_bus messages",
	.BeginCustomScan = exec_begin,
	.ExecCustomScan = exec_run,
	.EndCustomScan = exec_end,
	.ReScanCustomScan = exec_rescan,
	.ExplainCustomScan = exec_explain,
};

/*
 * message_rows() returns the messages that the current user may see, live or
 * not, with their payloads as they are stored.
 */
MBUS_FUNCTION(message_rows)
{
	return rows_return(fcinfo, false);
}

/*
 * message_rows_kept() returns also those that were deleted or purged, as long
 * as they are there, without key, headers, checksum and payload.
 */
MBUS_FUNCTION(message_rows_kept)
{
	return rows_return(fcinfo, true);
}

/* Returns all rows at once, where no node stands for the call. */
static Datum
rows_return(FunctionCallInfo fcinfo, bool gone)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[MBUS_SEEN_COLUMNS];
	bool		isnull[MBUS_SEEN_COLUMNS];
	MbusMessageFilter filter;
	MbusMessageScan *scan;
	Snapshot	snapshot;

	InitMaterializedSRF(fcinfo, 0);
	if (rsinfo->setDesc->natts != MBUS_SEEN_COLUMNS)
		elog(ERROR, "message_rows: not called for its columns");
	mbus_message_filter_init(&filter, MBUS_SEEN_ALL);
	filter.gone = gone;
	snapshot = RegisterSnapshot(GetActiveSnapshot());
	scan = mbus_message_scan_begin(&filter, snapshot);
	while (mbus_message_scan_next(scan, values, isnull))
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 isnull);
	mbus_message_scan_end(scan);
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

/*
 * mbus_message_gone tells whether a function's name is that of the one that
 * returns also what was deleted or purged.
 */
bool
mbus_message_gone(const char *name)
{
	return strcmp(name, "message_rows_kept") == 0;
}

/*
 * mbus_message_exec_create makes the state of a node.
 */
Node *
mbus_message_exec_create(CustomScan *plan)
{
	MessageScanState *state = palloc0(sizeof(MessageScanState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &mbus_message_exec;
	return (Node *) state;
}

/* Checks EXECUTE as for a call, and prepares the conditions. */
static void
exec_begin(CustomScanState *node, EState *estate, int eflags)
{
	MessageScanState *state = (MessageScanState *) node;
	CustomScan *plan = (CustomScan *) node->ss.ps.plan;
	Oid			function = (Oid) intVal(linitial(plan->custom_private));
	AclResult	allowed = MbusFunctionAclCheck(function, GetUserId());

	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_FUNCTION, get_func_name(function));
	state->gone = mbus_message_gone(get_func_name(function));
	state->columns = columns_wanted(&plan->scan.plan);
	state->ordered = intVal(lsecond(plan->custom_private)) != 0;
	state->kinds = list_copy_tail(plan->custom_private, 2);
	state->values = ExecInitExprList(plan->custom_exprs, &node->ss.ps);
}

/* Which columns targets and conditions look at. */
static uint32
columns_wanted(const Plan *plan)
{
	Bitmapset  *attributes = NULL;
	uint32		columns = 0;

	pull_varattnos((Node *) plan->targetlist, INDEX_VAR, &attributes);
	pull_varattnos((Node *) plan->qual, INDEX_VAR, &attributes);
	for (int i = 1; i <= MBUS_SEEN_COLUMNS; i++)
	{
		if (bms_is_member(i - FirstLowInvalidHeapAttributeNumber, attributes))
			columns |= MBUS_SEEN(i);
	}
	return columns;
}

/* The next row that the conditions let through. */
static TupleTableSlot *
exec_run(CustomScanState *node)
{
	return ExecScan(&node->ss, exec_next, exec_recheck);
}

/* The next row that the user may see. */
static TupleTableSlot *
exec_next(ScanState *node)
{
	MessageScanState *state = (MessageScanState *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;

	ExecClearTuple(slot);
	if (state->scan == NULL)
	{
		EState	   *estate = node->ps.state;
		MemoryContext caller;
		MbusMessageFilter filter;

		if (state->context == NULL)
			state->context =
				AllocSetContextCreate(estate->es_query_cxt,
									  "message_bus messages",
									  ALLOCSET_DEFAULT_SIZES);
		caller = MemoryContextSwitchTo(state->context);

		mbus_message_filter_init(&filter, state->columns);
		filter.ordered = state->ordered;
		filter.gone = state->gone;
		filter_read(state, &filter);
		state->scan = mbus_message_scan_begin(&filter, estate->es_snapshot);
		MemoryContextSwitchTo(caller);
	}
	if (mbus_message_scan_next(state->scan, slot->tts_values,
							   slot->tts_isnull))
		ExecStoreVirtualTuple(slot);
	return slot;
}

/* A row that was returned is still what it was. */
static bool
exec_recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

/* Stops reading. */
static void
exec_end(CustomScanState *node)
{
	exec_rescan(node);
}

/* Stops reading; what comes next begins anew, with other values maybe. */
static void
exec_rescan(CustomScanState *node)
{
	MessageScanState *state = (MessageScanState *) node;

	ExecClearTuple(node->ss.ss_ScanTupleSlot);
	if (state->scan)
	{
		mbus_message_scan_end(state->scan);
		MemoryContextReset(state->context);
	}
	state->scan = NULL;
}

/* Says by what messages are found. */
static void
exec_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	static const char *const names[] = {
		[MBUS_WITH_ID] = "id",
		[MBUS_WITH_ID_ABOVE] = "range of ids",
		[MBUS_WITH_ID_FROM] = "range of ids",
		[MBUS_WITH_ID_BELOW] = "range of ids",
		[MBUS_WITH_ID_UPTO] = "range of ids",
		[MBUS_WITH_ID_AMONG] = "id",
		[MBUS_WITH_CHANNEL] = "channel",
		[MBUS_WITH_TRANSACTION_ID] = "transaction id",
	};
	List	   *by = NIL;
	ListCell   *cell;

	foreach(cell, ((MessageScanState *) node)->kinds)
	{
		const char *name = names[intVal(lfirst(cell))];

		by = list_append_unique(by, makeString(pstrdup(name)));
	}
	foreach(cell, by)
		lfirst(cell) = strVal(lfirst(cell));
	if (by != NIL)
		ExplainPropertyList("Found By", by, es);
}

/* ------------------------------------------------------------------------
 * Conditions
 * ------------------------------------------------------------------------
 */

/* Makes a filter of the values that the conditions have now. */
static void
filter_read(MessageScanState *state, MbusMessageFilter *filter)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	ListCell   *kind;
	ListCell   *value;

	forboth(kind, state->kinds, value, state->values)
	{
		ExprState  *expr = lfirst(value);
		bool		isnull;
		Datum		datum = ExecEvalExprSwitchContext(expr, econtext, &isnull);

		/* its operator is strict */
		if (isnull)
			filter->none = true;
		else
			filter_add(filter, (MbusConditionKind) intVal(lfirst(kind)), datum,
					   exprType((Node *) expr->expr));
	}
}

/* Adds one condition; the filter's memory is the current context's. */
static void
filter_add(MbusMessageFilter *filter, MbusConditionKind kind, Datum value,
		   Oid type)
{
	text	   *name = NULL;
	int64		id = 0;

	if (kind == MBUS_WITH_CHANNEL || kind == MBUS_WITH_TRANSACTION_ID)
		name = DatumGetTextPCopy(value);
	else if (kind != MBUS_WITH_ID_AMONG)
		id = integer_of(value, type);
	switch (kind)
	{
		case MBUS_WITH_ID:
			filter->lo = Max(filter->lo, id);
			filter->hi = Min(filter->hi, id);
			if (filter->nids < 0)
			{
				filter->ids = palloc(sizeof(int64));
				filter->ids[0] = id;
				filter->nids = 1;
			}
			break;
		case MBUS_WITH_ID_ABOVE:
			filter->none |= id == PG_INT64_MAX;
			if (id < PG_INT64_MAX)
				filter->lo = Max(filter->lo, id + 1);
			break;
		case MBUS_WITH_ID_FROM:
			filter->lo = Max(filter->lo, id);
			break;
		case MBUS_WITH_ID_BELOW:
			filter->none |= id == PG_INT64_MIN;
			if (id > PG_INT64_MIN)
				filter->hi = Min(filter->hi, id - 1);
			break;
		case MBUS_WITH_ID_UPTO:
			filter->hi = Min(filter->hi, id);
			break;
		case MBUS_WITH_ID_AMONG:
			filter_among(filter, DatumGetArrayTypeP(value));
			break;
		case MBUS_WITH_CHANNEL:
			filter->channel = name;
			break;
		case MBUS_WITH_TRANSACTION_ID:
			filter->transaction_id = name;
			break;
	}
}

/* The ids of an array, unless ids are known already; a null is no id. */
static void
filter_among(MbusMessageFilter *filter, ArrayType *array)
{
	Oid			type = ARR_ELEMTYPE(array);
	Datum	   *values;
	bool	   *isnull;
	int			n;

	if (filter->nids >= 0)
		return;
	deconstruct_array(array, type,
					  type == INT8OID ? sizeof(int64) : sizeof(int32),
					  type == INT8OID ? FLOAT8PASSBYVAL : true,
					  type == INT8OID ? TYPALIGN_DOUBLE : TYPALIGN_INT,
					  &values, &isnull, &n);
	filter->ids = palloc_extended(Max(n, 1) * sizeof(int64),
								  MCXT_ALLOC_HUGE);
	filter->nids = 0;
	for (int i = 0; i < n; i++)
	{
		if (!isnull[i])
			filter->ids[filter->nids++] = integer_of(values[i], type);
	}
	qsort(filter->ids, filter->nids, sizeof(int64), id_compare);
	n = filter->nids;
	filter->nids = Min(n, 1);
	for (int i = 1; i < n; i++)
	{
		if (filter->ids[i] != filter->ids[filter->nids - 1])
			filter->ids[filter->nids++] = filter->ids[i];
	}
}

/* A value of one of the integers that are compared with an id. */
static int64
integer_of(Datum value, Oid type)
{
	switch (type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		default:
			return DatumGetInt64(value);
	}
}

static int
id_compare(const void *a, const void *b)
{
	return mbus_order(*(const int64 *) a, *(const int64 *) b);
}
