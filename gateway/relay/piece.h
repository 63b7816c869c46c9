/*
 * piece.h
 *		Pieces of large bodies of one connection. See piece.c.
 */
#ifndef GW_PIECE_H
#define GW_PIECE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "relay/pool.h"
#include "relay/reply.h"
#include "request/batch.h"

/* What tells why has so many bytes at most. */
#define GW_DETAIL_MAX	128

/* An append that a connection sends, and those of it that are unanswered. */
typedef struct GwAppends
{
	bool		gathers;		/* the message being put together is one */
	size_t		looked;			/* bytes of it when that was looked for */
	GwHold		hold;			/* of it */
	GwPoolWaiter waiter;		/* for room: it is not read from */
	size_t		unanswered;		/* bytes */
} GwAppends;

extern void gw_appends_init(GwAppends *appends, void (*room) (void *owner),
							void *owner);
extern bool gw_appends_gather(GwAppends *appends, const GwBuffer *message,
							  size_t more);
extern bool gw_append_fits(const GwAppends *appends, size_t bytes, char *why);
extern void gw_appends_take(GwAppends *appends, GwRequest *request);
extern void gw_appends_forget(GwAppends *appends);
extern bool gw_appends_are_many(const GwAppends *appends);
extern bool gw_pieces_are_many(const GwReplies *replies);
extern bool gw_piece_hold(GwReplies *replies, GwRequest *request);
extern void gw_pieces_unreserve(bool all_looked_at);
extern void gw_piece_end(GwAppends *appends, GwReplies *replies,
						 GwRequest *request);

#endif							/* GW_PIECE_H */
