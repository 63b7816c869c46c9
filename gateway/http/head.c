/*
 * head.c
 *		Reads the head of an HTTP request (RFC 9112), strictly.
 *
 * It is read line by line as it comes, so that each byte is looked at a fixed
 * number of times however it is cut up. What proxies and servers are known to
 * read differently is a fault: a line that ends without a carriage return, a
 * folded one, white space before a colon, bytes that no field may have, a
 * second Host, Authorization, Range, If-Range or Content-Length, a request
 * with both Content-Length and Transfer-Encoding. What is read of the target
 * is where its path and its query begin: nothing is decoded, and nothing is
 * changed.
 *
 * Pure code: it allocates nothing and does not recurse. Any bytes may be
 * given to it; tests/fuzz does. The bytes must stay where they are until the
 * head is done with.
 */
#include "http/head.h"

#include <string.h>
#include <strings.h>

/* Beside the target: the longest method, the version, spaces. */
#define METHOD_MAX	24
#define LINE_MORE	(METHOD_MAX + 16)

static void head_line(GwHead *head, const unsigned char *line, size_t length);
static void head_first(GwHead *head, GwSpan line);
static bool head_version(GwHead *head, GwSpan version);
static void head_target(GwHead *head, GwSpan target);
static bool take_authority(GwHead *head, GwSpan *target);
static void head_field(GwHead *head, GwSpan line);
static void head_end(GwHead *head);
static void head_body(GwHead *head);
static void fault(GwHead *head, int status, const char *why);
static GwSpan trimmed(GwSpan value);
static bool all_are(GwSpan span, bool (*is) (unsigned char byte));
static bool is_token(unsigned char byte);
static bool is_of_target(unsigned char byte);
static bool is_of_value(unsigned char byte);
static bool is_of_host(unsigned char byte);
static bool is_digit(unsigned char byte);

/* Fields of which a second one is a fault. */
static const char *const single[] = {"host", "authorization", "range",
"if-range", "content-length"};

#define SINGLES (sizeof(single) / sizeof(single[0]))

void
gw_head_begin(GwHead *head)
{
	memset(head, 0, offsetof(GwHead, fields));
}

/*
 * gw_head_read reads on in a head, of which so many bytes have come. It
 * returns true when it is whole, or has a fault.
 */
bool
gw_head_read(GwHead *head, const unsigned char *bytes, size_t length)
{
	while (!head->done)
	{
		size_t		most = head->method.length == 0 ?
		GW_TARGET_MAX + LINE_MORE : GW_HEAD_MAX;
		const unsigned char *end =
		memchr(bytes + head->scanned, '\n', length - head->scanned);

		if (end == NULL)
		{
			head->scanned = length;
			if (length >= most)
				fault(head, head->method.length == 0 ? 414 : 431,
					  head->method.length == 0 ? "the target is over 8 KiB" :
					  "the head is over 16 KiB");
			break;
		}
		head_line(head, bytes + head->length,
				  (size_t) (end - (bytes + head->length)));
		head->length = head->scanned = (size_t) (end - bytes) + 1;
		if (head->length > GW_HEAD_MAX && head->fault == 0)
			fault(head, 431, "the head is over 16 KiB");
	}
	return head->done;
}

/* gw_head_find returns the first field of a name, NULL if there is none. */
const GwField *
gw_head_find(const GwHead *head, const char *name)
{
	size_t		i;

	for (i = 0; i < head->count; i++)
		if (gw_field_is(&head->fields[i], name))
			return &head->fields[i];
	return NULL;
}

/* gw_field_is tells whether a field has a name. */
bool
gw_field_is(const GwField *field, const char *name)
{
	return field->name.length == strlen(name) &&
		strncasecmp((const char *) field->name.data, name,
					field->name.length) == 0;
}

/* gw_field_lists tells whether a list of tokens has one. */
bool
gw_field_lists(GwSpan value, const char *item)
{
	while (value.length > 0)
	{
		const unsigned char *comma = memchr(value.data, ',', value.length);
		size_t		length = comma != NULL ? (size_t) (comma - value.data) :
		value.length;
		GwField		entry = {{value.data, length}, {NULL, 0}};

		entry.name = trimmed(entry.name);
		if (gw_field_is(&entry, item))
			return true;
		if (comma == NULL)
			break;
		value.data += length + 1;
		value.length -= length + 1;
	}
	return false;
}

/* head_line reads one line, which has its carriage return still. */
static void
head_line(GwHead *head, const unsigned char *line, size_t length)
{
	GwSpan text = {line, length - 1};

	if (length == 0 || line[length - 1] != '\r')
		fault(head, 400, "a line does not end with CR LF");
	else if (head->method.length == 0 && (length > 1 || head->length > 0))
		head_first(head, text);
	else if (length == 1 && head->method.length > 0)
		head_end(head);
	else if (length > 1)
		head_field(head, text);
	/* One empty line before the first is passed over: RFC 9112, 2.2. */
}

/* head_first reads the request line. */
static void
head_first(GwHead *head, GwSpan line)
{
	const unsigned char *space = line.length > 0 ?
	memchr(line.data, ' ', line.length) : NULL;
	const unsigned char *last = line.length > 0 ?
	memrchr(line.data, ' ', line.length) : NULL;
	GwSpan		method = {line.data, 0};
	GwSpan		target;
	GwSpan		version;

	if (space == NULL || last == space)
	{
		fault(head, 400, "the request line is malformed");
		return;
	}
	method.length = (size_t) (space - line.data);
	target.data = space + 1;
	target.length = (size_t) (last - target.data);
	version.data = last + 1;
	version.length = line.length - (size_t) (version.data - line.data);
	if (method.length == 0 || method.length > METHOD_MAX ||
		!all_are(method, is_token) || target.length == 0 ||
		!all_are(target, is_of_target) || !head_version(head, version))
		fault(head, 400, "the request line is malformed");
	else if (target.length > GW_TARGET_MAX)
		fault(head, 414, "the target is over 8 KiB");
	else if (head->fault == 0)
	{
		head->method = method;
		head_target(head, target);
	}
}

/* head_version reads the version; false if it is none. */
static bool
head_version(GwHead *head, GwSpan version)
{
	if (version.length != 8 || memcmp(version.data, "HTTP/", 5) != 0 ||
		!is_digit(version.data[5]) || version.data[6] != '.' ||
		!is_digit(version.data[7]))
		return false;
	if (version.data[5] != '1' || version.data[7] > '1')
		fault(head, 505, "the version of HTTP must be 1.0 or 1.1");
	head->minor = version.data[7] - '0';
	return true;
}

/* head_target takes a target apart: RFC 9112, section 3.2. */
static void
head_target(GwHead *head, GwSpan target)
{
	static const GwSpan root = {(const unsigned char *) "/", 1};
	const unsigned char *mark;

	if (target.data[0] != '/' && !gw_span_is(target, "*") &&
		!take_authority(head, &target))
	{
		fault(head, 400, "the target is neither a path nor a URL");
		return;
	}
	head->path = target;
	mark = target.length > 0 ? memchr(target.data, '?', target.length) : NULL;
	if (mark != NULL)
	{
		head->path.length = (size_t) (mark - target.data);
		head->query.data = mark + 1;
		head->query.length = target.length - head->path.length - 1;
	}
	if (head->path.length == 0)
		head->path = root;
}

/*
 * take_authority moves a target that is a whole URL behind its authority;
 * false if it is no URL.
 */
static bool
take_authority(GwHead *head, GwSpan *target)
{
	static const char *const schemes[] = {"http://", "https://"};
	size_t		i;

	for (i = 0; i < 2; i++)
	{
		size_t		skip = strlen(schemes[i]);

		if (target->length <= skip ||
			strncasecmp((const char *) target->data, schemes[i], skip) != 0)
			continue;
		head->host.data = target->data + skip;
		while (skip < target->length && target->data[skip] != '/' &&
			   target->data[skip] != '?')
			skip++;
		head->host.length = (size_t) (target->data + skip - head->host.data);
		target->data += skip;
		target->length -= skip;
		return head->host.length > 0 && all_are(head->host, is_of_host);
	}
	return false;
}

/* head_field reads the line of a field. */
static void
head_field(GwHead *head, GwSpan line)
{
	const unsigned char *colon = memchr(line.data, ':', line.length);
	GwField    *field = &head->fields[head->count];
	size_t		i;

	if (head->count == GW_FIELDS_MAX)
	{
		fault(head, 431, "the head has over 100 fields");
		return;
	}
	if (colon == NULL)
	{
		fault(head, 400, "a field has no colon");
		return;
	}
	field->name.data = line.data;
	field->name.length = (size_t) (colon - line.data);
	field->value.data = colon + 1;
	field->value.length = line.length - field->name.length - 1;
	field->value = trimmed(field->value);
	if (field->name.length == 0 || !all_are(field->name, is_token) ||
		!all_are(field->value, is_of_value))
	{
		fault(head, 400, "a field is malformed or folded");
		return;
	}
	for (i = 0; i < SINGLES; i++)
		if (gw_field_is(field, single[i]) &&
			gw_head_find(head, single[i]) != NULL)
			fault(head, 400, "a field came twice that may come once");
	if (gw_field_is(field, "connection") &&
		gw_field_lists(field->value, "close"))
		head->closes = true;
	head->count++;
}

/* head_end looks at the whole: which host, whether a body follows. */
static void
head_end(GwHead *head)
{
	const GwField *host = gw_head_find(head, "host");

	head->done = true;
	if (host == NULL && head->minor == 1)
		fault(head, 400, "the field Host is missing");
	else if (host != NULL && !all_are(host->value, is_of_host))
		fault(head, 400, "the field Host is malformed");
	else if (host != NULL && head->host.length == 0)
		head->host = host->value;
	if (head->minor == 0)
		head->closes = true;
	if (head->fault == 0)
		head_body(head);
}

/* head_body tells whether a body follows, which no request needs. */
static void
head_body(GwHead *head)
{
	const GwField *length = gw_head_find(head, "content-length");
	const GwField *encoding = gw_head_find(head, "transfer-encoding");
	size_t		i;

	head->has_body = encoding != NULL;
	if (length == NULL)
		return;
	if (encoding != NULL || length->value.length == 0 ||
		!all_are(length->value, is_digit))
		fault(head, 400, "the field Content-Length is malformed,"
			  " or there is a Transfer-Encoding too");
	for (i = 0; i < length->value.length; i++)
		head->has_body = head->has_body || length->value.data[i] != '0';
}

/* fault ends a head with what is wrong; what was found first counts. */
static void
fault(GwHead *head, int status, const char *why)
{
	if (head->fault == 0)
	{
		head->fault = status;
		head->why = why;
	}
	head->done = true;
	head->closes = true;
}

/* trimmed returns a value without the white space around it. */
static GwSpan
trimmed(GwSpan value)
{
	while (value.length > 0 && (value.data[0] == ' ' || value.data[0] == '\t'))
	{
		value.data++;
		value.length--;
	}
	while (value.length > 0 && (value.data[value.length - 1] == ' ' ||
								value.data[value.length - 1] == '\t'))
		value.length--;
	return value;
}

static bool
all_are(GwSpan span, bool (*is) (unsigned char byte))
{
	size_t		i;

	for (i = 0; i < span.length; i++)
		if (!is(span.data[i]))
			return false;
	return true;
}

/* What a name is made of: RFC 9110, section 5.6.2. */
static bool
is_token(unsigned char byte)
{
	return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
		is_digit(byte) || (byte != 0 && strchr("!#$%&'*+-.^_`|~", byte) != NULL);
}

/* What is no white space, and begins no fragment. */
static bool
is_of_target(unsigned char byte)
{
	return byte > 0x20 && byte < 0x7f && byte != '#';
}

/* What a field's value is made of: RFC 9110, section 5.5. */
static bool
is_of_value(unsigned char byte)
{
	return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

/* What a host and its port are made of, without a user before it. */
static bool
is_of_host(unsigned char byte)
{
	return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
		is_digit(byte) || (byte != 0 && strchr(".-_~%:[]", byte) != NULL);
}

static bool
is_digit(unsigned char byte)
{
	return byte >= '0' && byte <= '9';
}
