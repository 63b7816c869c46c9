/*
 * rpc_error.c
 *		Errors of JSON-RPC: from SQLSTATE to code, and as JSON.
 *
 * Where the relay itself finds the fault it names the code with mbus_rpc()
 * inside ereport().  The code waits in a variable until the frame's error is
 * caught; everything else gets its code from the SQLSTATE.
 *
 * The texts of an error can quote a client's bytes cut anywhere, so what is
 * no UTF-8 in them is replaced: a text frame must not break its reader.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/elog.h"
#include "utils/json.h"

#include "base/json_slice.h"
#include "relay/rpc.h"

static MbusRpcCode given_code = MBUS_RPC_NONE;

static void append_object(StringInfo out, const ErrorData *edata,
						  MbusRpcCode code, const char *method);
static void append_text(StringInfo out, const char *text);

/*
 * mbus_rpc sets the code of the error being raised; used inside ereport().
 */
int
mbus_rpc(MbusRpcCode code)
{
	given_code = code;
	return 0;
}

/*
 * mbus_rpc_take returns the code set since the last call, and forgets it.
 */
MbusRpcCode
mbus_rpc_take(void)
{
	MbusRpcCode code = given_code;

	given_code = MBUS_RPC_NONE;
	return code;
}

/*
 * mbus_rpc_code returns an error's code: the one given with it, or the one
 * its SQLSTATE stands for.
 */
MbusRpcCode
mbus_rpc_code(const ErrorData *edata, MbusRpcCode given, bool timed_out)
{
	if (timed_out)
		return MBUS_RPC_TIMEOUT;
	if (given != MBUS_RPC_NONE)
		return given;

	switch (edata->sqlerrcode)
	{
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:
			return MBUS_RPC_AUTHENTICATION;
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			return MBUS_RPC_PRIVILEGE;
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_OBJECT:
		case ERRCODE_NO_DATA_FOUND:
		case ERRCODE_NO_DATA:
			return MBUS_RPC_NOT_FOUND;
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_STATEMENT_TOO_COMPLEX:
		case ERRCODE_CONFIGURATION_LIMIT_EXCEEDED:
			return MBUS_RPC_LIMIT;
		case ERRCODE_UNIQUE_VIOLATION:
			return MBUS_RPC_CONFLICT;
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
			return MBUS_RPC_STALE;
		case ERRCODE_DATA_CORRUPTED:
			return MBUS_RPC_CHECKSUM;
		case ERRCODE_QUERY_CANCELED:
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return MBUS_RPC_TIMEOUT;
		case ERRCODE_OPERATOR_INTERVENTION:
			return MBUS_RPC_DISABLED;
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
			return MBUS_RPC_AWAY;
		case ERRCODE_DUPLICATE_OBJECT:
		case ERRCODE_INVALID_NAME:
			return MBUS_RPC_PARAMS;
		case ERRCODE_INVALID_PARAMETER_VALUE:
			if (edata->constraint_name &&
				strcmp(edata->constraint_name, "sha256") == 0)
				return MBUS_RPC_CHECKSUM;
			break;
	}
	if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_DATA_EXCEPTION)
		return MBUS_RPC_PARAMS;
	return MBUS_RPC_INTERNAL;
}

/*
 * mbus_rpc_append_id appends a request's id as its exact text, or null.
 */
void
mbus_rpc_append_id(StringInfo out, const MbusSlice *id)
{
	if (id == NULL || id->type == JSON_TOKEN_INVALID)
		appendStringInfoString(out, "null");
	else
		appendBinaryStringInfo(out, id->start, id->len);
}

/*
 * mbus_rpc_append_error appends the whole error reply to a request; request
 * is NULL where it is not known, and its method is where it is no request.  A
 * notification gets the notification "error", since it has no response.
 */
void
mbus_rpc_append_error(StringInfo out, const MbusRequest *request,
					  const ErrorData *edata, MbusRpcCode code)
{
	if (request && mbus_request_is_notification(request))
	{
		appendStringInfoString(out,
							   "{\"jsonrpc\":\"2.0\",\"method\":\"error\",\"params\":");
		append_object(out, edata, code, request->method);
	}
	else
	{
		appendStringInfoString(out, "{\"jsonrpc\":\"2.0\",\"id\":");
		mbus_rpc_append_id(out, request ? &request->id : NULL);
		appendStringInfoString(out, ",\"error\":");
		append_object(out, edata, code, NULL);
	}
	appendStringInfoChar(out, '}');
}

/*
 * mbus_rpc_append_least appends the shortest error reply that there is to a
 * request with that id (NULL: none): for where there is no room.
 */
void
mbus_rpc_append_least(StringInfo out, const MbusSlice *id, MbusRpcCode code)
{
	appendStringInfoString(out, "{\"jsonrpc\":\"2.0\",\"id\":");
	mbus_rpc_append_id(out, id);
	appendStringInfo(out, ",\"error\":{\"code\":%d,\"message\":\"\"}}",
					 (int) code);
}

/* mbus_rpc_least returns how many bytes that takes at most. */
int
mbus_rpc_least(const MbusSlice *id)
{
	int			len = id ? Max(id->len, 4) : 4;

	return (int) strlen("{\"jsonrpc\":\"2.0\",\"id\":,\"error\":{\"code\":-32700,\"message\":\"\"}}") +
		Min(len, MBUS_RPC_ID_MAX);
}

/*
 * Appends the object "error" of JSON-RPC, with SQLSTATE, detail and hint as
 * its data; "method" only for a notification.
 */
static void
append_object(StringInfo out, const ErrorData *edata, MbusRpcCode code,
			  const char *method)
{
	appendStringInfo(out, "{\"code\":%d,\"message\":", (int) code);
	append_text(out, edata->message ? edata->message : "");
	appendStringInfo(out, ",\"data\":{\"sqlstate\":\"%s\",\"detail\":",
					 unpack_sql_state(edata->sqlerrcode));
	append_text(out, edata->detail);
	appendStringInfoString(out, ",\"hint\":");
	append_text(out, edata->hint);
	appendStringInfoChar(out, '}');
	if (method)
	{
		appendStringInfoString(out, ",\"method\":");
		append_text(out, method);
	}
	appendStringInfoChar(out, '}');
}

/* A text as JSON, or null; what is no UTF-8 in it is replaced. */
static void
append_text(StringInfo out, const char *text)
{
	char	   *copy;

	if (text == NULL)
	{
		appendStringInfoString(out, "null");
		return;
	}
	copy = pstrdup(text);
	mbus_rpc_repair(copy);
	escape_json(out, copy);
	pfree(copy);
}

/*
 * mbus_rpc_repair replaces what is no UTF-8 in a text.
 */
void
mbus_rpc_repair(char *text)
{
	int			len = strlen(text);
	int			valid = 0;

	while (valid < len)
	{
		int			step = pg_encoding_verifymbchar(PG_UTF8, text +valid,
													len - valid);

		if (step <= 0)
		{
			text[		valid] = '?';

			step = 1;
		}
		valid += step;
	}
}
