/*
 * batch.h
 *		Requests, and the batches they travel in. See batch.c.
 */
#ifndef GW_BATCH_H
#define GW_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/metrics.h"
#include "request/answer.h"
#include "request/frame.h"
#include "request/identity.h"

#define GW_BATCH_CALLS	60

/* A frame of more calls than this goes when none such is in flight. */
#define GW_CALLS_FEW	(GW_BATCH_CALLS / 4)
#define GW_BATCH_BYTES	((size_t) 64 * 1024 * 1024)

/*
 * The same on lane bulk, so that what is written of it in one commit does not
 * hold up the commits of others for long, and what such a batch may bring.
 */
#define GW_BULK_BYTES	((size_t) (1024 + 64) * 1024)
#define GW_BULK_REPLIES	((size_t) 4 * 1024 * 1024)

#define GW_METHOD_MAX	32

/* The method whose frames are pieces of bodies on their way up. */
#define GW_APPENDS		"upload_append"

/* What control frames ask for: their second byte. */
#define GW_CONTROL_OPEN		'O'
#define GW_CONTROL_AGAIN	'A' /* to open, since when */
#define GW_CONTROL_CLOSE	'C'
#define GW_CONTROL_OVER_LIMIT	'L'
#define GW_CONTROL_HTTP		'H'
#define GW_CONTROL_PIECE	'P'

/* Which leases of a session end when it is closed. */
typedef enum GwEnding
{
	GW_ENDS_NONE,				/* it is only forgotten */
	GW_ENDS_UNWRITTEN,			/* those that its client has not learnt of */
	GW_ENDS_KNOWN,				/* and those in "written" */
	GW_ENDS_ALL
} GwEnding;

/* What a part of the gateway is told that asks the database something itself. */
typedef struct GwAskEvents
{
	/* An answer came: a frame with its opcode, which lives for this call. */
	void		(*answer) (void *owner, GwSpan frame);
	/* It has ended, answered or not: NULL, it is committed. */
	void		(*end) (void *owner, const GwError *error);
} GwAskEvents;

/* What is held of MESSAGE_BUS_BULK_MB, and for which use: relay/pool.c. */
typedef struct GwHold
{
	int			use;
	bool		last;			/* it may have more than there is */
	size_t		bytes;
} GwHold;

/* One frame of a client, from its arrival to its answer; or a control frame. */
typedef struct GwRequest
{
	TAILQ_ENTRY(GwRequest) entry;
	GwIdentity *identity;		/* holds a reference */
	GwBuffer	frame;			/* opcode, then bytes; empty once sent */
	GwBuffer	ids;			/* to answer it without its frame: answer.c */
	size_t		length;			/* of the frame as it arrived */
	int64_t		arrived_ms;
	GwFrameKind kind;
	char		control;		/* 0 if it is a client's */
	bool		again;			/* a control frame that is sent once more */
	bool		ends;			/* it ends leases */
	bool		greets;			/* it opens a session without a frame */
	const GwAskEvents *ask;		/* of the gateway's own; NULL: it is none */
	void	   *asker;			/* who is told; NULL: it has gone */
	bool		queued;			/* not sent yet: it is in a queue */
	bool		nobody;			/* it goes with session 0: nothing is opened */
	unsigned	tries;			/* so often was that sent and not answered */
	uint32_t	version;		/* of the token in it, if it opens */
	bool		secret;			/* holds a token */
	bool		waits;			/* a claim that may wait */
	bool		reads;			/* a method that is likely to bring much */
	bool		brings;			/* it may bring as much as a reply can be */
	bool		lists;			/* it brings as many ids as it has messages */
	bool		bulk;			/* a piece of a large body, up or down */
	bool		alone;			/* it has a batch of its own */
	size_t		wants;			/* bytes that it asks for; 0: not told */
	GwHold		hold;			/* of its bytes, or of those that it brings */
	size_t		reply;			/* bytes that it may bring */
	size_t		brought;		/* bytes that it has brought */
	size_t		expected;		/* these, if its client counts them */
	size_t		calls;			/* of its elements and itself: each is a
								 * subtransaction */
	int			code;			/* of the error it was answered with, or 0 */
	char		sqlstate[6];	/* of that, or empty */
	char		method[GW_METHOD_MAX];	/* for the log, cut */
} GwRequest;

typedef struct GwBatch
{
	STAILQ_ENTRY(GwBatch) entry;
	TAILQ_HEAD(, GwRequest) requests;
	size_t		count;
	size_t		calls;
	size_t		bytes;
	size_t		replies;		/* bytes that its requests may bring */
	bool		secret;
	bool		alone;			/* it takes no more */
	int64_t		head_ms;		/* when it became the oldest in flight */
} GwBatch;

extern GwRequest *gw_request_create(GwIdentity *identity, GwBuffer *message,
									int64_t now_ms);
extern GwRequest *gw_request_open(GwIdentity *identity);
extern GwRequest *gw_request_close(GwIdentity *identity, GwEnding ending);
extern GwRequest *gw_request_over_limit(GwIdentity *identity, size_t limit,
										bool anonymous,
										const GwBuffer *message);
extern GwRequest *gw_request_ask(GwIdentity *identity, char control,
								 const GwBuffer *bytes,
								 const GwAskEvents *ask, void *asker);
extern bool gw_request_only_claims(const GwRequest *request);
extern GwLaneKind gw_request_lane(const GwRequest *request);
extern void gw_request_weigh(GwRequest *request, size_t limit);
extern void gw_request_log(const GwRequest *request, GwLaneKind lane,
						   const GwError *error, GwResult result, int64_t ms);
extern void gw_request_free(GwRequest *request);

extern GwBatch *gw_batch_create(void);
extern bool gw_batch_has_room(const GwBatch *batch, const GwRequest *request,
							  size_t more, size_t bytes_max,
							  size_t replies_max);
extern void gw_batch_add(GwBatch *batch, GwRequest *request);
extern bool gw_batch_encode(const GwBatch *batch, GwBuffer *sessions,
							GwBuffer *frames);
extern void gw_batch_drop_frames(GwBatch *batch);
extern void gw_batch_free(GwBatch *batch);

#endif							/* GW_BATCH_H */
