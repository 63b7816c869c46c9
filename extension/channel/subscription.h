/*
 * subscription.h
 *		Subscriptions as those who claim from them see them.
 */
#ifndef MBUS_SUBSCRIPTION_H
#define MBUS_SUBSCRIPTION_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* A subscription's row; borrowed from the backend's cache, subscription.c. */
typedef struct MbusSubscription
{
	int32		subscription_id;
	int32		channel_id;
	Oid			owner;
	bool		ordered;
	bool		paused;
	bool		uncommitted;	/* made by the current transaction */
	int64		start_id;		/* what is below, or created before, is not */
	TimestampTz start_at;		/* wanted; 0: all is */
	TimestampTz created_at;		/* tells it from another with its number */
	TimestampTz wanted_at;		/* what had expired by then it was not to get */
	int64		since_lease;	/* facts under leases below do not count */
	uint32		slot;			/* its MbusSub when last seen; MBUS_NONE */
	char		name[256];
} MbusSubscription;

extern void mbus_subscription_init(void);
extern const MbusSubscription *mbus_subscription_by_name(Oid schema,
														 int32 channel_id,
														 const char *name);
extern const MbusSubscription *mbus_subscription_by_id(Oid schema,
													   int32 subscription_id);
extern void mbus_subscription_remember(int32 subscription_id, uint32 slot);

#endif							/* MBUS_SUBSCRIPTION_H */
