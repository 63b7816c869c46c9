/*
 * bulk.c
 *		Who may have how many bytes of large bodies in the gateway.
 *
 * What counts is appends, from the first byte that came of one until it is
 * answered, and pieces that are read, from when the database is asked for one
 * until its last byte is written or it is dropped. All together are bounded by
 * MESSAGE_BUS_BULK_MB:
 *
 *	up, down		three quarters of it each, so that neither way shuts out
 *					the other
 *	the last		APPEND_MAX of the bytes up are for one append at a time,
 *					which has begun and finds no room: it may have as much as
 *					it needs to become whole, else appends of which each has a
 *					part could wait for each other for ever
 *	one connection	see append.c for bytes up, and lane.c for those down
 *
 * A piece that is larger than all of that is read while no other is held.
 *
 * Who finds no room may wait: at the end of a turn of the loop those are told,
 * in the order in which they came, for whom there is room now, and try again.
 * Nobody else gets any while somebody waits. Who holds room and does not
 * move while others find none is given up after MESSAGE_BUS_SEND_TIMEOUT_SECS
 * (sweep.c).
 */
#include "relay/bulk.h"

#include <stdint.h>

#include "net/loop.h"

/* An append of 4 MiB as base64, with what is around it. */
#define APPEND_MAX		((size_t) 6 * 1024 * 1024)

/* So long after somebody found no room it is told to be short. */
#define SHORT_MS		2000

size_t		gw_bulk_held[GW_BULK_WAYS];

static const GwConfig *config;
static TAILQ_HEAD(GwBulkWaiters, GwBulkWaiter) waiters[GW_BULK_WAYS];
static int64_t refused_ms[GW_BULK_WAYS];
static bool has_last;
static bool telling;			/* waiters: these come before others */

static bool has_room(GwBulkWay way, size_t more);

void
gw_bulk_init(const GwConfig *settings)
{
	size_t		way;

	config = settings;
	for (way = 0; way < GW_BULK_WAYS; way++)
	{
		TAILQ_INIT(&waiters[way]);
		refused_ms[way] = -SHORT_MS;
	}
}

void
gw_hold_init(GwHold *hold, GwBulkWay way)
{
	hold->way = (int) way;
	hold->last = false;
	hold->bytes = 0;
}

/*
 * gw_hold_raise lets a hold have so many bytes, if it has fewer; false if
 * there is no room, and the hold is as it was.
 */
bool
gw_hold_raise(GwHold *hold, size_t bytes)
{
	if (hold->bytes >= bytes)
		return true;
	if (!hold->last &&
		((!telling && !TAILQ_EMPTY(&waiters[hold->way])) ||
		 !has_room((GwBulkWay) hold->way, bytes - hold->bytes)))
	{
		if (hold->way != GW_BULK_UP || hold->bytes == 0 || has_last)
		{
			refused_ms[hold->way] = gw_now_ms();
			return false;
		}
		hold->last = has_last = true;
	}
	gw_hold_set(hold, bytes);
	return true;
}

/* gw_hold_set lets a hold have so many bytes, whether there is room or not. */
void
gw_hold_set(GwHold *hold, size_t bytes)
{
	gw_bulk_held[hold->way] += bytes - hold->bytes;
	hold->bytes = bytes;
}

/* gw_hold_release gives back what a hold has. */
void
gw_hold_release(GwHold *hold)
{
	gw_hold_set(hold, 0);
	if (hold->last)
		hold->last = has_last = false;
}

/* gw_bulk_wait has a waiter told when there is room for what it needs. */
void
gw_bulk_wait(GwBulkWaiter *waiter, GwBulkWay way, size_t needs)
{
	if (waiter->waits)
		return;
	waiter->waits = true;
	waiter->way = way;
	waiter->needs = needs;
	TAILQ_INSERT_TAIL(&waiters[way], waiter, entry);
}

/* gw_bulk_leave ends the wait of one who may be waiting. */
void
gw_bulk_leave(GwBulkWaiter *waiter)
{
	if (!waiter->waits)
		return;
	waiter->waits = false;
	TAILQ_REMOVE(&waiters[waiter->way], waiter, entry);
}

/*
 * gw_bulk_turn, at the end of a turn of the loop, tells those who wait that
 * there is room, each once; one of them may be the last.
 */
void
gw_bulk_turn(void)
{
	size_t		way;

	for (way = 0; way < GW_BULK_WAYS; way++)
	{
		GwBulkWaiter *end = TAILQ_LAST(&waiters[way], GwBulkWaiters);
		GwBulkWaiter *waiter = NULL;

		while (waiter != end &&
			   (waiter = TAILQ_FIRST(&waiters[way])) != NULL &&
			   (has_room((GwBulkWay) way, waiter->needs) ||
				(way == GW_BULK_UP && !has_last)))
		{
			gw_bulk_leave(waiter);
			telling = true;
			waiter->room(waiter->owner);
			telling = false;
		}
	}
}

/* gw_bulk_is_short tells that somebody finds no room. */
bool
gw_bulk_is_short(GwBulkWay way)
{
	return !TAILQ_EMPTY(&waiters[way]) ||
		gw_now_ms() - refused_ms[way] < SHORT_MS;
}

/* has_room tells whether so many bytes more may be held. */
static bool
has_room(GwBulkWay way, size_t more)
{
	size_t		all = (size_t) config->bulk_mb * GW_MIB - APPEND_MAX;
	size_t		share = (size_t) config->bulk_mb * GW_MIB / 4 * 3;

	if (way == GW_BULK_UP)
		share -= APPEND_MAX;
	else if (gw_bulk_held[GW_BULK_DOWN] == 0)
		return true;
	return gw_bulk_held[way] + more <= share &&
		gw_bulk_held[GW_BULK_UP] + gw_bulk_held[GW_BULK_DOWN] + more <= all;
}
