/*
 * reply.c
 *		The replies of one connection that wait to be written.
 *
 * How many there may be is the client's affair (client.c); here they are kept
 * and counted, for their connection and for all. What is in flight and may
 * bring replies is counted beside them, as "expected", by who sends it
 * (lane.c).
 */
#include "relay/reply.h"

#include <stdlib.h>
#include <string.h>

#include "net/loop.h"
#include "net/socket.h"

GwReplyTotals gw_reply_totals;

static void replies_pop(GwReplies *replies);

void
gw_replies_init(GwReplies *replies)
{
	STAILQ_INIT(&replies->list);
}

bool
gw_replies_are_none(const GwReplies *replies)
{
	return STAILQ_EMPTY(&replies->list);
}

/*
 * gw_replies_add appends a copy of a frame, and of what it tells of leases (or
 * NULL); bulk says that it is a piece of a body. It returns false if out of
 * memory.
 */
bool
gw_replies_add(GwReplies *replies, bool binary, const unsigned char *bytes,
			   size_t length, const GwBuffer *leases, bool bulk)
{
	size_t		more = leases != NULL ? leases->length : 0;
	GwReply    *reply = malloc(sizeof(GwReply) + GW_WRITE_ROOM + length + more);

	if (reply == NULL)
		return false;
	reply->length = length;
	reply->sent = 0;
	reply->leases = more;
	reply->binary = binary;
	gw_hold_init(&reply->hold, GW_POOL_DOWN);
	if (length > 0)
		memcpy(reply->bytes + GW_WRITE_ROOM, bytes, length);
	if (more > 0)
		memcpy(reply->bytes + GW_WRITE_ROOM + length, leases->data, more);
	if (STAILQ_EMPTY(&replies->list))
		replies->progress_ms = replies->begun_ms = gw_now_ms();
	STAILQ_INSERT_TAIL(&replies->list, reply, entry);
	if (bulk)
	{
		gw_hold_set(&reply->hold, length);
		replies->bulk += length;
	}
	replies->bytes += length;
	gw_reply_totals.bytes += length;
	gw_reply_totals.count++;
	return true;
}

/* gw_reply_leases returns what a reply tells of leases. */
const unsigned char *
gw_reply_leases(const GwReply *reply)
{
	return reply->bytes + GW_WRITE_ROOM + reply->length;
}

/*
 * gw_replies_written notes that bytes of the oldest reply were written. It
 * returns true with the last of them: then the reply is gone.
 */
bool
gw_replies_written(GwReplies *replies, size_t length)
{
	GwReply    *reply = STAILQ_FIRST(&replies->list);

	reply->sent += length;
	replies->bytes -= length;
	gw_reply_totals.bytes -= length;
	replies->progress_ms = gw_now_ms();
	if (reply->sent < reply->length)
		return false;
	replies->begun_ms = replies->progress_ms;
	replies_pop(replies);
	return true;
}

/*
 * gw_replies_drop forgets all replies, and appends the leases of those that
 * were not begun. It returns how many there were.
 */
size_t
gw_replies_drop(GwReplies *replies, GwBuffer *unwritten)
{
	const GwReply *reply;
	size_t		count = 0;

	for (; (reply = STAILQ_FIRST(&replies->list)) != NULL; count++)
	{
		if (reply->sent == 0 && reply->leases > 0)
			gw_buffer_append(unwritten, gw_reply_leases(reply), reply->leases);
		replies_pop(replies);
	}
	gw_reply_totals.bytes -= replies->bytes;
	replies->bytes = 0;
	return count;
}

static void
replies_pop(GwReplies *replies)
{
	GwReply    *reply = STAILQ_FIRST(&replies->list);

	STAILQ_REMOVE_HEAD(&replies->list, entry);
	replies->bulk -= reply->hold.bytes;
	gw_hold_release(&reply->hold);
	gw_reply_totals.count--;
	free(reply);
}
