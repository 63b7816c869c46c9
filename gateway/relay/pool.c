/*
 * pool.c
 *		Who may have how many bytes of large bodies in the gateway.
 *
 * What counts is appends, from the first byte that came of one until it is
 * answered, and pieces that are read, from when the database is asked for one
 * until its last byte is written or it is dropped. All together are bounded by
 * MESSAGE_BUS_BULK_MB:
 *
 *	up, down		three quarters of it each, so that neither way
 *					shuts out the other
 *	the last		GW_APPEND_MAX of the bytes up are for one append at a time,
 *					which has begun and finds no room: it may have as much as
 *					it needs to become whole, else appends of which each has a
 *					part could wait for each other for ever
 *	one connection	see piece.c
 *
 * A piece that is larger than all of that is read while no other is held.
 *
 * Who finds no room may wait: at the end of a turn of the loop those are told,
 * in the order in which they came, for whom there is room now, and try again.
 * Nobody else gets any while somebody waits; but whom a piece needs less than
 * what the first one waits for passes it, for 2 s of each 4. Who holds room and does not
 * move while others find none is given up after MESSAGE_BUS_SEND_TIMEOUT_SECS
 * (sweep.c, http/download.c).
 */
#include "relay/pool.h"

#include <stdint.h>

#include "net/loop.h"

/* What a waiter needs that does not say it. */
#define LEAST_ROOM		((size_t) 64 * 1024)

/* So long after somebody found no room it is told to be short. */
#define SHORT_MS		2000

/* So long those behind a waiter may pass, and then not, and so on. */
#define PASS_MS			2000

size_t		gw_pool_taken[GW_POOL_USES];

static const GwConfig *config;
static TAILQ_HEAD(GwPoolLine, GwPoolWaiter) waiters[GW_POOL_USES];
static int64_t refused_ms[GW_POOL_USES];
static bool has_last;
static bool telling;			/* waiters: these come before others */
static GwPoolWaiter *next;		/* that is looked at in this turn */

static bool may_take(GwPoolUse use, size_t bytes);
static void tell(GwPoolUse use, GwPoolWaiter *waiter);
static bool lets_pass(GwPoolUse use, const GwPoolWaiter *waiter);
static size_t needs(const GwPoolWaiter *waiter);

void
gw_pool_init(const GwConfig *settings)
{
	size_t		use;

	config = settings;
	for (use = 0; use < GW_POOL_USES; use++)
	{
		TAILQ_INIT(&waiters[use]);
		refused_ms[use] = -SHORT_MS;
	}
}

/* gw_pool_room tells how many bytes one may take for a use. */
size_t
gw_pool_room(GwPoolUse use)
{
	size_t		size = (size_t) config->bulk_mb * GW_MIB;
	size_t		most = size / 4 * 3 - (use == GW_POOL_UP ? GW_APPEND_MAX : 0);
	size_t		all = gw_pool_taken[GW_POOL_UP] + gw_pool_taken[GW_POOL_DOWN];
	size_t		room = size - GW_APPEND_MAX > all ? size - GW_APPEND_MAX - all : 0;
	size_t		own = most > gw_pool_taken[use] ?
	most - gw_pool_taken[use] : 0;

	if (use == GW_POOL_DOWN && gw_pool_taken[use] == 0)
		return SIZE_MAX;
	return room < own ? room : own;
}

/* gw_pool_take takes bytes, or none: then it returns false. */
bool
gw_pool_take(GwPoolUse use, size_t bytes)
{
	if (!may_take(use, bytes))
	{
		refused_ms[use] = gw_now_ms();
		return false;
	}
	gw_pool_taken[use] += bytes;
	return true;
}

/* may_take tells whether there is room, and nobody waits who comes first. */
static bool
may_take(GwPoolUse use, size_t bytes)
{
	return (telling || TAILQ_EMPTY(&waiters[use])) &&
		bytes <= gw_pool_room(use);
}

void
gw_pool_give(GwPoolUse use, size_t bytes)
{
	gw_pool_taken[use] -= bytes;
}

void
gw_hold_init(GwHold *hold, GwPoolUse use)
{
	hold->use = (int) use;
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
	if (!hold->last && hold->use == GW_POOL_UP && hold->bytes > 0 &&
		!has_last && !may_take(GW_POOL_UP, bytes - hold->bytes))
		hold->last = has_last = true;
	if (hold->last)
		gw_pool_taken[hold->use] += bytes - hold->bytes;
	else if (!gw_pool_take((GwPoolUse) hold->use, bytes - hold->bytes))
		return false;
	hold->bytes = bytes;
	return true;
}

/* gw_hold_set lets a hold have so many bytes, whether there is room or not. */
void
gw_hold_set(GwHold *hold, size_t bytes)
{
	gw_pool_taken[hold->use] += bytes - hold->bytes;
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

/* gw_pool_wait has a waiter told when there is room for what it needs. */
void
gw_pool_wait(GwPoolUse use, GwPoolWaiter *waiter)
{
	if (waiter->waiting)
		return;
	waiter->waiting = true;
	waiter->since_ms = gw_now_ms();
	TAILQ_INSERT_TAIL(&waiters[use], waiter, entry);
}

/* gw_pool_leave ends the wait of one who may be waiting. */
void
gw_pool_leave(GwPoolUse use, GwPoolWaiter *waiter)
{
	if (!waiter->waiting)
		return;
	waiter->waiting = false;
	if (next == waiter)
		next = TAILQ_NEXT(waiter, entry);
	TAILQ_REMOVE(&waiters[use], waiter, entry);
}

/*
 * gw_pool_turn, at the end of a turn of the loop, tells those who wait that
 * there is room, each once; one of them may be the last.
 */
void
gw_pool_turn(void)
{
	size_t		use;

	for (use = 0; use < GW_POOL_USES; use++)
	{
		const GwPoolWaiter *end = TAILQ_LAST(&waiters[use], GwPoolLine);
		GwPoolWaiter *waiter = NULL;

		next = TAILQ_FIRST(&waiters[use]);
		while (waiter != end && (waiter = next) != NULL)
		{
			next = TAILQ_NEXT(waiter, entry);
			if (gw_pool_room((GwPoolUse) use) >= needs(waiter) ||
				(use == GW_POOL_UP && !has_last))
				tell((GwPoolUse) use, waiter);
			else if (!lets_pass((GwPoolUse) use, waiter))
				break;
		}
		next = NULL;
	}
}

/* tell tells a waiter to try again. */
static void
tell(GwPoolUse use, GwPoolWaiter *waiter)
{
	gw_pool_leave(use, waiter);
	telling = true;
	waiter->fire(waiter->owner);
	telling = false;
}

/*
 * lets_pass tells that those behind a waiter may go before it, now: half of
 * the time, so that one that needs much gets it when others give theirs back,
 * and holds nobody up for long if they do not.
 */
static bool
lets_pass(GwPoolUse use, const GwPoolWaiter *waiter)
{
	return use == GW_POOL_DOWN &&
		(gw_now_ms() - waiter->since_ms) / PASS_MS % 2 == 0;
}

/* gw_pool_is_short tells that somebody finds no room. */
bool
gw_pool_is_short(GwPoolUse use)
{
	return !TAILQ_EMPTY(&waiters[use]) ||
		gw_now_ms() - refused_ms[use] < SHORT_MS;
}

/* needs returns how much room a waiter wants at least. */
static size_t
needs(const GwPoolWaiter *waiter)
{
	return waiter->needs > 0 ? waiter->needs : LEAST_ROOM;
}
