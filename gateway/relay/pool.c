/*
 * pool.c
 *		Bytes of large bodies on their way through the gateway.
 *
 * MESSAGE_BUS_BULK_MB for all: appends to uploads that are not answered yet,
 * and pieces of downloads that were asked for and are not written yet.
 * Neither use has more than three quarters, so that many who upload leave
 * room for who downloads, and the other way round. Who finds no room waits in
 * line; how much one of them may have is the affair of who takes.
 *
 * Waiters are called at the end of a turn of the loop, in the order in which
 * they came, as long as there is room for a piece of the least size. Who still
 * finds too little may wait again, behind the others.
 */
#include "relay/pool.h"

/* What each use may have, of four quarters. */
#define USE_QUARTERS	3

/* With less room than this nobody is called. */
#define LEAST_ROOM		((size_t) 64 * 1024)

size_t		gw_pool_taken[GW_POOL_USES];

static size_t size;
static size_t waiting[GW_POOL_USES];

static TAILQ_HEAD(, GwPoolWaiter) lines[GW_POOL_USES] =
{
	TAILQ_HEAD_INITIALIZER(lines[GW_POOL_UP]),
		TAILQ_HEAD_INITIALIZER(lines[GW_POOL_DOWN])
};

void
gw_pool_init(const GwConfig *config)
{
	size = (size_t) config->bulk_mb * GW_MIB;
}

/* gw_pool_take takes bytes, or none: then it returns false. */
bool
gw_pool_take(GwPoolUse use, size_t bytes)
{
	if (bytes > gw_pool_room(use))
		return false;
	gw_pool_taken[use] += bytes;
	return true;
}

void
gw_pool_give(GwPoolUse use, size_t bytes)
{
	gw_pool_taken[use] -= bytes;
}

/* gw_pool_room tells how many bytes one may take for a use. */
size_t
gw_pool_room(GwPoolUse use)
{
	size_t		all = gw_pool_taken[GW_POOL_UP] + gw_pool_taken[GW_POOL_DOWN];
	size_t		most = size / 4 * USE_QUARTERS;
	size_t		room = size > all ? size - all : 0;
	size_t		own = most > gw_pool_taken[use] ?
	most - gw_pool_taken[use] : 0;

	return room < own ? room : own;
}

/* gw_pool_wait has a waiter called when there is room; once is enough. */
void
gw_pool_wait(GwPoolUse use, GwPoolWaiter *waiter)
{
	if (waiter->waiting)
		return;
	TAILQ_INSERT_TAIL(&lines[use], waiter, entry);
	waiter->waiting = true;
	waiting[use]++;
}

/* gw_pool_leave forgets a waiter, if it waits. */
void
gw_pool_leave(GwPoolUse use, GwPoolWaiter *waiter)
{
	if (!waiter->waiting)
		return;
	TAILQ_REMOVE(&lines[use], waiter, entry);
	waiter->waiting = false;
	waiting[use]--;
}

/* gw_pool_turn, once in each turn of the loop, calls those who wait. */
void
gw_pool_turn(void)
{
	GwPoolWaiter *waiter;
	int			use;

	for (use = 0; use < GW_POOL_USES; use++)
	{
		size_t		count = waiting[use];

		for (; count > 0 && gw_pool_room((GwPoolUse) use) >= LEAST_ROOM; count--)
		{
			waiter = TAILQ_FIRST(&lines[use]);
			if (waiter == NULL)
				break;
			gw_pool_leave((GwPoolUse) use, waiter);
			waiter->fire(waiter->owner);
		}
	}
}
