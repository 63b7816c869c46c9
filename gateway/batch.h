/*
 * batch.h
 *		Requests, and the batches they travel in. See batch.c.
 */
#ifndef GW_BATCH_H
#define GW_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "frame.h"

#define GW_BATCH_CALLS	60
#define GW_BATCH_BYTES	((size_t) 64 * 1024 * 1024)

#define GW_METHOD_MAX	32

/* One frame of a client, from its arrival to its answer. */
typedef struct GwRequest
{
	struct GwRequest *next;
	int64_t		session;
	GwBuffer	frame;			/* opcode, then bytes; a stub once sent */
	size_t		length;			/* of the frame as it arrived */
	int64_t		arrived_ms;
	GwFrameKind kind;
	bool		reads;			/* its reply may be large */
	size_t		calls;			/* of its elements and itself: each is a
								 * subtransaction */
	char		method[GW_METHOD_MAX];	/* for the log, cut */
} GwRequest;

typedef struct GwBatch
{
	struct GwBatch *next;
	GwRequest  *requests;
	GwRequest **requests_end;
	size_t		count;
	size_t		calls;
	size_t		bytes;
	size_t		reads;
	int64_t		head_ms;		/* when it became the oldest in flight */
} GwBatch;

extern GwRequest *gw_request_create(int64_t session, GwBuffer *message,
									int64_t now_ms);
extern bool gw_request_is_long(const GwRequest *request);
extern GwSpan gw_request_header(const GwRequest *request);
extern void gw_request_free(GwRequest *request);

extern GwBatch *gw_batch_create(void);
extern bool gw_batch_has_room(const GwBatch *batch, const GwRequest *request);
extern void gw_batch_add(GwBatch *batch, GwRequest *request);
extern bool gw_batch_encode(const GwBatch *batch, GwBuffer *sessions,
							GwBuffer *frames);
extern void gw_batch_shrink(GwBatch *batch);
extern void gw_batch_free(GwBatch *batch);

#endif							/* GW_BATCH_H */
