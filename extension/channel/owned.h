/*
 * owned.h
 *		How many channels and subscriptions a role may own.
 */
#ifndef MBUS_OWNED_H
#define MBUS_OWNED_H

#include "postgres.h"

typedef enum MbusOwned
{
	MBUS_OWNED_CHANNELS,
	MBUS_OWNED_SUBSCRIPTIONS
} MbusOwned;

extern void mbus_owned_lock(Oid schema, MbusOwned what, Oid owner);
extern void mbus_owned_check(Oid schema, MbusOwned what, Oid owner);

#endif							/* MBUS_OWNED_H */
