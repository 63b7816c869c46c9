/*
 * answer.h
 *		What the database answers the HTTP door. See answer.c.
 */
#ifndef GW_HTTP_ANSWER_H
#define GW_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "request/frame.h"

/* An answer to 'H' or 'P'; it lives as long as the frame it was read of. */
typedef struct GwHttpReply
{
	int64_t		number;			/* of the request */
	int			status;			/* 0: it is a piece */
	bool		shared;			/* by a capability: any origin may read it */
	GwSpan		headers;		/* array of pairs, raw */
	int64_t		from;			/* of the message: where `bytes` begin */
	int64_t		to;				/* where the content ends; not of a piece */
	GwSpan		ticket;			/* raw JSON; length 0: there is no rest */
	GwSpan		gone;			/* why nothing more comes, between quotes */
	GwSpan		error;			/* SQLSTATE: try again, between quotes */
	GwSpan		bytes;
} GwHttpReply;

extern bool gw_http_reply_read(GwSpan frame, GwHttpReply *reply);
extern bool gw_http_reply_headers(const GwHttpReply *reply, GwBuffer *out);
extern void gw_http_head(GwBuffer *out, int status, int64_t unix_seconds);
extern void gw_http_problem(GwBuffer *out, int status, const char *detail);
extern const char *gw_http_reason(int status);

#endif							/* GW_HTTP_ANSWER_H */
