/*
 * slot.c
 *		The slot of a subscription in shared memory, once the worker has loaded
 *		it.
 *
 * Only the worker makes slots (worker/rebuild.c).  Who needs one says which,
 * raises loads_wanted, sets the worker's latch and looks again until it is
 * there; a backend remembers in its cache of subscriptions where it saw the
 * slot last.  The worker gives up slots that nobody needs (worker/give_up.c):
 * who has found one looks again whose it is when it has the lock.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "channel/subscription.h"
#include "delivery/pool.h"
#include "delivery/quota.h"
#include "delivery/slot.h"
#include "delivery/sub.h"
#include "state/clock.h"
#include "state/state.h"

#define SLOT_WAIT_MS	3000

static void subscription_check(Oid schema, int32 subscription_id,
							   TimestampTz created_at);
static void room_check(MbusDatabase *db, TimestampTz started);

/*
 * mbus_slot_open returns the slot of a subscription once the worker has loaded
 * it; not that of another one with its number, which a restore has replaced.
 * 55000 if it was made by this transaction or the worker does not
 * answer, 42P01 if it is gone, 53400 if the database may have no more slots and all that it has
 * are in use.
 */
uint32
mbus_slot_open(Oid schema, MbusDatabase *db,
			   const MbusSubscription *subscription)
{
	int32		subscription_id = subscription->subscription_id;
	TimestampTz created_at = subscription->created_at;
	uint32		slot = subscription->slot;
	TimestampTz started = 0;
	uint64		ticket = 0;

	for (;;)
	{
		bool		loaded;
		bool		served;

		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		if (slot == MBUS_NONE ||
			!mbus_sub_is(slot, db->database, schema, subscription_id))
			slot = mbus_sub_find(db->database, schema, subscription_id);
		loaded = slot != MBUS_NONE && mbus_sub(slot)->loaded &&
			mbus_sub(slot)->created_at == created_at;
		served = ticket != 0 && db->delivery.loads_done >= ticket;
		LWLockRelease(mbus_delivery_lock());
		if (loaded)
		{
			mbus_subscription_remember(subscription_id, slot);
			return slot;
		}
		if (started == 0 && subscription->uncommitted)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("subscription \"%s\" was created in this transaction",
							subscription->name),
					 errhint("It can be claimed from after COMMIT.")));
		if (served)
		{
			subscription_check(schema, subscription_id, created_at);
			if (slot == MBUS_NONE)
				room_check(db, started);
		}
		if (ticket == 0 || served)
			ticket = mbus_slot_want(db, subscription_id);
		mbus_worker_wait(db, &started, "load the subscription");
		AcceptInvalidationMessages();
	}
}

/*
 * subscription_check errors if a subscription that the worker has not loaded
 * is gone.
 */
static void
subscription_check(Oid schema, int32 subscription_id, TimestampTz created_at)
{
	const MbusSubscription *subscription =
	mbus_subscription_by_id(schema, subscription_id);

	if (subscription == NULL || subscription->created_at != created_at)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("subscription %d does not exist", subscription_id)));
}

/*
 * room_check errors if a subscription has got no slot for a while: the others
 * have something out.
 */
static void
room_check(MbusDatabase *db, TimestampTz started)
{
	int			held;
	int			most;

	if (!TimestampDifferenceExceeds(started, mbus_now(),
									SLOT_WAIT_MS))
		return;
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	most = mbus_quota_slots(db->database, &held);
	LWLockRelease(mbus_delivery_lock());
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many subscriptions are in use"),
			 errdetail("This database has %d of them in use and may have %d of the %d that the server follows.",
					   held, most, mbus_max_subscriptions),
			 errhint("Acknowledge what subscriptions have claimed, or raise \"message_bus.max_subscriptions\" and restart the server.")));
}

/*
 * mbus_slot_want asks the worker to load a subscription, and returns the
 * number of the request.  One that the list has no room for asks again.
 */
uint64
mbus_slot_want(MbusDatabase *db, int32 subscription_id)
{
	MbusDeliveryCall *call = &db->delivery;
	bool		there = false;
	uint64		ticket;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < call->nsub_wanted; i++)
		there |= call->sub_wanted[i] == subscription_id;
	if (!there && call->nsub_wanted < MBUS_SUBS_WANTED)
		call->sub_wanted[call->nsub_wanted++] = subscription_id;
	ticket = ++call->loads_wanted;
	LWLockRelease(mbus_delivery_lock());
	return ticket;
}

/*
 * mbus_slot_want_default asks the worker for a channel's subscription
 * "default".  Takes the delivery lock.  If too many are asked for at a time
 * the caller asks again.
 */
void
mbus_slot_want_default(MbusDatabase *db, int32 channel_id)
{
	MbusDeliveryCall *call = &db->delivery;
	bool		there = false;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < call->ndefault_wanted; i++)
		there |= call->default_wanted[i] == channel_id;
	if (!there && call->ndefault_wanted < MBUS_DEFAULTS_WANTED)
		call->default_wanted[call->ndefault_wanted++] = channel_id;
	call->loads_wanted++;
	LWLockRelease(mbus_delivery_lock());
}

/*
 * mbus_slot_drop_default forgets who has asked for one: a claim may ask again
 * while the worker makes it, and what is dropped then must not come again.
 * Takes the delivery lock.
 */
void
mbus_slot_drop_default(MbusDatabase *db, int32 channel_id)
{
	MbusDeliveryCall *call = &db->delivery;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < call->ndefault_wanted; i++)
	{
		if (call->default_wanted[i] == channel_id)
			call->default_wanted[i] =
				call->default_wanted[--call->ndefault_wanted];
	}
	LWLockRelease(mbus_delivery_lock());
}
