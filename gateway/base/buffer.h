/*
 * buffer.h
 *		Growing byte buffers. See buffer.c.
 */
#ifndef GW_BUFFER_H
#define GW_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct GwBuffer
{
	unsigned char *data;
	size_t		length;
	size_t		capacity;
	bool		failed;			/* out of memory once: the content is void */
} GwBuffer;

extern bool gw_buffer_reserve(GwBuffer *buffer, size_t more);
extern void gw_buffer_append(GwBuffer *buffer, const void *bytes,
							 size_t length);
extern void gw_buffer_text(GwBuffer *buffer, const char *string);
extern void gw_buffer_format(GwBuffer *buffer, const char *format,...)
			__attribute__((format(printf, 2, 3)));
extern void gw_buffer_json(GwBuffer *buffer, const char *string);
extern void gw_buffer_int32(GwBuffer *buffer, uint32_t number);
extern void gw_buffer_int64(GwBuffer *buffer, uint64_t number);
extern void gw_buffer_free(GwBuffer *buffer);
extern void gw_buffer_wipe(GwBuffer *buffer);
extern void gw_text_copy(char *to, size_t size, const char *from);

#endif							/* GW_BUFFER_H */
