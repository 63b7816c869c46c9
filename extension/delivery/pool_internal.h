/*
 * pool_internal.h
 *		The arrays of the pools, which pool.c lays out in shared memory, for
 *		lease.c and sub.c.
 */
#ifndef MBUS_POOL_INTERNAL_H
#define MBUS_POOL_INTERNAL_H

#include "postgres.h"

#include "storage/lwlock.h"

#include "base/ids.h"
#include "delivery/pool.h"

/* skip nodes: how many there are besides the least of each slot; see skip.c */
#define MBUS_SKIPS_COMMON	32768
#define MBUS_SKIPS_LEAST	8
#define MBUS_SKIPS_MOST		1024	/* of one subscription */

/* What a database holds of the pools; quota.c.  Free: it holds nothing. */
typedef struct MbusShare
{
	Oid			database;
	int			slots;
	int			entries;		/* charged to its slots */
	int			above;			/* of them, above the least of their slots */
	int			skips;			/* nodes, above the least of its slots */
} MbusShare;

/* Who holds entries, by what tells it from others; party.c.  Free: no users. */
typedef struct MbusParty
{
	MbusPartyKey key;
	uint32		next;			/* in its bucket, or of the free ones */
	int32		users;			/* entries, slots, scans, and sessions of a
								 * holder */
	int32		held;			/* entries */
} MbusParty;

/* In shared memory, before the arrays; all but the lock is under it. */
typedef struct MbusPoolShared
{
	LWLock		lock;
	int			nsubs;
	int			nentries;
	int			nleases;
	int			nskips;
	int			nparties;
	uint32		free_entry;
	uint32		free_lease;
	uint32		free_skip;
	uint32		free_party;
	uint32		deadlines;		/* the uppermost lease; see deadline.c */

	/* quota.c */
	int			sub_least;		/* entries kept for each slot */
	int			database_least; /* and for each database */
	int			database_slots; /* slots kept for each database */
	int			common;			/* the other entries */
	int			common_held;
	int			skips_held;		/* above the least of all slots */
	MbusShare	share[MBUS_MAX_DATABASES];
} MbusPoolShared;

/* Where this process has it all. */
typedef struct MbusPool
{
	MbusPoolShared *shared;
	MbusSub    *subs;
	MbusEntry  *entries;
	MbusLease  *leases;
	MbusSkip   *skips;
	MbusParty  *parties;
	uint32	   *id_buckets;		/* as many as entries */
	uint32	   *key_buckets;	/* likewise */
	uint32	   *lease_buckets;	/* as many as leases */
	uint32	   *party_buckets;	/* as many as entries */
} MbusPool;

extern MbusPool mbus_pool;

/* party.c */
extern void mbus_parties_startup(void);
extern uint32 mbus_party_channel(Oid database, Oid schema, int32 channel_id);
extern uint32 mbus_party_claimer(Oid database, uint64 subject);
extern void mbus_party_leave(uint32 party);
extern void mbus_party_charge(uint32 party);
extern void mbus_party_uncharge(uint32 party);

/* quota.c */
extern void mbus_quota_startup(void);
extern void mbus_quota_take(uint32 slot, uint32 party);
extern void mbus_quota_give(uint32 slot, uint32 party);
extern int	mbus_quota_left(uint32 slot, uint32 party);

extern void mbus_sub_reset(MbusSub *sub);
extern void mbus_entry_unhash(uint32 slot, uint32 entry);
extern void mbus_entry_free(uint32 entry);

#endif							/* MBUS_POOL_INTERNAL_H */
