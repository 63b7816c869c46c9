/*
 * subscription_admin.h
 *		What drop_channel needs of subscriptions.
 */
#ifndef MBUS_SUBSCRIPTION_ADMIN_H
#define MBUS_SUBSCRIPTION_ADMIN_H

#include "postgres.h"

extern void mbus_subscriptions_drop(Oid schema, int32 channel_id);

#endif							/* MBUS_SUBSCRIPTION_ADMIN_H */
