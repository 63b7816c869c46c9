/*
 * deadline.c
 *		Leases in the order of their deadlines.
 *
 * All leases that a subscription has are in one search tree, by database and
 * deadline, so that the worker of a database finds the one that ends next
 * whatever there is besides.  The tree is a treap: every lease has a fixed
 * random rank and none below it has a higher one, which keeps the tree about
 * as deep as the logarithm of its size.
 *
 * A lease's deadline is not above that of any of its entries, but it may be
 * lower: who finds it has passed looks at the entries and sets it anew.
 * Callers hold the delivery lock; see pool.c.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "datatype/timestamp.h"

#include "base/ids.h"
#include "delivery/deadline.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"

static bool is_before(uint32 x, uint32 y);
static bool ranks_above(uint32 x, uint32 y);
static void rotate_up(uint32 lease);
static uint32 *link_to(uint32 lease);

/*
 * mbus_deadline_add enters a lease.
 */
void
mbus_deadline_add(uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);
	uint32	   *link = &mbus_pool.shared->deadlines;

	l->above = MBUS_NONE;
	l->earlier = l->later = MBUS_NONE;
	while (*link != MBUS_NONE)
	{
		l->above = *link;
		link = is_before(lease, *link) ? &mbus_lease(*link)->earlier :
			&mbus_lease(*link)->later;
	}
	*link = lease;
	while (l->above != MBUS_NONE && ranks_above(lease, l->above))
		rotate_up(lease);
}

/*
 * mbus_deadline_remove takes a lease out.
 */
void
mbus_deadline_remove(uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);

	while (l->earlier != MBUS_NONE || l->later != MBUS_NONE)
	{
		if (l->earlier == MBUS_NONE)
			rotate_up(l->later);
		else if (l->later == MBUS_NONE || ranks_above(l->earlier, l->later))
			rotate_up(l->earlier);
		else
			rotate_up(l->later);
	}
	*link_to(lease) = MBUS_NONE;
}

/*
 * mbus_deadline_set moves a lease that is entered.
 */
void
mbus_deadline_set(uint32 lease, TimestampTz deadline)
{
	if (mbus_lease(lease)->deadline == deadline)
		return;
	mbus_deadline_remove(lease);
	mbus_lease(lease)->deadline = deadline;
	mbus_deadline_add(lease);
}

/*
 * mbus_deadline_first returns the lease of a database with the earliest
 * deadline, MBUS_NONE if it has none.
 */
uint32
mbus_deadline_first(Oid database)
{
	uint32		at = mbus_pool.shared->deadlines;
	uint32		first = MBUS_NONE;

	while (at != MBUS_NONE)
	{
		MbusLease  *l = mbus_lease(at);

		if (l->database == database)
			first = at;
		at = l->database < database ? l->later : l->earlier;
	}
	return first;
}

/*
 * mbus_deadline_earliest returns a time before which no lease of a database
 * ends.
 */
TimestampTz
mbus_deadline_earliest(Oid database)
{
	uint32		first = mbus_deadline_first(database);

	return first == MBUS_NONE ? PG_INT64_MAX : mbus_lease(first)->deadline;
}

static bool
is_before(uint32 x, uint32 y)
{
	const MbusLease *a = mbus_lease(x);
	const MbusLease *b = mbus_lease(y);

	if (a->database != b->database)
		return a->database < b->database;
	return a->deadline != b->deadline ? a->deadline < b->deadline : x < y;
}

/* The hash is one to one: no two leases rank the same. */
static bool
ranks_above(uint32 x, uint32 y)
{
	return murmurhash32(x) > murmurhash32(y);
}

/* Puts a lease above the one that it is below; the order stays. */
static void
rotate_up(uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);
	uint32		down = l->above;
	MbusLease  *d = mbus_lease(down);
	uint32	   *from = d->earlier == lease ? &d->earlier : &d->later;
	uint32	   *to = d->earlier == lease ? &l->later : &l->earlier;

	*link_to(down) = lease;
	l->above = d->above;
	*from = *to;
	if (*from != MBUS_NONE)
		mbus_lease(*from)->above = down;
	*to = down;
	d->above = lease;
}

/* Where a lease hangs. */
static uint32 *
link_to(uint32 lease)
{
	uint32		above = mbus_lease(lease)->above;

	if (above == MBUS_NONE)
		return &mbus_pool.shared->deadlines;
	return mbus_lease(above)->earlier == lease ?
		&mbus_lease(above)->earlier : &mbus_lease(above)->later;
}
