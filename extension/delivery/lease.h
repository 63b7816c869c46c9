/*
 * lease.h
 *		Leases in the pools.
 */
#ifndef MBUS_LEASE_H
#define MBUS_LEASE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "state/state.h"

extern int64 mbus_lease_number(MbusDatabase *db);
extern uint32 mbus_lease_find(Oid database, Oid schema, int64 number);
extern uint32 mbus_lease_create(uint32 slot, int64 number, uint32 first,
								int n, TimestampTz deadline);
extern void mbus_lease_void(uint32 lease);
extern void mbus_lease_release(uint32 lease);

#endif							/* MBUS_LEASE_H */
