/*
 * method.c
 *		Methods of the relay: which there are, and how one is called.
 *
 * A method is a row of one table and an SQL function of the same name in the
 * extension's schema.  The function's entry in the catalog says what its
 * parameters are called, which types and defaults they have, and what comes
 * back; so a new client function becomes a method by a new row.
 *
 * function.c reads and keeps what the catalog says, rpc_call.c makes the
 * call.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"

#include "base/json_slice.h"
#include "relay/rpc.h"

#define MESSAGES_MAX	100000	/* in a binary publish_batch */

/* what is particular about a method */
#define ONE				0x01	/* nothing found is an error */
#define REFERS			0x02	/* what does not fit goes by reference */
#define CLAIMS			0x04	/* see mbus_claim_answer */
#define PEEKS			0x10	/* see mbus_peek_answer */
#define CONFIGURED		0x08	/* see bind_configured */
#define PUBLISHES		0x20	/* returns ids, or receipts: receipt.c */

typedef struct Method
{
	const char *name;			/* also the function's */
	int			traits;
	const char *bytes_function; /* takes a payload that is not JSON */
} Method;

static const Method methods[] = {
	{"publish", PUBLISHES, "publish_bytes"},
	{"publish_text", PUBLISHES},
	{"publish_batch", PUBLISHES},
	{"claim", REFERS | CLAIMS},
	{"ack"},
	{"nack"},
	{"extend"},
	{"release_lease"},
	{"get", ONE},
	{"get_by_transaction", ONE | REFERS},
	{"get_bytes", ONE},
	{"body_url", ONE},
	{"peek", REFERS | PEEKS},
	{"store_message", PUBLISHES},
	{"retrieve_message", ONE},
	{"delete_message"},
	{"upload_begin"},
	{"upload_append", 0, "upload_append"},
	{"upload_status"},
	{"upload_commit"},
	{"upload_abort"},
	{"create_subscription"},
	{"drop_subscription"},
	{"pause"},
	{"resume"},
	{"seek"},
	{"redrive"},
	{"create_channel", CONFIGURED},
	{"alter_channel"},
	{"drop_channel"},
	{"grant_channel"},
	{"revoke_channel"},
	{"purge_channel"},
};

static const Method *method_find(const char *name);
static void refuse_positional(const MbusRequest *request);
static void answer_ping(const MbusRequest *request, MbusAnswer *answer);
static void publish_bodies(const MbusRequest *request, MbusAnswer *answer);
static const MbusNode *batch_params(const MbusRequest *request,
									MbusNode *messages);
static void bad_param(const char *message);
static int64 publish_body(const MbusFunction *function,
						  const MbusRequest *request, const MbusNode *channel,
						  const MbusNode *message, bool *used);
static int	body_number(const MbusRequest *request, const MbusNode *message);
static bool wants_base64(const MbusRequest *request);
static void bind_params(const Method *method, const MbusFunction *function,
						const MbusRequest *request, bool base64,
						NullableDatum *args);
static void bind_value(const MbusFunction *function, int arg,
					   const MbusSlice *value, bool base64,
					   NullableDatum *args);
static void bind_payload(const MbusFunction *function, const MbusRaw *body,
						 NullableDatum *args);
static void bind_start(NullableDatum *args);
static void bind_defaults(const MbusFunction *function, NullableDatum *args,
						  const char *where);
static void bind_configured(const MbusFunction *function,
							const MbusRequest *request, NullableDatum *args);
static void unknown_param(const Method *method, const char *name);

/*
 * mbus_method_call runs a request as the current user and appends its result.
 */
void
mbus_method_call(const MbusRequest *request, MbusAnswer *answer)
{
	const Method *method;
	const MbusFunction *function;
	NullableDatum args[FUNC_MAX_ARGS];
	bool		base64;

	if (strcmp(request->method, "ping") == 0)
	{
		answer_ping(request, answer);
		return;
	}
	method = method_find(request->method);
	refuse_positional(request);
	if (request->has_bodies)
	{
		if (strcmp(method->name, "publish_batch") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 mbus_rpc(MBUS_RPC_REQUEST),
					 errmsg("method \"%s\" takes no \"bodies\"",
							method->name)));
		publish_bodies(request, answer);
		return;
	}

	base64 = method->bytes_function && wants_base64(request);
	if (method->bytes_function && (base64 || request->has_body))
		function = mbus_function_open(method->bytes_function, false);
	else
		function = mbus_function_open(method->name, false);
	bind_start(args);
	bind_params(method, function, request, base64, args);
	bind_defaults(function, args, "");
	if (method->traits & CONFIGURED)
		bind_configured(function, request, args);
	answer->refers = (method->traits & REFERS) != 0;
	if (method->traits & CLAIMS)
		mbus_claim_answer(function, request, args, answer);
	else if (method->traits & PEEKS)
		mbus_peek_answer(function, args, answer);
	else if ((method->traits & PUBLISHES) && mbus_receipt_wanted(request))
		mbus_receipt_call(function, args, answer);
	else
		mbus_function_answer(function, args, (method->traits & ONE) != 0,
							 answer);
}

/* mbus_method_publishes tells whether a method takes payloads for a channel. */
bool
mbus_method_publishes(const char *name)
{
	int			i;

	for (i = 0; i < (int) lengthof(methods); i++)
	{
		if (strcmp(methods[i].name, name) == 0)
			return (methods[i].traits & PUBLISHES) != 0;
	}
	return false;
}

/* The method's row of the table; -32601 if there is none. */
static const Method *
method_find(const char *name)
{
	int			i;

	for (i = 0; i < (int) lengthof(methods); i++)
	{
		if (strcmp(methods[i].name, name) == 0)
			return &methods[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_FUNCTION),
			 mbus_rpc(MBUS_RPC_METHOD),
			 errmsg("method \"%s\" does not exist", name)));
	return NULL;
}

static void
refuse_positional(const MbusRequest *request)
{
	if (request->positional)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("params must be an object: parameters are given by name"),
				 errdetail("An array of positional parameters is not supported.")));
}

static void
answer_ping(const MbusRequest *request, MbusAnswer *answer)
{
	refuse_positional(request);
	if (request->params && request->params->nchildren > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("method \"ping\" has no parameters")));
	if (request->has_bodies || request->body.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("method \"ping\" takes no payload")));
	appendStringInfoString(answer->out, "\"pong\"");
}

/*
 * publish_bodies is publish_batch in a binary frame: each message names the
 * body that is its payload.  All or none are published, in their order.
 */
static void
publish_bodies(const MbusRequest *request, MbusAnswer *answer)
{
	const MbusFunction *function;
	const MbusNode *channel;
	MbusNode	messages;
	bool	   *used;
	bool		receipt;
	int			i;

	channel = batch_params(request, &messages);
	/* it, too, must be allowed */
	mbus_function_open("publish_batch", false);
	function = mbus_function_open("publish_bytes", false);
	used = palloc0(Max(request->nbodies, 1) * sizeof(bool));
	receipt = mbus_receipt_wanted(request);
	if (receipt)
		mbus_receipt_begin();
	appendStringInfoChar(answer->out, '[');
	for (i = 0; i < messages.nchildren; i++)
	{
		int64		id;

		CHECK_FOR_INTERRUPTS();
		id = publish_body(function, request, channel, &messages.children[i],
						  used);
		if (i > 0)
			appendStringInfoChar(answer->out, ',');
		if (receipt)
			mbus_receipt_append(answer, id, i);
		else
			appendStringInfo(answer->out, INT64_FORMAT, id);
	}
	appendStringInfoChar(answer->out, ']');
	mbus_receipt_end();
	for (i = 0; i < request->nbodies; i++)
	{
		if (!used[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 mbus_rpc(MBUS_RPC_REQUEST),
					 errmsg("body %d belongs to no message", i)));
	}
}

/*
 * batch_params returns the channel of a batch and opens its messages.
 */
static const MbusNode *
batch_params(const MbusRequest *request, MbusNode *messages)
{
	const MbusNode *channel = NULL;
	const MbusNode *list = NULL;
	int			i;

	memset(messages, 0, sizeof(*messages));
	for (i = 0; request->params && i < request->params->nchildren; i++)
	{
		const MbusNode *param = &request->params->children[i];

		if (strcmp(param->name, "channel") == 0)
			channel = param;
		else if (strcmp(param->name, "messages") == 0)
			list = param;
		else if (strcmp(param->name, "receipt") != 0)
			bad_param(psprintf("method \"publish_batch\" has no parameter \"%.64s\"",
							   param->name));
	}
	if (channel == NULL)
		bad_param("parameter \"channel\" is missing");
	if (list == NULL)
		bad_param("parameter \"messages\" is missing");
	else if (list->value.type != JSON_TOKEN_ARRAY_START)
		bad_param("parameter \"messages\" is not an array");
	else
		mbus_json_slice(list->value.start, list->value.len, MESSAGES_MAX,
						messages);
	if (messages->total > messages->nchildren)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("batch has %d messages", messages->total),
				 errdetail("At most %d are taken.", MESSAGES_MAX)));
	return channel;
}

static void
bad_param(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 mbus_rpc(MBUS_RPC_PARAMS),
			 errmsg("%s", message)));
}

/*
 * publish_body publishes one message of a batch and returns its id.
 */
static int64
publish_body(const MbusFunction *function, const MbusRequest *request,
			 const MbusNode *channel, const MbusNode *message, bool *used)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	NullableDatum args[FUNC_MAX_ARGS];
	FmgrInfo	flinfo;
	const char *twice;
	Datum		id;
	int			body = body_number(request, message);
	int			i;

	twice = mbus_json_duplicate(message);
	if (twice || message->total > message->nchildren)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 twice ? errmsg("member \"%.64s\" of a message is given twice",
								twice) :
				 errmsg("message has %d members", message->total)));
	used[body] = true;
	bind_start(args);
	bind_payload(function, &request->bodies[body], args);
	bind_value(function, mbus_function_arg(function, "channel"), &channel->value,
			   false, args);
	for (i = 0; i < message->nchildren; i++)
	{
		const MbusNode *member = &message->children[i];
		int			arg = mbus_function_arg(function, member->name);

		if (strcmp(member->name, "body") == 0)
			continue;
		if (arg < 0 || strcmp(member->name, "channel") == 0 ||
			strcmp(member->name, "payload") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 mbus_rpc(MBUS_RPC_PARAMS),
					 errmsg("message with a body has no member \"%.64s\"",
							member->name)));
		bind_value(function, arg, &member->value, false, args);
	}
	bind_defaults(function, args, " of a message");

	mbus_function_start(function, &flinfo, fcinfo, args, NULL);
	id = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		elog(ERROR, "function %s returned NULL", function->name);
	return DatumGetInt64(id);
}

/*
 * body_number returns which of the frame's bodies a message names.
 */
static int
body_number(const MbusRequest *request, const MbusNode *message)
{
	const MbusNode *member = NULL;
	bool		isnull;
	int			body;

	if (message->value.type != JSON_TOKEN_OBJECT_START)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("message is not an object: %s",
						mbus_param_quote("messages", &message->value))));
	member = mbus_json_member(message, "body");
	if (member == NULL || member->value.type == JSON_TOKEN_NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("message in a frame with bodies has no member \"body\"")));
	body = DatumGetInt32(mbus_param_datum("body", INT4OID, &member->value,
										  &isnull));
	if (body < 0 || body >= request->nbodies)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("message names body %d of %d", body,
						request->nbodies),
				 errdetail("Bodies are numbered from 0.")));
	return body;
}

/*
 * wants_base64 tells whether the payload is a string of base64.
 */
static bool
wants_base64(const MbusRequest *request)
{
	const MbusNode *encoding = NULL;
	char	   *name = NULL;

	if (request->params)
		encoding = mbus_json_member(request->params, "encoding");
	if (encoding == NULL || request->has_body)
		return false;
	if (encoding->value.type == JSON_TOKEN_STRING)
		name = mbus_json_string(&encoding->value, true);
	if (name == NULL || strcmp(name, "base64") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"encoding\" is not \"base64\": %s",
						mbus_param_quote("encoding", &encoding->value)),
				 errhint("Leave it out if the payload is JSON.")));
	return true;
}

/*
 * bind_params turns what the request gives into arguments.
 */
static void
bind_params(const Method *method, const MbusFunction *function,
			const MbusRequest *request, bool base64, NullableDatum *args)
{
	int			i;

	for (i = 0; request->params && i < request->params->nchildren; i++)
	{
		const MbusNode *param = &request->params->children[i];
		int			arg = mbus_function_arg(function, param->name);
		bool		is_payload = strcmp(param->name, "payload") == 0;

		if (base64 && strcmp(param->name, "encoding") == 0)
			continue;
		if (arg < 0 && (method->traits & PUBLISHES) &&
			strcmp(param->name, "receipt") == 0)
			continue;
		if (arg < 0)
			unknown_param(method, param->name);
		if (is_payload && request->has_body)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 mbus_rpc(MBUS_RPC_REQUEST),
					 errmsg("binary frame has a parameter \"payload\""),
					 errdetail("The bytes behind the header line are the payload.")));
		bind_value(function, arg, &param->value, base64 && is_payload, args);
	}
	if (!request->has_body)
		return;

	if (mbus_function_arg(function, "payload") >= 0)
		bind_payload(function, &request->body, args);
	else if (request->body.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("method \"%s\" takes no payload", method->name)));
}

/*
 * bind_value sets one argument.  JSON's null leaves it out, but where json
 * must be given null is the value.
 */
static void
bind_value(const MbusFunction *function, int arg, const MbusSlice *value,
		   bool base64, NullableDatum *args)
{
	const char *name = function->arg_name[arg];
	Oid			type = function->arg_type[arg];
	MbusSlice	json = *value;

	if (base64)
	{
		args[arg].value = mbus_param_base64(value);
		args[arg].isnull = false;
		return;
	}
	if (type == JSONOID && arg < function->nrequired)
		json.type = JSON_TOKEN_INVALID;
	args[arg].value = mbus_param_datum(name, type, &json, &args[arg].isnull);
}

static void
bind_payload(const MbusFunction *function, const MbusRaw *body,
			 NullableDatum *args)
{
	int			arg = mbus_function_arg(function, "payload");

	args[arg].value = mbus_param_payload(function->arg_type[arg],
										 body->bytes, body->len);
	args[arg].isnull = false;
}

static void
bind_start(NullableDatum *args)
{
	int			i;

	for (i = 0; i < FUNC_MAX_ARGS; i++)
		args[i].isnull = true;
}

/*
 * bind_defaults fills in what was not given, or errors.
 */
static void
bind_defaults(const MbusFunction *function, NullableDatum *args,
			  const char *where)
{
	int			arg;

	for (arg = 0; arg < function->nargs; arg++)
	{
		Expr	   *expr;

		if (!args[arg].isnull)
			continue;
		if (arg < function->nrequired)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 mbus_rpc(MBUS_RPC_PARAMS),
					 errmsg("parameter \"%s\"%s is missing",
							function->arg_name[arg], where)));

		expr = list_nth(function->defaults, arg - function->nrequired);
		if (IsA(expr, Const))
		{
			args[arg].value = ((Const *) expr)->constvalue;
			args[arg].isnull = ((Const *) expr)->constisnull;
		}
		else
		{
			ExprContext *econtext = CreateStandaloneExprContext();

			args[arg].value = ExecEvalExpr(ExecInitExpr(expr, NULL),
										   econtext, &args[arg].isnull);
		}
	}
}

/*
 * bind_configured sets to NULL what a new channel gets from the settings of
 * the session, which are the gateway's, unless the request gives it.
 */
static void
bind_configured(const MbusFunction *function, const MbusRequest *request,
				NullableDatum *args)
{
	static const char *const names[] = {"ttl", "compression"};
	int			i;

	for (i = 0; i < (int) lengthof(names); i++)
	{
		const MbusNode *given = NULL;
		int			arg = mbus_function_arg(function, names[i]);

		if (request->params)
			given = mbus_json_member(request->params, names[i]);
		if (arg >= 0 && (given == NULL || given->value.type == JSON_TOKEN_NULL))
			args[arg].isnull = true;
	}
}

/*
 * Errors with -32602; with a hint where the parameter is one of raw payloads.
 */
static void
unknown_param(const Method *method, const char *name)
{
	bool		of_bytes = false;

	if (method->bytes_function)
	{
		const MbusFunction *function;

		function = mbus_function_open(method->bytes_function, false);
		of_bytes = mbus_function_arg(function, name) >= 0;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 mbus_rpc(MBUS_RPC_PARAMS),
			 errmsg("method \"%s\" has no parameter \"%.64s\"",
					method->name, name),
			 of_bytes ? errhint("It goes with \"encoding\": \"base64\" or with a binary frame.") : 0));
}
