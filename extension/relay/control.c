/*
 * control.c
 *		Control frames of the gateway, and the method "authenticate".
 *
 * A control frame is made by the gateway, not by a client: its first byte is
 * 0, which no WebSocket frame has, its second says what is wanted.
 *
 *	in	0 'O' token		open the frame's session, anew if it is open; an empty
 *						token is for the anonymous role
 *		0 'C'			close it
 *	out	0 {"open": {"session", "role", "sub", "expires_at", "expires_ms"}}
 *		0 {"refused": {"message", "detail", "sqlstate"}}
 *
 * A refused token leaves the session closed, so that the frames behind it in
 * the same call are refused too.  Closing is not answered.
 *
 * A client's "authenticate" is a request like any other, but for its effect:
 * the session speaks for whom the token names.  The gateway does not look
 * into requests; it learns the token from a control frame, "open" with the
 * member "token", to open the session on its other connections.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/elog.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "base/json_slice.h"
#include "base/settings.h"
#include "identity/jwt_claims.h"
#include "identity/session.h"
#include "relay/control.h"
#include "relay/rpc.h"
#include "relay/session_sql.h"

#define CONTROL_OPEN	'O'
#define CONTROL_CLOSE	'C'

static void refuse_without_sessions(void);

/*
 * mbus_control_opens tells whether a control frame is to open a session.
 */
bool
mbus_control_opens(const char *bytes, int len)
{
	return len >= 2 && bytes[1] == CONTROL_OPEN;
}

/*
 * mbus_control_method returns the name of the function that a control frame
 * stands for, for logs.
 */
char *
mbus_control_method(const char *bytes, int len)
{
	if (mbus_control_opens(bytes, len))
		return "open_session";
	if (len >= 2 && bytes[1] == CONTROL_CLOSE)
		return "close_session";
	return "relay";
}

/*
 * mbus_control_run runs a control frame and appends what it is answered.
 */
void
mbus_control_run(int64 session, const char *bytes, int len, StringInfo out)
{
	MbusTokenRules rules;
	MbusIdentity identity;

	if (len == 2 && bytes[1] == CONTROL_CLOSE)
	{
		(void) mbus_session_close(session);
		return;
	}
	if (len < 2 || bytes[1] != CONTROL_OPEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("unknown control frame")));
	mbus_session_forget(session);
	refuse_without_sessions();
	mbus_session_rules(&rules);
	mbus_session_verify(bytes + 2, len - 2, &rules, &identity);
	appendStringInfoString(out, "{\"open\":");
	mbus_session_describe(out, session, &identity, NULL);
	appendStringInfoChar(out, '}');
	mbus_session_open(session, &identity);
}

/*
 * mbus_control_refuse appends why a session was not opened.
 */
void
mbus_control_refuse(StringInfo out, const ErrorData *edata)
{
	appendStringInfoString(out, "{\"refused\":{\"message\":");
	escape_json(out, edata->message ? edata->message : "");
	appendStringInfoString(out, ",\"detail\":");
	if (edata->detail)
		escape_json(out, edata->detail);
	else
		appendStringInfoString(out, "null");
	appendStringInfo(out, ",\"sqlstate\":\"%s\"}}",
					 unpack_sql_state(edata->sqlerrcode));
}

/*
 * mbus_authenticate_token returns the token of a request "authenticate".
 */
char *
mbus_authenticate_token(const MbusRequest *request)
{
	const MbusNode *token = NULL;
	char	   *string = NULL;

	refuse_without_sessions();
	if (request->has_bodies || request->body.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("method \"authenticate\" takes no payload")));
	if (request->params)
		token = mbus_json_member(request->params, "token");
	if (token && request->params->nchildren > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("method \"authenticate\" has no parameter but \"token\"")));
	if (token && token->value.type == JSON_TOKEN_STRING)
		string = mbus_json_string(&token->value, true);
	if (string == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"token\" is missing, or is not a string")));
	return string;
}

/*
 * mbus_authenticate_answer appends the result of "authenticate".
 */
void
mbus_authenticate_answer(MbusAnswer *answer, const MbusIdentity *identity)
{
	StringInfo	out = answer->out;

	appendStringInfoString(out, "{\"role\":");
	escape_json(out, identity->role_name);
	appendStringInfoString(out, ",\"sub\":");
	if (identity->sub)
		escape_json(out, identity->sub);
	else
		appendStringInfoString(out, "null");
	appendStringInfoString(out, ",\"expires_at\":");
	mbus_result_scalar(answer, TimestampTzGetDatum(identity->expires_at),
					   identity->expires_at == DT_NOEND, TIMESTAMPTZOID);
	appendStringInfoChar(out, '}');
}

/* Errors if all frames run as one role whatever their session is. */
static void
refuse_without_sessions(void)
{
	if (mbus_relay_role && mbus_relay_role[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 mbus_rpc(MBUS_RPC_DISABLED),
				 errmsg("authentication is off"),
				 errdetail("All frames run as the role message_bus.relay_role.")));
}
