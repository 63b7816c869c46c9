/*
 * skip.c
 *		Nodes for the ranges of ids that a subscription has skipped.
 *
 * A range that was unfinished when the cursor passed it takes a node until it
 * has been read.  Every slot of a subscription has MBUS_SKIPS_LEAST nodes that
 * nobody else gets.  The others are common, and shared as entries are
 * (quota.c): a database may have message_bus.database_share percent of what
 * the other databases leave, a subscription
 * message_bus.subscription_share percent of what the others of its database
 * leave of that, and MBUS_SKIPS_MOST in all, since each scan goes through
 * them.  The cursor of one that gets no more stays in front of the next
 * unfinished range until that has ended or a node is free; nobody else
 * notices.
 *
 * A node is charged from the moment it is set aside.  Callers hold the
 * delivery lock; see pool.c.
 */
#include "postgres.h"

#include "base/ids.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"
#include "delivery/quota.h"
#include "delivery/skip.h"

static void charge(uint32 slot, int n);
static int	above_least(int n);

MbusSkip *
mbus_skip(uint32 skip)
{
	Assert(skip < (uint32) mbus_pool.shared->nskips);
	return &mbus_pool.skips[skip];
}

/*
 * mbus_skips_take sets aside up to n free nodes for a subscription, as a
 * chain; no more than its quota leaves it.
 */
uint32
mbus_skips_take(uint32 slot, int n, int *taken)
{
	MbusPoolShared *shared = mbus_pool.shared;
	MbusSub    *sub = mbus_sub(slot);
	uint32		first = MBUS_NONE;

	n = Min(n, mbus_quota_skips(slot) - sub->skip_nodes);
	for (*taken = 0; *taken < n && shared->free_skip != MBUS_NONE; (*taken)++)
	{
		uint32		s = shared->free_skip;

		shared->free_skip = mbus_pool.skips[s].next;
		mbus_pool.skips[s].next = first;
		first = s;
	}
	charge(slot, *taken);
	return first;
}

/*
 * mbus_skips_free gives a chain of them back.
 */
void
mbus_skips_free(uint32 slot, uint32 first)
{
	int			n = 0;

	for (; first != MBUS_NONE; n++)
	{
		uint32		next = mbus_pool.skips[first].next;

		mbus_pool.skips[first].next = mbus_pool.shared->free_skip;
		mbus_pool.shared->free_skip = first;
		first = next;
	}
	charge(slot, -n);
}

/*
 * mbus_skips_forget empties a subscription's list.
 */
void
mbus_skips_forget(MbusSub *sub)
{
	mbus_skips_free((uint32) (sub - mbus_pool.subs), sub->skipped);
	sub->skipped = MBUS_NONE;
	sub->nskipped = 0;
}

/* Charges n more, or less, to a subscription, its database and all. */
static void
charge(uint32 slot, int n)
{
	MbusSub    *sub = mbus_sub(slot);
	int			before = above_least(sub->skip_nodes);

	sub->skip_nodes += n;
	n = above_least(sub->skip_nodes) - before;
	mbus_pool.shared->share[sub->share].skips += n;
	mbus_pool.shared->skips_held += n;
}

static int
above_least(int n)
{
	return Max(n - MBUS_SKIPS_LEAST, 0);
}
