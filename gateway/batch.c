/*
 * batch.c
 *		Requests, and the batches they travel in.
 *
 * A batch is one call of message_bus.relay(): at most 60 frames and 64 MiB.
 * It is encoded as two arrays in PostgreSQL's binary format (array_recv:
 * dimensions, flags, element type, then size and lower bound, then each
 * element with its length). Once it is encoded, its larger frames are
 * replaced by stubs that hold no more than the ids to answer.
 */
#include "batch.h"

#include <stdlib.h>
#include <string.h>

#include "answer.h"

/* Frames up to this size, and not of these methods, take the short lane. */
#define SHORT_MAX	65536

/* Reads in one batch: each may bring a reply of WS_MAX_MSG_BYTES. */
#define READS_MAX	4

/* Frames up to this size are kept as they are. */
#define STUB_MIN	4096

/* Type OIDs of PostgreSQL's catalog, fixed for good. */
#define BYTEA_OID	17
#define INT8_OID	20

static const char *const reading_methods[] = {
	"get", "get_bytes", "get_by_transaction", "peek", "retrieve_message"
};

#define READING_METHODS \
	(sizeof(reading_methods) / sizeof(reading_methods[0]))

static bool method_reads(GwSpan method);
static void encode_head(GwBuffer *array, uint32_t type, size_t count);

/*
 * gw_request_create makes a request of a message, which it takes over. It
 * returns NULL if out of memory, and leaves the message then.
 */
GwRequest *
gw_request_create(int64_t session, GwBuffer *message, int64_t now_ms)
{
	GwRequest  *request = calloc(1, sizeof(GwRequest));
	GwFrame		frame;
	GwFrame		element;

	if (request == NULL)
		return NULL;
	request->session = session;
	request->frame = *message;
	request->length = message->length;
	request->arrived_ms = now_ms;
	memset(message, 0, sizeof(*message));
	frame = gw_frame_read(gw_request_header(request));
	request->kind = frame.kind;
	request->reads = method_reads(frame.method);
	request->calls = 1;
	while (frame.kind == GW_FRAME_BATCH && request->calls <= GW_BATCH_CALLS &&
		   gw_frame_next(&frame.elements, &element))
	{
		request->calls++;
		request->reads = request->reads || method_reads(element.method);
	}
	if (frame.method.length > 0 && frame.method.length < GW_METHOD_MAX &&
		gw_utf8_valid(frame.method.data, frame.method.length))
		memcpy(request->method, frame.method.data, frame.method.length);
	return request;
}

/* gw_request_is_long tells which lane a request takes. */
bool
gw_request_is_long(const GwRequest *request)
{
	return request->reads || request->length > SHORT_MAX;
}

/* gw_request_header returns the JSON part of the frame, or of its stub. */
GwSpan
gw_request_header(const GwRequest *request)
{
	return gw_frame_header(request->frame.data[0], request->frame.data + 1,
						   request->frame.length - 1);
}

void
gw_request_free(GwRequest *request)
{
	gw_buffer_free(&request->frame);
	free(request);
}

/* gw_batch_create returns an empty batch, or NULL if out of memory. */
GwBatch *
gw_batch_create(void)
{
	GwBatch    *batch = calloc(1, sizeof(GwBatch));

	if (batch != NULL)
		batch->requests_end = &batch->requests;
	return batch;
}

/* gw_batch_has_room tells whether a batch can take one more request. */
bool
gw_batch_has_room(const GwBatch *batch, const GwRequest *request)
{
	if (batch->count == 0)
		return true;
	return batch->calls + request->calls <= GW_BATCH_CALLS &&
		request->length <= GW_BATCH_BYTES &&
		batch->bytes <= GW_BATCH_BYTES - request->length &&
		!(request->reads && batch->reads >= READS_MAX);
}

/* gw_batch_add appends a request, which the batch owns from then on. */
void
gw_batch_add(GwBatch *batch, GwRequest *request)
{
	request->next = NULL;
	*batch->requests_end = request;
	batch->requests_end = &request->next;
	batch->count++;
	batch->calls += request->calls;
	batch->bytes += request->length;
	if (request->reads)
		batch->reads++;
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
		!gw_buffer_reserve(frames, 20 + 4 * batch->count + batch->bytes))
		return false;
	encode_head(sessions, INT8_OID, batch->count);
	encode_head(frames, BYTEA_OID, batch->count);
	for (request = batch->requests; request != NULL; request = request->next)
	{
		gw_buffer_int32(sessions, 8);
		gw_buffer_int64(sessions, (uint64_t) request->session);
		gw_buffer_int32(frames, (uint32_t) request->frame.length);
		gw_buffer_append(frames, request->frame.data, request->frame.length);
	}
	return !sessions->failed && !frames->failed;
}

/* gw_batch_shrink replaces large frames by stubs, where memory allows. */
void
gw_batch_shrink(GwBatch *batch)
{
	GwRequest  *request;

	for (request = batch->requests; request != NULL; request = request->next)
	{
		unsigned char opcode = GW_OPCODE_TEXT;
		GwBuffer	stub = {0};

		if (request->frame.length <= STUB_MIN)
			continue;
		gw_buffer_append(&stub, &opcode, 1);
		gw_answer_stub(&stub, gw_request_header(request));
		if (stub.failed)
		{
			gw_buffer_free(&stub);
			continue;
		}
		gw_buffer_free(&request->frame);
		request->frame = stub;
	}
}

/* gw_batch_free frees a batch and its requests. */
void
gw_batch_free(GwBatch *batch)
{
	while (batch->requests != NULL)
	{
		GwRequest  *request = batch->requests;

		batch->requests = request->next;
		gw_request_free(request);
	}
	free(batch);
}

static bool
method_reads(GwSpan method)
{
	size_t		i;

	for (i = 0; i < READING_METHODS; i++)
		if (gw_span_is(method, reading_methods[i]))
			return true;
	return false;
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
