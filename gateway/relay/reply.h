/*
 * reply.h
 *		The replies of one connection that wait to be written. See reply.c.
 */
#ifndef GW_REPLY_H
#define GW_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buffer.h"
#include "relay/pool.h"

/*
 * One frame to write. `bytes` begins with GW_WRITE_ROOM free bytes and ends
 * with the leases that it tells, as a control frame has them.
 */
typedef struct GwReply
{
	STAILQ_ENTRY(GwReply) entry;
	size_t		length;
	size_t		sent;
	size_t		leases;			/* bytes behind it: what it tells of leases */
	bool		binary;
	GwHold		hold;			/* of a piece of a body */
	unsigned char bytes[];
} GwReply;

typedef struct GwReplies
{
	STAILQ_HEAD(, GwReply) list;	/* oldest first */
	size_t		bytes;			/* that are not written */
	size_t		bulk;			/* of pieces of bodies, here or on their way */
	size_t		expected;		/* bytes that what is in flight may bring */
	int64_t		progress_ms;	/* when bytes last went out, or were queued */
	int64_t		begun_ms;		/* since when the oldest is the oldest */
} GwReplies;

/* Those of all connections. */
typedef struct GwReplyTotals
{
	size_t		count;
	size_t		bytes;
} GwReplyTotals;

extern GwReplyTotals gw_reply_totals;

extern void gw_replies_init(GwReplies *replies);
extern bool gw_replies_are_none(const GwReplies *replies);
extern bool gw_replies_add(GwReplies *replies, bool binary,
						   const unsigned char *bytes, size_t length,
						   const GwBuffer *leases, bool bulk);
extern const unsigned char *gw_reply_leases(const GwReply *reply);
extern bool gw_replies_written(GwReplies *replies, size_t length);
extern size_t gw_replies_drop(GwReplies *replies, GwBuffer *unwritten);

#endif							/* GW_REPLY_H */
