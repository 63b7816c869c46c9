/*
 * quota.c
 *		How much of the pools each subscription, channel, claimer and database
 *		may hold.
 *
 * The pool of entries is cut in three.  The *least* of a subscription is kept
 * for each slot there is, the least of a database for each database that can
 * be served; nobody else gets these.  The rest is common.  Of it a database
 * may hold message_bus.database_share percent of what the other databases
 * leave, and a subscription message_bus.subscription_share percent of what
 * the others of its database leave of that.  So there is always something
 * left for who comes next, and who has the pool to himself gets much of it.
 *
 * An entry is charged from the moment it is set aside for a subscription
 * until it is free again: also while it is void and only its open transaction
 * has it.  So a slot that was let go is not used again before nothing is
 * charged to it.  Leases need no quota: each has an entry.
 *
 * Slots of subscriptions are shared among databases in the same way.
 *
 * A channel, a holder and a session (party.c) have bounds of the same kind,
 * counted with what is kept for subscriptions; but nobody is refused that.
 *
 * All of it is under the delivery lock, exclusive to change; see pool.c.
 */
#include "postgres.h"

#include <limits.h>

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"
#include "delivery/quota.h"

#define SUBS_LEAST		8		/* an eighth of the entries is the least of
								 * all subscriptions together */
#define DATABASES_LEAST	16		/* of entries, and of slots: of databases */
#define PARTY_LEAST		16		/* entries that a channel, holder or session
								 * may have, whatever the percentage */

static int	entries_of_database(const MbusShare *share);
static int	database_most(const MbusShare *share);
static int	party_left(uint32 party, const MbusShare *share);
static int	party_most(const MbusParty *party, const MbusShare *share);
static int	entries_of_sub(const MbusSub *sub, const MbusShare *share);
static int	slots_of_database(const MbusShare *share);
static int	part_of(int percent, int number);
static MbusShare *share_find(Oid database);

/*
 * mbus_quota_startup cuts the pools; from the first process.
 */
void
mbus_quota_startup(void)
{
	MbusPoolShared *shared = mbus_pool.shared;

	shared->sub_least = shared->nentries / SUBS_LEAST / shared->nsubs;
	shared->database_least =
		shared->nentries / DATABASES_LEAST / MBUS_MAX_DATABASES;
	shared->database_slots =
		shared->nsubs / DATABASES_LEAST / MBUS_MAX_DATABASES;
	shared->common = shared->nentries - shared->sub_least * shared->nsubs -
		shared->database_least * MBUS_MAX_DATABASES;
}

/*
 * mbus_quota_take charges one entry to a subscription and its channel, and to
 * who claims it, unless that is MBUS_NONE.
 */
void
mbus_quota_take(uint32 slot, uint32 party)
{
	MbusSub    *sub = mbus_sub(slot);
	MbusShare  *share = &mbus_pool.shared->share[sub->share];

	mbus_party_charge(sub->party);
	mbus_party_charge(party);
	share->entries++;
	if (sub->charged++ < mbus_pool.shared->sub_least)
		return;
	if (share->above++ < mbus_pool.shared->database_least)
		return;
	mbus_pool.shared->common_held++;
}

/*
 * mbus_quota_give takes the charge back.
 */
void
mbus_quota_give(uint32 slot, uint32 party)
{
	MbusSub    *sub = mbus_sub(slot);
	MbusShare  *share = &mbus_pool.shared->share[sub->share];

	mbus_party_uncharge(sub->party);
	mbus_party_uncharge(party);
	Assert(sub->charged > 0 && share->entries > 0);
	share->entries--;
	if (--sub->charged < mbus_pool.shared->sub_least)
		return;
	if (--share->above < mbus_pool.shared->database_least)
		return;
	mbus_pool.shared->common_held--;
}

/*
 * mbus_quota_left returns how many more entries a subscription may have for
 * who claims from it (MBUS_NONE: nobody).
 */
int
mbus_quota_left(uint32 slot, uint32 party)
{
	const MbusSub *sub = mbus_sub(slot);
	const MbusShare *share = &mbus_pool.shared->share[sub->share];
	int			least = Max(mbus_pool.shared->sub_least - sub->charged, 0);
	int			left = Min(entries_of_sub(sub, share) -
						   Max(sub->charged, mbus_pool.shared->sub_least),
						   entries_of_database(share) - share->above);

	left = Min(left, party_left(sub->party, share));
	left = Min(left, party_left(party, share));
	return least + Max(left, 0);
}

/*
 * mbus_quota_claims returns how many messages may be claimed from a
 * subscription at most, new ones and those that have an entry.
 */
int
mbus_quota_claims(uint32 slot, uint32 party)
{
	const MbusSub *sub = mbus_sub(slot);
	int			left = party_left(party,
								  &mbus_pool.shared->share[sub->share]);

	return Min(Max(left, 0), mbus_pool.shared->nentries) +
		Max(mbus_pool.shared->sub_least - sub->nleased, 0);
}

/*
 * mbus_quota_of says what a subscription holds and may hold, as things are.
 */
void
mbus_quota_of(uint32 slot, MbusQuota *quota)
{
	const MbusSub *sub = mbus_sub(slot);
	const MbusShare *share = &mbus_pool.shared->share[sub->share];

	quota->held = sub->charged;
	quota->most = sub->charged + mbus_quota_left(slot, MBUS_NONE);
	quota->database_held = share->entries;
	quota->database_most = database_most(share);
}

/*
 * mbus_quota_full finds out which bound keeps a subscription from having more:
 * of the session or the holder who claims, or of the channel.  False if it is
 * none of these.
 */
bool
mbus_quota_full(uint32 slot, uint32 party, MbusPartyQuota *quota)
{
	for (; party != MBUS_NONE; party = mbus_pool.parties[party].key.above)
	{
		if (mbus_quota_party(party, quota) && quota->held >= quota->most)
			return true;
	}
	return mbus_quota_party(mbus_sub(slot)->party, quota) &&
		quota->held >= quota->most;
}

/*
 * mbus_quota_party tells who a party is, and what it holds and may hold; false
 * if it holds nothing.
 */
bool
mbus_quota_party(uint32 party, MbusPartyQuota *quota)
{
	const MbusParty *p = &mbus_pool.parties[party];
	const MbusShare *share;

	if (p->users == 0 || p->held == 0)
		return false;
	share = share_find(p->key.database);
	if (share == NULL)
		return false;
	quota->key = p->key;
	quota->subject = p->key.kind == MBUS_PARTY_SOCKET ?
		mbus_pool.parties[p->key.above].key.number : p->key.number;
	quota->held = p->held;
	quota->most = party_most(p, share);
	return true;
}

/* All that a database may have, what is kept for its subscriptions too. */
static int
database_most(const MbusShare *share)
{
	return share->entries - share->above +
		Max(share->above, entries_of_database(share));
}

/* How many more entries a party may have, and its holder; of none, any. */
static int
party_left(uint32 party, const MbusShare *share)
{
	int			left = INT_MAX;

	for (; party != MBUS_NONE; party = mbus_pool.parties[party].key.above)
	{
		const MbusParty *p = &mbus_pool.parties[party];

		left = Min(left, party_most(p, share) - p->held);
	}
	return left;
}

/* How many it may have: of what the others of its holder, or database, leave. */
static int
party_most(const MbusParty *party, const MbusShare *share)
{
	const MbusParty *above = party->key.above == MBUS_NONE ? NULL :
	&mbus_pool.parties[party->key.above];
	int			most = above ? party_most(above, share) : database_most(share);
	int			others = (above ? above->held : share->entries) - party->held;
	int			percent = party->key.kind == MBUS_PARTY_CHANNEL ?
	mbus_channel_share : mbus_holder_share;

	if (above)
		percent = mbus_session_share;
	return Max(part_of(percent, most - others), PARTY_LEAST);
}

/*
 * entries_of_database returns how many entries above the least of its
 * subscriptions a database may have.
 */
static int
entries_of_database(const MbusShare *share)
{
	int			least = mbus_pool.shared->database_least;
	int			others = mbus_pool.shared->common_held -
	Max(share->above - least, 0);

	return least + part_of(mbus_database_share,
						   mbus_pool.shared->common - others);
}

/* How many entries a subscription may have, of its least too. */
static int
entries_of_sub(const MbusSub *sub, const MbusShare *share)
{
	int			least = mbus_pool.shared->sub_least;
	int			others = share->above - Max(sub->charged - least, 0);

	return least + part_of(mbus_subscription_share,
						   entries_of_database(share) - others);
}

/* A percentage, rounded up so that it is something of something. */
static int
part_of(int percent, int number)
{
	return number <= 0 ? 0 : (int) (((int64) number * percent + 99) / 100);
}

/*
 * mbus_quota_skips returns how many skip nodes a subscription may have.
 */
int
mbus_quota_skips(uint32 slot)
{
	const MbusSub *sub = mbus_sub(slot);
	const MbusShare *share = &mbus_pool.shared->share[sub->share];
	int			mine = Max(sub->skip_nodes - MBUS_SKIPS_LEAST, 0);
	int			database = part_of(mbus_database_share, MBUS_SKIPS_COMMON -
								   (mbus_pool.shared->skips_held -
									share->skips));
	int			most = part_of(mbus_subscription_share,
							   database - (share->skips - mine));

	most = Min(most, database - share->skips + mine);
	return Min(MBUS_SKIPS_LEAST + Max(most, 0), MBUS_SKIPS_MOST);
}

/*
 * mbus_quota_slots returns how many slots a database may have, and sets *held
 * to how many it has.
 */
int
mbus_quota_slots(Oid database, int *held)
{
	const MbusShare *share = share_find(database);

	*held = share && share->database == database ? share->slots : 0;
	return slots_of_database(share);
}

/* How many slots a database may have; one that has none yet may be NULL. */
static int
slots_of_database(const MbusShare *share)
{
	MbusPoolShared *shared = mbus_pool.shared;
	int			least = shared->database_slots;
	int			common = shared->nsubs - least * MBUS_MAX_DATABASES;

	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		if (&shared->share[i] != share)
			common -= Max(shared->share[i].slots - least, 0);
	}
	return least + part_of(mbus_database_share, common);
}

/*
 * mbus_quota_slot_take charges a slot to a database; false if it may have no
 * more.
 */
bool
mbus_quota_slot_take(uint32 slot, Oid database)
{
	MbusShare  *share = share_find(database);

	if (share == NULL)
		return false;
	if (share->database != database)
	{
		MemSet(share, 0, sizeof(*share));
		share->database = database;
	}
	if (share->slots >= slots_of_database(share))
		return false;
	share->slots++;
	mbus_sub(slot)->share = share - mbus_pool.shared->share;
	return true;
}

/*
 * mbus_quota_slot_give takes that charge back; entries that are charged to
 * the slot stay with the database.
 */
void
mbus_quota_slot_give(uint32 slot)
{
	mbus_pool.shared->share[mbus_sub(slot)->share].slots--;
}

/*
 * share_find returns a database's share, or one that is free for it; NULL if
 * there is none: databases that are served no more have open transactions.
 */
static MbusShare *
share_find(Oid database)
{
	MbusShare  *unused = NULL;

	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		MbusShare  *share = &mbus_pool.shared->share[i];

		if (share->database == database)
			return share;
		if (share->slots == 0 && share->entries == 0)
			unused = share;
	}
	return unused;
}

/*
 * mbus_quota_share tells what the database of a share holds; false if there
 * is none of that number.
 */
bool
mbus_quota_share(int number, Oid *database, int *entries, int *entries_most)
{
	const MbusShare *share = &mbus_pool.shared->share[number];

	*database = share->database;
	*entries = share->entries;
	*entries_most = database_most(share);
	return share->slots > 0 || share->entries > 0;
}
