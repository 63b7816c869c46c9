/*
 * frame.h
 *		What the gateway itself reads of a client's frame. See frame.c.
 */
#ifndef GW_FRAME_H
#define GW_FRAME_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The first byte of a frame on its way to the database and back: an opcode of
 * RFC 6455, section 5.2, that carries data, or what no client can send.
 */
#define GW_OPCODE_CONTROL	0	/* between gateway and database only */
#define GW_OPCODE_TEXT		1
#define GW_OPCODE_BINARY	2
#define GW_OPCODE_LIMITED	0x10	/* added: a limit of the reply follows */

typedef struct GwSpan
{
	const unsigned char *data;
	size_t		length;
} GwSpan;

typedef enum GwFrameKind
{
	GW_FRAME_MALFORMED,			/* not a JSON-RPC object or array */
	GW_FRAME_REQUEST,			/* an object with an id */
	GW_FRAME_NOTIFICATION,		/* an object without one */
	GW_FRAME_BATCH				/* an array */
} GwFrameKind;

typedef struct GwFrame
{
	GwFrameKind kind;
	GwSpan		id;				/* raw JSON, length 0 if none is usable */
	GwSpan		method;			/* between the quotes, length 0 if none */
	GwSpan		params;			/* raw JSON, length 0 if none */
	GwSpan		elements;		/* of a batch: for gw_frame_next */
	bool		waits;			/* a claim that may wait for messages */
	bool		escaped;		/* a name is spelt so that it may be any */
} GwFrame;

extern GwSpan gw_frame_header(int opcode, const unsigned char *bytes,
							  size_t length);
extern GwFrame gw_frame_read(GwSpan json);
extern bool gw_frame_next(GwSpan *elements, GwFrame *element);
extern bool gw_json_member(GwSpan object, const char *name, GwSpan *value);
extern bool gw_json_next(GwSpan *rest, GwSpan *value);
extern bool gw_span_is(GwSpan span, const char *string);

#endif							/* GW_FRAME_H */
