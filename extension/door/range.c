/*
 * range.c
 *		The field Range of RFC 9110, section 14: one range of bytes.
 *
 * Several ranges, other units, what is malformed or longer than any one range
 * has to be, and any range of no bytes are ignored, as the RFC lets a server
 * do: the whole is sent.  Pure: no memory, no errors.
 */
#include "postgres.h"

#include "door/range.h"

#define RANGE_MAX	256			/* bytes of the field */

static bool read_position(const char **at, int64 *position);

/*
 * mbus_http_range reads a field (NULL: none) for a message of "size" bytes,
 * and fills in the range's first byte and the one behind its last.
 */
MbusRangeKind
mbus_http_range(const char *value, int64 size, int64 *from, int64 *to)
{
	int64		first;
	int64		last = PG_INT64_MAX;
	bool		suffix;

	if (value == NULL || size == 0 || strlen(value) > RANGE_MAX ||
		pg_strncasecmp(value, "bytes=", 6) != 0)
		return MBUS_RANGE_IGNORED;
	value += 6;
	suffix = *value == '-';
	if (!suffix && !read_position(&value, &first))
		return MBUS_RANGE_IGNORED;
	if (*value++ != '-')
		return MBUS_RANGE_IGNORED;
	if ((suffix || *value) && !read_position(&value, &last))
		return MBUS_RANGE_IGNORED;
	if (*value != '\0' || (!suffix && last < first))
		return MBUS_RANGE_IGNORED;

	if (suffix)
	{
		first = size - Min(last, size);
		last = size - 1;
	}
	if (first >= size)
		return MBUS_RANGE_OUTSIDE;
	*from = first;
	*to = Min(last, size - 1) + 1;
	return MBUS_RANGE_ONE;
}

/*
 * read_position reads digits, at least one; what is too large for any message
 * is as large as can be.
 */
static bool
read_position(const char **at, int64 *position)
{
	const char *start = *at;

	*position = 0;
	for (; **at >= '0' && **at <= '9'; (*at)++)
	{
		if (*position > (PG_INT64_MAX - 9) / 10)
			*position = (PG_INT64_MAX - 9) / 10;
		*position = *position * 10 + (**at - '0');
	}
	return *at > start;
}
