/*
 * queue.h
 *		Requests that wait to be sent. See queue.c.
 */
#ifndef GW_QUEUE_H
#define GW_QUEUE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "request/batch.h"
#include "request/identity.h"

/* How far ahead of the others a session can be: places of the wheel. */
#define GW_PLACES		1024

typedef TAILQ_HEAD(GwTurnList, GwTurn)
GwTurnList;

typedef struct GwQueue
{
	size_t		index;			/* of the sessions' turns in it */
	size_t		count;			/* of requests */
	size_t		sessions;		/* with a request, in the wheel */
	uint64_t	clock;			/* the turn that was taken last */
	GwTurn		only;			/* of all sessions, if index is GW_LANES */
	GwTurnList	aside;			/* that cannot be taken in this round */
	GwTurnList	wheel[GW_PLACES];	/* by turn */
} GwQueue;

extern void gw_queue_init(GwQueue *queue, size_t index);
extern void gw_queue_append(GwQueue *queue, GwRequest *request);
extern void gw_queue_return(GwQueue *queue, GwRequest *request);
extern GwRequest *gw_queue_next(const GwQueue *queue);
extern GwRequest *gw_queue_take(GwQueue *queue, GwRequest *request);
extern void gw_queue_withdraw(GwQueue *queue, GwRequest *request);
extern void gw_queue_charge(GwQueue *queue, GwIdentity *identity,
							size_t bytes);
extern void gw_queue_set_aside(GwQueue *queue, const GwRequest *request);
extern void gw_queue_restore(GwQueue *queue);
extern size_t gw_queue_behind(GwQueue *queue, const GwRequest *request);

#endif							/* GW_QUEUE_H */
