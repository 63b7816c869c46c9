/*
 * door.c
 *		The HTTP door: the answer to a request, and pieces of what is sent.
 *
 * A frame runs as whom asker.c has found, in a transaction that ends with the
 * relay's call: a download has none between its pieces.  Nothing is kept but
 * what the ticket says.  A message's bytes never change, so pieces that were
 * read at different times are of the same whole.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "door/door.h"
#include "door/header.h"
#include "door/problem.h"
#include "door/range.h"
#include "message/quarantine.h"
#include "message/read.h"
#include "message/stored.h"
#include "state/clock.h"

static void answer_settled(const MbusDoor *door, StringInfo out);
static void answer_problem(const MbusDoor *door, const MbusProblem *problem,
						   int64 size, StringInfo out);
static void answer_piece(const MbusDoor *door, StringInfo out);
static void answer_message(MbusDoor *door, Oid schema,
						   const MbusStored *message, StringInfo out);
static void answer_not_modified(const MbusDoor *door,
								const MbusStored *message, StringInfo out);
static int	choose(const MbusDoor *door, const MbusStored *message,
				   int64 *from, int64 *to);
static bool find(const MbusDoor *door, Oid schema, MbusStored *message);
static bool find_granted(Oid schema, int64 id, bool own,
						 MbusStored *message);
static bool find_transaction(const MbusTarget *target, Oid schema,
							 MbusStored *message);
static const char *gone_reason(Oid schema, int64 id);
static StringInfo headers_begin(MbusAskedBy by);

/*
 * mbus_door_answer appends the answer to a frame.
 */
void
mbus_door_answer(MbusDoor *door, StringInfo out)
{
	Oid			schema = mbus_schema();
	MbusStored	message;

	if (door->settled != 0)
		answer_settled(door, out);
	else if (door->kind == MBUS_DOOR_PIECE)
		answer_piece(door, out);
	else if (find(door, schema, &message))
		answer_message(door, schema, &message, out);
	else
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("message not found"),
				 errdetail("There is none, or it has expired or was deleted.")));
}

/*
 * mbus_door_failed appends the answer to a frame that has failed, if it is
 * known which.  It runs outside the frame, as the relay's caller.
 */
void
mbus_door_failed(const MbusDoor *door, const ErrorData *edata, StringInfo out)
{
	MbusProblem problem;
	bool		anonymous = door->ticket.by == MBUS_BY_ANONYMOUS;

	if (door->n == 0)
		return;
	mbus_problem_of(edata, anonymous, &problem);
	if (problem.status == 404 && door->ticket.by == MBUS_BY_NOBODY &&
		door->kind == MBUS_DOOR_REQUEST)
		mbus_problem_set(500, &problem);	/* the settings, not who asks */
	if (door->kind == MBUS_DOOR_REQUEST)
		answer_problem(door, &problem, -1, out);
	else if (problem.status == 404 || problem.status == 401)
		mbus_door_gone(out, door, "denied");
	else if (mbus_damage_code(edata->sqlerrcode))
		mbus_door_gone(out, door, "corrupt");
	else
		mbus_door_later(out, door, problem.sqlstate);
}

/* Answers a request that nobody gets a message for. */
static void
answer_settled(const MbusDoor *door, StringInfo out)
{
	MbusProblem problem;
	StringInfo	headers;

	if (door->settled != 204)
	{
		mbus_problem_set(door->settled, &problem);
		answer_problem(door, &problem, -1, out);
		return;
	}
	headers = headers_begin(door->ticket.by);
	mbus_headers_preflight(headers);
	mbus_door_head(out, door, door->settled, headers->data);
	mbus_door_body(out, door, 0, 0, "", 0);
}

/* Answers with an error; "size": of a message that was asked for, or -1. */
static void
answer_problem(const MbusDoor *door, const MbusProblem *problem, int64 size,
			   StringInfo out)
{
	StringInfo	headers = headers_begin(door->ticket.by);
	StringInfoData body;
	MbusDoor	unticketed = *door;

	initStringInfo(&body);
	mbus_problem_append(&body, problem);
	mbus_headers_problem(headers, problem->status, door->ticket.by);
	if (size >= 0)
		mbus_header(headers, "Content-Range",
					psprintf("bytes */" INT64_FORMAT, size));
	unticketed.ticket.id = 0;
	mbus_door_head(out, &unticketed, problem->status, headers->data);
	mbus_door_body(out, &unticketed, 0, body.len, body.data,
				   door->method == MBUS_HTTP_HEAD ? 0 : body.len);
}

/* Answers with the next piece. */
static void
answer_piece(const MbusDoor *door, StringInfo out)
{
	Oid			schema = mbus_schema();
	MbusStored	message;
	int64		size;

	if (!find(door, schema, &message))
	{
		mbus_door_gone(out, door, gone_reason(schema, door->ticket.id));
		return;
	}
	size = Min(door->max, Min(message.size, door->ticket.to) - door->from);
	if (size <= 0 || door->from < door->ticket.from)
	{
		/* the ticket is not for these */
		mbus_door_gone(out, door, "denied");
		return;
	}
	mbus_door_piece(out, door,
					VARDATA_ANY(mbus_message_bytes(schema, &message,
												   door->from, size)), size);
}

/*
 * answer_message answers with a message, a part of it, or what its conditions
 * come to.
 */
static void
answer_message(MbusDoor *door, Oid schema, const MbusStored *message,
			   StringInfo out)
{
	MbusProblem problem;
	StringInfo	headers;
	int64		from;
	int64		to;
	int			status = choose(door, message, &from, &to);
	const char *bytes = "";
	int64		size = 0;

	if (status == 304)
	{
		answer_not_modified(door, message, out);
		return;
	}
	if (status == 412 || status == 416)
	{
		mbus_problem_set(status, &problem);
		answer_problem(door, &problem, status == 416 ? message->size : -1,
					   out);
		return;
	}
	door->ticket.id = message->id;
	door->ticket.from = from;
	door->ticket.to = to;
	if (door->method == MBUS_HTTP_GET)
	{
		size = Min(door->max, to - from);
		if (size > 0)
			bytes = VARDATA_ANY(mbus_message_bytes(schema, message, from,
												   size));
		mbus_message_read_record(schema, message);
	}
	headers = headers_begin(door->ticket.by);
	mbus_headers_validators(headers, message, door->ticket.by, door->expiry);
	mbus_headers_message(headers, message);
	if (door->target.kind == MBUS_TARGET_TRANSACTION)
		mbus_header(headers, "Content-Location",
					psprintf("/v1/messages/" INT64_FORMAT, message->id));
	if (status == 206)
		mbus_header(headers, "Content-Range",
					psprintf("bytes " INT64_FORMAT "-" INT64_FORMAT "/" INT64_FORMAT,
							 from, to - 1, (int64) message->size));
	mbus_door_head(out, door, status, headers->data);
	mbus_door_body(out, door, from, to, bytes, size);
}

/* Answers that who asks has it already. */
static void
answer_not_modified(const MbusDoor *door, const MbusStored *message,
					StringInfo out)
{
	StringInfo	headers = headers_begin(door->ticket.by);

	mbus_headers_validators(headers, message, door->ticket.by, door->expiry);
	mbus_door_head(out, door, 304, headers->data);
	mbus_door_body(out, door, 0, 0, "", 0);
}

/*
 * choose returns the status that a message is answered with, and sets the
 * bytes that are wanted.
 */
static int
choose(const MbusDoor *door, const MbusStored *message, int64 *from, int64 *to)
{
	MbusValidators validators;
	char		etag[MBUS_ETAG_BYTES];
	int			status;

	mbus_etag(message, etag);
	validators.etag = etag;
	validators.modified = timestamptz_to_time_t(message->created_at);
	validators.now = timestamptz_to_time_t(GetCurrentTimestamp());
	*from = 0;
	*to = message->size;
	status = mbus_precondition(&door->conditions, &validators);
	if (status != 0)
		return status;
	if (door->method != MBUS_HTTP_GET || door->range == NULL ||
		!mbus_if_range(&door->conditions, &validators))
		return 200;
	switch (mbus_http_range(door->range, message->size, from, to))
	{
		case MBUS_RANGE_ONE:
			return 206;
		case MBUS_RANGE_OUTSIDE:
			return 416;
		default:
			return 200;
	}
}

/*
 * find finds the message that a frame is for, if who asks may read it; false
 * if there is none, and 42501 or 42P01 where he may not.
 */
static bool
find(const MbusDoor *door, Oid schema, MbusStored *message)
{
	int64		id = door->kind == MBUS_DOOR_PIECE ? door->ticket.id :
	door->target.id;

	if (door->ticket.by == MBUS_BY_CAPABILITY)
		return find_granted(schema, id, door->ticket.own, message);
	if (door->kind == MBUS_DOOR_REQUEST &&
		door->target.kind == MBUS_TARGET_TRANSACTION)
		return find_transaction(&door->target, schema, message);
	return mbus_message_readable(schema, id, message);
}

/*
 * find_granted finds what a capability is for.  In a channel that keeps
 * subjects apart it was for a message of the maker's own, or he must still see
 * all.
 */
static bool
find_granted(Oid schema, int64 id, bool own, MbusStored *message)
{
	const MbusChannel *channel;

	if (!mbus_message_fetch(schema, id, message))
		return false;
	channel = mbus_channel_by_id(schema, message->channel_id);
	if (channel == NULL)
		return false;
	mbus_channel_check(channel, MBUS_CONSUME);
	return own || !channel->by_subject ||
		mbus_channel_allows(channel, MBUS_CLAIM);
}

static bool
find_transaction(const MbusTarget *target, Oid schema, MbusStored *message)
{
	text	   *transaction_id = cstring_to_text(target->transaction_id);
	const MbusChannel *channel;

	mbus_about_transaction(transaction_id);
	channel = mbus_channel_open(schema, cstring_to_text(target->channel),
								MBUS_CONSUME);
	return mbus_message_by_transaction(schema, channel, transaction_id,
									   message) &&
		mbus_message_visible(schema, message);
}

/* Why a message is there no more. */
static const char *
gone_reason(Oid schema, int64 id)
{
	return mbus_message_expiry(schema, id) > mbus_now() ? "deleted" : "expired";
}

/* Begins an array of fields with those of every answer. */
static StringInfo
headers_begin(MbusAskedBy by)
{
	StringInfo	headers = makeStringInfo();

	appendStringInfoChar(headers, '[');
	mbus_headers_common(headers, by);
	return headers;
}
