/*
 * expired.h
 *		Messages that have expired before a subscription was done with them.
 */
#ifndef MBUS_EXPIRED_H
#define MBUS_EXPIRED_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "channel/channel.h"

/* A count for one subscription, segment by segment. */
typedef struct MbusExpired
{
	/* set by the caller */
	Oid			schema;
	int32		subscription_id;
	int32		channel_id;
	int64		start_id;		/* what is below, was created before, or ... */
	TimestampTz start_at;
	TimestampTz wanted_at;		/* ... had expired by then, it was not to get */
	int64		since_lease;
	Snapshot	snapshot;
	int			nbusy;
	const int64 *busy;			/* out now, by ascending id: not yet */
	int64		budget;			/* rows that may still be read */

	/* kept at work */
	TimestampTz now;
	MbusPolicy	policy;

	/* result */
	int64		n;
	bool		cut;			/* the budget was used up: there may be more, */
	int64		reached;		/* from this id on */
} MbusExpired;

extern void mbus_expired_begin(MbusExpired *expired);
extern void mbus_expired_read(MbusExpired *expired, Relation leaf,
							  int32 segment, int64 lo, int64 hi);

#endif							/* MBUS_EXPIRED_H */
