/*
 * scan_room.c
 *		Entries that the scan at work has set aside.
 *
 * A scan sets aside a few entries when it begins and more as it finds
 * messages for them, up to its batch and the subscription's quota: what one
 * claim sets aside others cannot have, so it is not much more than it needs.
 * Those that are not used are put back when the scan is recorded, or by
 * mbus_scan_undo after an error.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"

#include "base/ids.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"
#include "delivery/quota.h"
#include "delivery/scan_room.h"
#include "delivery/scanning.h"

#define ROOM_FIRST	64

#define HINT \
	"Acknowledge or give back what is held: message_bus.release_lease() is for the channel's owner, " \
	"the view message_bus.leases shows leases. An administrator can change the setting; " \
	"the view message_bus.pools shows members of pg_monitor who holds what."

static uint32 claimer = MBUS_NONE;	/* who has a use of this scan: party.c */
static uint32 set_aside = MBUS_NONE;
static int	nset_aside = 0;		/* by this scan, used ones too */

static int	room_take(MbusScan *scan, int n);
pg_noreturn static void refuse_party(const MbusScan *scan,
									 const MbusPartyQuota *quota);

/*
 * mbus_scan_room_begin cuts the batch to what who claims may have more, sets
 * the first ones aside and returns how many; caller holds the delivery lock.
 */
int
mbus_scan_room_begin(MbusScan *scan)
{
	Assert(claimer == MBUS_NONE);
	nset_aside = 0;
	/* what the worker takes it gives up at once */
	if (scan->until == 0)
		claimer = mbus_party_claimer(MyDatabaseId, scan->subject);
	scan->batch = Min(scan->batch, mbus_quota_claims(scan->slot, claimer));
	return room_take(scan, Min(scan->batch, ROOM_FIRST));
}

/*
 * mbus_scan_room_grow makes room for more if the batch and the quota allow
 * it; false if they do not.  Takes the delivery lock.
 */
bool
mbus_scan_room_grow(MbusScan *scan)
{
	int			n = Min(nset_aside, scan->batch - nset_aside);

	if (scan->probe || n <= 0)
		return false;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	n = room_take(scan, n);
	LWLockRelease(mbus_delivery_lock());
	scan->room += n;
	return n > 0;
}

/* Puts up to n more on the chain; returns how many. */
static int
room_take(MbusScan *scan, int n)
{
	uint32		chain = mbus_entries_take(scan->slot, claimer, n, &n);
	uint32	   *link = &chain;

	while (*link != MBUS_NONE)
		link = &mbus_entry(*link)->next;
	*link = set_aside;
	set_aside = chain;
	nset_aside += n;
	return n;
}

/*
 * mbus_scan_room_entry takes one of them for a message that was found; caller
 * holds the lock.
 */
uint32
mbus_scan_room_entry(void)
{
	uint32		entry = set_aside;

	Assert(entry != MBUS_NONE);
	set_aside = mbus_entry(entry)->next;
	return entry;
}

/*
 * mbus_scan_room_claimed charges an entry that the message had to who claims;
 * caller holds the lock.
 */
void
mbus_scan_room_claimed(uint32 entry)
{
	mbus_entry_charge(entry, claimer);
}

/*
 * mbus_scan_room_undo puts back what is left; caller holds the lock.
 */
void
mbus_scan_room_undo(void)
{
	mbus_entries_free(set_aside);
	set_aside = MBUS_NONE;
	mbus_party_leave(claimer);
	claimer = MBUS_NONE;
}

/*
 * mbus_scan_room_refuse errors with 53400: the subscription may have nothing
 * more, or its channel, or who claims.
 */
void
mbus_scan_room_refuse(const MbusScan *scan)
{
	int32		subscription_id = scan->sub.subscription_id;
	const MbusSubscription *subscription =
	mbus_subscription_by_id(scan->schema, subscription_id);
	const MbusChannel *channel = mbus_channel_by_id(scan->schema,
													scan->channel_id);
	MbusQuota	quota;
	MbusPartyQuota party;
	bool		full;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	mbus_quota_of(scan->slot, &quota);
	/* where there is nothing left it is not for him who has most */
	full = quota.database_held < quota.database_most &&
		mbus_quota_full(scan->slot, claimer, &party);
	LWLockRelease(mbus_delivery_lock());
	if (full)
		refuse_party(scan, &party);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many messages are claimed from subscription \"%s\" of channel \"%s\"",
					subscription ? subscription->name : "",
					channel ? channel->name : ""),
			 errdetail("It holds %d messages and may hold %d, as \"message_bus.%s\" says; its database holds %d and may hold %d of the %d of \"message_bus.max_leases\".",
					   quota.held, quota.most,
					   quota.database_held < quota.database_most ?
					   "subscription_share" : "database_share",
					   quota.database_held, quota.database_most,
					   mbus_max_leases),
			 errhint(HINT)));
}

/* The same, by the name of who holds too much, and of the setting. */
static void
refuse_party(const MbusScan *scan, const MbusPartyQuota *quota)
{
	const MbusChannel *channel = mbus_channel_by_id(scan->schema,
													scan->channel_id);
	const char *setting = "message_bus.session_share";
	char	   *who = "this session";

	if (quota->key.kind == MBUS_PARTY_CHANNEL)
	{
		setting = "message_bus.channel_share";
		who = psprintf("channel \"%s\"", channel ? channel->name : "");
	}
	else if (quota->key.kind == MBUS_PARTY_HOLDER)
	{
		setting = "message_bus.holder_share";
		who = psprintf("role \"%s\"",
					   GetUserNameFromId(quota->key.role, false));
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 quota->key.kind == MBUS_PARTY_CHANNEL ?
			 errmsg("too many messages are claimed from %s", who) :
			 errmsg("too many messages are claimed by %s%s", who,
					quota->key.number != 0 &&
					quota->key.kind == MBUS_PARTY_HOLDER ?
					" and this subject" : ""),
			 errdetail("It holds %d messages and may hold %d, as \"%s\" says.",
					   quota->held, quota->most, setting),
			 errhint(HINT)));
}
