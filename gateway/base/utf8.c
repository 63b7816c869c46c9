/*
 * utf8.c
 *		Which bytes are UTF-8 (RFC 3629).
 */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

static size_t utf8_length(const unsigned char *at, size_t left);

/* gw_utf8_valid tells whether the bytes are well-formed UTF-8 (RFC 3629). */
bool
gw_utf8_valid(const unsigned char *bytes, size_t length)
{
	return gw_utf8_prefix(bytes, length) == length;
}

/*
 * gw_utf8_may_go_on tells whether bytes that are no whole character may
 * become one, or are none at all. The second byte of a character is limited
 * from below or from above, never from both sides but to 0x80 and 0xBF.
 */
bool
gw_utf8_may_go_on(const unsigned char *bytes, size_t length)
{
	unsigned char string[4];

	if (length == 0 || length >= sizeof(string))
		return length == 0;
	memset(string, 0x80, sizeof(string));
	memcpy(string, bytes, length);
	if (utf8_length(string, sizeof(string)) > length)
		return true;
	memset(string + length, 0xBF, sizeof(string) - length);
	return utf8_length(string, sizeof(string)) > length;
}

/* gw_utf8_prefix returns how many of the bytes are whole characters. */
size_t
gw_utf8_prefix(const unsigned char *bytes, size_t length)
{
	const uint64_t high = UINT64_C(0x8080808080808080);
	size_t		at = 0;

	while (at < length)
	{
		uint64_t	word;
		size_t		width;

		if (length - at >= sizeof(word))
		{
			memcpy(&word, bytes + at, sizeof(word));
			if ((word & high) == 0)
			{
				at += sizeof(word);
				continue;
			}
		}
		width = utf8_length(bytes + at, length - at);
		if (width == 0)
			break;
		at += width;
	}
	return at;
}

/*
 * utf8_length returns the length of the character at `at`, 0 if there is no
 * well-formed one (overlong, surrogate, above U+10FFFF, cut off).
 */
static size_t
utf8_length(const unsigned char *at, size_t left)
{
	unsigned char lowest = at[0] == 0xE0 ? 0xA0 : at[0] == 0xF0 ? 0x90 : 0x80;
	unsigned char highest = at[0] == 0xED ? 0x9F : at[0] == 0xF4 ? 0x8F : 0xBF;
	size_t		width = at[0] < 0x80 ? 1 : at[0] < 0xC2 ? 0 :
	at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : at[0] < 0xF5 ? 4 : 0;
	size_t		i;

	if (left < width)
		return 0;
	for (i = 1; i < width; i++)
	{
		if (at[i] < lowest || at[i] > highest)
			return 0;
		lowest = 0x80;
		highest = 0xBF;
	}
	return width;
}
