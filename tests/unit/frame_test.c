/*
 * frame_test.c
 *		What frame.c reads of frames, good and bad.
 */
#include "request/frame.h"

#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "tap.h"

static GwSpan
span(const char *string)
{
	GwSpan		result = {(const unsigned char *) string, strlen(string)};

	return result;
}

static GwFrame
read_text(const char *string)
{
	return gw_frame_read(span(string));
}

static bool
id_is(const char *json, const char *id)
{
	GwFrame		frame = read_text(json);

	return frame.kind == GW_FRAME_REQUEST && gw_span_is(frame.id, id);
}

static bool
utf8(const char *string)
{
	return gw_utf8_valid((const unsigned char *) string, strlen(string));
}

static void
header_tests(void)
{
	const char *binary = "{\"id\":1}\nraw\nbytes";

	ok(gw_frame_header(GW_OPCODE_BINARY, (const unsigned char *) binary,
					   strlen(binary)).length == 8,
	   "the header of a binary frame ends at its first line feed");
	ok(gw_frame_header(GW_OPCODE_TEXT, (const unsigned char *) binary,
					   strlen(binary)).length == strlen(binary),
	   "all of a text frame is its header");
	ok(gw_frame_header(GW_OPCODE_BINARY, (const unsigned char *) "abc",
					   3).length == 3,
	   "a binary frame without a line feed is all header");
	ok(gw_frame_header(GW_OPCODE_BINARY, (const unsigned char *) "\nabc",
					   4).length == 0,
	   "a header may be empty");
	ok(gw_frame_header(GW_OPCODE_BINARY, NULL, 0).length == 0,
	   "an empty frame has an empty header");
}

static void
id_tests(void)
{
	ok(id_is("{\"id\":7,\"method\":\"get\"}", "7"), "a number is an id");
	ok(id_is("{\"id\":-1.5e+10}", "-1.5e+10"), "any JSON number is an id");
	ok(id_is("{\"id\":\"a\\u0041\\\"b\"}", "\"a\\u0041\\\"b\""),
	   "a string is an id, escapes as they stand");
	ok(id_is("{\"id\":null}", "null"), "null is an id");
	ok(id_is("{\"params\":{\"id\":1},\"id\":2}", "2"),
	   "an id inside the parameters is none");
	ok(id_is("{\"params\":\"{\\\"id\\\":1\",\"id\":3}", "3"),
	   "an id inside a string is none");
	ok(id_is("{\"id\":1,\"id\":2}", "1"), "the first of two ids counts");
	ok(id_is(" \t\r\n{ \"id\" : 4 , \"x\" : [ ] } \n", "4"),
	   "white space does not matter");
	ok(id_is("{\"id\":{}}", ""), "an object is no id to copy");
	ok(id_is("{\"id\":[1]}", ""), "an array is no id to copy");
	ok(id_is("{\"id\":true}", ""), "true is no id to copy");
	ok(id_is("{\"id\":01}", ""), "a leading zero is no id to copy");
	ok(id_is("{\"id\":1.}", ""), "a bare point is no id to copy");
	ok(id_is("{\"id\":1e}", ""), "a bare exponent is no id to copy");
	ok(id_is("{\"id\":\"\\q\"}", ""), "a bad escape is no id to copy");
	ok(id_is("{\"id\":\"\\u12g4\"}", ""), "a bad \\u is no id to copy");
	ok(id_is("{\"id\":\"\\u12\"}", ""), "a short \\u is no id to copy");
	ok(id_is("{\"id\":\"a\tb\"}", ""), "a control character is no id to copy");
	ok(id_is("{\"id\":\"\xff\"}", ""), "invalid UTF-8 is no id to copy");
}

static void
kind_tests(void)
{
	ok(read_text("{\"method\":\"ping\"}").kind == GW_FRAME_NOTIFICATION,
	   "an object without an id is a notification");
	ok(gw_span_is(read_text("{\"id\":1,\"method\":\"peek\"}").method, "peek"),
	   "the method is read");
	ok(read_text("{\"id\":1,\"method\":5}").method.length == 0,
	   "a method that is no string is none");
	ok(read_text("").kind == GW_FRAME_MALFORMED, "nothing is malformed");
	ok(read_text("7").kind == GW_FRAME_MALFORMED, "a number is malformed");
	ok(read_text("{\"id\":1").kind == GW_FRAME_MALFORMED,
	   "an object cut off is malformed");
	ok(read_text("{\"id\":1} x").kind == GW_FRAME_MALFORMED,
	   "something behind the object is malformed");
	ok(read_text("{\"id\":1,}").kind == GW_FRAME_MALFORMED,
	   "a trailing comma is malformed");
	ok(read_text("{\"id\" 1}").kind == GW_FRAME_MALFORMED,
	   "a missing colon is malformed");
	ok(read_text("{id:1}").kind == GW_FRAME_MALFORMED,
	   "a bare key is malformed");
	ok(gw_span_is(read_text("{\"id\":5,\"params\":{\"a\":\"xx").id, "5"),
	   "the id of a frame that is cut off is still read");
	ok(read_text("[1,2").kind == GW_FRAME_MALFORMED,
	   "a batch cut off is malformed");
}

static void
batch_frame_tests(void)
{
	GwFrame		batch = read_text(" [{\"id\":1},{\"method\":\"x\"},3,\"s\","
								  "[{\"id\":9}]] ");
	GwFrame		element;
	int			seen = 0;
	GwFrameKind kinds[8];

	ok(batch.kind == GW_FRAME_BATCH, "an array is a batch");
	while (seen < 8 && gw_frame_next(&batch.elements, &element))
		kinds[seen++] = element.kind;
	ok(seen == 5 && kinds[0] == GW_FRAME_REQUEST &&
	   kinds[1] == GW_FRAME_NOTIFICATION && kinds[2] == GW_FRAME_MALFORMED &&
	   kinds[3] == GW_FRAME_MALFORMED && kinds[4] == GW_FRAME_MALFORMED,
	   "the elements of a batch are read one by one");
	batch = read_text("[{\"id\":1} {\"id\":2}]");
	ok(gw_frame_next(&batch.elements, &element) &&
	   element.kind == GW_FRAME_MALFORMED &&
	   !gw_frame_next(&batch.elements, &element),
	   "elements without a comma between them end the batch");
	batch = read_text("[]");
	ok(batch.kind == GW_FRAME_BATCH &&
	   !gw_frame_next(&batch.elements, &element), "a batch may be empty");
}

static void
deep_tests(void)
{
	size_t		depth = 1000000;
	char	   *string = malloc(2 * depth + 64);
	GwFrame		frame;

	strcpy(string, "{\"params\":");
	memset(string + 10, '[', depth);
	memset(string + 10 + depth, ']', depth);
	strcpy(string + 10 + 2 * depth, ",\"id\":1}");
	frame = read_text(string);
	ok(frame.kind == GW_FRAME_REQUEST && gw_span_is(frame.id, "1"),
	   "a million levels do no harm");
	free(string);
}

static bool
waits(const char *json)
{
	return read_text(json).waits;
}

static void
wait_tests(void)
{
	ok(waits("{\"method\":\"claim\",\"params\":{\"wait\":\"5 s\"},\"id\":1}"),
	   "a claim may wait");
	ok(waits("{\"params\":{\"a\":[{\"wait\":0}],\"wait\":0.5},"
			 "\"method\":\"claim\"}"),
	   "whatever the order, and for less than a second");
	ok(!waits("{\"method\":\"claim\",\"params\":{\"channel\":\"wait\"}}"),
	   "without \"wait\" it does not");
	ok(!waits("{\"method\":\"claim\",\"params\":{\"wait\":0}}") &&
	   !waits("{\"method\":\"claim\",\"params\":{\"wait\":\"00:00\"}}") &&
	   !waits("{\"method\":\"claim\",\"params\":{\"wait\":null}}"),
	   "nor with a wait of zero or null");
	ok(waits("{\"method\":\"claim\",\"params\":{\"wait\":\"infinity\"}}"),
	   "what is no number is taken for a wait");
	ok(!waits("{\"method\":\"claim\",\"params\":{\"wait\":5,\"ack\":7}}") &&
	   waits("{\"method\":\"claim\",\"params\":{\"wait\":5,\"ack\":null}}"),
	   "nor with an ack, which may be null");
	ok(!waits("{\"method\":\"get\",\"params\":{\"wait\":5}}"),
	   "another method does not wait");
	ok(!waits("{\"method\":\"claim\",\"params\":[5]}") &&
	   !waits("{\"method\":\"claim\",\"params\":{\"wait\":5") &&
	   !waits("{\"method\":\"claim\",\"params\":{\"wait\""),
	   "parameters that cannot be read do not");
}

static void
member_tests(void)
{
	GwSpan		value;

	ok(gw_json_member(span("{\"a\":1,\"b\":{\"a\":2} , \"c\":3}"), "\"c\"",
					  &value) && gw_span_is(value, "3"),
	   "a member is found by its name");
	ok(gw_json_member(span("{\"a\":1,\"a\":\"x,}\"}"), "\"a\"", &value) &&
	   gw_span_is(value, "\"x,}\""), "of two with one name the later");
	ok(!gw_json_member(span("{}"), "\"a\"", &value) &&
	   !gw_json_member(span(""), "\"a\"", &value) &&
	   !gw_json_member(span("[1]"), "\"a\"", &value) &&
	   !gw_json_member(span("{\"a\""), "\"a\"", &value),
	   "or none is");
}

static bool
may_go_on(const char *string)
{
	return gw_utf8_may_go_on((const unsigned char *) string, strlen(string));
}

static void
utf8_tests(void)
{
	ok(utf8("plain text that is longer than a word"), "ASCII is UTF-8");
	ok(utf8("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), "2 to 4 bytes are");
	ok(!utf8("\x80"), "a lone continuation is not");
	ok(!utf8("\xc0\xaf"), "an overlong form of 2 is not");
	ok(!utf8("\xe0\x80\xaf"), "an overlong form of 3 is not");
	ok(!utf8("\xf0\x80\x80\xaf"), "an overlong form of 4 is not");
	ok(!utf8("\xed\xa0\x80"), "a surrogate is not");
	ok(!utf8("\xf4\x90\x80\x80"), "above U+10FFFF is not");
	ok(!utf8("abcdefgh\xe2\x82"), "a character cut off is not");
	ok(!utf8("\xfe"), "0xFE is not");
	ok(gw_utf8_valid((const unsigned char *) "a\0b", 3), "U+0000 is");
	ok(may_go_on("") && may_go_on("\xc3") && may_go_on("\xe2\x82") &&
	   may_go_on("\xf0\x9f\x98"), "a character cut off may go on");
	ok(may_go_on("\xe0") && may_go_on("\xed") && may_go_on("\xf0") &&
	   may_go_on("\xf4"), "so may those whose second byte is limited");
	ok(!may_go_on("\x80") && !may_go_on("\xff") && !may_go_on("\xc0"),
	   "what begins no character may not");
	ok(!may_go_on("\xe0\x80") && !may_go_on("\xed\xa0") &&
	   !may_go_on("\xf0\x8f") && !may_go_on("\xf4\x90"),
	   "a second byte out of its limits may not");
	ok(!may_go_on("\xf0\x9f\x98\x80"), "a whole character may not");
}

void
frame_tests(void)
{
	header_tests();
	id_tests();
	kind_tests();
	batch_frame_tests();
	deep_tests();
	wait_tests();
	member_tests();
	utf8_tests();
}
