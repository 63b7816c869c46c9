/*
 * rpc_call.c
 *		A method's function is called, and what comes back written.
 *
 * A claim needs more care than other methods, because what it returns is
 * lost to everybody for the time of a lease if the reply cannot be sent:
 *
 * - It runs in a subtransaction of its own.  If the reply would exceed the
 *   frame's limit, that is rolled back, which makes its messages ready again
 *   without counting an attempt, and the claim is made anew for as many
 *   messages as did fit.  max_bytes is lowered beforehand so that this is
 *   rare.  A message that does not fit alone goes by reference.
 * - It waits for no longer than leaves it time to answer before the frame's
 *   timeout, and not at all if others wait for the same call to end.
 * - It must have an id: a notification has no reply.
 *
 * An ack that the claim makes first is in that subtransaction too: undone with
 * it, and made again.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/caller.h"
#include "base/settings.h"
#include "message/stored.h"
#include "relay/rpc.h"
#include "state/clock.h"

#define ANSWER_MS_MAX	1000	/* of its timeout, kept for a claim's answer */

static int	call_set(const MbusFunction *function, FunctionCallInfo fcinfo,
					 bool one, MbusAnswer *answer);
static void append_set_row(MbusAnswer *answer, TupleDesc desc, Datum *values,
						   bool *nulls);
static int64 row_lease(TupleDesc desc, const Datum *values);
static void not_found(void);
static bool set_try(const MbusFunction *function, NullableDatum *args,
					MbusAnswer *answer);
static NullableDatum *claim_arg(const MbusFunction *function,
								NullableDatum *args, const char *name);
static void limit_wait(const MbusRequest *request, NullableDatum *wait);
static void limit_bytes(const MbusAnswer *answer, const NullableDatum *batch,
						NullableDatum *max_bytes);
static Datum interval_of(int64 microseconds);

/*
 * mbus_function_answer calls a function and appends its result.  If "one",
 * the result is a single thing, and that there is none is an error.
 */
void
mbus_function_answer(const MbusFunction *function, NullableDatum *args,
					 bool one, MbusAnswer *answer)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	FmgrInfo	flinfo;
	ReturnSetInfo rsinfo = {0};
	Datum		result;

	rsinfo.type = T_ReturnSetInfo;
	rsinfo.allowedModes = SFRM_ValuePerCall | SFRM_Materialize;
	rsinfo.returnMode = SFRM_ValuePerCall;

	mbus_caller.raw_payload = true;
	mbus_caller.reply_binary = answer->binary;
	mbus_caller.reply_limit = answer->refers ? 0 : answer->limit;
	mbus_caller.reply_len = answer->out->len - MBUS_FRAME_PREFIX;
	answer->rows = 0;
	if (function->returns_set)
	{
		int			rows;

		rsinfo.econtext = CreateStandaloneExprContext();
		mbus_function_start(function, &flinfo, fcinfo, args, (Node *) &rsinfo);
		answer->many = !one;
		if (!one)
			appendStringInfoChar(answer->out, '[');
		answer->rows_start = answer->out->len;
		rows = fcinfo->isnull ? 0 : call_set(function, fcinfo, one, answer);
		if (!one)
			appendStringInfoChar(answer->out, ']');
		else if (rows == 0)
			not_found();
		FreeExprContext(rsinfo.econtext, true);
	}
	else
	{
		mbus_function_start(function, &flinfo, fcinfo, args, NULL);
		if (fcinfo->isnull)
			result = (Datum) 0;
		else
			result = FunctionCallInvoke(fcinfo);
		if (fcinfo->isnull && one)
			not_found();
		mbus_result_scalar(answer, result, fcinfo->isnull,
						   function->result_type);
	}
	mbus_caller.raw_payload = false;
	mbus_caller.reply_limit = 0;
}

/*
 * call_set appends the rows of a set, returned in either of the two modes,
 * and tells how many there were.
 */
static int
call_set(const MbusFunction *function, FunctionCallInfo fcinfo, bool one,
		 MbusAnswer *answer)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TupleTableSlot *slot;

	for (;;)
	{
		Datum		value;

		CHECK_FOR_INTERRUPTS();
		fcinfo->isnull = false;
		rsinfo->isDone = ExprSingleResult;
		value = FunctionCallInvoke(fcinfo);
		if (rsinfo->returnMode == SFRM_Materialize)
			break;
		if (rsinfo->isDone == ExprEndResult)
			return answer->rows;
		if (!fcinfo->isnull && (answer->rows == 0 || !one))
		{
			if (answer->rows > 0)
				appendStringInfoChar(answer->out, ',');
			mbus_result_scalar(answer, value, false, function->result_type);
			answer->rows++;
		}
		if (rsinfo->isDone == ExprSingleResult)
			return answer->rows;
	}

	if (rsinfo->setResult == NULL)
		return 0;
	slot = MakeSingleTupleTableSlot(rsinfo->setDesc, &TTSOpsMinimalTuple);
	while (tuplestore_gettupleslot(rsinfo->setResult, true, false, slot) &&
		   (answer->rows == 0 || !one))
	{
		slot_getallattrs(slot);
		append_set_row(answer, rsinfo->setDesc, slot->tts_values,
					   slot->tts_isnull);
		answer->rows++;
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rsinfo->setResult);
	return answer->rows;
}

/* Appends a row of a set: a row of one column is its value. */
static void
append_set_row(MbusAnswer *answer, TupleDesc desc, Datum *values, bool *nulls)
{
	CHECK_FOR_INTERRUPTS();
	if (answer->leases && answer->lease == 0)
		answer->lease = row_lease(desc, values);
	if (answer->rows > 0)
		appendStringInfoChar(answer->out, ',');
	if (desc->natts == 1)
		mbus_result_scalar(answer, values[0], nulls[0],
						   TupleDescAttr(desc, 0)->atttypid);
	else
		mbus_result_row(answer, desc, values, nulls);
}

/* The lease of a delivery; all rows of a claim have the same. */
static int64
row_lease(TupleDesc desc, const Datum *values)
{
	for (int i = 0; i < desc->natts; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), "lease") == 0)
			return DatumGetInt64(values[i]);
	}
	return 0;
}

static void
not_found(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 mbus_rpc(MBUS_RPC_NOT_FOUND),
			 errmsg("message not found"),
			 errdetail("There is none, or it has expired or was deleted.")));
}

/*
 * mbus_claim_answer claims, as the top of this file says.
 */
void
mbus_claim_answer(const MbusFunction *function, const MbusRequest *request,
				  NullableDatum *args, MbusAnswer *answer)
{
	NullableDatum *batch = claim_arg(function, args, "batch");
	NullableDatum *wait = claim_arg(function, args, "wait");

	if (mbus_request_is_notification(request))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("method \"claim\" needs an id"),
				 errdetail("A notification has no reply that could bring messages.")));

	limit_wait(request, wait);
	limit_bytes(answer, batch, claim_arg(function, args, "max_bytes"));
	answer->leases = true;
	while (!set_try(function, args, answer))
	{
		answer->lease = 0;
		batch->value = Int32GetDatum(answer->rows);
		batch->isnull = false;
		wait->value = interval_of(0);
		wait->isnull = false;
	}
}

/*
 * mbus_peek_answer reads as many messages as fit into the reply, of which it
 * reads no more than a claim would.  What does not fit alone goes by
 * reference.
 */
void
mbus_peek_answer(const MbusFunction *function, NullableDatum *args,
				 MbusAnswer *answer)
{
	NullableDatum *most = claim_arg(function, args, "max_messages");

	limit_bytes(answer, most, claim_arg(function, args, "max_bytes"));
	while (!set_try(function, args, answer))
	{
		most->value = Int32GetDatum(answer->rows);
		most->isnull = false;
	}
}

/*
 * set_try calls a function that returns rows once.  False if they are more
 * than fit: what it did is undone then, and answer->rows is how many did fit,
 * at least one.
 */
static bool
set_try(const MbusFunction *function, NullableDatum *args,
		MbusAnswer *answer)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	int			start = answer->out->len;
	volatile bool done = false;

	answer->overflow = false;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		mbus_function_answer(function, args, false, answer);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (!answer->overflow || answer->rows == 0)
			ReThrowError(edata);
		(void) mbus_rpc_take();
		FreeErrorData(edata);
	}
	PG_END_TRY();

	if (!done)
	{
		answer->out->len = start;
		answer->nbodies = 0;
		answer->bodies_len = 0;
		answer->lengths_len = 0;
	}
	return done;
}

static NullableDatum *
claim_arg(const MbusFunction *function, NullableDatum *args, const char *name)
{
	int			arg = mbus_function_arg(function, name);

	if (arg < 0)
		elog(ERROR, "function %s has no parameter \"%s\"", function->name,
			 name);
	return &args[arg];
}

/*
 * limit_wait cuts a wait to what the frame's timeout leaves, so that the end
 * of it is an empty result and no error.
 */
static void
limit_wait(const MbusRequest *request, NullableDatum *wait)
{
	int64		most = PG_INT64_MAX;
	int64		wanted;

	if (wait->isnull)
		return;
	wanted = mbus_interval_us(DatumGetIntervalP(wait->value));
	if (!request->alone)
		most = 0;
	else if (request->deadline != 0)
	{
		int64		spare = Min(ANSWER_MS_MAX, mbus_frame_timeout / 4);

		most = request->deadline - mbus_now() - spare * 1000;
		most = Max(most, 0);
	}
	/* what is no wait at all is for claim to refuse */
	if (wanted > most && wanted <= USECS_PER_DAY)
		wait->value = interval_of(most);
}

/*
 * limit_bytes lowers max_bytes where the batch might exceed the frame.  Half
 * of the frame leaves room for base64 and for what is beside the payloads.
 */
static void
limit_bytes(const MbusAnswer *answer, const NullableDatum *batch,
			NullableDatum *max_bytes)
{
	int64		room = answer->limit;
	int64		messages = batch->isnull ? 1 : DatumGetInt32(batch->value);

	room -= answer->out->len - MBUS_FRAME_PREFIX;
	room = Max(room / 2, 1);
	/* what goes by reference has a preview */
	if (messages * Min(Max(mbus_inline_max, MBUS_PREVIEW_BYTES),
					   answer->limit) <= room)
		return;
	if (max_bytes->isnull || DatumGetInt64(max_bytes->value) > room)
	{
		max_bytes->value = Int64GetDatum(room);
		max_bytes->isnull = false;
	}
}

static Datum
interval_of(int64 microseconds)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	return IntervalPGetDatum(interval);
}
