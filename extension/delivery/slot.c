/*
 * slot.c
 *		The slot of a subscription in shared memory, once the worker has loaded
 *		it.
 *
 * Only the worker makes slots (worker/rebuild.c).  Who needs one raises
 * loads_wanted, sets the worker's latch and looks again until it is there; a
 * backend remembers in its cache of subscriptions where it saw the slot last.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "channel/subscription.h"
#include "delivery/pool.h"
#include "delivery/slot.h"
#include "delivery/sub.h"
#include "state/clock.h"
#include "state/state.h"

static void subscription_check(Oid schema, int32 subscription_id,
							   TimestampTz started);

/*
 * mbus_slot_open returns the slot of a subscription once the worker has loaded
 * it.  55000 if it was made by this transaction or the worker does not
 * answer, 53400 if there are too many.
 */
uint32
mbus_slot_open(Oid schema, MbusDatabase *db,
			   const MbusSubscription *subscription)
{
	int32		subscription_id = subscription->subscription_id;
	uint32		slot = subscription->slot;
	TimestampTz started = 0;
	uint64		ticket = 0;

	for (;;)
	{
		bool		loaded;
		bool		served;

		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		if (slot == MBUS_NONE ||
			mbus_sub(slot)->subscription_id != subscription_id ||
			mbus_sub(slot)->database != db->database ||
			mbus_sub(slot)->schema != schema || mbus_sub(slot)->dropped)
			slot = mbus_sub_find(db->database, schema, subscription_id);
		loaded = slot != MBUS_NONE && mbus_sub(slot)->loaded;
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
		if (served && slot == MBUS_NONE)
			subscription_check(schema, subscription_id, started);
		if (ticket == 0 || served)
		{
			LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
			ticket = ++db->delivery.loads_wanted;
			LWLockRelease(mbus_delivery_lock());
		}
		mbus_worker_wait(db, &started, "load the subscription");
		AcceptInvalidationMessages();
	}
}

/*
 * subscription_check errors if a subscription that the worker has not loaded
 * is gone, or has got no slot for a second.
 */
static void
subscription_check(Oid schema, int32 subscription_id, TimestampTz started)
{
	if (mbus_subscription_by_id(schema, subscription_id) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("subscription %d does not exist", subscription_id)));
	if (TimestampDifferenceExceeds(started, mbus_now(), 1000))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many subscriptions are in use"),
				 errdetail("The server follows at most %d.",
						   mbus_max_subscriptions),
				 errhint("Raise \"message_bus.max_subscriptions\" and restart the server.")));
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
