/*
 * exchange.h
 *		A request of the HTTP door and its answer: what door.c and download.c
 *		share.
 */
#ifndef GW_EXCHANGE_H
#define GW_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buffer.h"
#include "base/metrics.h"
#include "http/connection.h"
#include "net/listen.h"
#include "relay/pool.h"
#include "request/batch.h"
#include "request/identity.h"

#define GW_PATH_LOGGED		256
#define GW_ORIGIN_MAX		256

/* How soon a client takes what it is sent. */
typedef enum GwPace
{
	GW_PACE_SLOW,
	GW_PACE_USUAL,
	GW_PACE_FAST
} GwPace;

/* A connection, with the request that it is at work with. */
typedef struct GwExchange
{
	LIST_ENTRY(GwExchange) entry;
	GwHttpConnection *connection;
	GwIdentity *identity;		/* whose turn it is, and its token */
	char		address[GW_ADDRESS_MAX];

	/* The request; meaningless unless active. */
	bool		active;
	bool		done;			/* the answer is whole, if not yet written */
	bool		closes;			/* it is the last of its connection */
	bool		bare;			/* HEAD: the answer has no content */
	int64_t		number;			/* the database answers with it */
	int64_t		begun_ms;
	char		method[24];		/* for the log, as the path: cut */
	char		path[GW_PATH_LOGGED];
	char		origin[GW_ORIGIN_MAX];	/* if its pages may read the answer */
	int			status;			/* of the answer; 0: it has not begun */
	uint64_t	written;		/* bytes of it, with its head */
	GwCut		cut;			/* why it ended short; GW_CUTS: it did not */
	const char *cut_detail;		/* more about that, or NULL */

	/* What the database is asked: first the head, then for pieces. */
	GwBuffer	head;			/* JSON of 'H', until it is answered */
	GwBuffer	ticket;
	int64_t		at;				/* the next byte that is wanted ... */
	int64_t		to;				/* ... up to here */
	GwRequest  *asked;			/* in flight */
	bool		answered;		/* what is in flight is answered */
	int64_t		asked_ms;		/* since when this is asked for; 0: it is not */
	int64_t		queued_ms;		/* when it was last seen not to be sent yet */
	int64_t		again_ms;		/* when to ask again; 0: never */
	size_t		held;			/* bytes taken of the pool */
	size_t		asked_bytes;	/* of these, not come yet */
	GwPace		pace;			/* of its client */
	int64_t		came_ms;		/* when the last piece came; 0: drained since */
	GwPoolWaiter room;			/* waits for room in the pool */
} GwExchange;

extern void gw_exchange_answer(GwExchange *exchange, int status,
							   const char *detail, const char *header);
extern void gw_exchange_origin(const GwExchange *exchange, GwBuffer *head);
extern void gw_exchange_done(GwExchange *exchange);
extern void gw_exchange_cut(GwExchange *exchange, GwCut reason,
							const char *detail);

extern bool gw_exchange_is_one_too_many(const GwExchange *exchange);
extern int64_t gw_door_slow_ms(void);
extern void gw_download_init(GwExchange *exchange);
extern void gw_download_begin(GwExchange *exchange);
extern void gw_download_written(GwExchange *exchange, size_t bytes);
extern void gw_download_sweep(GwExchange *exchange, int64_t now);
extern void gw_download_end(GwExchange *exchange);

#endif							/* GW_EXCHANGE_H */
