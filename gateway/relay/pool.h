/*
 * pool.h
 *		Bytes of large bodies on their way through the gateway. See pool.c.
 */
#ifndef GW_POOL_H
#define GW_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "base/config.h"

typedef enum GwPoolUse
{
	GW_POOL_UP,					/* appends to uploads, until they are answered */
	GW_POOL_DOWN,				/* pieces of downloads, until they are written */
	GW_POOL_USES
} GwPoolUse;

/* Who waits for room: `fire` is called once, from gw_pool_turn. */
typedef struct GwPoolWaiter
{
	TAILQ_ENTRY(GwPoolWaiter) entry;
	void		(*fire) (void *owner);
	void	   *owner;
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

#endif							/* GW_POOL_H */
