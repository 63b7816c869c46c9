/*
 * scanning.h
 *		A scan at work: what a subscription is to get next.
 */
#ifndef MBUS_SCANNING_H
#define MBUS_SCANNING_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapshot.h"

#include "base/moment.h"
#include "channel/channel.h"
#include "delivery/pool.h"
#include "segment/leaf.h"
#include "state/range.h"
#include "state/state.h"

/* A message that a claim takes. */
typedef struct MbusFound
{
	int64		id;
	int64		key_hash;		/* ordered and with a key, else 0 */
	int64		passed;			/* lowest id passed over for its key */
	uint32		entry;			/* it has one; MBUS_NONE: it is new */
	int32		attempt;
	bool		failed;			/* before, also where it was redriven since */
	TimestampTz expires_at;
	TimestampTz since;			/* from when on it was to be had; claim.c */
	bool		next;			/* no message: its key's next, from "id" on,
								 * is wanted */
	HeapTuple	tuple;			/* a copy */
} MbusFound;

/* An entry that waits to be claimed, as the scan saw it at its start. */
typedef struct MbusWaiting
{
	uint32		entry;
	int64		id;
	int64		key_hash;
	int			attempt;
} MbusWaiting;

typedef struct MbusScan
{
	/* set by the caller */
	Oid			schema;
	MbusDatabase *db;
	uint32		slot;
	int32		channel_id;
	int			batch;
	int64		max_bytes;		/* PG_INT64_MAX: no limit */
	bool		probe;			/* look only */
	int64		lease_us;
	bool		keep;			/* the lease does not end with its session */
	TimestampTz until;			/* not 0: only what expires by then, and the
								 * positions stay: rescue.c */
	TimestampTz wanted_at;		/* then: but for what had expired by this */
	uint64		subject;		/* a hash of the claimer's; 0: none */

	/* result */
	int			nfound;
	int			maxfound;
	MbusFound  *found;			/* by ascending id */
	int64		lease;
	TimestampTz next;			/* when something may be due */

	/* at work: scan.c, scan_take.c */
	MbusSub		sub;			/* its slot as it was at the start */
	MbusPolicy	policy;
	TimestampTz now;
	int			room;			/* how many may be taken */
	int64		bytes;
	bool		full;
	int			nread;			/* ids read over by ranges */
	Snapshot	snapshot;
	int64		limit;
	MbusRange  *unfinished;
	int			nunfinished;
	MbusWaiting *ready;
	int			nready;
	MbusWaiting *nexts;
	int			nnexts;
	uint32	   *gone;			/* entries whose message is no more */
	int			ngone;
	MbusRange  *skipped;		/* what is left of them is [lo, hi) */
	int			nskipped;
	HTAB	   *keys;			/* ordered: of found */
	MbusSegmentSet wait_in;		/* where one may wait for a retry */
	MbusLeaf   *leaves;
	int			nleaves;

	/* positions reached */
	int64		cursor;
	int64		quiet_from;		/* behind the last message read */
	MbusMoment	due_position;
	TimestampTz next_due;
	MbusSegmentSet due_in;		/* where those that were passed are */
	MbusSegmentSet due_later;	/* of these, when all that are due were read */
	bool		read_due;
	bool		due_left;		/* the batch's share had no room for all */
	MbusMoment	retry_position;
	TimestampTz next_retry;
	MbusSegmentSet retry_in;	/* where those behind the position are */
	bool		read_retries;
	bool		retries_left;
	bool		waits_seen;		/* all segments in which keys wait were there */
	int64		expired_low;	/* lowest id read that had expired; INT64_MAX */
} MbusScan;

#endif							/* MBUS_SCANNING_H */
