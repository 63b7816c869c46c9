/*
 * session_sql.c
 *		open_session and close_session.
 *
 * What the control frames of a gateway do (control.c), for SQL: open_session
 * with options of its own, close_session the same.  A frame may call neither.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/json_slice.h"
#include "base/schema.h"
#include "delivery/hold.h"
#include "identity/jwt_claims.h"
#include "identity/session.h"
#include "relay/session_sql.h"
#include "state/fault.h"

#define SKEW_MAX		300		/* seconds */

static void options_read(FunctionCallInfo fcinfo, MbusTokenRules *rules);
static void option_read(const MbusNode *option, MbusTokenRules *rules);

/*
 * open_session(session bigint, token text, options json) verifies a token,
 * remembers whom the session speaks for, and returns it as json.
 */
MBUS_FUNCTION(open_session)
{
	MbusTokenRules rules;
	MbusIdentity identity;
	StringInfoData out;
	const char *token = "";
	int			len = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("session is NULL"),
				 errhidestmt(true)));	/* the token is in it */
	if (mbus_caller.in_relay)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus.open_session() cannot be called by a frame"),
				 errhidestmt(true)));
	if (!PG_ARGISNULL(1))
	{
		text	   *argument = PG_GETARG_TEXT_PP(1);

		token = VARDATA_ANY(argument);
		len = VARSIZE_ANY_EXHDR(argument);
	}
	mbus_session_rules(&rules);
	options_read(fcinfo, &rules);
	mbus_session_verify(token, len, &rules, &identity);
	initStringInfo(&out);
	mbus_session_describe(&out, PG_GETARG_INT64(0), &identity, NULL);
	mbus_session_open(PG_GETARG_INT64(0), &identity);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}

/*
 * close_session(session bigint) forgets a session and returns how many
 * messages it had claimed and now gives back.
 */
MBUS_FUNCTION(close_session)
{
	MbusSessionEnd end = {0};

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("session is NULL")));
	if (mbus_caller.in_relay)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus.close_session() cannot be called by a frame")));
	PG_RETURN_INT32(mbus_session_close(PG_GETARG_INT64(0), &end));
}

/* What open_session() is told goes before the settings. */
static void
options_read(FunctionCallInfo fcinfo, MbusTokenRules *rules)
{
	text	   *options;
	MbusNode	root;

	if (PG_ARGISNULL(2))
		return;
	options = PG_GETARG_TEXT_PP(2);
	mbus_json_slice(VARDATA_ANY(options), VARSIZE_ANY_EXHDR(options), 1,
					&root);
	if (root.value.type != JSON_TOKEN_OBJECT_START ||
		root.total > root.nchildren || mbus_json_duplicate(&root))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options are not an object that has each member once"),
				 errhidestmt(true)));
	for (int i = 0; i < root.nchildren; i++)
		option_read(&root.children[i], rules);
}

/*
 * option_read takes one member of open_session's options: a string that is
 * issuer, audience or anonymous, or the number skew; 22023 for any other.
 */
static void
option_read(const MbusNode *option, MbusTokenRules *rules)
{
	const char *string = NULL;

	if (option->value.type == JSON_TOKEN_STRING)
		string = mbus_json_string(&option->value, true);
	if (strcmp(option->name, "skew") == 0 &&
		option->value.type == JSON_TOKEN_NUMBER)
	{
		double		skew = strtod(mbus_json_token(&option->value, -1), NULL);

		if (skew >= 0 && skew <= SKEW_MAX && skew == (int) skew)
		{
			rules->skew = (int) skew;
			return;
		}
	}
	else if (strcmp(option->name, "issuer") == 0 && string)
	{
		rules->issuer = string;
		return;
	}
	else if (strcmp(option->name, "audience") == 0 && string)
	{
		rules->audience = string;
		return;
	}
	else if (strcmp(option->name, "anonymous") == 0 && string)
	{
		rules->anonymous = string;
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid option \"%.64s\"", option->name),
			 errdetail("Options are issuer, audience and anonymous, which are strings, and skew, seconds from 0 to %d.",
					   SKEW_MAX),
			 errhidestmt(true)));
}

/*
 * mbus_session_close forgets a session and gives back what was claimed under
 * it, in whatever process; returns how many messages.
 */
int
mbus_session_close(int64 number, MbusSessionEnd *end)
{
	mbus_session_number_check(number);
	mbus_session_forget(number);
	return mbus_leases_give_back(mbus_schema(), number, end);
}
