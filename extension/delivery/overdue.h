/*
 * overdue.h
 *		Leases on messages whose segment is about to go.
 */
#ifndef MBUS_OVERDUE_H
#define MBUS_OVERDUE_H

#include "postgres.h"

#include "state/state.h"

extern int	mbus_overdue_end(Oid schema, MbusDatabase *db, int32 segment);

#endif							/* MBUS_OVERDUE_H */
