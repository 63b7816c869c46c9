/*
 * answer_test.c
 *		The errors that the gateway answers by itself.
 */
#include "request/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request/batch.h"
#include "tap.h"

#define ERROR_TEXT "{\"code\":-32010,\"message\":\"away\"," \
	"\"data\":{\"sqlstate\":null,\"detail\":null,\"hint\":null}}"

static const GwError away = {GW_ERROR_DATABASE_AWAY, "away", NULL, NULL,
NULL};

/* answer_of appends the answer to a frame, which is gone by then. */
static void
answer_of(GwBuffer *out, const char *frame, const GwError *error,
		  size_t limit)
{
	GwBuffer	none = {0};
	GwIdentity *identity = gw_identity_create(&none);
	GwBuffer	message = {0};
	GwBatch    *batch = gw_batch_create();
	GwRequest  *request;

	gw_buffer_append(&message, "\001", 1);
	gw_buffer_text(&message, frame);
	request = gw_request_create(identity, &message, 0);
	gw_batch_add(batch, request);
	gw_batch_drop_frames(batch);
	gw_answer_frame(out, &request->ids, error, limit);
	gw_batch_free(batch);
	gw_identity_release(identity);
}

static bool
answer_within(const char *frame, size_t limit, const char *wanted)
{
	GwBuffer	out = {0};
	bool		same;

	answer_of(&out, frame, &away, limit);
	same = out.length == strlen(wanted) &&
		memcmp(out.data, wanted, out.length) == 0;
	gw_buffer_free(&out);
	return same;
}

static bool
answer_is(const char *frame, const char *wanted)
{
	return answer_within(frame, 1000000, wanted);
}

static void
data_tests(void)
{
	GwError		error = {-32603, "a \"b\"\n", "23505", NULL, "Do."};
	GwBuffer	out = {0};
	const char *wanted = "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":"
	"{\"code\":-32603,\"message\":\"a \\\"b\\\"\\u000a\","
	"\"data\":{\"sqlstate\":\"23505\",\"detail\":null,\"hint\":\"Do.\"}}}";

	answer_of(&out, "{\"id\":1}", &error, 1024);
	ok(out.length == strlen(wanted) &&
	   memcmp(out.data, wanted, out.length) == 0,
	   "data holds what is known, null for the rest, and text is escaped");
	gw_buffer_free(&out);
}

static void
large_batch_test(void)
{
	size_t		count = 5000;
	char	   *string = malloc(count * 2 + 2);
	size_t		i;

	string[0] = '[';
	for (i = 0; i < count; i++)
		memcpy(string + 1 + 2 * i, "1,", 2);
	string[2 * count] = ']';
	string[2 * count + 1] = '\0';
	ok(answer_is(string, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":"
				 ERROR_TEXT "}"),
	   "a batch of very many elements gets one error");
	free(string);
}

/* limit_tests are of answers that must not be as large as what they answer. */
static void
limit_tests(void)
{
	const char *with_null = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":"
	ERROR_TEXT "}";
	char		string[2048];

	(void) snprintf(string, sizeof(string), "{\"id\":\"%01022d\"}", 0);
	ok(!answer_is(string, with_null), "an id of 1024 bytes is answered");
	(void) snprintf(string, sizeof(string), "{\"id\":\"%01023d\"}", 0);
	ok(answer_is(string, with_null), "a longer one is answered with id null");
	ok(answer_within("[{\"id\":1},{\"id\":2}]", 200, with_null),
	   "what would exceed the limit is one error with id null");
}

void
answer_tests(void)
{
	ok(answer_is("{\"id\":\"x\",\"method\":\"get\"}",
				 "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\":" ERROR_TEXT "}"),
	   "a request is answered with its id");
	ok(answer_is("{\"method\":\"publish\"}",
				 "{\"jsonrpc\":\"2.0\",\"method\":\"error\",\"params\":"
				 ERROR_TEXT "}"),
	   "a notification gets the notification error");
	ok(answer_is("{\"id\":1", "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":"
				 ERROR_TEXT "}"),
	   "a malformed frame is answered with id null");
	ok(answer_is("{\"id\":1,\"x\"",
				 "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":" ERROR_TEXT "}"),
	   "or with its id, if that came before the fault");
	ok(answer_is("{\"id\":[]}", "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":"
				 ERROR_TEXT "}"),
	   "an id that is none is answered with id null");
	ok(answer_is("[{\"id\":1},{},5]",
				 "[{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":" ERROR_TEXT "},"
				 "{\"jsonrpc\":\"2.0\",\"method\":\"error\",\"params\":"
				 ERROR_TEXT "},"
				 "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":" ERROR_TEXT
				 "}]"),
	   "each element of a batch is answered");
	ok(answer_is("[]", "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":"
				 ERROR_TEXT "}"), "an empty batch gets one error");
	data_tests();
	limit_tests();
	large_batch_test();
}
