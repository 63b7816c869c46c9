/*
 * deadline.h
 *		Leases in the order of their deadlines.
 */
#ifndef MBUS_DEADLINE_H
#define MBUS_DEADLINE_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern void mbus_deadline_add(uint32 lease);
extern void mbus_deadline_remove(uint32 lease);
extern void mbus_deadline_set(uint32 lease, TimestampTz deadline);
extern uint32 mbus_deadline_first(Oid database);
extern TimestampTz mbus_deadline_earliest(Oid database);

#endif							/* MBUS_DEADLINE_H */
