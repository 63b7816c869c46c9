/*
 * control.c
 *		Control frames of the gateway, and the method "authenticate".
 *
 * A control frame is made by the gateway, not by a client: its first byte is
 * 0, which no WebSocket frame has, its second says what is wanted.
 *
 *	in	0 'O' token		open the frame's session, anew if it is open; an empty
 *						token is for the anonymous role
 *		0 'A' since		the same without a token, as one that was opened on
 *						another connection then (8 bytes, in network order)
 *		0 'C'			close it; behind it may be the code that its WebSocket
 *						was closed with (2 bytes), and pairs of a lease and 0
 *						for what was not written to it (8 bytes each, in
 *						network order).  With 0x8000 in the code frames of it
 *						are still at work, which may have claimed more: then
 *						only those leases end, and those with -1, which were
 *						written
 *		0 'L'			a frame was refused by the gateway: over_limit.c
 *		0 'H', 0 'P'	of the HTTP door: door/README.md
 *	out	0 {"open": {"session", "role", "sub", "expires_at", "expires_ms",
 *			"sub_hash"; "since" of one without a token; "token",
 *			"max_message_bytes" of an authenticate}}
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
#include "port/pg_bswap.h"
#include "utils/elog.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/json_slice.h"
#include "base/payload.h"
#include "base/settings.h"
#include "identity/jwt_claims.h"
#include "identity/session.h"
#include "relay/control.h"
#include "relay/rpc.h"
#include "relay/session_sql.h"

#define CONTROL_OPEN	'O'
#define CONTROL_AGAIN	'A'
#define CONTROL_CLOSE	'C'
#define CLOSE_ONLY		0x8000
#define SUB_HASH_BYTES	8		/* of the SHA-256 of a subject, for logs */

static void control_close(int64 session, const char *bytes, int len);
static int	limit_of(const MbusSlice *value);
static void refuse_without_sessions(void);

/*
 * mbus_control_opens tells whether a control frame is to open a session.
 */
bool
mbus_control_opens(const char *bytes, int len)
{
	return len >= 2 &&
		(bytes[1] == CONTROL_OPEN || bytes[1] == CONTROL_AGAIN);
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
	if (mbus_door_is(bytes, len))
		return "http";
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
	bool		again = len == 2 + sizeof(int64) && bytes[1] == CONTROL_AGAIN;

	if (len >= 2 && bytes[1] == CONTROL_CLOSE)
	{
		control_close(session, bytes + 2, len - 2);
		return;
	}
	if (!again && (len < 2 || bytes[1] != CONTROL_OPEN))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("unknown control frame")));
	mbus_session_forget(session);
	refuse_without_sessions();
	mbus_session_rules(&rules);
	mbus_session_verify(bytes + 2, again ? 0 : len - 2, &rules, &identity);
	if (again)
	{
		uint64		since;

		memcpy(&since, bytes + 2, sizeof(since));
		identity.issued_at = Min(identity.issued_at,
								 (TimestampTz) pg_ntoh64(since));
	}
	appendStringInfoString(out, "{\"open\":");
	mbus_control_describe(out, session, &identity, NULL, 0);
	appendStringInfoChar(out, '}');
	mbus_session_open(session, &identity);
}

/* control_close closes a session, and says what becomes of its leases. */
static void
control_close(int64 session, const char *bytes, int len)
{
	MbusSessionEnd end = {0};
	int			n;

	if (len >= 2)
	{
		end.code = (unsigned char) bytes[0] << 8 | (unsigned char) bytes[1];
		end.only = (end.code & CLOSE_ONLY) != 0;
		end.code &= ~CLOSE_ONLY;
		bytes += 2;
		len -= 2;
	}
	if (len % (2 * sizeof(int64)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("control frame has a part of a lease")));
	n = len / (2 * sizeof(int64));
	end.unwritten = palloc(Max(n, 1) * sizeof(int64));
	end.written = palloc(Max(n, 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
	{
		uint64		pair[2];

		memcpy(pair, bytes + i * sizeof(pair), sizeof(pair));
		if (pair[1] == 0)
			end.unwritten[end.nunwritten++] = (int64) pg_ntoh64(pair[0]);
		else
			end.written[end.nwritten++] = (int64) pg_ntoh64(pair[0]);
	}
	(void) mbus_session_close(session, &end);
}

/*
 * mbus_control_describe appends a session as the gateway is told of it: with
 * a hash of its subject, for logs, and what its client has asked for.
 */
void
mbus_control_describe(StringInfo out, int64 session,
					  const MbusIdentity *identity, const char *token,
					  int limit)
{
	mbus_session_describe(out, session, identity, token);
	out->len--;					/* the closing brace */
	appendStringInfoString(out, ",\"sub_hash\":");
	if (identity->sub)
	{
		uint8		digest[MBUS_SHA256_BYTES];

		mbus_sha256(identity->sub, strlen(identity->sub), digest);
		appendStringInfoChar(out, '"');
		for (int i = 0; i < SUB_HASH_BYTES; i++)
			appendStringInfo(out, "%02x", digest[i]);
		appendStringInfoChar(out, '"');
	}
	else
		appendStringInfoString(out, "null");
	if (identity->key == 0)
		appendStringInfo(out, ",\"since\":" INT64_FORMAT,
						 identity->issued_at);
	if (limit > 0)
		appendStringInfo(out, ",\"max_message_bytes\":%d", limit);
	appendStringInfoChar(out, '}');
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
 * mbus_control_door appends the answer to a frame of the HTTP door that has
 * failed.  True if its session has been forgotten here: that is no fault of
 * the token, and who asks is to ask again.
 */
bool
mbus_control_door(const MbusDoor *door, const ErrorData *edata,
				  MbusRpcCode code, StringInfo out)
{
	ErrorData	again = *edata;
	bool		lost = code == MBUS_RPC_AUTHENTICATION &&
	door->ticket.by == MBUS_BY_TOKEN &&
	mbus_session_lost(mbus_caller.session);

	if (lost)
	{
		again.sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		again.message = MBUS_SESSION_LOST;
	}
	mbus_door_failed(door, &again, out);
	return lost;
}

/*
 * mbus_authenticate_token returns the token of a request "authenticate", and
 * the largest frame that its client wants to be sent; 0: it does not say.
 */
char *
mbus_authenticate_token(const MbusRequest *request, int *limit)
{
	const MbusNode *token = NULL;
	const MbusNode *most = NULL;
	char	   *string = NULL;

	refuse_without_sessions();
	if (request->has_bodies || request->body.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_REQUEST),
				 errmsg("method \"authenticate\" takes no payload")));
	if (request->params)
	{
		token = mbus_json_member(request->params, "token");
		most = mbus_json_member(request->params, "max_message_bytes");
	}
	if (token && request->params->nchildren > (most ? 2 : 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("method \"authenticate\" has no parameters but \"token\" and \"max_message_bytes\"")));
	*limit = most ? limit_of(&most->value) : 0;
	if (token && token->value.type == JSON_TOKEN_STRING)
		string = mbus_json_string(&token->value, true);
	if (string == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"token\" is missing, or is not a string")));
	return string;
}

/* The number of bytes that a client asks for; 0 for null. */
static int
limit_of(const MbusSlice *value)
{
	int64		bytes = 0;

	if (value->type == JSON_TOKEN_NULL)
		return 0;
	if (value->type == JSON_TOKEN_NUMBER && value->len <= 18 &&
		strspn(value->start, "0123456789") >= (size_t) value->len)
		bytes = strtoll(mbus_json_token(value, -1), NULL, 10);
	if (bytes < MBUS_FRAME_LEAST || bytes > mbus_frame_max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 mbus_rpc(MBUS_RPC_PARAMS),
				 errmsg("parameter \"max_message_bytes\" must be from %d to %d",
						MBUS_FRAME_LEAST, mbus_frame_max)));
	return (int) bytes;
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
