/*
 * bulk.h
 *		Bytes of large bodies on their way. See bulk.c.
 */
#ifndef GW_BULK_H
#define GW_BULK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "base/config.h"
#include "request/batch.h"

typedef enum GwBulkWay
{
	GW_BULK_UP,					/* appends */
	GW_BULK_DOWN,				/* pieces that are read */
	GW_BULK_WAYS
} GwBulkWay;

/*
 * Who waits for room for so many bytes; room is called once for each
 * gw_bulk_wait, and may wait again.
 */
typedef struct GwBulkWaiter
{
	TAILQ_ENTRY(GwBulkWaiter) entry;
	bool		waits;
	GwBulkWay	way;
	size_t		needs;
	void		(*room) (void *owner);
	void	   *owner;
} GwBulkWaiter;

/* Bytes that are held, by way. */
extern size_t gw_bulk_held[GW_BULK_WAYS];

extern void gw_bulk_init(const GwConfig *config);
extern void gw_hold_init(GwHold *hold, GwBulkWay way);
extern bool gw_hold_raise(GwHold *hold, size_t bytes);
extern void gw_hold_set(GwHold *hold, size_t bytes);
extern void gw_hold_release(GwHold *hold);
extern void gw_bulk_wait(GwBulkWaiter *waiter, GwBulkWay way, size_t needs);
extern void gw_bulk_leave(GwBulkWaiter *waiter);
extern void gw_bulk_turn(void);
extern bool gw_bulk_is_short(GwBulkWay way);

#endif							/* GW_BULK_H */
