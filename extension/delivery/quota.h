/*
 * quota.h
 *		How much of the pools each subscription, channel, claimer and database
 *		may hold.
 */
#ifndef MBUS_QUOTA_H
#define MBUS_QUOTA_H

#include "postgres.h"

#include "delivery/pool.h"

/* What a subscription holds of the pool of entries, and may; its database. */
typedef struct MbusQuota
{
	int			held;
	int			most;
	int			database_held;
	int			database_most;
} MbusQuota;

/* What a channel, holder or session holds, and may. */
typedef struct MbusPartyQuota
{
	MbusPartyKey key;
	uint64		subject;		/* a hash; 0: none */
	int			held;
	int			most;
} MbusPartyQuota;

/* under the delivery lock */
extern void mbus_quota_of(uint32 slot, MbusQuota *quota);
extern int	mbus_quota_claims(uint32 slot, uint32 party);
extern bool mbus_quota_full(uint32 slot, uint32 party, MbusPartyQuota *quota);
extern bool mbus_quota_party(uint32 party, MbusPartyQuota *quota);
extern int	mbus_quota_skips(uint32 slot);
extern int	mbus_quota_slots(Oid database, int *held);
extern bool mbus_quota_slot_take(uint32 slot, Oid database);
extern void mbus_quota_slot_give(uint32 slot);
extern bool mbus_quota_share(int number, Oid *database, int *entries,
							 int *entries_most);

#endif							/* MBUS_QUOTA_H */
