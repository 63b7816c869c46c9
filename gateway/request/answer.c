/*
 * answer.c
 *		Composes the errors that the gateway itself answers.
 *
 * A frame is read once, when it comes, and what an answer needs of it is
 * kept: the id of the frame or of each of its elements, as JSON with a zero
 * byte behind it, which no sound JSON has. A request gets a JSON-RPC error
 * with its own id; a notification, kept as an empty id, gets the notification
 * "error"; what is malformed an error with its id if that was read before the
 * fault, else with id null; a batch, kept with a bracket before its ids, an
 * array of these.
 */
#include "request/answer.h"

#include <string.h>

/*
 * An id that is longer is none: the database refuses it, too, and an answer
 * must not be as large as what it answers.
 */
#define ID_MAX			1024

static void answer_one(GwBuffer *out, const char *id, const GwError *error);
static void answer_error(GwBuffer *out, const GwError *error);

/* gw_error_unknown is for what was sent and not answered. */
GwError
gw_error_unknown(const char *detail)
{
	GwError		error = {GW_ERROR_OUTCOME_UNKNOWN, "outcome unknown", NULL,
		NULL, "Ask with get_by_transaction whether it was stored, or send it"
	" again with the same transaction_id."};

	error.detail = detail;
	return error;
}

/* gw_error_away is for what was not sent. */
GwError
gw_error_away(const char *detail)
{
	GwError		error = {GW_ERROR_DATABASE_AWAY, "the database is away", NULL,
	NULL, "Nothing was sent; try again."};

	error.detail = detail;
	return error;
}

/* gw_ids_add keeps what is needed to answer a frame, or an element of one. */
void
gw_ids_add(GwBuffer *ids, const GwFrame *frame)
{
	if (frame->kind != GW_FRAME_NOTIFICATION && frame->id.length > 0 &&
		frame->id.length <= ID_MAX)
		gw_buffer_append(ids, frame->id.data, frame->id.length);
	else if (frame->kind != GW_FRAME_NOTIFICATION)
		gw_buffer_text(ids, "null");
	gw_buffer_append(ids, "", 1);
}

/*
 * gw_answer_frame appends the answer to a whole frame. If that is larger than
 * the limit, it is one error with id null.
 */
void
gw_answer_frame(GwBuffer *out, const GwBuffer *ids, const GwError *error,
				size_t limit)
{
	const char *id = (const char *) ids->data;
	const char *end = id + ids->length;
	bool		batch = ids->length > 0 && *id == '[';
	size_t		start = out->length;

	if (ids->failed)
		out->failed = true;
	if (batch)
		gw_buffer_append(out, id++, 1);
	for (; id < end; id += strlen(id) + 1)
	{
		answer_one(out, id, error);
		if (batch)
			gw_buffer_text(out, id + strlen(id) + 1 < end ? "," : "]");
	}
	if (out->length - start <= limit)
		return;
	out->length = start;
	answer_one(out, "null", error);
}

static void
answer_one(GwBuffer *out, const char *id, const GwError *error)
{
	gw_buffer_text(out, "{\"jsonrpc\":\"2.0\",");
	if (*id == '\0')
		gw_buffer_text(out, "\"method\":\"error\",\"params\":");
	else
	{
		gw_buffer_text(out, "\"id\":");
		gw_buffer_text(out, id);
		gw_buffer_text(out, ",\"error\":");
	}
	answer_error(out, error);
	gw_buffer_text(out, "}");
}

static void
answer_error(GwBuffer *out, const GwError *error)
{
	gw_buffer_format(out, "{\"code\":%d,\"message\":", error->code);
	gw_buffer_json(out, error->message);
	gw_buffer_text(out, ",\"data\":{\"sqlstate\":");
	gw_buffer_json(out, error->sqlstate);
	gw_buffer_text(out, ",\"detail\":");
	gw_buffer_json(out, error->detail);
	gw_buffer_text(out, ",\"hint\":");
	gw_buffer_json(out, error->hint);
	gw_buffer_text(out, "}}");
}
