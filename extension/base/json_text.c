/*
 * json_text.c
 *		A JSON string as text, whatever it holds.
 *
 * JSON may have what text cannot: \u0000, or half of a surrogate pair.  Here
 * each of them becomes U+FFFD, and nothing is an error.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "base/json_slice.h"

static const char *escape_read(const char *at, const char *end,
							   StringInfo out);
static const char *unicode_read(const char *at, const char *end,
								StringInfo out);
static bool hex_read(const char *at, const char *end, pg_wchar *unit);

/*
 * mbus_json_text decodes a string's token, with U+FFFD for what text cannot hold.
 */
text *
mbus_json_text(const MbusSlice *string)
{
	const char *at = string->start + 1;
	const char *end = string->start + string->len - 1;
	StringInfoData out;
	text	   *result;

	if (memchr(at, '\\', end - at) == NULL)
		return cstring_to_text_with_len(at, end - at);
	initStringInfo(&out);
	while (at < end)
	{
		const char *escape = memchr(at, '\\', end - at);

		if (escape == NULL)
			escape = end;
		appendBinaryStringInfo(&out, at, escape - at);
		at = escape < end ? escape_read(escape + 1, end, &out) : end;
	}
	result = cstring_to_text_with_len(out.data, out.len);
	pfree(out.data);
	return result;
}

/* Decodes what stands behind a backslash, and returns where it ends. */
static const char *
escape_read(const char *at, const char *end, StringInfo out)
{
	static const char plain[] = "bfnrt";
	static const char meant[] = "\b\f\n\r\t";
	const char *which;

	if (at >= end)
		return end;
	if (*at == 'u')
		return unicode_read(at + 1, end, out);
	which = strchr(plain, *at);
	appendStringInfoChar(out, which ? meant[which - plain] : *at);
	return at + 1;
}

/*
 * unicode_read decodes \uXXXX, or two that are a surrogate pair; at is behind
 * the first u.
 */
static const char *
unicode_read(const char *at, const char *end, StringInfo out)
{
	pg_wchar	unit;
	pg_wchar	second;
	unsigned char utf8[MAX_UNICODE_EQUIVALENT_STRING];

	if (!hex_read(at, end, &unit))
		return end;
	at += 4;
	if (is_utf16_surrogate_first(unit) && end - at >= 6 &&
		at[0] == '\\' && at[1] == 'u' && hex_read(at + 2, end, &second) &&
		is_utf16_surrogate_second(second))
	{
		unit = surrogate_pair_to_codepoint(unit, second);
		at += 6;
	}
	if (unit == 0 || is_utf16_surrogate_first(unit) ||
		is_utf16_surrogate_second(unit))
		unit = 0xFFFD;
	unicode_to_utf8(unit, utf8);
	appendBinaryStringInfo(out, (char *) utf8, pg_utf_mblen(utf8));
	return at;
}

/* Four hexadecimal digits. */
static bool
hex_read(const char *at, const char *end, pg_wchar *unit)
{
	*unit = 0;
	if (end - at < 4)
		return false;
	for (int i = 0; i < 4; i++)
	{
		int			digit = at[i] >= '0' && at[i] <= '9' ? at[i] - '0' :
		at[i] >= 'a' && at[i] <= 'f' ? at[i] - 'a' + 10 :
		at[i] >= 'A' && at[i] <= 'F' ? at[i] - 'A' + 10 : -1;

		if (digit < 0)
			return false;
		*unit = *unit << 4 | digit;
	}
	return true;
}
