/*
 * reset.h
 *		A database's part of shared memory begins anew, or is let go.
 */
#ifndef MBUS_RESET_H
#define MBUS_RESET_H

#include "postgres.h"

#include "state/state.h"

extern void mbus_database_reset(MbusDatabase *db, Oid schema);

#endif							/* MBUS_RESET_H */
