/*
 * batch_test.c
 *		Requests, lanes and the encoding of batches.
 */
#include "request/batch.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

static GwIdentity *identity;

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
	return gw_request_create(identity, &message, 0);
}

static GwLaneKind
lane_of(const char *string, size_t padding)
{
	GwRequest  *request = request_of(GW_OPCODE_TEXT, string, padding);
	GwLaneKind	lane = gw_request_lane(request);

	gw_request_free(request);
	return lane;
}

static void
lane_tests(void)
{
	ok(lane_of("{\"id\":1,\"method\":\"publish\"}", 0) == GW_LANE_SHORT,
	   "a small publish takes the short lane");
	ok(lane_of("{\"id\":1,\"method\":\"publish\"}", 70000) == GW_LANE_LONG,
	   "a large publish takes the long lane");
	ok(lane_of("{\"id\":1,\"method\":\"get\"}", 0) == GW_LANE_LONG,
	   "a read takes the long lane");
	ok(lane_of("[{\"id\":1,\"method\":\"ping\"},"
			   "{\"id\":2,\"method\":\"peek\"}]", 0) == GW_LANE_LONG,
	   "a batch with a read takes the long lane");
	ok(lane_of("{\"method\":\"claim\",\"id\":1}", 0) == GW_LANE_SHORT,
	   "a claim takes the short lane");
	ok(lane_of("[{\"method\":\"get\",\"id\":1},{\"method\":\"claim\","
			   "\"params\":{\"wait\":1},\"id\":2}]", 0) == GW_LANE_WAIT,
	   "a claim that waits takes the lane for that, also in a batch");
	ok(lane_of("{\"id\":1,\"method\":\"g\\u0065t\"}", 0) == GW_LANE_LONG,
	   "a method with an escape may be any, and takes the long lane");
	ok(lane_of("{\"id\":1,\"meth\\u006fd\":\"get\"}", 0) == GW_LANE_LONG,
	   "so does a member with one");
	ok(lane_of("[{\"id\":1,\"method\":\"ping\"},"
			   "{\"id\":2,\"method\":\"pe\\u0065k\"}]", 0) == GW_LANE_LONG,
	   "also in a batch");
	ok(lane_of("{\"id\":\"\\u0065\",\"method\":\"publish\",\"params\":"
			   "{\"p\":\"\\n\"}}", 0) == GW_LANE_SHORT,
	   "escapes elsewhere do not matter");
	ok(lane_of("{\"method\":\"upload_append\",\"id\":1}", 0) == GW_LANE_BULK &&
	   lane_of("{\"method\":\"upload_commit\",\"id\":1}", 0) == GW_LANE_BULK &&
	   lane_of("{\"method\":\"get_bytes\",\"id\":1}", 0) == GW_LANE_BULK &&
	   lane_of("{\"method\":\"get_bytes\",\"id\":1,\"params\":"
			   "{\"max_bytes\":65537}}", 0) == GW_LANE_BULK,
	   "pieces of large bodies take the lane for these");
	ok(lane_of("{\"method\":\"upload_begin\",\"id\":1}", 0) == GW_LANE_SHORT &&
	   lane_of("{\"method\":\"get_bytes\",\"id\":1,\"params\":"
			   "{\"max_bytes\":65536}}", 0) == GW_LANE_LONG &&
	   lane_of("[{\"method\":\"get_bytes\",\"id\":1}]", 0) == GW_LANE_LONG &&
	   lane_of("[{\"method\":\"upload_append\",\"id\":1}]", 0) ==
	   GW_LANE_SHORT,
	   "small ranges do not, nor what is in a JSON-RPC batch");
	ok(lane_of("not JSON", 0) == GW_LANE_SHORT,
	   "a malformed frame takes the short lane");
}

/* What a batch may bring, here. */
#define REPLIES ((size_t) 4 * 1024 * 1024)
#define ROOM	GW_BATCH_BYTES, REPLIES

static void
room_tests(void)
{
	GwBatch    *batch = gw_batch_create();
	GwRequest  *next = request_of(GW_OPCODE_TEXT, "{}", 0);
	GwRequest  *huge = request_of(GW_OPCODE_TEXT, "{}", 0);
	GwRequest  *pair = request_of(GW_OPCODE_TEXT, "[{},{}]", 0);
	int			count = 0;

	while (count < 100 && gw_batch_has_room(batch, next, 0, ROOM))
	{
		gw_batch_add(batch, next);
		next = request_of(GW_OPCODE_TEXT, "{}", 0);
		count++;
	}
	ok(count == GW_BATCH_CALLS, "a batch takes 60 calls");
	gw_batch_free(batch);
	batch = gw_batch_create();
	huge->length = GW_BATCH_BYTES + 1;
	ok(gw_batch_has_room(batch, huge, 0, ROOM), "a huge frame goes alone");
	gw_batch_add(batch, huge);
	ok(!gw_batch_has_room(batch, next, 0, ROOM), "and nothing goes with it");
	gw_batch_free(batch);

	batch = gw_batch_create();
	gw_batch_add(batch, pair);
	for (count = 0;
		 count < 100 && gw_batch_has_room(batch, next, 0, ROOM); count++)
	{
		gw_batch_add(batch, next);
		next = request_of(GW_OPCODE_TEXT, "{}", 0);
	}
	ok(count == GW_BATCH_CALLS - 3, "a JSON-RPC batch counts its elements");
	gw_batch_free(batch);
	gw_request_free(next);
}

/* fill returns how many of a request a batch takes. */
static int
fill(const char *string)
{
	GwBatch    *batch = gw_batch_create();
	GwRequest  *next = request_of(GW_OPCODE_TEXT, string, 0);
	int			count;

	gw_request_weigh(next, REPLIES / 4);
	for (count = 0;
		 count < 100 && gw_batch_has_room(batch, next, 0, ROOM); count++)
	{
		gw_batch_add(batch, next);
		next = request_of(GW_OPCODE_TEXT, string, 0);
		gw_request_weigh(next, REPLIES / 4);
	}
	gw_request_free(next);
	gw_batch_free(batch);
	return count;
}

static void
weight_tests(void)
{
	ok(fill("{\"method\":\"get\"}") == 4, "a batch takes four reads");
	ok(fill("{\"method\":\"claim\"}") == 4, "or four claims");
	ok(fill("{\"method\":\"ping\"}") == GW_BATCH_CALLS,
	   "or 60 of what brings little");
	ok(fill("{\"method\":\"publish_batch\"}") == GW_BATCH_CALLS,
	   "or 60 short batches of messages");
	ok(fill("{\"method\":\"get_bytes\",\"params\":{\"max_bytes\":300000}}") == 10,
	   "or as many ranges as it has room for, also in base64");
	ok(fill("{\"method\":\"upload_commit\"}") == 1,
	   "what may take seconds has a batch of its own");
}

static void
control_tests(void)
{
	GwBuffer	token = {0};
	GwIdentity *other;
	GwRequest  *request;
	GwBatch    *batch = gw_batch_create();
	GwRequest  *next = request_of(GW_OPCODE_TEXT, "{}", 0);
	int			count;

	gw_buffer_text(&token, "a.b.c");
	other = gw_identity_create(&token);
	request = gw_request_open(other);
	ok(request->frame.length == 7 &&
	   memcmp(request->frame.data, "\0Oa.b.c", 7) == 0 && request->version == 1,
	   "a session is opened with its token");
	gw_batch_add(batch, request);
	ok(batch->secret, "a batch with a token is a secret");
	for (count = 0; gw_batch_has_room(batch, next, 0, ROOM); count++)
	{
		gw_batch_add(batch, next);
		next = request_of(GW_OPCODE_TEXT, "{}", 0);
	}
	ok(count == GW_BATCH_CALLS - 1, "what opens a session counts as a call");
	gw_batch_free(batch);
	gw_request_free(next);
	request = gw_request_close(other, GW_ENDS_ALL);
	ok(request->frame.length == 4 &&
	   memcmp(request->frame.data, "\0C\0\0", 4) == 0,
	   "a session is closed without its token");
	gw_request_free(request);
	other->close_code = 1009;
	gw_buffer_append(&other->unwritten, "0123456789abcdef", 16);
	request = gw_request_close(other, GW_ENDS_ALL);
	ok(request->frame.length == 20 &&
	   memcmp(request->frame.data, "\0C\003\3610123456789abcdef", 20) == 0,
	   "and with its close code and what was not written");
	gw_request_free(request);
	gw_buffer_append(&other->written, "WRITTEN WRITTEN ", 16);
	request = gw_request_close(other, GW_ENDS_UNWRITTEN);
	ok(request->frame.length == 20 &&
	   memcmp(request->frame.data, "\0C\203\3610123456789abcdef", 20) == 0,
	   "with what was not written alone while a frame may acknowledge");
	gw_request_free(request);
	request = gw_request_close(other, GW_ENDS_KNOWN);
	ok(request->frame.length == 36 &&
	   memcmp(request->frame.data + 20, "WRITTEN WRITTEN ", 16) == 0,
	   "with what was written while only claims are in flight");
	gw_request_free(request);
	other->close_code = 0x83e8;
	request = gw_request_close(other, GW_ENDS_NONE);
	ok(request->frame.length == 4 &&
	   memcmp(request->frame.data, "\0C\203\350", 4) == 0,
	   "with no lease on another connection");
	gw_request_free(request);
	request = gw_request_close(other, GW_ENDS_ALL);
	ok(memcmp(request->frame.data, "\0C\003\350", 4) == 0,
	   "a close code does not touch the flag");
	gw_request_free(request);
	ok(other->references == 1, "requests give their identity back");
	gw_identity_release(other);
	request = request_of(GW_OPCODE_TEXT, "{\"method\":\"authenticate\"}", 0);
	ok(request->secret, "what may hold a token is a secret");
	gw_request_free(request);
}

static void
encode_tests(void)
{
	static const unsigned char sessions_wanted[] = {
		0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1,
		0, 0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7,
		0, 0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7
	};
	static const unsigned char frames_wanted[] = {
		0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 2, 0, 0, 0, 1,
		0, 0, 0, 3, 1, '{', '}', 0, 0, 0, 2, 2, 'x'
	};
	GwBatch    *batch = gw_batch_create();
	GwBuffer	sessions = {0};
	GwBuffer	frames = {0};

	identity->session = INT64_C(0x01020304050607);
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
drop_tests(void)
{
	GwBatch    *batch = gw_batch_create();
	GwRequest  *request = request_of(GW_OPCODE_TEXT,
									 "{\"id\":\"abc\",\"method\":\"publish\"}",
									 100000);

	gw_batch_add(batch, request);
	gw_batch_drop_frames(batch);
	ok(request->frame.capacity == 0 && request->ids.length == 6 &&
	   memcmp(request->ids.data, "\"abc\"", 6) == 0,
	   "of a frame that was sent its id is kept");
	ok(request->length > 100000, "and its length");
	gw_batch_free(batch);
}

void
batch_tests(void)
{
	GwBuffer	none = {0};

	identity = gw_identity_create(&none);
	lane_tests();
	room_tests();
	weight_tests();
	control_tests();
	encode_tests();
	drop_tests();
	gw_identity_release(identity);
}
