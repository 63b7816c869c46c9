/*
 * media.c
 *		Media types that a browser shows, and names of files.
 *
 * Pure: no memory, no errors.
 */
#include "postgres.h"

#include "door/media.h"

static bool is_type(const char *type, const char *name);
static int	char_len(const unsigned char *c);
static bool is_unwanted(const unsigned char *c, int len);

/* what a browser shows, and cannot run */
static const char *const shown[] = {
	"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif",
	"text/plain", "application/json"
};

/*
 * mbus_media_inline tells whether a browser may show it where it is.
 */
bool
mbus_media_inline(const char *type)
{
	if (pg_strncasecmp(type, "audio/", 6) == 0 ||
		pg_strncasecmp(type, "video/", 6) == 0)
		return true;
	for (int i = 0; i < (int) lengthof(shown); i++)
	{
		if (is_type(type, shown[i]))
			return true;
	}
	return false;
}

/* Compares all but the parameters. */
static bool
is_type(const char *type, const char *name)
{
	size_t		len = strlen(name);

	return pg_strncasecmp(type, name, len) == 0 &&
		(type[len] == '\0' || strchr("; \t", type[len]) != NULL);
}

/*
 * mbus_file_name_clean makes of a text in UTF-8 the name of a file, or an
 * empty one: without folders and points in front, without control characters,
 * those that change the direction of writing, and those that systems do not
 * take, and no longer than MBUS_FILE_NAME_MAX.
 */
void
mbus_file_name_clean(char *name)
{
	const unsigned char *at = (const unsigned char *) name;
	char	   *to = name;

	for (const char *c = name; *c; c++)
	{
		if (*c == '/' || *c == '\\')
			at = (const unsigned char *) c + 1;
	}
	while (*at == '.' || *at == ' ')
		at++;
	while (*at)
	{
		int			len = char_len(at);

		if (to + len - name > MBUS_FILE_NAME_MAX)
			break;
		if (!is_unwanted(at, len))
		{
			memmove(to, at, len);
			to += len;
		}
		at += len;
	}
	while (to > name && (to[-1] == '.' || to[-1] == ' '))
		to--;
	*to = '\0';
}

/* Bytes of a character, or of what is there of one. */
static int
char_len(const unsigned char *c)
{
	int			len = *c < 0xC0 ? 1 : *c < 0xE0 ? 2 : *c < 0xF0 ? 3 : 4;

	for (int i = 1; i < len; i++)
	{
		if ((c[i] & 0xC0) != 0x80)
			return i;
	}
	return len;
}

static bool
is_unwanted(const unsigned char *c, int len)
{
	if (len == 1)
		return *c < 0x20 || *c == 0x7F || strchr("\"*:<>?|", *c) != NULL;
	if (len == 2)
		return *c == 0xC2 && c[1] < 0xA0;	/* U+0080 to U+009F */
	if (len == 3 && c[0] == 0xE2 && c[1] == 0x80)
		return (c[2] >= 0x8B && c[2] <= 0x8F) ||	/* U+200B to U+200F */
			(c[2] >= 0xA8 && c[2] <= 0xAE); /* U+2028 to U+202E */
	if (len == 3 && c[0] == 0xE2 && c[1] == 0x81)
		return c[2] >= 0xA0 && c[2] <= 0xAF;	/* U+2060 to U+206F */
	return len == 3 && c[0] == 0xEF && c[1] == 0xBB && c[2] == 0xBF;
}
