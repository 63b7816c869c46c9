/*
 * facts.h
 *		What the tables say of deliveries, and what is written there.
 */
#ifndef MBUS_FACTS_H
#define MBUS_FACTS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "base/moment.h"
#include "segment/due.h"
#include "segment/segment_set.h"

#define MBUS_ACK_SPAN		65536	/* ids that one ack row may cover */

/*
 * What the tables say of a message: mbus_facts().  Facts under leases below
 * since_lease do not count; nor do acks at or below the last redrive.
 */
typedef struct MbusFacts
{
	int64		id;				/* in: ascending */
	bool		done;			/* acked, dead, or given up */
	bool		failed;			/* delivered before */
	int64		lease;			/* failed: of the newest failure */
	int16		attempt;		/* the next one's number */
	TimestampTz retry_at;		/* failed and not done */
} MbusFacts;

/* A delivery as ack and nack see it: a copy of an entry and its lease. */
typedef struct MbusHeld
{
	int64		id;
	int64		key_hash;		/* ordered with a key only, else 0 */
	TimestampTz expires_at;		/* of the message; 0: not known */
	uint32		entry;
	int16		attempt;
	bool		again;			/* acked before in this transaction */
} MbusHeld;

typedef struct MbusHolding
{
	int64		lease;
	uint32		sub;
	int32		subscription_id;
	int32		channel_id;
	int64		since_lease;
	bool		ordered;
	bool		lost;			/* its session has ended ... */
	uint16		close_code;		/* ... with that; 0: not known */
	TimestampTz claimed_at;
	int			n;
	MbusHeld   *held;			/* by ascending id */
	int			nmissing;		/* asked for and not held */
	int64	   *missing;
} MbusHolding;

/* A delivery that failed. */
typedef struct MbusFailure
{
	const MbusHeld *held;
	const char *kind;
	TimestampTz retry_at;		/* 0: never */
	int64		dead_letter_id; /* 0: none */
	const char *reason;			/* or NULL */
	const char *not_moved;		/* why no dead letter was made; or NULL */
	bool		unclaimed;		/* this attempt has not begun */
} MbusFailure;

/* whether acks by a role, and a subject or NULL, are looked for */
typedef bool (*MbusAckBy) (const char *role, const char *subject);

/* facts.c: what has become of messages, by their ids */
extern void mbus_facts(Oid schema, int32 subscription_id, int64 since_lease,
					   MbusFacts *facts, int n, Snapshot snapshot);
extern int	mbus_ack_repeated(Oid schema, int64 lease, int nids,
							  const int64 *ids, MbusAckBy by, bool *found,
							  int32 *subscription_id);

/* fact_retry.c: which are to be tried again, by time */
extern const MbusFacts *mbus_facts_search(const MbusFacts *facts, int n,
										  int64 id);
extern int	mbus_facts_retries(Oid schema, int32 subscription_id,
							   int64 since_lease, MbusMoment from,
							   TimestampTz to, int most, Snapshot snapshot,
							   const MbusSegmentSet *among,
							   MbusMoment **retries, MbusMoment *reached,
							   TimestampTz *next, MbusSegmentSet *later);
extern int	mbus_facts_waiting(Oid schema, int32 subscription_id,
							   int64 since_lease, TimestampTz from, int most,
							   Snapshot snapshot, const MbusSegmentSet *among,
							   int64 **ids);
extern void mbus_facts_where(Oid schema, MbusDueOwner *owners, int n,
							 Snapshot snapshot);
extern int64 mbus_facts_key_waits(Oid schema, int32 subscription_id,
								  int64 since_lease, int64 key_hash,
								  MbusMoment from,
								  const MbusSegmentSet *among,
								  Snapshot snapshot);

/* fact_insert.c: rows are made */
extern void mbus_ack_insert(Oid schema, const MbusHolding *holding,
							const char *outcome);
extern void mbus_failure_insert(Oid schema, const MbusHolding *holding,
								const MbusHeld *held, const char *kind,
								TimestampTz retry_at, int64 dead_letter_id,
								const char *reason);
extern void mbus_failures_insert(Oid schema, const MbusHolding *holding,
								 const MbusFailure *failures, int n);

#endif							/* MBUS_FACTS_H */
