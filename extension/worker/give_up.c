/*
 * give_up.c
 *		Slots are given up for subscriptions that need one.
 *
 * Where a database has as many slots as it may have, and somebody needs a
 * subscription that has none, those go that have not been used for longest
 * and hold nothing (mbus_sub_holds_nothing).  First their checkpoints are
 * written, so that whoever needs one of them later finds it where it was; one
 * that has changed meanwhile stays.
 */
#include "postgres.h"

#include "base/ids.h"
#include "delivery/pool.h"
#include "delivery/quota.h"
#include "delivery/sub.h"
#include "state/clock.h"
#include "worker/checkpoint.h"
#include "worker/give_up.h"

#define IDLE_MS			1000	/* one that was used since then stays */

/* A slot that may be given up. */
typedef struct Idle
{
	TimestampTz used_at;
	MbusSlotOf	of;
} Idle;

static int	idle_collect(MbusWork *work, Idle **idle);
static bool is_idle(MbusWork *work, uint32 slot, TimestampTz now);
static int	idle_compare(const void *a, const void *b);

/*
 * mbus_slots_give_up gives up as many slots of the database as it takes for n
 * more subscriptions to have one, if there are so many.
 */
void
mbus_slots_give_up(MbusWork *work, int n)
{
	TimestampTz now = mbus_now();
	Idle	   *idle;
	MbusSlotOf *of;
	int			held;
	int			most;
	int			nidle;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	most = mbus_quota_slots(work->db->database, &held);
	LWLockRelease(mbus_delivery_lock());
	n = held + n - most;
	if (n <= 0)
		return;
	nidle = idle_collect(work, &idle);
	n = Min(n, nidle);
	of = palloc((n + 1) * sizeof(MbusSlotOf));
	for (int i = 0; i < n; i++)
		of[i] = idle[i].of;
	mbus_checkpoints_write_of(work, of, n);
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		if (mbus_sub_is(of[i].slot, work->db->database, work->schema,
						of[i].subscription_id) &&
			is_idle(work, of[i].slot, now) &&
			!mbus_sub(of[i].slot)->changed_since)
			mbus_sub_give_up(of[i].slot);
	}
	LWLockRelease(mbus_delivery_lock());
	pfree(idle);
	pfree(of);
}

/* Lists slots that may go, those first that were used longest ago. */
static int
idle_collect(MbusWork *work, Idle **idle)
{
	TimestampTz now = mbus_now();
	int			n = 0;

	*idle = palloc(mbus_sub_slots() * sizeof(Idle));
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		if (!is_idle(work, s, now))
			continue;
		(*idle)[n].used_at = mbus_sub(s)->used_at;
		(*idle)[n].of.slot = s;
		(*idle)[n++].of.subscription_id = mbus_sub(s)->subscription_id;
	}
	LWLockRelease(mbus_delivery_lock());
	qsort(*idle, n, sizeof(Idle), idle_compare);
	return n;
}

/* Caller holds the lock. */
static bool
is_idle(MbusWork *work, uint32 slot, TimestampTz now)
{
	const MbusSub *sub = mbus_sub(slot);

	return sub->database == work->db->database &&
		sub->schema == work->schema && mbus_sub_holds_nothing(slot) &&
		sub->used_at <= TimestampTzPlusMilliseconds(now, -IDLE_MS);
}

static int
idle_compare(const void *a, const void *b)
{
	return mbus_order(((const Idle *) a)->used_at,
					  ((const Idle *) b)->used_at);
}
