/*
 * batch.c
 *		Requests, and the batches they travel in.
 *
 * A batch is one call of message_bus.relay(): at most 60 frames and 64 MiB.
 * It is encoded as two arrays in PostgreSQL's binary format (array_recv:
 * dimensions, flags, element type, then size and lower bound, then each
 * element with its length). Once it is encoded its frames are freed: an
 * answer of the gateway's own needs no more than the ids (answer.c).
 *
 * Beside the frames of clients there are the gateway's own control frames,
 * which no client can send: 'O' and a token opens a session on a database
 * connection, 'C' closes it, and 'L' tells how a message begins that was
 * refused because it is over the limit. 'H' and 'P' are asked for the HTTP
 * door, which is told what they are answered (GwAskEvents).
 */
#include "request/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "request/answer.h"

/* Frames up to this size, and not of these methods, take the short lane. */
#define SHORT_MAX	65536

/* Of a message that was refused, so many bytes are told. */
#define TOLD_MAX	((size_t) 65536)

/* Beside the limit: it is that of those without a token. */
#define ANON_BIT	0x80000000u

/* What a frame has in front if its client has asked for larger replies. */
#define LIMIT_BYTES	4

/* What a call may bring that is no read, nor a claim: see gw_request_weigh. */
#define REPLY_USUAL	1024

/* No reply has so many bytes, whatever is asked for. */
#define WANTED_MAX	((size_t) 1 << 30)

/* A JSON-RPC batch of more elements gets one error with id null. */
#define ELEMENTS_MAX	1000

/* Type OIDs of PostgreSQL's catalog, fixed for good. */
#define BYTEA_OID	17
#define INT8_OID	20

/* What methods do that takes a lane of its own, or brings much. */
#define READS			0x01	/* not on the short lane */
#define BRINGS			0x02	/* as much as a reply can be */
#define LISTS			0x04	/* as many ids as it has messages */
#define BULK			0x08	/* pieces of large bodies: lane bulk */
#define ALONE			0x10	/* may take seconds: a batch of its own */

static const struct
{
	const char *name;
	int			traits;
}			methods[] = {

	{"get", READS | BRINGS},
	{"get_bytes", READS | BRINGS | BULK},
	{"get_by_transaction", READS | BRINGS},
	{"peek", READS | BRINGS},
	{"retrieve_message", READS | BRINGS},
	{"claim", BRINGS},
	{"publish_batch", LISTS},
	{GW_APPENDS, BULK},
	{"upload_commit", BULK | ALONE}
};

#define METHODS (sizeof(methods) / sizeof(methods[0]))

static void request_count(GwRequest *request, const GwFrame *frame);
static size_t wanted(const GwFrame *frame);
static void request_read_batch(GwRequest *request, GwFrame frame);
static GwRequest *request_control(GwIdentity *identity, char control,
								  const GwBuffer *bytes);
static void request_drop_frame(GwRequest *request);
static void encode_frame(GwBuffer *frames, const GwRequest *request);
static void encode_head(GwBuffer *array, uint32_t type, size_t count);

/*
 * gw_request_create makes a request of a message, which it takes over. It
 * returns NULL if out of memory, and leaves the message then.
 */
GwRequest *
gw_request_create(GwIdentity *identity, GwBuffer *message, int64_t now_ms)
{
	GwRequest  *request = calloc(1, sizeof(GwRequest));
	GwFrame		frame;

	if (request == NULL)
		return NULL;
	request->identity = identity;
	identity->references++;
	request->frame = *message;
	request->length = message->length;
	request->arrived_ms = now_ms;
	memset(message, 0, sizeof(*message));
	frame = gw_frame_read(gw_frame_header(request->frame.data[0],
										  request->frame.data + 1,
										  request->frame.length - 1));
	request->kind = frame.kind;
	request_count(request, &frame);
	if (frame.kind == GW_FRAME_BATCH)
		request_read_batch(request, frame);
	else
		gw_ids_add(&request->ids, &frame);
	if (frame.method.length > 0 && frame.method.length < GW_METHOD_MAX &&
		gw_utf8_valid(frame.method.data, frame.method.length))
		memcpy(request->method, frame.method.data, frame.method.length);
	return request;
}

/* request_count counts a frame, or an element of one, and what it may bring. */
static void
request_count(GwRequest *request, const GwFrame *frame)
{
	size_t		i;

	request->calls++;
	request->waits = request->waits || frame->waits;
	request->secret = request->secret || frame->escaped ||
		gw_span_is(frame->method, "authenticate");
	if (frame->escaped)
		request->reads = request->brings = request->lists = true;
	for (i = 0; i < METHODS; i++)
	{
		if (!gw_span_is(frame->method, methods[i].name))
			continue;
		request->reads |= (methods[i].traits & READS) != 0;
		request->brings |= (methods[i].traits & BRINGS) != 0;
		request->lists |= (methods[i].traits & LISTS) != 0;
		request->bulk |= (methods[i].traits & BULK) != 0;
		request->alone |= (methods[i].traits & ALONE) != 0;
		if (request->bulk && request->brings)
			request->wants = wanted(frame);
	}
}

/* wanted returns how many bytes a request asks for; 0 if it does not say. */
static size_t
wanted(const GwFrame *frame)
{
	GwSpan		number;
	size_t		bytes = 0;
	size_t		i;

	if (!gw_json_member(frame->params, "\"max_bytes\"", &number))
		return 0;
	for (i = 0; i < number.length && number.data[i] >= '0' &&
		 number.data[i] <= '9' && bytes < WANTED_MAX; i++)
		bytes = bytes * 10 + (size_t) (number.data[i] - '0');
	return i == number.length ? bytes : 0;
}

/* request_read_batch reads the elements of a JSON-RPC batch. */
static void
request_read_batch(GwRequest *request, GwFrame frame)
{
	const GwFrame malformed = {.kind = GW_FRAME_MALFORMED};
	GwFrame		element;
	size_t		count = 0;

	gw_buffer_text(&request->ids, "[");
	while (count <= ELEMENTS_MAX && gw_frame_next(&frame.elements, &element))
	{
		count++;
		if (request->calls <= GW_BATCH_CALLS)
			request_count(request, &element);
		gw_ids_add(&request->ids, &element);
	}
	if (count > 0 && count <= ELEMENTS_MAX)
		return;
	request->ids.length = 0;
	gw_ids_add(&request->ids, &malformed);
}

/* gw_request_open makes what opens a session; NULL if out of memory. */
GwRequest *
gw_request_open(GwIdentity *identity)
{
	GwBuffer	since = {0};
	GwRequest  *request = NULL;

	if (identity->token.length > 0 || identity->since == 0)
		return request_control(identity, GW_CONTROL_OPEN, &identity->token);
	gw_buffer_int64(&since, (uint64_t) identity->since);
	if (!since.failed)
		request = request_control(identity, GW_CONTROL_AGAIN, &since);
	if (request != NULL)
		request->control = GW_CONTROL_OPEN;
	gw_buffer_free(&since);
	return request;
}

/*
 * gw_request_close makes what closes a session, and says which leases end
 * with it; NULL if out of memory.
 */
GwRequest *
gw_request_close(GwIdentity *identity, GwEnding ending)
{
	unsigned	word = (unsigned) identity->close_code & 0x7fff;
	unsigned char code[2];
	GwBuffer	bytes = {0};
	GwRequest  *request = NULL;

	if (ending != GW_ENDS_ALL)
		word |= 0x8000;
	code[0] = (unsigned char) (word >> 8);
	code[1] = (unsigned char) word;
	gw_buffer_append(&bytes, code, sizeof(code));
	if (ending != GW_ENDS_NONE)
		gw_buffer_append(&bytes, identity->unwritten.data,
						 identity->unwritten.length);
	if (ending == GW_ENDS_KNOWN)
		gw_buffer_append(&bytes, identity->written.data,
						 identity->written.length);
	if (!bytes.failed)
		request = request_control(identity, GW_CONTROL_CLOSE, &bytes);
	if (request != NULL)
		request->ends = ending != GW_ENDS_NONE;
	gw_buffer_free(&bytes);
	return request;
}

/*
 * gw_request_over_limit makes what tells of a message that is over the limit,
 * of those without a token or of all, of which this much has come; NULL if out
 * of memory.
 */
GwRequest *
gw_request_over_limit(GwIdentity *identity, size_t limit, bool anonymous,
					  const GwBuffer *message)
{
	GwBuffer	bytes = {0};
	GwRequest  *request = NULL;

	gw_buffer_int32(&bytes, (uint32_t) limit | (anonymous ? ANON_BIT : 0));
	gw_buffer_append(&bytes, message->data,
					 message->length < TOLD_MAX ? message->length : TOLD_MAX);
	if (!bytes.failed)
		request = request_control(identity, GW_CONTROL_OVER_LIMIT, &bytes);
	/* It may be an authenticate. */
	gw_buffer_wipe(&bytes);
	return request;
}

/*
 * gw_request_ask makes what a part of the gateway asks the database: these
 * bytes, as a control frame. It returns NULL if out of memory.
 */
GwRequest *
gw_request_ask(GwIdentity *identity, char control, const GwBuffer *bytes,
			   const GwAskEvents *ask, void *asker)
{
	GwRequest  *request = request_control(identity, control, bytes);

	if (request == NULL)
		return NULL;
	request->ask = ask;
	request->asker = asker;
	return request;
}

/* request_control makes a control frame of these bytes. */
static GwRequest *
request_control(GwIdentity *identity, char control, const GwBuffer *bytes)
{
	const unsigned char head[2] = {GW_OPCODE_CONTROL, (unsigned char) control};
	GwBuffer	message = {0};
	GwRequest  *request = NULL;

	if (gw_buffer_reserve(&message, sizeof(head) + bytes->length))
	{
		gw_buffer_append(&message, head, sizeof(head));
		gw_buffer_append(&message, bytes->data, bytes->length);
		request = gw_request_create(identity, &message, 0);
	}
	gw_buffer_wipe(&message);
	if (request == NULL)
		return NULL;
	request->control = control;
	request->version = identity->version;
	request->secret = true;
	return request;
}

/*
 * gw_request_only_claims tells that a request ends no lease: it is a single
 * claim, which may wait.
 */
bool
gw_request_only_claims(const GwRequest *request)
{
	return request->waits && request->kind != GW_FRAME_BATCH;
}

/*
 * gw_request_lane tells which lane a request takes. A small range of a body is
 * a read like others, and so is what comes of a stranger, who shall not take
 * from what bodies may have.
 */
GwLaneKind
gw_request_lane(const GwRequest *request)
{
	if (request->waits)
		return GW_LANE_WAIT;
	if (request->control == GW_CONTROL_PIECE)
		return GW_LANE_BULK;
	if (request->ask != NULL)
		return GW_LANE_LONG;
	if (request->bulk && !request->identity->stranger &&
		request->kind != GW_FRAME_BATCH &&
		(request->wants == 0 || request->wants > SHORT_MAX))
		return GW_LANE_BULK;
	return request->reads || request->length > SHORT_MAX ?
		GW_LANE_LONG : GW_LANE_SHORT;
}

/*
 * gw_request_weigh notes what a request may bring, of which each reply has at
 * most so many bytes: all of that if it reads or claims, unless it says how
 * much it asks for, which may come as base64; ids or receipts, which may be
 * longer than the messages of a batch that they are for; else little.
 */
void
gw_request_weigh(GwRequest *request, size_t limit)
{
	size_t		reply = request->calls * REPLY_USUAL;

	/* Who asks has said it. */
	if (request->ask != NULL)
		return;
	if (request->lists)
		reply += 4 * request->length;
	if (request->brings)
		reply = request->wants == 0 || request->kind == GW_FRAME_BATCH ?
			limit : reply + (request->wants + 2) / 3 * 4;
	request->reply = request->control != 0 ? 0 :
		reply > limit ? limit : reply;
}

/* gw_request_log logs how a request ended, after so many ms. */
void
gw_request_log(const GwRequest *request, GwLaneKind lane,
			   const GwError *error, GwResult result, int64_t ms)
{
	const char *sqlstate = error != NULL ? error->sqlstate : request->sqlstate;
	GwLogLine	line;

	gw_log_begin(&line, request->code != 0 ? "warning" : "info", "frame");
	gw_log_number(&line, "connection", request->identity->session);
	gw_identity_log(request->identity, &line);
	gw_log_text(&line, "lane", gw_lane_names[lane]);
	gw_log_text(&line, "method", request->method);
	gw_log_number(&line, "bytes", (int64_t) request->length - 1);
	gw_log_number(&line, "ms", ms);
	gw_log_text(&line, "outcome", gw_result_names[result]);
	if (request->code != 0)
		gw_log_number(&line, "code", request->code);
	if (sqlstate != NULL && sqlstate[0] != '\0')
		gw_log_text(&line, "sqlstate", sqlstate);
	gw_log_end(&line);
}

void
gw_request_free(GwRequest *request)
{
	request_drop_frame(request);
	gw_buffer_free(&request->ids);
	gw_identity_release(request->identity);
	free(request);
}

static void
request_drop_frame(GwRequest *request)
{
	if (request->secret)
		gw_buffer_wipe(&request->frame);
	gw_buffer_free(&request->frame);
}

/* gw_batch_create returns an empty batch, or NULL if out of memory. */
GwBatch *
gw_batch_create(void)
{
	GwBatch    *batch = calloc(1, sizeof(GwBatch));

	if (batch != NULL)
		TAILQ_INIT(&batch->requests);
	return batch;
}

/*
 * gw_batch_has_room tells whether a batch can take one more request, and
 * `more` calls before it, without having more than bytes_max bytes or bringing
 * more than replies_max.
 */
bool
gw_batch_has_room(const GwBatch *batch, const GwRequest *request, size_t more,
				  size_t bytes_max, size_t replies_max)
{
	if (batch->count == 0)
		return true;
	return !batch->alone && !request->alone &&
		batch->calls + request->calls + more <= GW_BATCH_CALLS &&
		request->length <= bytes_max &&
		batch->bytes <= bytes_max - request->length &&
		batch->replies + request->reply <= replies_max;
}

/* gw_batch_add appends a request, which the batch owns from then on. */
void
gw_batch_add(GwBatch *batch, GwRequest *request)
{
	TAILQ_INSERT_TAIL(&batch->requests, request, entry);
	batch->count++;
	batch->calls += request->calls;
	batch->bytes += request->length;
	batch->replies += request->reply;
	batch->secret = batch->secret || request->secret;
	batch->alone = batch->alone || request->alone;
}

/*
 * gw_batch_encode appends relay's two arguments, bigint[] and bytea[]. It
 * returns false if out of memory.
 */
bool
gw_batch_encode(const GwBatch *batch, GwBuffer *sessions, GwBuffer *frames)
{
	const GwRequest *request;

	if (!gw_buffer_reserve(sessions, 20 + 12 * batch->count) ||
		!gw_buffer_reserve(frames, 20 + (4 + LIMIT_BYTES) * batch->count +
						   batch->bytes))
		return false;
	encode_head(sessions, INT8_OID, batch->count);
	encode_head(frames, BYTEA_OID, batch->count);
	TAILQ_FOREACH(request, &batch->requests, entry)
	{
		gw_buffer_int32(sessions, 8);
		gw_buffer_int64(sessions, request->nobody ? 0 :
						(uint64_t) request->identity->session);
		encode_frame(frames, request);
	}
	return !sessions->failed && !frames->failed;
}

/*
 * gw_batch_drop_frames frees the frames of a batch that was encoded, but for
 * what closes a session: it is sent once more if the batch fails.
 */
void
gw_batch_drop_frames(GwBatch *batch)
{
	GwRequest  *request;

	TAILQ_FOREACH(request, &batch->requests, entry)
		if (request->control != GW_CONTROL_CLOSE)
		request_drop_frame(request);
}

/* gw_batch_free frees a batch and its requests. */
void
gw_batch_free(GwBatch *batch)
{
	GwRequest  *request;

	while ((request = TAILQ_FIRST(&batch->requests)) != NULL)
	{
		TAILQ_REMOVE(&batch->requests, request, entry);
		gw_request_free(request);
	}
	free(batch);
}

/* encode_frame appends a frame, with the limit that its client asked for. */
static void
encode_frame(GwBuffer *frames, const GwRequest *request)
{
	const GwBuffer *frame = &request->frame;
	uint32_t	limit = request->identity->limit;
	unsigned char opcode;

	if (limit == 0 || request->control != 0)
	{
		gw_buffer_int32(frames, (uint32_t) frame->length);
		gw_buffer_append(frames, frame->data, frame->length);
		return;
	}
	opcode = frame->data[0] | GW_OPCODE_LIMITED;
	gw_buffer_int32(frames, (uint32_t) (frame->length + LIMIT_BYTES));
	gw_buffer_append(frames, &opcode, 1);
	gw_buffer_int32(frames, limit);
	gw_buffer_append(frames, frame->data + 1, frame->length - 1);
}

static void
encode_head(GwBuffer *array, uint32_t type, size_t count)
{
	gw_buffer_int32(array, 1);	/* dimensions */
	gw_buffer_int32(array, 0);	/* no NULLs */
	gw_buffer_int32(array, type);
	gw_buffer_int32(array, (uint32_t) count);
	gw_buffer_int32(array, 1);	/* lower bound */
}
