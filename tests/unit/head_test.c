/*
 * head_test.c
 *		Heads of HTTP requests, whole, in pieces, and malformed; and what the
 *		database answers.
 */
#include "http/head.h"

#include <stdio.h>
#include <string.h>

#include "http/answer.h"
#include "tap.h"

#define HOST	"Host: a\r\n"

static GwHead head;

/* status_of returns the fault of a head, 0 if it is whole, -1 if not yet. */
static int
status_of(const char *text)
{
	gw_head_begin(&head);
	if (!gw_head_read(&head, (const unsigned char *) text, strlen(text)))
		return -1;
	return head.fault;
}

/* bytes_status does it byte by byte. */
static int
bytes_status(const char *text, size_t length)
{
	size_t		at;

	gw_head_begin(&head);
	for (at = 1; at <= length; at++)
		if (gw_head_read(&head, (const unsigned char *) text, at))
			return head.fault;
	return -1;
}

/* value_is tells that a field has a value. */
static bool
value_is(const char *name, const char *value)
{
	const GwField *field = gw_head_find(&head, name);

	return field != NULL && gw_span_is(field->value, value);
}

static void
good_tests(void)
{
	const char *plain = "GET /a%2Fb&c;d+e/../f?x=1&y=%00+2?z HTTP/1.1\r\n"
	HOST "X-One:  two \t\r\nRange:bytes=0-\r\n\r\nrest";

	ok(status_of(plain) == 0 && gw_span_is(head.method, "GET") &&
	   gw_span_is(head.path, "/a%2Fb&c;d+e/../f") &&
	   gw_span_is(head.query, "x=1&y=%00+2?z"),
	   "path and query are left as they came");
	ok(head.length == strlen(plain) - 4, "a head ends with its empty line");
	ok(value_is("x-one", "two") && value_is("RANGE", "bytes=0-"),
	   "values come without white space, names have no case");
	ok(gw_span_is(head.host, "a") && head.minor == 1 && !head.closes &&
	   !head.has_body, "host, version, what follows");
	ok(bytes_status(plain, strlen(plain)) == 0 && head.count == 3,
	   "a head may come byte by byte");
	ok(status_of("GET / HTTP/1.1\r\n" HOST "\r") == -1 &&
	   status_of("GET / HT") == -1, "a head that is not whole is none");
	ok(status_of("\r\nGET / HTTP/1.1\r\n" HOST "\r\n") == 0,
	   "one empty line before it is passed over");
	ok(status_of("\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n") == 400,
	   "two are not");
	ok(status_of("GET / HTTP/1.0\r\n\r\n") == 0 && head.closes &&
	   head.host.length == 0, "HTTP/1.0 needs no host, and ends");
	ok(status_of("GET / HTTP/1.1\r\n" HOST "Connection: x , CLOSE\r\n\r\n") == 0
	   && head.closes, "who says close is taken by his word");
	ok(status_of("GET http://b.example:1/p?q HTTP/1.1\r\n" HOST "\r\n") == 0 &&
	   gw_span_is(head.host, "b.example:1") && gw_span_is(head.path, "/p") &&
	   gw_span_is(head.query, "q"), "the host of a whole URL counts");
	ok(status_of("GET http://b?q HTTP/1.1\r\n" HOST "\r\n") == 0 &&
	   gw_span_is(head.path, "/") && gw_span_is(head.query, "q"),
	   "a URL without a path has one");
	ok(status_of("OPTIONS * HTTP/1.1\r\n" HOST "\r\n") == 0 &&
	   gw_span_is(head.path, "*"), "a target may be a star");
	ok(status_of("GET / HTTP/1.1\r\n" HOST "Content-Length: 000\r\n\r\n") == 0
	   && !head.has_body, "a length of zero is no body");
	ok(status_of("GET / HTTP/1.1\r\n" HOST "Content-Length: 010\r\n\r\n") == 0
	   && head.has_body &&
	   status_of("GET / HTTP/1.1\r\n" HOST
				 "Transfer-Encoding: chunked\r\n\r\n") == 0 && head.has_body,
	   "any other is, and so is an encoding");
}

static void
bad_tests(void)
{
	static const char *const lines[] = {
		"GET  / HTTP/1.1\r\n", "GET /\r\n", "GET / HTTP/1.1 \r\n",
		" GET / HTTP/1.1\r\n", "GET / http/1.1\r\n", "GET / HTTP/1\r\n",
		"GET / HTTP/11.\r\n", "G=T / HTTP/1.1\r\n", "GET a HTTP/1.1\r\n",
		"GET //a b HTTP/1.1\r\n", "GET /#f HTTP/1.1\r\n", "\r\n\r\n",
		"GET /\x80 HTTP/1.1\r\n", "GET /\x01 HTTP/1.1\r\n",
		"CONNECT a:1 HTTP/1.1\r\n", "GET http:///p HTTP/1.1\r\n",
		"GET http://u@b/p HTTP/1.1\r\n", "GET ftp://b/p HTTP/1.1\r\n",
		"GET / HTTP/1.1\n", "GET /\r HTTP/1.1\r\n",
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\n"
	};
	static const char *const fields[] = {
		"A : b\r\n", " A: b\r\n", "A: b\r\n c\r\n", "A: b\r\n\tc: d\r\n",
		"A\r\n", ": b\r\n", "A: b\n", "A: b\rc\r\n", "A: \x01\r\n",
		"A: \x7f\r\n", "A\x80: b\r\n", "Host: b\r\n", "Host: a b\r\n",
		"Content-Length: -1\r\n", "Content-Length: 1,1\r\n",
		"Content-Length:\r\n", "Content-Length: 1\r\nContent-Length: 1\r\n",
		"Range: a\r\nrange: a\r\n", "If-Range: a\r\nIf-Range: a\r\n",
		"Authorization: a\r\nAUTHORIZATION: b\r\n",
		"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"
	};
	char text[	512];
	char		name[64];
	size_t		i;

	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
	{
		(void) snprintf(text, sizeof(text), "%s" HOST "\r\n", lines[i]);
		(void) snprintf(name, sizeof(name), "bad request line %zu", i);
		ok(status_of(text) == 400 && head.closes, name);
	}
	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
	{
		(void) snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HOST "%s\r\n",
						fields[i]);
		(void) snprintf(name, sizeof(name), "bad field %zu", i);
		ok(status_of(text) == 400, name);
	}
	ok(status_of("GET / HTTP/1.1\r\n\r\n") == 400, "HTTP/1.1 needs a host");
	ok(bytes_status("GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n", 35) == 400,
	   "a zero byte is none of a value");
	ok(status_of("GET / HTTP/2.0\r\n" HOST "\r\n") == 505 &&
	   status_of("GET / HTTP/1.2\r\n" HOST "\r\n") == 505,
	   "other versions are not spoken");
}

static void
bound_tests(void)
{
	static char text[GW_HEAD_MAX + 64];
	size_t		length;
	int			i;

	memset(text, 'a', sizeof(text));
	memcpy(text, "GET /", 5);
	ok(bytes_status(text, sizeof(text)) == 414, "a target has 8 KiB");
	(void) snprintf(text +4 + GW_TARGET_MAX, 64, " HTTP/1.1\r\n" HOST "\r\n");
	ok(status_of(text) == 0, "that are all of it");
	memset(text, 'a', sizeof(text));
	memcpy(text, "GET / HTTP/1.1\r\nHost: a\r\nA: ", 28);
	ok(bytes_status(text, sizeof(text)) == 431 && head.scanned == GW_HEAD_MAX,
	   "a head has 16 KiB, of which no byte more is read");
	length = (size_t) sprintf(text, "GET / HTTP/1.1\r\n" HOST);
	for (i = 0; i < GW_FIELDS_MAX; i++)
		length += (size_t) sprintf(text +length, "A%d: b\r\n", i);
	ok(status_of(text) == 431, "and 100 fields");
}

static bool
reply_read(const char *json, const char *bytes, GwHttpReply *reply)
{
	static unsigned char frame[2048];
	GwSpan		span = {frame, 0};

	span.length = (size_t) snprintf((char *) frame, sizeof(frame), " %s\n%s",
									json, bytes);
	frame[0] = GW_OPCODE_CONTROL;
	return gw_http_reply_read(span, reply);
}

/* headers_are tells what becomes of headers; NULL: they are not fit. */
static bool
headers_are(const char *headers, const char *lines)
{
	GwHttpReply reply = {0};
	GwBuffer	out = {0};
	bool		fit;
	bool		right;

	reply.headers.data = (const unsigned char *) headers;
	reply.headers.length = strlen(headers);
	fit = gw_http_reply_headers(&reply, &out);
	right = lines == NULL ? !fit : fit && out.length == strlen(lines) &&
		(out.length == 0 || memcmp(out.data, lines, out.length) == 0);
	gw_buffer_free(&out);
	return right;
}

static void
reply_tests(void)
{
	GwHttpReply reply;

	ok(reply_read("{\"http\": {\"n\": 7, \"status\": 206, \"by\": \"capability\","
				  " \"headers\": [[\"A\", \"b\"]], \"from\": 3, \"to\": 10,"
				  " \"size\": 10, \"ticket\": \"t\"}}", "0123456789", &reply) == false,
	   "more bytes than there are to come do not fit");
	ok(reply_read("{\"http\": {\"n\": 7, \"status\": 206, \"by\": \"capability\","
				  " \"headers\": [[\"A\", \"b\"]], \"from\": 3, \"to\": 10,"
				  " \"size\": 2, \"ticket\": \"t\"}}", "01", &reply) &&
	   reply.number == 7 && reply.status == 206 && reply.from == 3 &&
	   reply.to == 10 && reply.shared && gw_span_is(reply.ticket, "t") &&
	   gw_span_is(reply.bytes, "01"), "an answer has a head and bytes");
	ok(!reply_read("{\"http\": {\"n\": 7, \"status\": 200, \"headers\": [],"
				   " \"from\": 0, \"to\": 10, \"size\": 2}}", "0", &reply),
	   "fewer bytes than told do not fit");
	ok(reply_read("{\"piece\": {\"n\": 8, \"from\": 10, \"size\": 2,"
				  " \"ticket\": \"u\"}}", "\n\n", &reply) &&
	   reply.status == 0 && reply.number == 8 && reply.from == 10 &&
	   gw_span_is(reply.bytes, "\n\n"), "a piece has bytes, line feeds too");
	ok(reply_read("{\"piece\": {\"n\": 8, \"gone\": \"expired\"}}", "", &reply) &&
	   gw_span_is(reply.gone, "expired") &&
	   reply_read("{\"piece\": {\"n\": 8, \"error\": \"57014\"}}", "", &reply) &&
	   gw_span_is(reply.error, "57014"), "or says why not");
	ok(!reply_read("{\"piece\": {\"n\": -8, \"gone\": \"expired\"}}", "", &reply) &&
	   !reply_read("{\"http\": {\"n\": 8}}", "", &reply) &&
	   !reply_read("{\"open\": {\"n\": 8}}", "", &reply) &&
	   !reply_read("", "", &reply), "nothing else is an answer");
	ok(headers_are("[[\"A-b\",\"c\"],[\"D\",\"\\u00e9\xc3\xa9\\\"\\\\/\"]]",
				   "A-b: c\r\nD: \xe9\xe9\"\\/\r\n") &&
	   headers_are("[]", NULL) == false && headers_are(" []", NULL),
	   "characters become bytes");
	ok(headers_are("[[\"A\",\"b\\r\\nC: d\"]]", NULL) &&
	   headers_are("[[\"A\",\"b\\u000ac\"]]", NULL) &&
	   headers_are("[[\"A:\",\"b\"]]", NULL) &&
	   headers_are("[[\"A b\",\"b\"]]", NULL) &&
	   headers_are("[[\"\",\"b\"]]", NULL) &&
	   headers_are("[[\"A\",\"\\u0100\"]]", NULL) &&
	   headers_are("[[\"A\",\"\xe2\x82\xac\"]]", NULL) &&
	   headers_are("[[\"A\",\"\\u12\"]]", NULL) &&
	   headers_are("[[\"A\",1]]", NULL) && headers_are("[[\"A\"]]", NULL) &&
	   headers_are("[[\"A\",\"b\"]", NULL),
	   "no field can become two, and none is made up");
}

void
head_tests(void)
{
	good_tests();
	bad_tests();
	bound_tests();
	reply_tests();
}
