/*
 * receipt.c
 *		Receipts: whether what was published repeats a transaction id.
 *
 * A request of a method that publishes may ask for them, by "receipt": true
 * beside its method or among its parameters.  In its result an object stands
 * in each id's place, {"id": ..., "repeated": true or false}.  The publish
 * functions tell through mbus_caller; an error on the way takes the question
 * back (guard.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"

#include "base/caller.h"
#include "relay/rpc.h"

/*
 * mbus_receipt_wanted tells whether a request asks for receipts; -32602 for a
 * parameter that is neither true nor false.
 */
bool
mbus_receipt_wanted(const MbusRequest *request)
{
	const MbusNode *param = NULL;

	if (request->params)
		param = mbus_json_member(request->params, "receipt");
	if (param == NULL || param->value.type == JSON_TOKEN_NULL)
		return request->receipt;
	if (param->value.type != JSON_TOKEN_TRUE &&
		param->value.type != JSON_TOKEN_FALSE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"receipt\" is not true or false: %s",
						mbus_param_quote("receipt", &param->value))));
	return request->receipt || param->value.type == JSON_TOKEN_TRUE;
}

/*
 * mbus_receipt_begin asks whoever publishes from now on, until
 * mbus_receipt_end.
 */
void
mbus_receipt_begin(void)
{
	MbusReceipts *receipts = palloc0(sizeof(MbusReceipts));

	receipts->context = CurrentMemoryContext;
	mbus_caller.receipts = receipts;
}

void
mbus_receipt_end(void)
{
	mbus_caller.receipts = NULL;
}

/*
 * mbus_receipt_call calls a function that publishes and returns an id or an
 * array of them, and appends the receipts.
 */
void
mbus_receipt_call(const MbusFunction *function, NullableDatum *args,
				  MbusAnswer *answer)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	FmgrInfo	flinfo;
	Datum		result;
	ArrayType  *array;
	const int64 *ids;
	int			n;

	mbus_receipt_begin();
	mbus_function_start(function, &flinfo, fcinfo, args, NULL);
	result = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		elog(ERROR, "function %s returned NULL", function->name);
	if (function->result_type == INT8OID)
		mbus_receipt_append(answer, DatumGetInt64(result), 0);
	else
	{
		array = DatumGetArrayTypeP(result);
		ids = (const int64 *) ARR_DATA_PTR(array);
		n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
		appendStringInfoChar(answer->out, '[');
		for (int i = 0; i < n; i++)
		{
			if (i > 0)
				appendStringInfoChar(answer->out, ',');
			mbus_receipt_append(answer, ids[i], i);
		}
		appendStringInfoChar(answer->out, ']');
	}
	mbus_receipt_end();
}

/*
 * mbus_receipt_append appends the receipt of the message that was published
 * as the number "which" since the begin, from 0 on.
 */
void
mbus_receipt_append(MbusAnswer *answer, int64 id, int which)
{
	const MbusReceipts *receipts = mbus_caller.receipts;

	if (receipts == NULL || which >= receipts->n)
		elog(ERROR, "there is no receipt of message " INT64_FORMAT, id);
	appendStringInfo(answer->out,
					 "{\"id\":" INT64_FORMAT ",\"repeated\":%s}", id,
					 receipts->repeated[which] ? "true" : "false");
}
