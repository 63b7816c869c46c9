/*
 * answer.c
 *		What the database answers the HTTP door, and what heads are made of.
 *
 * An answer is a control frame: JSON, a line feed, bytes. Its format is told
 * in extension/door/README.md. The database is trusted with what an answer
 * says, not with how it is written: a header whose name is no token, or whose
 * value has control characters, makes the whole answer unfit, so that no field
 * can become two.
 *
 * Pure code, but for the buffers it fills.
 */
#include "http/answer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Numbers have no more digits than this. */
#define DIGITS_MAX	18

static bool read_number(GwSpan object, const char *name, int64_t *number);
static bool read_string(GwSpan object, const char *name, GwSpan *string);
static bool put_string(GwBuffer *out, GwSpan string, bool is_name);
static bool read_escape(GwSpan string, size_t *at, unsigned *code);
static bool read_hex(GwSpan string, size_t at, unsigned *code);
static bool read_utf8(GwSpan string, size_t *at, unsigned *code);

static const struct
{
	int			status;
	const char *reason;
}			reasons[] = {

	{200, "OK"}, {204, "No Content"}, {206, "Partial Content"},
	{304, "Not Modified"}, {400, "Bad Request"}, {401, "Unauthorized"},
	{403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
	{408, "Request Timeout"}, {412, "Precondition Failed"},
	{413, "Content Too Large"}, {414, "URI Too Long"},
	{416, "Range Not Satisfiable"}, {429, "Too Many Requests"},
	{431, "Request Header Fields Too Large"}, {500, "Internal Server Error"},
	{503, "Service Unavailable"}, {504, "Gateway Timeout"},
	{505, "HTTP Version Not Supported"}
};

#define REASONS (sizeof(reasons) / sizeof(reasons[0]))

/* gw_http_reply_read reads an answer; false if it is not one that can be. */
bool
gw_http_reply_read(GwSpan frame, GwHttpReply *reply)
{
	GwSpan		json = {frame.data + 1, 0};
	GwSpan		object;
	GwSpan		by;
	const unsigned char *feed = frame.length > 1 ?
	memchr(json.data, '\n', frame.length - 1) : NULL;
	int64_t		status = 0;
	int64_t		size = 0;
	bool		piece;

	memset(reply, 0, sizeof(*reply));
	if (frame.length < 2 || frame.data[0] != GW_OPCODE_CONTROL)
		return false;
	json.length = feed != NULL ? (size_t) (feed - json.data) :
		frame.length - 1;
	piece = gw_json_member(json, "\"piece\"", &object);
	if ((!piece && !gw_json_member(json, "\"http\"", &object)) ||
		!read_number(object, "\"n\"", &reply->number))
		return false;
	(void) read_string(object, "\"gone\"", &reply->gone);
	(void) read_string(object, "\"error\"", &reply->error);
	if (piece && (reply->gone.length > 0 || reply->error.length > 0))
		return true;
	if (!read_number(object, "\"from\"", &reply->from) ||
		!read_number(object, "\"size\"", &size))
		return false;
	if (feed != NULL)
		reply->bytes = (GwSpan)
	{
		feed + 1, frame.length - 1 - json.length - 1
	};
	if ((int64_t) reply->bytes.length != size)
		return false;
	(void) read_string(object, "\"ticket\"", &reply->ticket);
	if (piece)
		return size > 0;
	if (!read_number(object, "\"status\"", &status) ||
		!read_number(object, "\"to\"", &reply->to) ||
		!gw_json_member(object, "\"headers\"", &reply->headers) ||
		status < 200 || status > 599 || reply->to < reply->from)
		return false;
	reply->status = (int) status;
	reply->shared = read_string(object, "\"by\"", &by) &&
		gw_span_is(by, "capability");
	return size <= reply->to - reply->from;
}

/*
 * gw_http_reply_headers appends the headers of an answer as lines; false if
 * one cannot be.
 */
bool
gw_http_reply_headers(const GwHttpReply *reply, GwBuffer *out)
{
	GwSpan		rest = reply->headers;
	GwSpan		pair;

	while (gw_json_next(&rest, &pair))
	{
		GwSpan		name;
		GwSpan		value;

		if (!gw_json_next(&pair, &name) || !gw_json_next(&pair, &value) ||
			!put_string(out, name, true))
			return false;
		gw_buffer_text(out, ": ");
		if (!put_string(out, value, false))
			return false;
		gw_buffer_text(out, "\r\n");
	}
	return rest.length > 0 && rest.data[0] == ']' && !out->failed;
}

/* gw_http_head appends the first line of an answer, and its Date. */
void
gw_http_head(GwBuffer *out, int status, int64_t unix_seconds)
{
	static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu",
	"Fri", "Sat"};
	static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May",
	"Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	time_t		seconds = (time_t) unix_seconds;
	struct tm	now;

	memset(&now, 0, sizeof(now));
	(void) gmtime_r(&seconds, &now);
	gw_buffer_format(out, "HTTP/1.1 %d %s\r\nDate: %s, %02d %s %d"
					 " %02d:%02d:%02d GMT\r\n", status,
					 gw_http_reason(status), days[now.tm_wday], now.tm_mday,
					 months[now.tm_mon], now.tm_year + 1900, now.tm_hour,
					 now.tm_min, now.tm_sec);
}

/* gw_http_problem appends a body as RFC 9457 has it. */
void
gw_http_problem(GwBuffer *out, int status, const char *detail)
{
	gw_buffer_text(out, "{\"type\":\"about:blank\",\"title\":");
	gw_buffer_json(out, gw_http_reason(status));
	gw_buffer_format(out, ",\"status\":%d,\"detail\":", status);
	gw_buffer_json(out, detail);
	gw_buffer_text(out, "}\n");
}

/* gw_http_reason returns the words that stand beside a status. */
const char *
gw_http_reason(int status)
{
	size_t		i;

	for (i = 0; i < REASONS; i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Other";
}

static bool
read_number(GwSpan object, const char *name, int64_t *number)
{
	GwSpan		value;
	size_t		i;

	*number = 0;
	if (!gw_json_member(object, name, &value) || value.length > DIGITS_MAX)
		return false;
	for (i = 0; i < value.length; i++)
	{
		if (value.data[i] < '0' || value.data[i] > '9')
			return false;
		*number = *number * 10 + (value.data[i] - '0');
	}
	return value.length > 0;
}

/* read_string finds a string that needs no escapes; false if there is none. */
static bool
read_string(GwSpan object, const char *name, GwSpan *string)
{
	GwSpan		value;

	string->length = 0;
	if (!gw_json_member(object, name, &value) || value.data[0] != '"' ||
		memchr(value.data, '\\', value.length) != NULL)
		return false;
	string->data = value.data + 1;
	string->length = value.length - 2;
	return true;
}

/*
 * put_string appends a JSON string as a header has it, each character a byte;
 * false if it is none, or not fit for a header.
 */
static bool
put_string(GwBuffer *out, GwSpan string, bool is_name)
{
	size_t		at = 1;

	if (string.length < (is_name ? 3 : 2) || string.data[0] != '"')
		return false;
	string.length--;
	while (at < string.length)
	{
		unsigned	code = string.data[at];
		unsigned char byte;

		if (code == '\\' ? !read_escape(string, &at, &code) :
			!read_utf8(string, &at, &code))
			return false;
		if (code > 0xff || code == 0x7f || (code < 0x20 && code != '\t') ||
			(is_name && (code <= 0x20 || code > 0x7e || code == ':')))
			return false;
		byte = (unsigned char) code;
		gw_buffer_append(out, &byte, 1);
	}
	return true;
}

/* read_escape reads what is behind a backslash, and moves *at behind it. */
static bool
read_escape(GwSpan string, size_t *at, unsigned *code)
{
	static const char letters[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	const char *letter;

	if (*at + 1 >= string.length || string.data[*at + 1] == 0)
		return false;
	letter = strchr(letters, string.data[*at + 1]);
	if (letter != NULL)
	{
		*code = (unsigned char) meanings[letter - letters];
		*at += 2;
		return true;
	}
	if (string.data[*at + 1] != 'u' || *at + 6 > string.length ||
		!read_hex(string, *at + 2, code))
		return false;
	*at += 6;
	return true;
}

/* read_hex reads four digits. */
static bool
read_hex(GwSpan string, size_t at, unsigned *code)
{
	static const char digits[] = "0123456789abcdef";
	size_t		i;

	*code = 0;
	for (i = at; i < at + 4; i++)
	{
		const char *digit = string.data[i] != 0 ?
		strchr(digits, string.data[i] >= 'A' ? string.data[i] | 0x20 :
			   string.data[i]) : NULL;

		if (digit == NULL)
			return false;
		*code = *code * 16 + (unsigned) (digit - digits);
	}
	return true;
}

/* read_utf8 reads a character up to U+00FF. */
static bool
read_utf8(GwSpan string, size_t *at, unsigned *code)
{
	unsigned char first = string.data[*at];

	if (first < 0x80)
	{
		*code = first;
		*at += 1;
		return true;
	}
	if ((first != 0xc2 && first != 0xc3) || *at + 1 >= string.length ||
		(string.data[*at + 1] & 0xc0) != 0x80)
		return false;
	*code = (first & 0x03u) << 6 | (string.data[*at + 1] & 0x3fu);
	*at += 2;
	return true;
}
