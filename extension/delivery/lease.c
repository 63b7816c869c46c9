/*
 * lease.c
 *		Leases in the pools.
 *
 * A lease lives as long as it has entries, so that leases never run out
 * before entries do.  Callers hold the delivery lock; see pool.c.
 */
#include "postgres.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/deadline.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"
#include "state/state.h"

static uint32 *lease_chain(int64 number);
static void lease_unlink(uint32 lease);

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
	return mbus_lease_make(call->lease_epoch, mbus_node, call->lease_next++);
}

/*
 * mbus_lease_find returns a lease, MBUS_NONE if it is gone or void.
 */
uint32
mbus_lease_find(Oid database, Oid schema, int64 number)
{
	for (uint32 lease = *lease_chain(number); lease != MBUS_NONE;
		 lease = mbus_pool.leases[lease].hash_next)
	{
		MbusLease  *l = &mbus_pool.leases[lease];

		/* two databases may have the same numbers */
		if (l->number == number && l->sub != MBUS_NONE &&
			mbus_pool.subs[l->sub].database == database &&
			mbus_pool.subs[l->sub].schema == schema)
			return lease;
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
	MbusSub    *sub = &mbus_pool.subs[slot];
	uint32		lease = mbus_pool.shared->free_lease;
	MbusLease  *l = &mbus_pool.leases[lease];
	uint32	   *bucket = lease_chain(number);

	Assert(lease != MBUS_NONE);
	mbus_pool.shared->free_lease = l->next;
	MemSet(l, 0, sizeof(*l));
	l->number = number;
	l->hash_next = *bucket;
	*bucket = lease;
	l->sub = slot;
	l->prev = MBUS_NONE;
	l->next = sub->leases;
	if (l->next != MBUS_NONE)
		mbus_pool.leases[l->next].prev = lease;
	sub->leases = lease;
	l->first = first;
	l->n = n;
	l->deadline = deadline;
	l->database = sub->database;
	mbus_deadline_add(lease);
	sub->nleased += n;
	return lease;
}

/*
 * mbus_lease_void takes a lease from its subscription.  Entries of an open
 * transaction stay with it, marked void; the others are freed, and the lease
 * if it has none left.
 */
void
mbus_lease_void(uint32 lease)
{
	MbusLease  *l = &mbus_pool.leases[lease];
	uint32	   *link = &l->first;
	uint32		slot = l->sub;

	while (*link != MBUS_NONE)
	{
		MbusEntry  *e = &mbus_pool.entries[*link];
		uint32		number = *link;

		mbus_entry_unhash(slot, number);
		if (e->owner == -1)
		{
			*link = e->next;
			l->n--;
			mbus_entry_free(number);
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
 * mbus_lease_release frees a lease that has no entries any more.
 */
void
mbus_lease_release(uint32 lease)
{
	MbusLease  *l = &mbus_pool.leases[lease];
	uint32	   *link = lease_chain(l->number);

	Assert(l->first == MBUS_NONE);
	if (l->sub != MBUS_NONE)
		lease_unlink(lease);
	while (*link != lease)
		link = &mbus_pool.leases[*link].hash_next;
	*link = l->hash_next;
	l->number = 0;
	l->next = mbus_pool.shared->free_lease;
	mbus_pool.shared->free_lease = lease;
}

static uint32 *
lease_chain(int64 number)
{
	uint64		bucket = (uint64) number % mbus_pool.shared->nleases;

	return &mbus_pool.lease_buckets[bucket];
}

/* Takes a lease off its subscription's list and out of the deadlines. */
static void
lease_unlink(uint32 lease)
{
	MbusLease  *l = &mbus_pool.leases[lease];

	mbus_deadline_remove(lease);
	if (l->prev != MBUS_NONE)
		mbus_pool.leases[l->prev].next = l->next;
	else
		mbus_pool.subs[l->sub].leases = l->next;
	if (l->next != MBUS_NONE)
		mbus_pool.leases[l->next].prev = l->prev;
}
