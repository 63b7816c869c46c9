/*
 * quota.h
 *		How much of the pools each subscription and database may hold.
 */
#ifndef MBUS_QUOTA_H
#define MBUS_QUOTA_H

#include "postgres.h"

/* What a subscription holds of the pool of entries, and may; its database. */
typedef struct MbusQuota
{
	int			held;
	int			most;
	int			database_held;
	int			database_most;
} MbusQuota;

/* under the delivery lock */
extern void mbus_quota_of(uint32 slot, MbusQuota *quota);
extern int	mbus_quota_skips(uint32 slot);
extern int	mbus_quota_slots(Oid database, int *held);
extern bool mbus_quota_slot_take(uint32 slot, Oid database);
extern void mbus_quota_slot_give(uint32 slot);
extern bool mbus_quota_share(int number, Oid *database, int *entries,
							 int *entries_most);

#endif							/* MBUS_QUOTA_H */
