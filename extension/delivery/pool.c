/*
 * pool.c
 *		Shared memory of deliveries: pools, lists and numbers.
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
 * nexts, retry).  With a key it is also in its key's bucket from
 * mbus_entry_add to mbus_entry_gone.  A lease lives as long as it has
 * entries, so that leases never run out before entries do.
 *
 * A subscription's slot is made by the worker (load), and freed when it was
 * dropped and nobody scans for it.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "state/state.h"

#define SKIPS		32768

typedef struct MbusDelivery
{
	LWLock		lock;
	int			nsubs;
	int			nentries;
	int			nleases;
	uint32		free_entry;
	uint32		free_lease;
	uint32		free_skip;
} MbusDelivery;

static MbusDelivery *shared = NULL;
static MbusSub *subs;
static MbusEntry *entries;
static MbusLease *leases;
static MbusSkip *skips;
static uint32 *key_bucket;		/* as many as entries */
static uint32 *lease_bucket;

static Size delivery_size(void);
static void delivery_startup(void *memory, bool found, int tranche);
static void *part(char **at, Size size);
static void pools_init(void);
static void sub_reset(MbusSub *sub);
static void entries_void(MbusSub *sub, uint32 *list);
static void lease_void(uint32 lease);
static uint32 *key_chain(uint32 slot, int64 key_hash);
static void key_remove(uint32 slot, uint32 entry);
static uint32 *lease_chain(int64 number);
static void lease_unlink(uint32 lease);

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
	static const MbusPart part = {"message_bus delivery", delivery_size,
	delivery_startup};

	mbus_state_part(&part);
}

static Size
delivery_size(void)
{
	Size		size = MAXALIGN(sizeof(MbusDelivery));

	size = add_size(size, MAXALIGN(mul_size(mbus_max_subscriptions,
											sizeof(MbusSub))));
	size = add_size(size, MAXALIGN(mul_size(mbus_max_leases,
											sizeof(MbusEntry))));
	size = add_size(size, MAXALIGN(mul_size(mbus_max_leases,
											sizeof(MbusLease))));
	size = add_size(size, MAXALIGN(mul_size(SKIPS, sizeof(MbusSkip))));
	return add_size(size, 2 * MAXALIGN(mul_size(mbus_max_leases,
												sizeof(uint32))));
}

/*
 * delivery_startup lays out the memory; the first process fills it in.
 */
static void
delivery_startup(void *memory, bool found, int tranche)
{
	char	   *at = memory;

	shared = part(&at, sizeof(MbusDelivery));
	subs = part(&at, mbus_max_subscriptions * sizeof(MbusSub));
	entries = part(&at, mbus_max_leases * sizeof(MbusEntry));
	leases = part(&at, mbus_max_leases * sizeof(MbusLease));
	skips = part(&at, SKIPS * sizeof(MbusSkip));
	key_bucket = part(&at, mbus_max_leases * sizeof(uint32));
	lease_bucket = part(&at, mbus_max_leases * sizeof(uint32));
	if (found)
		return;
	MemSet(memory, 0, delivery_size());
	LWLockInitialize(&shared->lock, tranche);
	shared->nsubs = mbus_max_subscriptions;
	shared->nentries = mbus_max_leases;
	shared->nleases = mbus_max_leases;
	pools_init();
}

static void *
part(char **at, Size size)
{
	void	   *result = *at;

	*at += MAXALIGN(size);
	return result;
}

static void
pools_init(void)
{
	for (int i = 0; i < shared->nsubs; i++)
	{
		sub_reset(&subs[i]);
		ConditionVariableInit(&subs[i].changed);
	}
	for (int i = 0; i < shared->nentries; i++)
	{
		entries[i].next = i + 1 < shared->nentries ? i + 1 : MBUS_NONE;
		leases[i].next = entries[i].next;
		key_bucket[i] = MBUS_NONE;
		lease_bucket[i] = MBUS_NONE;
	}
	for (int i = 0; i < SKIPS; i++)
		skips[i].next = i + 1 < SKIPS ? i + 1 : MBUS_NONE;
}

LWLock *
mbus_delivery_lock(void)
{
	return &shared->lock;
}

int
mbus_sub_slots(void)
{
	return shared->nsubs;
}

MbusSub *
mbus_sub(uint32 slot)
{
	Assert(slot < (uint32) shared->nsubs);
	return &subs[slot];
}

MbusEntry *
mbus_entry(uint32 entry)
{
	Assert(entry < (uint32) shared->nentries);
	return &entries[entry];
}

MbusLease *
mbus_lease(uint32 lease)
{
	Assert(lease < (uint32) shared->nleases);
	return &leases[lease];
}

MbusSkip *
mbus_skip(uint32 skip)
{
	Assert(skip < SKIPS);
	return &skips[skip];
}

/* ------------------------------------------------------------------------
 * Subscriptions
 * ------------------------------------------------------------------------
 */

/*
 * mbus_sub_find returns the slot of a subscription, MBUS_NONE if it has none.
 */
uint32
mbus_sub_find(Oid database, Oid schema, int32 subscription_id)
{
	for (int i = 0; i < shared->nsubs; i++)
	{
		if (subs[i].subscription_id == subscription_id &&
			subs[i].database == database && subs[i].schema == schema &&
			!subs[i].dropped)
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
	for (int i = 0; i < shared->nsubs; i++)
	{
		/* one who waited for the last one's scanner may have got a free slot */
		if (OidIsValid(subs[i].database) || subs[i].scanner != -1)
			continue;
		sub_reset(&subs[i]);
		subs[i].database = database;
		subs[i].schema = schema;
		subs[i].subscription_id = subscription_id;
		subs[i].channel_id = channel_id;
		return i;
	}
	return MBUS_NONE;
}

/* All but the condition variable, which others may be sleeping on. */
static void
sub_reset(MbusSub *sub)
{
	sub->generation++;
	memset((char *) sub + offsetof(MbusSub, database), 0,
		   sizeof(*sub) - offsetof(MbusSub, database));
	sub->scanner = -1;
	sub->ready = sub->nexts = sub->retry = MBUS_NONE;
	sub->leases = sub->skipped = MBUS_NONE;
	sub->earliest = PG_INT64_MAX;
	sub->next_due = sub->next_retry = PG_INT64_MIN;
	sub->due_at = sub->retry_at = PG_INT64_MIN;
	sub->due_id = 0;
	sub->retry_from = sub->retry_floor = PG_INT64_MAX;
}

/*
 * mbus_sub_void takes all entries, leases and skipped ranges from a
 * subscription.  What belongs to an open transaction is marked void, for its
 * callback to free.
 */
void
mbus_sub_void(uint32 slot)
{
	MbusSub    *sub = &subs[slot];

	entries_void(sub, &sub->ready);
	entries_void(sub, &sub->nexts);
	entries_void(sub, &sub->retry);
	while (sub->leases != MBUS_NONE)
		lease_void(sub->leases);
	mbus_skips_free(sub->skipped);
	sub->skipped = MBUS_NONE;
	sub->nskipped = 0;
	sub->nready = sub->nretry = sub->nleased = sub->nentries = 0;
	sub->earliest = PG_INT64_MAX;
	sub->corrupt = false;
	sub->generation++;
	sub->changed_since = true;
}

static void
entries_void(MbusSub *sub, uint32 *list)
{
	while (*list != MBUS_NONE)
	{
		uint32		e = *list;

		*list = entries[e].next;
		mbus_entry_gone((uint32) (sub - subs), e);
	}
}

static void
lease_void(uint32 lease)
{
	MbusLease  *l = &leases[lease];
	uint32	   *link = &l->first;
	uint32		slot = l->sub;

	while (*link != MBUS_NONE)
	{
		MbusEntry  *e = &entries[*link];
		uint32		number = *link;

		key_remove(slot, number);
		e->key_hash = 0;
		if (e->owner == -1)
		{
			*link = e->next;
			l->n--;
			e->state = MBUS_ENTRY_FREE;
			e->next = shared->free_entry;
			shared->free_entry = number;
		}
		else
		{
			e->voided = true;
			link = &e->next;
		}
	}
	lease_unlink(lease);
	l->sub = MBUS_NONE;
	if (l->first == MBUS_NONE)
		mbus_lease_release(lease);
}

/*
 * mbus_sub_drop lets a slot go; a scanner that is at work frees it.
 */
void
mbus_sub_drop(uint32 slot)
{
	MbusSub    *sub = &subs[slot];

	mbus_sub_void(slot);
	sub->dropped = true;
	if (sub->scanner == -1)
		sub->database = InvalidOid;
}

/*
 * mbus_subs_forget drops all slots of an extension that is gone.  Takes the
 * lock.
 */
void
mbus_subs_forget(Oid database, Oid schema)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nsubs; i++)
	{
		if (subs[i].database == database &&
			(subs[i].schema == schema || !OidIsValid(schema)) &&
			!subs[i].dropped)
			mbus_sub_drop(i);
	}
	LWLockRelease(&shared->lock);
}

/* ------------------------------------------------------------------------
 * Entries
 * ------------------------------------------------------------------------
 */

/*
 * mbus_entries_take sets aside up to n free entries, as a chain.
 */
uint32
mbus_entries_take(int n, int *taken)
{
	uint32		first = shared->free_entry;
	uint32		last = MBUS_NONE;

	*taken = 0;
	for (uint32 e = first; e != MBUS_NONE && *taken < n; e = entries[e].next)
	{
		last = e;
		(*taken)++;
	}
	if (last == MBUS_NONE)
		return MBUS_NONE;
	shared->free_entry = entries[last].next;
	entries[last].next = MBUS_NONE;
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
		uint32		next = entries[first].next;

		entries[first].state = MBUS_ENTRY_FREE;
		entries[first].next = shared->free_entry;
		shared->free_entry = first;
		first = next;
	}
}

/*
 * mbus_entry_add makes a set aside entry one of a subscription's; the caller
 * puts it on a list and sets its state.
 */
void
mbus_entry_add(uint32 slot, uint32 entry, int64 id, int attempt,
			   int64 key_hash)
{
	MbusEntry  *e = &entries[entry];

	MemSet(e, 0, sizeof(*e));
	e->id = id;
	e->attempt = attempt;
	e->next = MBUS_NONE;
	e->lease = MBUS_NONE;
	e->owner = -1;
	e->key_hash = key_hash;
	if (key_hash != 0)
	{
		uint32	   *bucket = key_chain(slot, key_hash);

		e->key_slot = slot;
		e->key_next = *bucket;
		*bucket = entry;
	}
	subs[slot].nentries++;
	subs[slot].changed_since = true;
}

/*
 * mbus_entry_gone frees an entry that is on no list any more.
 */
void
mbus_entry_gone(uint32 slot, uint32 entry)
{
	MbusEntry  *e = &entries[entry];

	key_remove(slot, entry);
	e->key_hash = 0;
	e->state = MBUS_ENTRY_FREE;
	e->next = shared->free_entry;
	shared->free_entry = entry;
	subs[slot].nentries--;
	subs[slot].changed_since = true;
}

/*
 * mbus_entry_done ends an entry that is on no list any more: its message is
 * done.  True if the next message of its key may now be had.
 */
bool
mbus_entry_done(uint32 slot, uint32 entry)
{
	MbusEntry  *e = &entries[entry];

	if (e->key_hash == 0 || e->passed == 0)
	{
		mbus_entry_gone(slot, entry);
		return false;
	}
	e->id = e->passed;
	e->passed = 0;
	e->attempt = 1;
	e->state = MBUS_ENTRY_NEXT;
	e->pin = MBUS_PIN_NONE;
	e->owner = -1;
	e->committing = false;
	e->corrupt = false;			/* that was the message before */
	e->lease = MBUS_NONE;
	e->next = subs[slot].nexts;
	subs[slot].nexts = entry;
	subs[slot].changed_since = true;
	return true;
}

/*
 * mbus_entry_failed ends an entry that is on no list any more: its failure is
 * in the table, due at "at".  With a key it stays, so that the key waits.
 */
void
mbus_entry_failed(uint32 slot, uint32 entry, TimestampTz at)
{
	MbusSub    *sub = &subs[slot];

	if (sub->ordered)
	{
		entries[entry].attempt++;
		mbus_entry_retry(slot, entry, at);
		return;
	}
	sub->retry_at = Min(sub->retry_at, at);
	sub->next_retry = Min(sub->next_retry, at);
	mbus_entry_gone(slot, entry);
}

/*
 * mbus_entry_retry makes an entry of an ordered subscription wait.
 */
void
mbus_entry_retry(uint32 slot, uint32 entry, TimestampTz at)
{
	MbusSub    *sub = &subs[slot];
	MbusEntry  *e = &entries[entry];

	e->state = MBUS_ENTRY_RETRY;
	e->deadline = at;
	e->pin = MBUS_PIN_NONE;
	e->owner = -1;
	e->committing = false;
	e->lease = MBUS_NONE;
	e->next = sub->retry;
	sub->retry = entry;
	sub->nretry++;
	sub->next_retry = Min(sub->next_retry, at);
	sub->changed_since = true;
}

/*
 * mbus_ready_merge puts a chain of entries, by ascending id, on the ready
 * list.
 */
void
mbus_ready_merge(uint32 slot, uint32 chain)
{
	MbusSub    *sub = &subs[slot];
	uint32	   *link = &sub->ready;

	while (chain != MBUS_NONE)
	{
		MbusEntry  *e = &entries[chain];
		uint32		rest = e->next;

		while (*link != MBUS_NONE && entries[*link].id < e->id)
			link = &entries[*link].next;
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

static uint32 *
key_chain(uint32 slot, int64 key_hash)
{
	uint64		hash = (uint64) key_hash ^ murmurhash32(slot + 1);

	return &key_bucket[hash % shared->nentries];
}

/*
 * mbus_key_find returns the entry that a key has in a subscription.
 */
uint32
mbus_key_find(uint32 slot, int64 key_hash)
{
	uint32		e = *key_chain(slot, key_hash);

	/* two subscriptions may meet in a bucket: the entry's own says whose */
	while (e != MBUS_NONE &&
		   (entries[e].key_hash != key_hash || entries[e].key_slot != slot))
		e = entries[e].key_next;
	return e;
}

static void
key_remove(uint32 slot, uint32 entry)
{
	uint32	   *link;

	if (entries[entry].key_hash == 0)
		return;
	link = key_chain(slot, entries[entry].key_hash);
	while (*link != MBUS_NONE && *link != entry)
		link = &entries[*link].key_next;
	if (*link == entry)
		*link = entries[entry].key_next;
}

/* ------------------------------------------------------------------------
 * Skipped ranges
 * ------------------------------------------------------------------------
 */

uint32
mbus_skips_take(int n, int *taken)
{
	uint32		first = MBUS_NONE;

	for (*taken = 0; *taken < n && shared->free_skip != MBUS_NONE; (*taken)++)
	{
		uint32		s = shared->free_skip;

		shared->free_skip = skips[s].next;
		skips[s].next = first;
		first = s;
	}
	return first;
}

void
mbus_skips_free(uint32 first)
{
	while (first != MBUS_NONE)
	{
		uint32		next = skips[first].next;

		skips[first].next = shared->free_skip;
		shared->free_skip = first;
		first = next;
	}
}

/* ------------------------------------------------------------------------
 * Leases
 * ------------------------------------------------------------------------
 */

/*
 * mbus_lease_number returns a new lease number; 0 if the epoch has none left
 * or has not begun: the worker is to be woken.
 */
int64
mbus_lease_number(MbusDatabase *db)
{
	MbusDeliveryCall *call = &db->delivery;

	if (call->lease_epoch == 0 || call->lease_next >= mbus_leases_per_epoch)
		return 0;
	return ((int64) call->lease_epoch << MBUS_LEASE_BITS) | call->lease_next++;
}

static uint32 *
lease_chain(int64 number)
{
	return &lease_bucket[(uint64) number % shared->nleases];
}

/*
 * mbus_lease_find returns a lease, MBUS_NONE if it is gone or void.
 */
uint32
mbus_lease_find(Oid database, Oid schema, int64 number)
{
	for (uint32 l = *lease_chain(number); l != MBUS_NONE;
		 l = leases[l].hash_next)
	{
		/* two databases may have the same numbers */
		if (leases[l].number == number && leases[l].sub != MBUS_NONE &&
			subs[leases[l].sub].database == database &&
			subs[leases[l].sub].schema == schema)
			return l;
	}
	return MBUS_NONE;
}

/*
 * mbus_lease_create makes a lease of a chain of entries by ascending id, held
 * by this process's transaction.
 */
uint32
mbus_lease_create(uint32 slot, int64 number, uint32 first, int n,
				  TimestampTz deadline)
{
	MbusSub    *sub = &subs[slot];
	uint32		lease = shared->free_lease;
	MbusLease  *l = &leases[lease];
	uint32	   *bucket = lease_chain(number);

	Assert(lease != MBUS_NONE);
	shared->free_lease = l->next;
	MemSet(l, 0, sizeof(*l));
	l->number = number;
	l->hash_next = *bucket;
	*bucket = lease;
	l->sub = slot;
	l->prev = MBUS_NONE;
	l->next = sub->leases;
	if (l->next != MBUS_NONE)
		leases[l->next].prev = lease;
	sub->leases = lease;
	l->first = first;
	l->n = n;
	l->deadline = deadline;
	sub->nleased += n;
	sub->earliest = Min(sub->earliest, deadline);
	return lease;
}

/*
 * mbus_lease_release frees a lease that has no entries any more.
 */
void
mbus_lease_release(uint32 lease)
{
	MbusLease  *l = &leases[lease];
	uint32	   *link = lease_chain(l->number);

	Assert(l->first == MBUS_NONE);
	if (l->sub != MBUS_NONE)
		lease_unlink(lease);
	while (*link != lease)
		link = &leases[*link].hash_next;
	*link = l->hash_next;
	l->number = 0;
	l->next = shared->free_lease;
	shared->free_lease = lease;
}

/* Takes a lease off its subscription's list. */
static void
lease_unlink(uint32 lease)
{
	MbusLease  *l = &leases[lease];

	if (l->prev != MBUS_NONE)
		leases[l->prev].next = l->next;
	else
		subs[l->sub].leases = l->next;
	if (l->next != MBUS_NONE)
		leases[l->next].prev = l->prev;
}

/*
 * mbus_earliest_deadline returns a time before which no lease of a database
 * ends.
 */
TimestampTz
mbus_earliest_deadline(Oid database)
{
	TimestampTz earliest = PG_INT64_MAX;

	for (int i = 0; i < shared->nsubs; i++)
	{
		if (subs[i].database == database)
			earliest = Min(earliest, subs[i].corrupt ? PG_INT64_MIN :
						   subs[i].earliest);
	}
	return earliest;
}
