/*
 * hold.h
 *		Taking hold of what a lease holds.
 */
#ifndef MBUS_HOLD_H
#define MBUS_HOLD_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "delivery/pool.h"
#include "facts/facts.h"
#include "state/state.h"

/* What is known of a gateway's session that ends. */
typedef struct MbusSessionEnd
{
	int			code;			/* its WebSocket's; 0: not known */
	bool		only;			/* no leases but those that are named */
	int64	   *unwritten;		/* leases that its client has not learnt of */
	int			nunwritten;
	int64	   *written;		/* others */
	int			nwritten;
} MbusSessionEnd;

extern bool mbus_hold(Oid schema, MbusDatabase *db, int64 lease, int nids,
					  const int64 *ids, MbusPin pin, MbusHolding *holding);
extern bool mbus_hold_as_owner(Oid schema, MbusDatabase *db, int64 lease,
							   MbusHolding *holding);
extern bool mbus_hold_expired(MbusDatabase *db, Oid schema,
							  MbusHolding *holding, bool *corrupt);
extern void mbus_hold_retry(uint32 entry, TimestampTz retry_at);
extern void mbus_hold_mark_corrupt(const int64 *ids, int n);
extern TimestampTz mbus_lease_extend(int64 lease, int nids, const int64 *ids,
									 int64 lease_us);
extern int	mbus_leases_give_back(Oid schema, int64 session,
								  MbusSessionEnd *end);

#endif							/* MBUS_HOLD_H */
