/*
 * head_fuzz.c
 *		The fuzzer's part for the HTTP door: heads of requests, and answers of
 *		the database.
 *
 * Whatever bytes there are: spans lie inside them, a head is the same however
 * it is cut up, and no header that is written has more lines than one.
 */
#include <stdlib.h>
#include <string.h>

#include "head_fuzz.h"
#include "http/answer.h"
#include "http/head.h"

static void
check(int holds)
{
	if (!holds)
		abort();
}

static void
check_span(GwSpan inner, const uint8_t *data, size_t size)
{
	if (inner.length == 0 || gw_span_is(inner, "/"))
		return;
	check(inner.data >= data && inner.data + inner.length <= data + size);
}

/* fuzz_head reads a head in one go, and in pieces. */
static void
fuzz_head(const uint8_t *data, size_t size)
{
	static GwHead whole;
	static GwHead cut;
	size_t		at = 0;
	size_t		i;

	gw_head_begin(&whole);
	(void) gw_head_read(&whole, data, size);
	check_span(whole.path, data, size);
	check_span(whole.query, data, size);
	check_span(whole.host, data, size);
	for (i = 0; i < whole.count; i++)
	{
		check_span(whole.fields[i].name, data, size);
		check_span(whole.fields[i].value, data, size);
	}
	gw_head_begin(&cut);
	while (at < size && !cut.done)
	{
		size_t		more = 1 + data[at] % 7;

		at = more < size - at ? at + more : size;
		(void) gw_head_read(&cut, data, at);
	}
	/* What is over a limit may be seen to be so before what is malformed. */
	if (whole.fault != 414 && cut.fault != 414 && whole.fault != 431 &&
		cut.fault != 431)
		check(whole.done == cut.done && whole.fault == cut.fault &&
			  whole.length == cut.length && whole.count == cut.count);
}

/* fuzz_reply reads an answer. */
static void
fuzz_reply(const uint8_t *data, size_t size)
{
	GwBuffer	frame = {0};
	GwBuffer	out = {0};
	GwHttpReply reply;
	GwSpan		span;
	size_t		lines = 0;
	size_t		pairs = 0;
	size_t		i;

	gw_buffer_append(&frame, "", 1);
	gw_buffer_append(&frame, data, size);
	span.data = frame.data;
	span.length = frame.length;
	if (gw_http_reply_read(span, &reply) && reply.headers.length > 0 &&
		gw_http_reply_headers(&reply, &out))
	{
		GwSpan		rest = reply.headers;
		GwSpan		pair;

		while (gw_json_next(&rest, &pair))
			pairs++;
		for (i = 0; i < out.length; i++)
			lines += out.data[i] == '\n';
		check(lines == pairs);
	}
	check_span(reply.bytes, frame.data, frame.length);
	gw_buffer_free(&out);
	gw_buffer_free(&frame);
}

void
fuzz_door(const uint8_t *data, size_t size)
{
	fuzz_head(data, size);
	fuzz_reply(data, size);
}
