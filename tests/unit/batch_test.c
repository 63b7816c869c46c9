/*
 * batch_test.c
 *		Requests, lanes and the encoding of batches.
 */
#include "batch.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

static GwRequest *
request_of(int opcode, const char *string, size_t padding)
{
	GwBuffer	message = {0};
	unsigned char first = (unsigned char) opcode;
	size_t		i;

	gw_buffer_append(&message, &first, 1);
	gw_buffer_text(&message, string);
	for (i = 0; i < padding; i++)
		gw_buffer_text(&message, " ");
	return gw_request_create(42, &message, 0);
}

static bool
is_long(const char *string, size_t padding)
{
	GwRequest  *request = request_of(GW_OPCODE_TEXT, string, padding);
	bool		result = gw_request_is_long(request);

	gw_request_free(request);
	return result;
}

static void
lane_tests(void)
{
	ok(!is_long("{\"id\":1,\"method\":\"publish\"}", 0),
	   "a small publish takes the short lane");
	ok(is_long("{\"id\":1,\"method\":\"publish\"}", 70000),
	   "a large publish takes the long lane");
	ok(is_long("{\"id\":1,\"method\":\"get\"}", 0),
	   "a read takes the long lane");
	ok(is_long("[{\"id\":1,\"method\":\"ping\"},"
			   "{\"id\":2,\"method\":\"peek\"}]", 0),
	   "a batch with a read takes the long lane");
	ok(!is_long("not JSON", 0), "a malformed frame takes the short lane");
}

static void
room_tests(void)
{
	GwBatch    *batch = gw_batch_create();
	GwRequest  *next = request_of(GW_OPCODE_TEXT, "{}", 0);
	GwRequest  *huge = request_of(GW_OPCODE_TEXT, "{}", 0);
	GwRequest  *pair = request_of(GW_OPCODE_TEXT, "[{},{}]", 0);
	int			count = 0;

	while (count < 100 && gw_batch_has_room(batch, next))
	{
		gw_batch_add(batch, next);
		next = request_of(GW_OPCODE_TEXT, "{}", 0);
		count++;
	}
	ok(count == GW_BATCH_CALLS, "a batch takes 60 calls");
	gw_batch_free(batch);
	batch = gw_batch_create();
	huge->length = GW_BATCH_BYTES + 1;
	ok(gw_batch_has_room(batch, huge), "a huge frame goes alone");
	gw_batch_add(batch, huge);
	ok(!gw_batch_has_room(batch, next), "and nothing goes with it");
	gw_batch_free(batch);

	batch = gw_batch_create();
	gw_batch_add(batch, pair);
	for (count = 0; count < 100 && gw_batch_has_room(batch, next); count++)
	{
		gw_batch_add(batch, next);
		next = request_of(GW_OPCODE_TEXT, "{}", 0);
	}
	ok(count == GW_BATCH_CALLS - 3, "a JSON-RPC batch counts its elements");
	gw_batch_free(batch);
	gw_request_free(next);
}

static void
encode_tests(void)
{
	static const unsigned char sessions_wanted[] = {
		0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1,
		0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 42,
		0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 42
	};
	static const unsigned char frames_wanted[] = {
		0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 2, 0, 0, 0, 1,
		0, 0, 0, 3, 1, '{', '}', 0, 0, 0, 2, 2, 'x'
	};
	GwBatch    *batch = gw_batch_create();
	GwBuffer	sessions = {0};
	GwBuffer	frames = {0};

	gw_batch_add(batch, request_of(GW_OPCODE_TEXT, "{}", 0));
	gw_batch_add(batch, request_of(GW_OPCODE_BINARY, "x", 0));
	ok(gw_batch_encode(batch, &sessions, &frames), "a batch is encoded");
	ok(sessions.length == sizeof(sessions_wanted) &&
	   memcmp(sessions.data, sessions_wanted, sessions.length) == 0,
	   "sessions are a binary bigint[]");
	ok(frames.length == sizeof(frames_wanted) &&
	   memcmp(frames.data, frames_wanted, frames.length) == 0,
	   "frames are a binary bytea[], opcode first");
	gw_buffer_free(&sessions);
	gw_buffer_free(&frames);
	gw_batch_free(batch);
}

static void
shrink_tests(void)
{
	GwBatch    *batch = gw_batch_create();
	GwRequest  *request = request_of(GW_OPCODE_TEXT,
									 "{\"id\":\"abc\",\"method\":\"publish\"}",
									 100000);

	gw_batch_add(batch, request);
	gw_batch_shrink(batch);
	ok(request->frame.length < 100 &&
	   gw_span_is(gw_frame_read(gw_request_header(request)).id, "\"abc\""),
	   "a large frame that was sent is replaced by its id");
	ok(request->length > 100000, "its length is still known");
	gw_batch_free(batch);
}

void
batch_tests(void)
{
	lane_tests();
	room_tests();
	encode_tests();
	shrink_tests();
}
