/*
 * answer_test.c
 *		The errors that the gateway answers by itself.
 */
#include "answer.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"

#define ERROR_TEXT "{\"code\":-32010,\"message\":\"away\"," \
	"\"data\":{\"sqlstate\":null,\"detail\":null,\"hint\":null}}"

static const GwError away = {GW_ERROR_DATABASE_AWAY, "away", NULL, NULL,
NULL};

static bool
answer_is(const char *frame, const char *wanted)
{
	GwSpan		header = {(const unsigned char *) frame, strlen(frame)};
	GwBuffer	direct = {0};
	GwBuffer	stub = {0};
	GwBuffer	by_stub = {0};
	GwSpan		stub_span;
	bool		same;

	gw_answer_frame(&direct, header, &away);
	gw_answer_stub(&stub, header);
	stub_span.data = stub.data;
	stub_span.length = stub.length;
	gw_answer_frame(&by_stub, stub_span, &away);
	same = direct.length == strlen(wanted) &&
		memcmp(direct.data, wanted, direct.length) == 0 &&
		by_stub.length == direct.length &&
		memcmp(by_stub.data, direct.data, direct.length) == 0;
	gw_buffer_free(&direct);
	gw_buffer_free(&stub);
	gw_buffer_free(&by_stub);
	return same;
}

static void
data_tests(void)
{
	GwError		error = {-32603, "a \"b\"\n", "23505", NULL, "Do."};
	GwSpan		header = {(const unsigned char *) "{\"id\":1}", 8};
	GwBuffer	out = {0};
	const char *wanted = "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":"
	"{\"code\":-32603,\"message\":\"a \\\"b\\\"\\u000a\","
	"\"data\":{\"sqlstate\":\"23505\",\"detail\":null,\"hint\":\"Do.\"}}}";

	gw_answer_frame(&out, header, &error);
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

void
answer_tests(void)
{
	GwSpan		cut = {(const unsigned char *) "{\"id\":3,\"params\":\"x", 19};
	GwBuffer	out = {0};

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
	gw_answer_prefix(&out, cut, &away);
	ok(out.length > 24 && memcmp(out.data, "{\"jsonrpc\":\"2.0\",\"id\":3,",
								 24) == 0,
	   "a frame of which only the beginning is known is answered by its id");
	gw_buffer_free(&out);
	data_tests();
	large_batch_test();
}
