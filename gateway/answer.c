/*
 * answer.c
 *		Composes the errors that the gateway itself answers.
 *
 * A request gets a JSON-RPC error with its own id, a notification gets the
 * notification "error", a malformed frame an error with id null, and a batch
 * an array of these. The ids come from frame.c, which hands out only what is
 * sound JSON.
 */
#include "answer.h"

/* A batch of more elements gets one error with id null. */
#define ELEMENTS_MAX	1000

static size_t count_elements(GwFrame batch);
static void answer_one(GwBuffer *out, const GwFrame *frame,
					   const GwError *error);
static void answer_id(GwBuffer *out, GwSpan id, const GwError *error);
static void answer_error(GwBuffer *out, const GwError *error);
static void answer_text(GwBuffer *out, const char *string);
static void stub_one(GwBuffer *out, const GwFrame *frame);

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

/*
 * gw_answer_frame appends the answer to a whole frame, given its header line
 * (see gw_frame_header).
 */
void
gw_answer_frame(GwBuffer *out, GwSpan header, const GwError *error)
{
	GwFrame		frame = gw_frame_read(header);
	GwFrame		element;
	const char *before = "[";
	size_t		elements;

	if (frame.kind != GW_FRAME_BATCH)
	{
		answer_one(out, &frame, error);
		return;
	}
	elements = count_elements(frame);
	if (elements == 0 || elements > ELEMENTS_MAX)
	{
		frame.kind = GW_FRAME_MALFORMED;
		answer_one(out, &frame, error);
		return;
	}
	while (gw_frame_next(&frame.elements, &element))
	{
		gw_buffer_text(out, before);
		answer_one(out, &element, error);
		before = ",";
	}
	gw_buffer_text(out, "]");
}

/*
 * gw_answer_prefix is gw_answer_frame for a frame of which only the first
 * bytes are known: it uses the id if they hold it.
 */
void
gw_answer_prefix(GwBuffer *out, GwSpan header, const GwError *error)
{
	GwFrame		frame = gw_frame_read(header);

	answer_id(out, frame.id, error);
}

/*
 * gw_answer_stub appends a small frame that gets the same answers as this
 * one, so that a large frame need not be kept once it was sent.
 */
void
gw_answer_stub(GwBuffer *out, GwSpan header)
{
	GwFrame		frame = gw_frame_read(header);
	GwFrame		element;
	const char *before = "[";
	size_t		elements;

	if (frame.kind != GW_FRAME_BATCH)
	{
		stub_one(out, &frame);
		return;
	}
	elements = count_elements(frame);
	if (elements == 0 || elements > ELEMENTS_MAX)
		return;
	while (gw_frame_next(&frame.elements, &element))
	{
		gw_buffer_text(out, before);
		stub_one(out, &element);
		before = ",";
	}
	gw_buffer_text(out, "]");
}

static size_t
count_elements(GwFrame batch)
{
	GwFrame		element;
	size_t		count = 0;

	while (count <= ELEMENTS_MAX && gw_frame_next(&batch.elements, &element))
		count++;
	return count;
}

static void
answer_one(GwBuffer *out, const GwFrame *frame, const GwError *error)
{
	GwSpan		none = {NULL, 0};

	if (frame->kind == GW_FRAME_NOTIFICATION)
	{
		gw_buffer_text(out, "{\"jsonrpc\":\"2.0\",\"method\":\"error\","
					   "\"params\":");
		answer_error(out, error);
		gw_buffer_text(out, "}");
	}
	else
		answer_id(out, frame->kind == GW_FRAME_REQUEST ? frame->id : none,
				  error);
}

static void
answer_id(GwBuffer *out, GwSpan id, const GwError *error)
{
	gw_buffer_text(out, "{\"jsonrpc\":\"2.0\",\"id\":");
	if (id.length > 0)
		gw_buffer_append(out, id.data, id.length);
	else
		gw_buffer_text(out, "null");
	gw_buffer_text(out, ",\"error\":");
	answer_error(out, error);
	gw_buffer_text(out, "}");
}

static void
answer_error(GwBuffer *out, const GwError *error)
{
	gw_buffer_format(out, "{\"code\":%d,\"message\":", error->code);
	gw_buffer_json(out, error->message);
	gw_buffer_text(out, ",\"data\":{\"sqlstate\":");
	answer_text(out, error->sqlstate);
	gw_buffer_text(out, ",\"detail\":");
	answer_text(out, error->detail);
	gw_buffer_text(out, ",\"hint\":");
	answer_text(out, error->hint);
	gw_buffer_text(out, "}}");
}

static void
answer_text(GwBuffer *out, const char *string)
{
	if (string == NULL)
		gw_buffer_text(out, "null");
	else
		gw_buffer_json(out, string);
}

static void
stub_one(GwBuffer *out, const GwFrame *frame)
{
	if (frame->kind == GW_FRAME_NOTIFICATION)
		gw_buffer_text(out, "{}");
	else if (frame->kind == GW_FRAME_REQUEST && frame->id.length > 0)
	{
		gw_buffer_text(out, "{\"id\":");
		gw_buffer_append(out, frame->id.data, frame->id.length);
		gw_buffer_text(out, "}");
	}
	else
		gw_buffer_text(out, "0");
}
