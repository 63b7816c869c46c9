/*
 * pool.h
 *		Bytes of large bodies on their way through the gateway. See pool.c.
 */
#ifndef GW_POOL_H
#define GW_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/config.h"
#include "request/batch.h"

/* An append of 4 MiB as base64, with what is around it. */
#define GW_APPEND_MAX	((size_t) 6 * 1024 * 1024)

typedef enum GwPoolUse
{
	GW_POOL_UP,					/* appends to uploads, until they are answered */
	GW_POOL_DOWN,				/* pieces of downloads, until they are written */
	GW_POOL_USES
} GwPoolUse;

/*
 * Who waits for room for so many bytes: `fire` is called once for each
 * gw_pool_wait, from gw_pool_turn, and may wait again.
 */
typedef struct GwPoolWaiter
{
	TAILQ_ENTRY(GwPoolWaiter) entry;
	void		(*fire) (void *owner);
	void	   *owner;
	size_t		needs;			/* 0: it does not say */
	int64_t		since_ms;		/* when it began to wait */
	bool		waiting;
} GwPoolWaiter;

/* Bytes that are taken, by use. */
extern size_t gw_pool_taken[GW_POOL_USES];

extern void gw_pool_init(const GwConfig *config);
extern bool gw_pool_take(GwPoolUse use, size_t bytes);
extern void gw_pool_give(GwPoolUse use, size_t bytes);
extern size_t gw_pool_room(GwPoolUse use);
extern void gw_pool_wait(GwPoolUse use, GwPoolWaiter *waiter);
extern void gw_pool_leave(GwPoolUse use, GwPoolWaiter *waiter);
extern void gw_pool_turn(void);
extern bool gw_pool_is_short(GwPoolUse use);

extern void gw_hold_init(GwHold *hold, GwPoolUse use);
extern bool gw_hold_raise(GwHold *hold, size_t bytes);
extern void gw_hold_set(GwHold *hold, size_t bytes);
extern void gw_hold_release(GwHold *hold);

#endif							/* GW_POOL_H */
