/*
 * party.c
 *		Who holds entries: channels, holders and sessions.
 *
 *	channel		all subscriptions of it together
 *	holder		the role that has claimed, and the subject of its token, if one
 *				was verified; so all sockets without a token are one
 *	session		of a holder: a socket of a gateway.  In SQL anybody may write a
 *				subject into request.jwt.claims: it tells sessions of one
 *				role apart, and gives none of them more than the role has
 *
 * They are found by a hash and counted, for quota.c.  Each has users: its
 * entries, a channel its slots, a holder its sessions, and the scan that is at
 * work for it; without any it is free.  There are as many as there can be at
 * one time, so that none ever lacks.
 *
 * All of it is under the delivery lock, exclusive to change; see pool.c.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"

#include "base/caller.h"
#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "delivery/pool_internal.h"

static uint32 party_enter(const MbusPartyKey *key);
static uint32 *party_chain(const MbusPartyKey *key);

/*
 * mbus_parties returns how many there can be: a channel for each slot; a
 * session with its holder for each entry, and for the scanner of each slot.
 */
int
mbus_parties(void)
{
	return 3 * mbus_max_subscriptions + 2 * mbus_max_leases;
}

/*
 * mbus_parties_startup makes all of them free; from the first process.
 */
void
mbus_parties_startup(void)
{
	for (int i = 0; i < mbus_pool.shared->nentries; i++)
		mbus_pool.party_buckets[i] = MBUS_NONE;
	for (int i = 0; i < mbus_pool.shared->nparties; i++)
		mbus_pool.parties[i].next =
			i + 1 < mbus_pool.shared->nparties ? i + 1 : MBUS_NONE;
}

/*
 * mbus_party_channel returns a channel, which has one user more now.
 */
uint32
mbus_party_channel(Oid database, Oid schema, int32 channel_id)
{
	MbusPartyKey key = {.number = channel_id,.database = database,
	.role = schema,.above = MBUS_NONE,.kind = MBUS_PARTY_CHANNEL};

	return party_enter(&key);
}

/*
 * mbus_party_claimer returns who claims, the session if there is one, else the
 * holder, which has one user more now.  "subject" is a hash, 0: none.
 */
uint32
mbus_party_claimer(Oid database, uint64 subject)
{
	bool		relay = mbus_caller.in_relay;
	MbusPartyKey holder = {.number = relay && mbus_caller.verified ? subject : 0,
		.database = database,.role = GetUserId(),.above = MBUS_NONE,
	.kind = MBUS_PARTY_HOLDER};
	MbusPartyKey session = holder;
	uint32		party;

	session.number = relay ? (uint64) mbus_caller.session : subject;
	session.kind = relay ? MBUS_PARTY_SOCKET : MBUS_PARTY_CLAIMS;
	session.above = party_enter(&holder);
	if (session.number == 0)
		return session.above;
	party = party_enter(&session);
	mbus_party_leave(session.above);	/* it has its session as a user */
	return party;
}

/* Finds or makes one. */
static uint32
party_enter(const MbusPartyKey *key)
{
	uint32	   *bucket = party_chain(key);
	uint32		party = *bucket;
	MbusParty  *p;

	while (party != MBUS_NONE &&
		   memcmp(&mbus_pool.parties[party].key, key, sizeof(*key)) != 0)
		party = mbus_pool.parties[party].next;
	if (party == MBUS_NONE)
	{
		party = mbus_pool.shared->free_party;
		Assert(party != MBUS_NONE);
		p = &mbus_pool.parties[party];
		mbus_pool.shared->free_party = p->next;
		p->key = *key;
		p->users = p->held = 0;
		p->next = *bucket;
		*bucket = party;
		if (key->above != MBUS_NONE)
			mbus_pool.parties[key->above].users++;
	}
	mbus_pool.parties[party].users++;
	return party;
}

/*
 * mbus_party_leave takes a user away, and frees a party without any.
 */
void
mbus_party_leave(uint32 party)
{
	while (party != MBUS_NONE)
	{
		MbusParty  *p = &mbus_pool.parties[party];
		uint32	   *link;
		uint32		above = p->key.above;

		Assert(p->users > 0);
		if (--p->users > 0)
			return;
		link = party_chain(&p->key);
		while (*link != party)
			link = &mbus_pool.parties[*link].next;
		*link = p->next;
		p->next = mbus_pool.shared->free_party;
		mbus_pool.shared->free_party = party;
		party = above;
	}
}

/*
 * mbus_party_charge charges an entry to a party, and to its holder.
 */
void
mbus_party_charge(uint32 party)
{
	if (party == MBUS_NONE)
		return;
	mbus_pool.parties[party].users++;
	for (; party != MBUS_NONE; party = mbus_pool.parties[party].key.above)
		mbus_pool.parties[party].held++;
}

/*
 * mbus_party_uncharge takes that back.
 */
void
mbus_party_uncharge(uint32 party)
{
	for (uint32 p = party; p != MBUS_NONE; p = mbus_pool.parties[p].key.above)
		mbus_pool.parties[p].held--;
	mbus_party_leave(party);
}

static uint32 *
party_chain(const MbusPartyKey *key)
{
	uint32		hash = hash_bytes((const unsigned char *) key, sizeof(*key));

	return &mbus_pool.party_buckets[hash % mbus_pool.shared->nentries];
}
