/*
 * frame.c
 *		Reads what the gateway must know of a client's frame.
 *
 * The extension does the real parsing. The gateway needs four things only:
 * where the header line of a binary frame ends, which method is called and
 * whether a claim waits (to choose a lane), and which ids to answer when it
 * must answer an error by itself. So this reader is a scanner, not a
 * validator: it follows strings and counts brackets. What it hands out as an id is checked strictly,
 * because an id is copied into an answer.
 *
 * Pure code: it allocates nothing, does not recurse, keeps no state and
 * reads every byte at most three times. Any bytes may be given to it; tests/fuzz
 * does.
 */
#include "request/frame.h"

#include <ctype.h>
#include <string.h>

#include "base/utf8.h"

static GwFrame read_object(const unsigned char *at, const unsigned char *end,
						   const unsigned char **after);
static const unsigned char *read_member(const unsigned char *at,
										const unsigned char *end,
										GwSpan *key, GwSpan *value);
static void take_member(GwFrame *frame, GwSpan key, GwSpan value);
static bool is_waiting_claim(const GwFrame *frame);
static const unsigned char *skip_space(const unsigned char *at,
									   const unsigned char *end);
static const unsigned char *skip_value(const unsigned char *at,
									   const unsigned char *end);
static const unsigned char *skip_string(const unsigned char *at,
										const unsigned char *end);
static const unsigned char *skip_nested(const unsigned char *at,
										const unsigned char *end);
static bool id_is_sound(GwSpan id);
static bool string_is_sound(GwSpan string);
static bool number_is_sound(GwSpan number);
static bool skip_digits(GwSpan number, size_t *at);

/*
 * gw_frame_header returns the JSON part of a frame: all of a text frame, the
 * bytes before the first line feed of a binary one (all, if there is none).
 */
GwSpan
gw_frame_header(int opcode, const unsigned char *bytes, size_t length)
{
	GwSpan		header = {bytes, length};
	const unsigned char *feed = NULL;

	if (opcode == GW_OPCODE_BINARY && length > 0)
		feed = memchr(bytes, '\n', length);
	if (feed != NULL)
		header.length = (size_t) (feed - bytes);
	return header;
}

/*
 * gw_frame_read tells what kind of JSON-RPC frame this is. Of a frame that
 * is cut off or broken the id is still given if it was read before the
 * fault, but its kind is GW_FRAME_MALFORMED.
 */
GwFrame
gw_frame_read(GwSpan json)
{
	GwFrame		frame = {.kind = GW_FRAME_MALFORMED};
	const unsigned char *end;
	const unsigned char *at;
	const unsigned char *after;

	if (json.length == 0)
		return frame;
	end = json.data + json.length;
	at = skip_space(json.data, end);
	if (at == end)
		return frame;
	if (*at == '[')
	{
		frame.elements.data = at + 1;
		frame.elements.length = (size_t) (end - (at + 1));
		after = skip_value(at, end);
		if (after != NULL && skip_space(after, end) == end)
			frame.kind = GW_FRAME_BATCH;
		return frame;
	}
	if (*at != '{')
		return frame;
	frame = read_object(at, end, &after);
	if (after == NULL || skip_space(after, end) != end)
		frame.kind = GW_FRAME_MALFORMED;
	return frame;
}

/*
 * gw_frame_next reads the next element of a batch into *element and moves
 * *elements past it. It returns false at the end.
 */
bool
gw_frame_next(GwSpan *elements, GwFrame *element)
{
	const unsigned char *at = elements->data;
	const unsigned char *end;
	const unsigned char *after = NULL;
	GwFrame		malformed = {.kind = GW_FRAME_MALFORMED};

	if (elements->length == 0)
		return false;
	end = at + elements->length;
	at = skip_space(at, end);
	if (at == end || *at == ']')
		return false;
	*element = malformed;
	if (*at == '{')
		*element = read_object(at, end, &after);
	else
		after = skip_value(at, end);
	if (after != NULL && after != at)
		after = skip_space(after, end);
	if (after == NULL || after == at || after == end ||
		(*after != ',' && *after != ']'))
	{
		element->kind = GW_FRAME_MALFORMED;
		after = end;
	}
	else if (*after == ',')
		after++;
	elements->length = (size_t) (end - after);
	elements->data = after;
	return true;
}

/*
 * gw_json_member finds a member of an object by its name, which is given in
 * quotes. Of two with one name it finds the later.
 */
bool
gw_json_member(GwSpan object, const char *name, GwSpan *value)
{
	const unsigned char *at = object.data;
	const unsigned char *end;
	bool		found = false;

	if (object.length == 0 || *at != '{')
		return false;
	end = at + object.length;
	do
	{
		GwSpan		key;
		GwSpan		member;

		at = read_member(at, end, &key, &member);
		if (at == NULL || !gw_span_is(key, name))
			continue;
		*value = member;
		found = true;
	} while (at != NULL && at != end && *at == ',');
	return found;
}

/*
 * gw_json_next reads the next element of an array, and moves *rest before the
 * one behind it. It returns false at the end, or where it is broken.
 */
bool
gw_json_next(GwSpan *rest, GwSpan *value)
{
	const unsigned char *end = rest->data + rest->length;
	const unsigned char *after;

	if (rest->length == 0 || (*rest->data != '[' && *rest->data != ','))
		return false;
	value->data = skip_space(rest->data + 1, end);
	after = skip_value(value->data, end);
	if (after == value->data && *rest->data == '[' && *after == ']')
	{
		/* It is empty: as if its last had been read. */
		rest->length = (size_t) (end - after);
		rest->data = after;
	}
	if (after == NULL || after == value->data)
		return false;
	value->length = (size_t) (after - value->data);
	after = skip_space(after, end);
	rest->data = after;
	rest->length = (size_t) (end - after);
	return true;
}

/* gw_span_is tells whether a span holds exactly this text. */
bool
gw_span_is(GwSpan span, const char *string)
{
	size_t		length = strlen(string);

	return span.length == length &&
		(length == 0 || memcmp(span.data, string, length) == 0);
}

/*
 * read_object reads the object that starts at the brace `at`. *after is set
 * behind its closing brace, or to NULL if it is cut off or broken.
 */
static GwFrame
read_object(const unsigned char *at, const unsigned char *end,
			const unsigned char **after)
{
	GwFrame		frame = {.kind = GW_FRAME_NOTIFICATION};
	const unsigned char *first = skip_space(at + 1, end);

	*after = NULL;
	if (first != end && *first == '}')
		at = first;
	else
		do
		{
			GwSpan		key;
			GwSpan		value;

			at = read_member(at, end, &key, &value);
			if (at == NULL)
				return frame;
			take_member(&frame, key, value);
		} while (at != end && *at == ',');
	if (at != end && *at == '}')
		*after = at + 1;
	frame.waits = is_waiting_claim(&frame);
	return frame;
}

/*
 * read_member reads the member behind the brace or comma at `at`. It returns
 * the place of what follows, NULL if the member is cut off or broken.
 */
static const unsigned char *
read_member(const unsigned char *at, const unsigned char *end, GwSpan *key,
			GwSpan *value)
{
	key->data = skip_space(at + 1, end);
	at = key->data != end && *key->data == '"' ?
		skip_string(key->data, end) : NULL;
	if (at == NULL)
		return NULL;
	key->length = (size_t) (at - key->data);
	at = skip_space(at, end);
	if (at == end || *at != ':')
		return NULL;
	value->data = skip_space(at + 1, end);
	at = skip_value(value->data, end);
	if (at == NULL || at == value->data)
		return NULL;
	value->length = (size_t) (at - value->data);
	return skip_space(at, end);
}

/*
 * take_member remembers the members that matter. Escapes are not decoded: no
 * client needs them in a name, and what has some is taken for the most that it
 * can be. Of two members with one name the later counts, as it does for
 * JSON.parse; but of several ids the first, which is the one that the database
 * answers.
 */
static void
take_member(GwFrame *frame, GwSpan key, GwSpan value)
{
	frame->escaped = frame->escaped ||
		memchr(key.data, '\\', key.length) != NULL;
	if (gw_span_is(key, "\"id\""))
	{
		if (frame->kind == GW_FRAME_REQUEST)
			return;
		frame->kind = GW_FRAME_REQUEST;
		frame->id = value;
		if (!id_is_sound(value))
			frame->id.length = 0;
	}
	else if (gw_span_is(key, "\"method\"") && value.data[0] == '"')
	{
		frame->method.data = value.data + 1;
		frame->method.length = value.length - 2;
		frame->escaped = frame->escaped ||
			memchr(value.data, '\\', value.length) != NULL;
	}
	else if (gw_span_is(key, "\"params\""))
		frame->params = value;
}

/*
 * is_waiting_claim tells whether this is a claim whose "wait" is not zero, in
 * whatever form: a number, a text of digits and units. What is no time at all
 * counts as a wait: the database will say what it thinks of it. A claim with
 * an "ack" does not wait, and its ack is not to queue behind those that do.
 */
static bool
is_waiting_claim(const GwFrame *frame)
{
	GwSpan		wait;
	GwSpan		ack;
	bool		zero = false;
	size_t		i;

	if (!gw_span_is(frame->method, "claim") ||
		!gw_json_member(frame->params, "\"wait\"", &wait) ||
		gw_span_is(wait, "null"))
		return false;
	if (gw_json_member(frame->params, "\"ack\"", &ack) &&
		!gw_span_is(ack, "null"))
		return false;
	for (i = 0; i < wait.length; i++)
	{
		if (wait.data[i] >= '1' && wait.data[i] <= '9')
			return true;
		zero = zero || wait.data[i] == '0';
	}
	return !zero;
}

static const unsigned char *
skip_space(const unsigned char *at, const unsigned char *end)
{
	while (at != end &&
		   (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

/*
 * skip_value returns the place behind the value at `at`, `at` itself if
 * there is none, or NULL if it is cut off.
 */
static const unsigned char *
skip_value(const unsigned char *at, const unsigned char *end)
{
	if (at == end)
		return NULL;
	if (*at == '"')
		return skip_string(at, end);
	if (*at == '{' || *at == '[')
		return skip_nested(at, end);
	while (at != end && (*at == 0 || strchr(",:]}{[\" \t\r\n", *at) == NULL))
		at++;
	return at == end ? NULL : at;
}

/* skip_string returns the place behind the closing quote, NULL if none. */
static const unsigned char *
skip_string(const unsigned char *at, const unsigned char *end)
{
	const unsigned char *from = at + 1;

	for (;;)
	{
		const unsigned char *quote;
		const unsigned char *slash;
		size_t		slashes = 0;

		if (from >= end)
			return NULL;
		quote = memchr(from, '"', (size_t) (end - from));
		if (quote == NULL)
			return NULL;
		for (slash = quote - 1; slash > at && *slash == '\\'; slash--)
			slashes++;
		if (slashes % 2 == 0)
			return quote + 1;
		from = quote + 1;
	}
}

/* skip_nested returns the place behind the bracket that closes this one. */
static const unsigned char *
skip_nested(const unsigned char *at, const unsigned char *end)
{
	size_t		depth = 0;

	while (at != end)
	{
		if (*at == '"')
		{
			at = skip_string(at, end);
			if (at == NULL)
				return NULL;
			continue;
		}
		if (*at == '{' || *at == '[')
			depth++;
		else if (*at == '}' || *at == ']')
			depth--;
		at++;
		if (depth == 0)
			return at;
	}
	return NULL;
}

/* id_is_sound tells whether a value may be copied into an answer as its id. */
static bool
id_is_sound(GwSpan id)
{
	if (id.data[0] == '"')
		return string_is_sound(id);
	return gw_span_is(id, "null") || number_is_sound(id);
}

static bool
string_is_sound(GwSpan string)
{
	size_t		at;

	for (at = 1; at + 1 < string.length; at++)
	{
		size_t		digit;

		if (string.data[at] < 0x20)
			return false;
		if (string.data[at] != '\\')
			continue;
		at++;
		if (string.data[at] == 'u')
		{
			for (digit = 1; digit <= 4; digit++)
				if (at + digit + 1 >= string.length ||
					!isxdigit(string.data[at + digit]))
					return false;
			at += 4;
		}
		else if (string.data[at] == 0 ||
				 strchr("\"\\/bfnrt", string.data[at]) == NULL)
			return false;
	}
	return gw_utf8_valid(string.data, string.length);
}

static bool
number_is_sound(GwSpan number)
{
	size_t		first = number.data[0] == '-' ? 1 : 0;
	size_t		at = first;

	if (!skip_digits(number, &at) ||
		(at > first + 1 && number.data[first] == '0'))
		return false;
	if (at < number.length && number.data[at] == '.')
	{
		at++;
		if (!skip_digits(number, &at))
			return false;
	}
	if (at < number.length && (number.data[at] | 0x20) == 'e')
	{
		at++;
		if (at < number.length &&
			(number.data[at] == '+' || number.data[at] == '-'))
			at++;
		if (!skip_digits(number, &at))
			return false;
	}
	return at == number.length;
}

/* skip_digits moves *at behind digits, and tells whether there was one. */
static bool
skip_digits(GwSpan number, size_t *at)
{
	size_t		from = *at;

	while (*at < number.length &&
		   number.data[*at] >= '0' && number.data[*at] <= '9')
		(*at)++;
	return *at > from;
}
