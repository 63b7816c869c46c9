/*
 * pool.c
 *		Shared memory of deliveries: pools and lists of entries.
 *
 * Everything lies in pools of a fixed size, linked by index.  One lock, the
 * delivery lock, protects all of it, for all databases; it is held for
 * straight-line code only and comes before MbusDatabase.lock.  Functions here
 * expect their caller to hold it exclusively (shared is enough to look)
 * unless they say otherwise.  They allocate nothing and cannot fail, so that
 * transaction callbacks may call them.
 *
 * An entry is on exactly one list: the free list, a chain that a scanner has
 * set aside, its lease's list, or one of its subscription's lists (ready,
 * nexts).  From mbus_entry_add to mbus_entry_gone it is also in the
 * bucket of its message's id, but for a "next", which is no message yet, and
 * in that of its key, if it has one.  What is done to leases is in lease.c, to
 * subscriptions in sub.c.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"
#include "state/part.h"
#include "state/state.h"

MbusPool	mbus_pool;

static Size delivery_size(void);
static int	skips(void);
static void delivery_startup(void *memory, bool found, int tranche);
static void *part(char **at, Size size);
static void pools_init(void);
static void id_remove(uint32 slot, uint32 entry);
static uint32 *id_chain(uint32 slot, int64 id);
static int	key_bit(int64 key_hash);
static uint32 *key_chain(uint32 slot, int64 key_hash);

/* ------------------------------------------------------------------------
 * Memory
 * ------------------------------------------------------------------------
 */

/*
 * mbus_delivery_init adds the pools to shared memory; from _PG_init.
 */
void
mbus_delivery_init(void)
{
	static const MbusStatePart part = {"message_bus delivery", delivery_size,
	delivery_startup};

	mbus_state_part(&part);
}

static Size
delivery_size(void)
{
	Size		size = MAXALIGN(sizeof(MbusPoolShared));

	size = add_size(size, MAXALIGN(mul_size(mbus_max_subscriptions,
											sizeof(MbusSub))));
	size = add_size(size, MAXALIGN(mul_size(mbus_max_leases,
											sizeof(MbusEntry))));
	size = add_size(size, MAXALIGN(mul_size(mbus_max_leases,
											sizeof(MbusLease))));
	size = add_size(size, MAXALIGN(mul_size(skips(), sizeof(MbusSkip))));
	size = add_size(size, MAXALIGN(mul_size(mbus_parties(),
											sizeof(MbusParty))));
	return add_size(size, 4 * MAXALIGN(mul_size(mbus_max_leases,
												sizeof(uint32))));
}

/* How many skip nodes there are. */
static int
skips(void)
{
	return MBUS_SKIPS_COMMON + MBUS_SKIPS_LEAST * mbus_max_subscriptions;
}

/*
 * delivery_startup lays out the memory; the first process fills it in.
 */
static void
delivery_startup(void *memory, bool found, int tranche)
{
	char	   *at = memory;

	mbus_pool.shared = part(&at, sizeof(MbusPoolShared));
	mbus_pool.subs = part(&at, mbus_max_subscriptions * sizeof(MbusSub));
	mbus_pool.entries = part(&at, mbus_max_leases * sizeof(MbusEntry));
	mbus_pool.leases = part(&at, mbus_max_leases * sizeof(MbusLease));
	mbus_pool.skips = part(&at, skips() * sizeof(MbusSkip));
	mbus_pool.parties = part(&at, mbus_parties() * sizeof(MbusParty));
	mbus_pool.id_buckets = part(&at, mbus_max_leases * sizeof(uint32));
	mbus_pool.key_buckets = part(&at, mbus_max_leases * sizeof(uint32));
	mbus_pool.lease_buckets = part(&at, mbus_max_leases * sizeof(uint32));
	mbus_pool.party_buckets = part(&at, mbus_max_leases * sizeof(uint32));
	if (found)
		return;
	MemSet(memory, 0, delivery_size());
	LWLockInitialize(&mbus_pool.shared->lock, tranche);
	mbus_pool.shared->nsubs = mbus_max_subscriptions;
	mbus_pool.shared->nentries = mbus_max_leases;
	mbus_pool.shared->nleases = mbus_max_leases;
	mbus_pool.shared->nskips = skips();
	mbus_pool.shared->nparties = mbus_parties();
	pools_init();
	mbus_quota_startup();
}

static void *
part(char **at, Size size)
{
	void	   *result = *at;

	*at += MAXALIGN(size);
	return result;
}

/* Makes every slot, entry, lease and skip node free. */
static void
pools_init(void)
{
	for (int i = 0; i < mbus_pool.shared->nsubs; i++)
	{
		mbus_sub_reset(&mbus_pool.subs[i]);
		mbus_pool.subs[i].party = MBUS_NONE;
		ConditionVariableInit(&mbus_pool.subs[i].changed);
	}
	for (int i = 0; i < mbus_pool.shared->nentries; i++)
	{
		uint32		next = i + 1 < mbus_pool.shared->nentries ? i + 1 : MBUS_NONE;

		mbus_pool.entries[i].next = next;
		mbus_pool.leases[i].next = next;
		mbus_pool.id_buckets[i] = MBUS_NONE;
		mbus_pool.key_buckets[i] = MBUS_NONE;
		mbus_pool.lease_buckets[i] = MBUS_NONE;
	}
	mbus_pool.shared->deadlines = MBUS_NONE;
	mbus_parties_startup();
	for (int i = 0; i < mbus_pool.shared->nskips; i++)
		mbus_pool.skips[i].next =
			i + 1 < mbus_pool.shared->nskips ? i + 1 : MBUS_NONE;
}

/*
 * mbus_sub_reset clears all but the condition variable, which others may be
 * sleeping on.
 */
void
mbus_sub_reset(MbusSub *sub)
{
	sub->generation++;
	memset((char *) sub + offsetof(MbusSub, database), 0,
		   sizeof(*sub) - offsetof(MbusSub, database));
	sub->scanner = -1;
	sub->ready = sub->nexts = MBUS_NONE;
	sub->leases = sub->skipped = MBUS_NONE;
	sub->next_due = sub->next_retry = PG_INT64_MIN;
	sub->due_position = sub->retry_position = mbus_moment(PG_INT64_MIN, 0);
	sub->retry_from = mbus_moment(PG_INT64_MAX, 0);
	mbus_set_all(&sub->due_in);
	mbus_set_all(&sub->retry_in);
	sub->retry_floor = PG_INT64_MAX;
}

LWLock *
mbus_delivery_lock(void)
{
	return &mbus_pool.shared->lock;
}

int
mbus_sub_slots(void)
{
	return mbus_pool.shared->nsubs;
}

MbusSub *
mbus_sub(uint32 slot)
{
	Assert(slot < (uint32) mbus_pool.shared->nsubs);
	return &mbus_pool.subs[slot];
}

MbusEntry *
mbus_entry(uint32 entry)
{
	Assert(entry < (uint32) mbus_pool.shared->nentries);
	return &mbus_pool.entries[entry];
}

MbusLease *
mbus_lease(uint32 lease)
{
	Assert(lease < (uint32) mbus_pool.shared->nleases);
	return &mbus_pool.leases[lease];
}

/* ------------------------------------------------------------------------
 * Entries
 * ------------------------------------------------------------------------
 */

/*
 * mbus_entries_take sets aside up to n free entries for a subscription, as a
 * chain; no more than the quotas of it and of who claims (MBUS_NONE: nobody)
 * leave it.
 */
uint32
mbus_entries_take(uint32 slot, uint32 party, int n, int *taken)
{
	uint32		first = mbus_pool.shared->free_entry;
	uint32		last = MBUS_NONE;

	n = Min(n, mbus_quota_left(slot, party));
	*taken = 0;
	for (uint32 e = first; e != MBUS_NONE && *taken < n;
		 e = mbus_pool.entries[e].next)
	{
		mbus_pool.entries[e].slot = slot;
		mbus_pool.entries[e].party = party;
		mbus_quota_take(slot, party);
		last = e;
		(*taken)++;
	}
	if (last == MBUS_NONE)
		return MBUS_NONE;
	mbus_pool.shared->free_entry = mbus_pool.entries[last].next;
	mbus_pool.entries[last].next = MBUS_NONE;
	return first;
}

/*
 * mbus_entries_free gives a chain of set aside entries back.
 */
void
mbus_entries_free(uint32 first)
{
	while (first != MBUS_NONE)
	{
		uint32		next = mbus_pool.entries[first].next;

		mbus_entry_free(first);
		first = next;
	}
}

/*
 * mbus_entry_free gives one back, that is on no list and has no key.
 */
void
mbus_entry_free(uint32 entry)
{
	mbus_quota_give(mbus_pool.entries[entry].slot,
					mbus_pool.entries[entry].party);
	mbus_pool.entries[entry].state = MBUS_ENTRY_FREE;
	mbus_pool.entries[entry].next = mbus_pool.shared->free_entry;
	mbus_pool.shared->free_entry = entry;
}

/*
 * mbus_entry_charge says who has claimed an entry; MBUS_NONE: nobody any more.
 */
void
mbus_entry_charge(uint32 entry, uint32 party)
{
	MbusEntry  *e = &mbus_pool.entries[entry];

	if (e->party == party)
		return;
	mbus_party_uncharge(e->party);
	mbus_party_charge(party);
	e->party = party;
}

/*
 * mbus_entry_add makes a set aside entry one of a subscription's; the caller
 * puts it on a list and sets its state.
 */
void
mbus_entry_add(uint32 slot, uint32 entry, int64 id, int attempt,
			   int64 key_hash)
{
	MbusEntry  *e = &mbus_pool.entries[entry];
	uint32		party = e->party;

	MemSet(e, 0, sizeof(*e));
	e->party = party;
	e->attempt = attempt;
	e->next = MBUS_NONE;
	e->lease = MBUS_NONE;
	e->owner = -1;
	e->slot = slot;
	e->key_hash = key_hash;
	mbus_entry_identify(slot, entry, id);
	if (key_hash != 0)
	{
		uint32	   *bucket = key_chain(slot, key_hash);

		e->key_next = *bucket;
		*bucket = entry;
	}
	mbus_pool.subs[slot].nentries++;
	mbus_pool.subs[slot].changed_since = true;
}

/*
 * mbus_entry_gone frees an entry that is on no list any more.
 */
void
mbus_entry_gone(uint32 slot, uint32 entry)
{
	mbus_entry_unhash(slot, entry);
	mbus_entry_free(entry);
	mbus_pool.subs[slot].nentries--;
	mbus_pool.subs[slot].changed_since = true;
}

/*
 * mbus_entry_done ends an entry that is on no list any more: its message is
 * done.  True if the next message of its key may now be had.
 */
bool
mbus_entry_done(uint32 slot, uint32 entry)
{
	MbusEntry  *e = &mbus_pool.entries[entry];

	if (e->key_hash == 0 || e->passed == 0)
	{
		mbus_entry_gone(slot, entry);
		return false;
	}
	id_remove(slot, entry);
	mbus_entry_charge(entry, MBUS_NONE);
	e->id = e->passed;
	e->passed = 0;
	e->attempt = 1;
	e->state = MBUS_ENTRY_NEXT;
	e->pin = MBUS_PIN_NONE;
	e->owner = -1;
	e->committing = false;
	e->corrupt = false;			/* that was the message before */
	e->lease = MBUS_NONE;
	e->next = mbus_pool.subs[slot].nexts;
	mbus_pool.subs[slot].nexts = entry;
	mbus_pool.subs[slot].changed_since = true;
	return true;
}

/*
 * mbus_entry_failed ends an entry that is on no list any more: its failure is
 * in the table, due at "at".  What was passed over for its key is looked for
 * when this one is delivered again: from behind it on, or from the lowest id
 * that was passed over.
 */
void
mbus_entry_failed(uint32 slot, uint32 entry, TimestampTz at)
{
	MbusSub    *sub = &mbus_pool.subs[slot];
	MbusEntry  *e = &mbus_pool.entries[entry];

	mbus_retry_pull(sub, at, e->id);
	if (e->key_hash != 0)
	{
		int			bit = key_bit(e->key_hash);

		sub->waits[bit / 64] |= UINT64CONST(1) << (bit % 64);
		if (sub->wait_low == 0 || e->id < sub->wait_low)
			sub->wait_low = e->id;
		mbus_keys_wait_in(slot, MbusSegmentOf(e->id));
		if (e->passed != 0 && e->passed < e->id)
			mbus_keys_passed(slot, e->passed);
	}
	mbus_entry_gone(slot, entry);
}

/*
 * mbus_retry_pull has the next scan look for a failure, whatever has looked
 * for its time before.
 */
void
mbus_retry_pull(MbusSub *sub, TimestampTz at, int64 id)
{
	sub->retry_position = mbus_moment_min(sub->retry_position,
										  mbus_moment(at, id));
	sub->next_retry = Min(sub->next_retry, at);
	mbus_set_add(&sub->retry_in, MbusSegmentOf(id), MbusSegmentOf(id));
}

/*
 * mbus_retries_pull does so for all failures from a time on, wherever they
 * are.
 */
void
mbus_retries_pull(MbusSub *sub, TimestampTz at)
{
	mbus_retry_pull(sub, at, 0);
	mbus_set_all(&sub->retry_in);
}

/*
 * mbus_ready_merge puts a chain of entries, by ascending id, on the ready
 * list.
 */
void
mbus_ready_merge(uint32 slot, uint32 chain)
{
	MbusSub    *sub = &mbus_pool.subs[slot];
	uint32	   *link = &sub->ready;

	while (chain != MBUS_NONE)
	{
		MbusEntry  *e = &mbus_pool.entries[chain];
		uint32		rest = e->next;

		while (*link != MBUS_NONE && mbus_pool.entries[*link].id < e->id)
			link = &mbus_pool.entries[*link].next;
		mbus_entry_charge(chain, MBUS_NONE);
		e->state = MBUS_ENTRY_READY;
		e->pin = MBUS_PIN_NONE;
		e->owner = -1;
		e->committing = false;
		e->lease = MBUS_NONE;
		e->next = *link;
		*link = chain;
		link = &e->next;
		sub->nready++;
		chain = rest;
	}
	sub->changed_since = true;
}

/* ------------------------------------------------------------------------
 * Ids and keys
 * ------------------------------------------------------------------------
 */

/*
 * mbus_entry_find returns the entry that a message has in a subscription.
 */
uint32
mbus_entry_find(uint32 slot, int64 id)
{
	for (uint32 entry = *id_chain(slot, id); entry != MBUS_NONE;
		 entry = mbus_pool.entries[entry].id_next)
	{
		MbusEntry  *e = &mbus_pool.entries[entry];

		/* two subscriptions may meet in a bucket: the entry says whose */
		if (e->id == id && e->slot == slot)
			return entry;
	}
	return MBUS_NONE;
}

/*
 * mbus_entry_identify says which message's an entry is that has none.
 */
void
mbus_entry_identify(uint32 slot, uint32 entry, int64 id)
{
	uint32	   *bucket = id_chain(slot, id);

	mbus_pool.entries[entry].id = id;
	mbus_pool.entries[entry].id_next = *bucket;
	*bucket = entry;
}

/*
 * mbus_entry_unhash takes an entry out of the buckets of its id and its key:
 * nobody finds it any more.
 */
void
mbus_entry_unhash(uint32 slot, uint32 entry)
{
	MbusEntry  *e = &mbus_pool.entries[entry];
	uint32	   *link;

	id_remove(slot, entry);
	if (e->key_hash == 0)
		return;
	link = key_chain(slot, e->key_hash);
	while (*link != MBUS_NONE && *link != entry)
		link = &mbus_pool.entries[*link].key_next;
	if (*link == entry)
		*link = e->key_next;
	e->key_hash = 0;
}

/* Takes an entry out of its id's bucket; that of a "next" is in none. */
static void
id_remove(uint32 slot, uint32 entry)
{
	uint32	   *link = id_chain(slot, mbus_pool.entries[entry].id);

	while (*link != MBUS_NONE && *link != entry)
		link = &mbus_pool.entries[*link].id_next;
	if (*link == entry)
		*link = mbus_pool.entries[entry].id_next;
}

/*
 * mbus_key_find returns the entry that a key has in a subscription.
 */
uint32
mbus_key_find(uint32 slot, int64 key_hash)
{
	for (uint32 entry = *key_chain(slot, key_hash); entry != MBUS_NONE;
		 entry = mbus_pool.entries[entry].key_next)
	{
		MbusEntry  *e = &mbus_pool.entries[entry];

		/* two subscriptions may meet in a bucket: the entry says whose */
		if (e->key_hash == key_hash && e->slot == slot)
			return entry;
	}
	return MBUS_NONE;
}

/* Ids that follow each other have buckets that do. */
static uint32 *
id_chain(uint32 slot, int64 id)
{
	uint64		hash = (uint64) id + murmurhash32(slot + 1);

	return &mbus_pool.id_buckets[hash % mbus_pool.shared->nentries];
}

/*
 * mbus_key_may_wait tells whether a message of the key may wait for a retry in
 * the tables; if not, none does.
 */
bool
mbus_key_may_wait(uint32 slot, int64 key_hash)
{
	int			bit = key_bit(key_hash);

	return (mbus_pool.subs[slot].waits[bit / 64] >> (bit % 64)) & 1;
}

/*
 * mbus_keys_wait says that one of any key may wait, none below an id.
 */
void
mbus_keys_wait(uint32 slot, int64 wait_low)
{
	memset(mbus_pool.subs[slot].waits, 0xff, MBUS_WAITS / 8);
	mbus_pool.subs[slot].wait_low = wait_low;
}

/*
 * mbus_keys_wait_in says that one may wait in a segment; 0: in any.
 */
void
mbus_keys_wait_in(uint32 slot, int32 segment)
{
	MbusSub    *sub = &mbus_pool.subs[slot];
	int			unused = -1;

	for (int i = 0; i < MBUS_WAIT_SEGMENTS && segment != 0; i++)
	{
		if (sub->wait_segment[i] == segment)
			return;
		if (sub->wait_segment[i] == 0)
			unused = i;
	}
	if (unused >= 0)
		sub->wait_segment[unused] = segment;
	else
		sub->wait_more = true;
}

/*
 * mbus_keys_passed notes that a message was passed over for one of its key
 * that waits and has a higher id.
 */
void
mbus_keys_passed(uint32 slot, int64 id)
{
	MbusSub    *sub = &mbus_pool.subs[slot];

	if (sub->wait_passed == 0 || id < sub->wait_passed)
		sub->wait_passed = id;
}

/*
 * mbus_keys_clear says that none does.
 */
void
mbus_keys_clear(uint32 slot)
{
	if (mbus_pool.subs[slot].wait_low == 0)
		return;
	memset(mbus_pool.subs[slot].waits, 0, MBUS_WAITS / 8);
	memset(mbus_pool.subs[slot].wait_segment, 0,
		   sizeof(mbus_pool.subs[slot].wait_segment));
	mbus_pool.subs[slot].wait_low = mbus_pool.subs[slot].wait_passed = 0;
	mbus_pool.subs[slot].wait_more = false;
	mbus_pool.subs[slot].wait_upto = mbus_pool.subs[slot].wait_leaves = 0;
}

static int
key_bit(int64 key_hash)
{
	return (int) (murmurhash32((uint32) (key_hash ^ (key_hash >> 32))) %
				  MBUS_WAITS);
}

static uint32 *
key_chain(uint32 slot, int64 key_hash)
{
	uint64		hash = (uint64) key_hash ^ murmurhash32(slot + 1);

	return &mbus_pool.key_buckets[hash % mbus_pool.shared->nentries];
}
