/*
 * sub.c
 *		Slots of subscriptions in the pools.
 *
 * A subscription's slot is made by the worker (load), and freed when it was
 * dropped and nobody scans for it.  Callers hold the delivery lock, but for
 * mbus_subs_forget's; see pool.c.
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "base/ids.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"
#include "delivery/sub.h"
#include "state/waiter.h"

static void sub_rewind(MbusSub *sub, int64 cursor);
static void entries_void(MbusSub *sub, uint32 *list);

/*
 * mbus_sub_find returns the slot of a subscription, MBUS_NONE if it has none.
 */
uint32
mbus_sub_find(Oid database, Oid schema, int32 subscription_id)
{
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		MbusSub    *sub = &mbus_pool.subs[i];

		if (sub->subscription_id == subscription_id &&
			sub->database == database && sub->schema == schema &&
			!sub->dropped)
			return i;
	}
	return MBUS_NONE;
}

/*
 * mbus_sub_create makes a slot, not loaded; MBUS_NONE if all are taken.
 */
uint32
mbus_sub_create(Oid database, Oid schema, int32 subscription_id,
				int32 channel_id)
{
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		MbusSub    *sub = &mbus_pool.subs[i];

		/* one who waited for the last one's scanner may have a free slot */
		if (OidIsValid(sub->database) || sub->scanner != -1)
			continue;
		mbus_sub_reset(sub);
		sub->database = database;
		sub->schema = schema;
		sub->subscription_id = subscription_id;
		sub->channel_id = channel_id;
		return i;
	}
	return MBUS_NONE;
}

/*
 * mbus_subs_forget drops all slots of an extension that is gone.  Takes the
 * lock.
 */
void
mbus_subs_forget(Oid database, Oid schema)
{
	LWLockAcquire(&mbus_pool.shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		MbusSub    *sub = &mbus_pool.subs[i];

		if (sub->database == database &&
			(sub->schema == schema || !OidIsValid(schema)) && !sub->dropped)
			mbus_sub_drop(i);
	}
	LWLockRelease(&mbus_pool.shared->lock);
}

/*
 * mbus_sub_drop lets a slot go; a scanner that is at work frees it.
 */
void
mbus_sub_drop(uint32 slot)
{
	MbusSub    *sub = &mbus_pool.subs[slot];

	mbus_sub_void(slot);
	sub->dropped = true;
	if (sub->scanner == -1)
		sub->database = InvalidOid;
}

/*
 * mbus_sub_void takes all entries, leases and skipped ranges from a
 * subscription.  What belongs to an open transaction is marked void, for its
 * callback to free.
 */
void
mbus_sub_void(uint32 slot)
{
	MbusSub    *sub = &mbus_pool.subs[slot];

	entries_void(sub, &sub->ready);
	entries_void(sub, &sub->nexts);
	entries_void(sub, &sub->retry);
	while (sub->leases != MBUS_NONE)
		mbus_lease_void(sub->leases);
	mbus_skips_free(sub->skipped);
	sub->skipped = MBUS_NONE;
	sub->nskipped = 0;
	sub->nready = sub->nretry = sub->nleased = sub->nentries = 0;
	sub->earliest = PG_INT64_MAX;
	sub->corrupt = false;
	sub->generation++;
	sub->changed_since = true;
}

/*
 * mbus_subs_rewind has every loaded subscription read again from an id on,
 * each message below "check_below" as a candidate: a restore has brought some.
 * A scan at work begins anew.
 */
void
mbus_subs_rewind(Oid database, Oid schema, int64 from, int64 check_below)
{
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		MbusSub    *sub = &mbus_pool.subs[i];

		if (sub->database != database || sub->schema != schema ||
			!sub->loaded || sub->dropped)
			continue;
		sub_rewind(sub, Max(from, sub->start_id) - 1);
		sub->check_below = Max(sub->check_below, check_below);
		mbus_wake_channel(database, sub->channel_id);
	}
}

/* Moves the cursor back to an id, and forgets the positions by time. */
static void
sub_rewind(MbusSub *sub, int64 cursor)
{
	uint32	   *link = &sub->skipped;

	sub->cursor = Min(sub->cursor, cursor);
	while (*link != MBUS_NONE)
	{
		uint32		number = *link;
		MbusSkip   *skip = mbus_skip(number);

		skip->hi = Min(skip->hi, sub->cursor + 1);
		if (skip->lo < skip->hi)
		{
			link = &skip->next;
			continue;
		}
		*link = skip->next;
		skip->next = MBUS_NONE;
		mbus_skips_free(number);
		sub->nskipped--;
	}
	sub->due_at = sub->next_due = PG_INT64_MIN;
	sub->due_id = 0;
	sub->retry_at = sub->next_retry = PG_INT64_MIN;
	sub->changed_since = true;
	sub->reloaded = true;
}

/* Frees all entries of a list. */
static void
entries_void(MbusSub *sub, uint32 *list)
{
	while (*list != MBUS_NONE)
	{
		uint32		e = *list;

		*list = mbus_pool.entries[e].next;
		mbus_entry_gone((uint32) (sub - mbus_pool.subs), e);
	}
}
