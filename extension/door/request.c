/*
 * request.c
 *		What a request is for: its path and query.
 *
 *	/v1/messages/{id}
 *	/v1/transactions?channel=..&transaction_id=..
 *
 * A path is split at its slashes before any of it is decoded (RFC 3986), so
 * that %2F is no slash, and "..", empty and further segments are segments like
 * others, of which there are none.  A query is what a form sends
 * (application/x-www-form-urlencoded): pairs between "&", in which "+" is a
 * space; ";" is nothing particular.  A zero byte, an escape that is none, a
 * byte that no target may have and a parameter given twice are bad requests.
 * Pure: texts are decoded where they are.
 */
#include "postgres.h"

#include "door/request.h"

#define SEGMENTS_MAX	4

static bool well_formed(const char *at);
static int	hex_digit(char c);
static int	split_path(char *path, char **segments);
static void decode(char *at, bool plus);
static bool read_id(const char *digits, int64 *id);
static bool read_query(char *query, MbusTarget *target);
static bool read_parameter(char *name, char *value, MbusTarget *target);

/*
 * mbus_target_read takes a path and a query apart, which it changes.
 */
void
mbus_target_read(char *path, char *query, MbusTarget *target)
{
	char	   *segments[SEGMENTS_MAX];
	int			n;

	memset(target, 0, sizeof(*target));
	target->kind = MBUS_TARGET_BAD;
	if (path[0] != '/' || !well_formed(path) || !well_formed(query))
		return;
	n = split_path(path + 1, segments);
	if (!read_query(query, target))
		return;
	target->kind = MBUS_TARGET_NONE;
	if (n == 3 && strcmp(segments[0], "v1") == 0 &&
		strcmp(segments[1], "messages") == 0 &&
		read_id(segments[2], &target->id))
		target->kind = MBUS_TARGET_MESSAGE;
	if (n == 2 && strcmp(segments[0], "v1") == 0 &&
		strcmp(segments[1], "transactions") == 0)
		target->kind = target->channel && target->transaction_id ?
			MBUS_TARGET_TRANSACTION : MBUS_TARGET_BAD;
}

/* Whether all bytes are visible ASCII, and all escapes are ones. */
static bool
well_formed(const char *at)
{
	for (; *at; at++)
	{
		if (*at <= 0x20 || *at >= 0x7F)
			return false;
		if (*at != '%')
			continue;
		if (hex_digit(at[1]) < 0 || hex_digit(at[2]) < 0 ||
			(at[1] == '0' && at[2] == '0'))
			return false;
	}
	return true;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * split_path cuts a path into segments, decodes them and returns how many
 * there are; what is behind SEGMENTS_MAX is one more.
 */
static int
split_path(char *path, char **segments)
{
	int			n = 0;

	while (path && n < SEGMENTS_MAX)
	{
		char	   *slash = strchr(path, '/');

		if (slash)
			*slash++ = '\0';
		decode(path, false);
		segments[n++] = path;
		path = slash;
	}
	return path ? n + 1 : n;
}

/* Decodes escapes where they are, and if "plus" spaces. */
static void
decode(char *at, bool plus)
{
	char	   *to = at;

	for (; *at; at++)
	{
		char		c = *at;

		if (c == '%')
		{
			c = (char) ((unsigned) hex_digit(at[1]) << 4 |
						(unsigned) hex_digit(at[2]));
			at += 2;
		}
		else if (c == '+' && plus)
			c = ' ';
		*to++ = c;
	}
	*to = '\0';
}

/* A number above 0 as it is written, without more zeros than it has. */
static bool
read_id(const char *digits, int64 *id)
{
	size_t		len = strlen(digits);

	if (len == 0 || len > 18 || digits[0] == '0' ||
		strspn(digits, "0123456789") != len)
		return false;
	*id = strtoll(digits, NULL, 10);
	return true;
}

/* False if a parameter that is read is given twice. */
static bool
read_query(char *query, MbusTarget *target)
{
	while (query && *query)
	{
		char	   *next = strchr(query, '&');
		char	   *value;

		if (next)
			*next++ = '\0';
		value = strchr(query, '=');
		if (value)
			*value++ = '\0';
		else
			value = query + strlen(query);
		decode(query, true);
		decode(value, true);
		if (!read_parameter(query, value, target))
			return false;
		query = next;
	}
	return true;
}

static bool
read_parameter(char *name, char *value, MbusTarget *target)
{
	const char **to;

	if (strcmp(name, "cap") == 0)
		to = &target->cap;
	else if (strcmp(name, "channel") == 0)
		to = &target->channel;
	else if (strcmp(name, "transaction_id") == 0)
		to = &target->transaction_id;
	else
		return true;
	if (*to)
		return false;
	*to = value;
	return true;
}
