/*
 * sub.c
 *		Slots of subscriptions in the pools.
 *
 * A subscription's slot is made by the worker (load), and freed when it was
 * dropped and nobody scans for it; or given up (mbus_sub_give_up), so that
 * another subscription can have it.  Callers hold the delivery lock, but for
 * mbus_subs_forget's; see pool.c.
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "base/ids.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"
#include "delivery/skip.h"
#include "delivery/quota.h"
#include "delivery/sub.h"
#include "state/waiter.h"

static void sub_rewind(uint32 slot, int64 cursor);
static void entries_void(MbusSub *sub, uint32 *list);

/*
 * mbus_sub_find returns the slot of a subscription, MBUS_NONE if it has none.
 */
uint32
mbus_sub_find(Oid database, Oid schema, int32 subscription_id)
{
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		if (mbus_sub_is(i, database, schema, subscription_id))
			return i;
	}
	return MBUS_NONE;
}

/*
 * mbus_sub_is tells whether a slot is that of a subscription.
 */
bool
mbus_sub_is(uint32 slot, Oid database, Oid schema, int32 subscription_id)
{
	const MbusSub *sub = &mbus_pool.subs[slot];

	return sub->subscription_id == subscription_id &&
		sub->database == database && sub->schema == schema && !sub->dropped;
}

/*
 * mbus_sub_create makes a slot, not loaded; MBUS_NONE if all are taken, or as
 * many as the database may have.
 */
uint32
mbus_sub_create(Oid database, Oid schema, int32 subscription_id,
				int32 channel_id)
{
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		MbusSub    *sub = &mbus_pool.subs[i];

		/* one who waited for the last one's scanner may have a free slot */
		if (OidIsValid(sub->database) || sub->scanner != -1 ||
			sub->charged > 0)
			continue;
		if (!mbus_quota_slot_take(i, database))
			return MBUS_NONE;
		mbus_sub_reset(sub);
		mbus_party_leave(sub->party);
		sub->party = mbus_party_channel(database, schema, channel_id);
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
		mbus_sub_let_go(slot);
}

/*
 * mbus_sub_let_go makes a dropped slot one that is free.
 */
void
mbus_sub_let_go(uint32 slot)
{
	mbus_quota_slot_give(slot);
	mbus_pool.subs[slot].database = InvalidOid;
}

/*
 * mbus_sub_holds_nothing tells whether nothing is lost with a slot but where
 * the subscription is, which its checkpoint can keep: no entry, no skipped
 * range, no scanner and no open redrive.
 */
bool
mbus_sub_holds_nothing(uint32 slot)
{
	const MbusSub *sub = &mbus_pool.subs[slot];

	return OidIsValid(sub->database) && sub->loaded && !sub->dropped &&
		sub->scanner == -1 && sub->charged == 0 &&
		sub->skipped == MBUS_NONE && sub->redrives == 0;
}

/*
 * mbus_sub_give_up frees the slot of a subscription that holds nothing and
 * has not changed since its checkpoint: who needs it has it loaded again.
 */
void
mbus_sub_give_up(uint32 slot)
{
	MbusSub    *sub = &mbus_pool.subs[slot];

	Assert(mbus_sub_holds_nothing(slot) && !sub->changed_since);
	sub->generation++;
	sub->loaded = false;
	sub->dropped = true;
	mbus_sub_let_go(slot);
}

/*
 * mbus_sub_retries_in returns where failures lie that are to be retried; NULL
 * if that is not known, since a scan at work has taken it.
 */
const MbusSegmentSet *
mbus_sub_retries_in(const MbusSub *sub)
{
	return sub->scanner == -1 ? &sub->retry_in : NULL;
}

/*
 * mbus_sub_reread has a subscription read again from an id on, each message
 * as a candidate.
 */
void
mbus_sub_reread(uint32 slot, int64 from)
{
	MbusSub    *sub = &mbus_pool.subs[slot];
	uint32	   *link = &sub->skipped;

	sub->check_below = Max(sub->check_below, sub->cursor + 1);
	sub->cursor = Min(sub->cursor, from);
	/* the cursor comes to those above again */
	while (*link != MBUS_NONE)
	{
		MbusSkip   *skip = &mbus_pool.skips[*link];
		uint32		number = *link;

		skip->hi = Min(skip->hi, sub->cursor + 1);
		if (skip->lo < skip->hi)
		{
			link = &skip->next;
			continue;
		}
		*link = skip->next;
		skip->next = MBUS_NONE;
		mbus_skips_free(slot, number);
		sub->nskipped--;
	}
	sub->quiet_from = sub->cursor + 1;
	sub->due_position = mbus_moment(PG_INT64_MIN, 0);
	sub->next_due = PG_INT64_MIN;
	mbus_set_all(&sub->due_in);
	sub->changed_since = true;
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
	while (sub->leases != MBUS_NONE)
		mbus_lease_void(sub->leases);
	mbus_skips_forget(sub);
	sub->nready = sub->nleased = sub->nentries = 0;
	sub->generation++;
	sub->changed_since = true;
}

/*
 * mbus_subs_rewind has every loaded subscription read again from an id on,
 * each message below "check_below" as a candidate: a restore has brought some.
 * A scan at work begins anew, and so does the worker's load of one that is not
 * loaded yet, which may have read a position above.
 */
void
mbus_subs_rewind(Oid database, Oid schema, int64 from, int64 check_below)
{
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		MbusSub    *sub = &mbus_pool.subs[i];

		if (sub->database != database || sub->schema != schema ||
			sub->dropped)
			continue;
		if (!sub->loaded)
		{
			sub->generation++;
			continue;
		}
		sub_rewind(i, Max(from, sub->start_id) - 1);
		sub->check_below = Max(sub->check_below, check_below);
		mbus_wake_channel(database, sub->channel_id);
	}
}

/*
 * Moves the cursor back to an id, and forgets the positions by time.  Any key
 * of an ordered subscription may wait for a retry now, anywhere from there on.
 */
static void
sub_rewind(uint32 slot, int64 cursor)
{
	MbusSub    *sub = &mbus_pool.subs[slot];

	mbus_sub_reread(slot, cursor);
	mbus_retries_pull(sub, PG_INT64_MIN);
	if (sub->ordered)
	{
		mbus_keys_wait(slot, sub->wait_low == 0 ? sub->cursor + 1 :
					   Min(sub->wait_low, sub->cursor + 1));
		sub->wait_more = true;
		/* there are more leaves now: the number tells of none that is gone */
		sub->wait_leaves = PG_INT32_MAX;
	}
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
