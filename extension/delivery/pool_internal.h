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

/* In shared memory, before the arrays; all but the lock is under it. */
typedef struct MbusPoolShared
{
	LWLock		lock;
	int			nsubs;
	int			nentries;
	int			nleases;
	int			nskips;
	uint32		free_entry;
	uint32		free_lease;
	uint32		free_skip;
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
	uint32	   *id_buckets;		/* as many as entries */
	uint32	   *key_buckets;	/* likewise */
	uint32	   *lease_buckets;	/* as many as leases */
} MbusPool;

extern MbusPool mbus_pool;

/* quota.c */
extern void mbus_quota_startup(void);
extern void mbus_quota_take(uint32 slot);
extern void mbus_quota_give(uint32 slot);
extern int	mbus_quota_left(uint32 slot);

extern void mbus_sub_reset(MbusSub *sub);
extern void mbus_entry_unhash(uint32 slot, uint32 entry);
extern void mbus_entry_free(uint32 entry);

#endif							/* MBUS_POOL_INTERNAL_H */
