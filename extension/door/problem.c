/*
 * problem.c
 *		Errors as RFC 9457 has them: status, title, SQLSTATE, detail.
 *
 * What is not there, has expired, or is not for who asks is one and the same
 * answer: 404, or 401 if he has not said who he is.
 */
#include "postgres.h"

#include "utils/elog.h"
#include "utils/json.h"

#include "door/problem.h"
#include "message/quarantine.h"

typedef struct Status
{
	int			status;
	const char *title;
	const char *sqlstate;
	const char *detail;			/* NULL: the error's own */
} Status;

static const Status statuses[] = {
	{400, "Bad Request", "22023",
	"The target or a field of the request is malformed."},
	{401, "Unauthorized", "28000",
	"A token is needed, or a link that is valid."},
	{403, "Forbidden", "42501",
	"Messages are not given as scripts, styles, frames or the like."},
	{404, "Not Found", "P0002",
	"There is no such message, it has expired, or it is not for who asks."},
	{405, "Method Not Allowed", "0A000", "Allowed are GET and HEAD."},
	{412, "Precondition Failed", "22023",
	"The message is another than the request's condition says."},
	{416, "Range Not Satisfiable", "22023", "The message has no such bytes."},
	{500, "Internal Server Error", "XX000", NULL},
	{503, "Service Unavailable", "53000", NULL},
	{504, "Gateway Timeout", "57014", NULL},
};

static int	status_of(const ErrorData *edata);
static const Status *status_find(int status);

/*
 * mbus_problem_of says what an error comes to for who asks over HTTP.
 */
void
mbus_problem_of(const ErrorData *edata, bool anonymous, MbusProblem *problem)
{
	int			status = status_of(edata);

	if (status == 404 && anonymous)
		status = 401;
	mbus_problem_set(status, problem);
	if (status == 401 && !anonymous && edata->detail)
		problem->detail = edata->detail;
	if (problem->detail)
		return;
	problem->sqlstate = pstrdup(unpack_sql_state(edata->sqlerrcode));
	/* what the server did not expect may tell of its files */
	problem->detail = status == 500 &&
		edata->sqlerrcode != ERRCODE_DATA_CORRUPTED ?
		"The server's log tells what it was." : edata->message;
}

static int
status_of(const ErrorData *edata)
{
	if (mbus_damage_code(edata->sqlerrcode))
		return 500;
	switch (edata->sqlerrcode)
	{
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:
			return 401;
		case ERRCODE_NO_DATA_FOUND:
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_OBJECT:
			return 404;
		case ERRCODE_QUERY_CANCELED:
			return 504;
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
			return 503;
	}
	switch (ERRCODE_TO_CATEGORY(edata->sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
			return 503;
	}
	return 500;
}

/*
 * mbus_problem_set fills in what a status says by itself.
 */
void
mbus_problem_set(int status, MbusProblem *problem)
{
	const Status *found = status_find(status);

	problem->status = status;
	problem->sqlstate = found->sqlstate;
	problem->detail = found->detail;
}

static const Status *
status_find(int status)
{
	for (int i = 0; i < lengthof(statuses); i++)
	{
		if (statuses[i].status == status)
			return &statuses[i];
	}
	elog(ERROR, "unknown status %d", status);
}

/*
 * mbus_problem_append appends the JSON object.
 */
void
mbus_problem_append(StringInfo out, const MbusProblem *problem)
{
	appendStringInfo(out, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"sqlstate\":\"%s\"",
					 status_find(problem->status)->title, problem->status,
					 problem->sqlstate);
	if (problem->detail)
	{
		appendStringInfoString(out, ",\"detail\":");
		escape_json(out, problem->detail);
	}
	appendStringInfoString(out, "}\n");
}
