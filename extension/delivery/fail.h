/*
 * fail.h
 *		Deliveries that failed.
 */
#ifndef MBUS_FAIL_H
#define MBUS_FAIL_H

#include "postgres.h"

#include "facts/facts.h"
#include "state/state.h"

extern void mbus_fail(Oid schema, MbusDatabase *db, MbusHolding *holding,
					  const char *kind, int64 delay_us, const char *reason);
extern void mbus_fail_unclaimed(Oid schema, MbusDatabase *db,
								MbusHolding *holding);

#endif							/* MBUS_FAIL_H */
