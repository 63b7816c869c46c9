/*
 * buffer.c
 *		Growing byte buffers.
 *
 * A failed allocation is remembered in the buffer, so that a caller appends
 * freely and checks `failed` once, before it uses the content. A buffer of
 * zeroes is an empty buffer.
 */
#include "base/buffer.h"

#include <endian.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

#define FORMAT_MAX	512

/* gw_buffer_reserve makes room for `more` bytes; false if it cannot. */
bool
gw_buffer_reserve(GwBuffer *buffer, size_t more)
{
	size_t		capacity = buffer->capacity;
	unsigned char *data;

	if (buffer->failed)
		return false;
	if (more <= capacity - buffer->length)
		return true;
	capacity += capacity / 2;
	if (capacity < buffer->length + more)
		capacity = buffer->length + more;
	if (capacity < 64)
		capacity = 64;
	data = more <= SIZE_MAX / 4 - buffer->length ?
		realloc(buffer->data, capacity) : NULL;
	if (data == NULL)
	{
		buffer->failed = true;
		return false;
	}
	buffer->data = data;
	buffer->capacity = capacity;
	return true;
}

void
gw_buffer_append(GwBuffer *buffer, const void *bytes, size_t length)
{
	if (length == 0 || !gw_buffer_reserve(buffer, length))
		return;
	memcpy(buffer->data + buffer->length, bytes, length);
	buffer->length += length;
}

void
gw_buffer_text(GwBuffer *buffer, const char *string)
{
	gw_buffer_append(buffer, string, strlen(string));
}

/* gw_buffer_format appends printf's output, at most FORMAT_MAX - 1 bytes. */
void
gw_buffer_format(GwBuffer *buffer, const char *format,...)
{
	char		string[FORMAT_MAX];
	va_list		arguments;
	int			length;

	va_start(arguments, format);
	length = vsnprintf(string, sizeof(string), format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t) length >= sizeof(string))
		buffer->failed = true;
	else
		gw_buffer_append(buffer, string, (size_t) length);
}

/* gw_buffer_json appends a text as a JSON string, quotes and all, or null. */
void
gw_buffer_json(GwBuffer *buffer, const char *string)
{
	const char *from = string;

	if (string == NULL)
	{
		gw_buffer_text(buffer, "null");
		return;
	}
	gw_buffer_text(buffer, "\"");
	for (; *string != '\0'; string++)
	{
		unsigned char c = (unsigned char) *string;

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		gw_buffer_append(buffer, from, (size_t) (string - from));
		gw_buffer_format(buffer, c < 0x20 ? "\\u%04x" : "\\%c", c);
		from = string + 1;
	}
	gw_buffer_append(buffer, from, (size_t) (string - from));
	gw_buffer_text(buffer, "\"");
}

/* gw_buffer_int32 appends four bytes in network order. */
void
gw_buffer_int32(GwBuffer *buffer, uint32_t number)
{
	uint32_t	bytes = htobe32(number);

	gw_buffer_append(buffer, &bytes, sizeof(bytes));
}

/* gw_buffer_int64 appends eight bytes in network order. */
void
gw_buffer_int64(GwBuffer *buffer, uint64_t number)
{
	uint64_t	bytes = htobe64(number);

	gw_buffer_append(buffer, &bytes, sizeof(bytes));
}

void
gw_buffer_free(GwBuffer *buffer)
{
	free(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}

/* gw_buffer_wipe frees a buffer that holds a secret, overwritten. */
void
gw_buffer_wipe(GwBuffer *buffer)
{
	if (buffer->data != NULL)
		explicit_bzero(buffer->data, buffer->length);
	gw_buffer_free(buffer);
}

/*
 * gw_text_copy copies a message of another program: cut to size, without the
 * line feed at its end, and in UTF-8 whatever it was.
 */
void
gw_text_copy(char *to, size_t size, const char *from)
{
	size_t		length = strlen(from);

	while (length > 0 && from[length - 1] == '\n')
		length--;
	if (length > size - 1)
		length = size - 1;
	memcpy(to, from, length);
	/* A cut may have left the beginning of a character. */
	while (length > 0 && (from[length] & 0xC0) == 0x80 &&
		   (to[length - 1] & 0x80) != 0)
		length--;
	to[length] = '\0';
	if (!gw_utf8_valid((const unsigned char *) to, length))
		for (; *to != '\0'; to++)
			if ((*to & 0x80) != 0)
				*to = '?';
}
