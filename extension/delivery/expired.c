/*
 * expired.c
 *		Messages that have expired before a subscription was done with them.
 *
 * One counts if the subscription was to get it when it expired, it was neither
 * deleted nor purged, is not out, and the tables do not say that it is done:
 * acknowledged or dead.  What this is counted for, and when, is told in
 * delivery/README.md, section "Expiry".
 *
 * The rows of a channel are read by ascending id, and the tables are asked for
 * those that have expired, many at a time.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "channel/channel.h"
#include "channel/purged.h"
#include "delivery/expired.h"
#include "facts/facts.h"
#include "message/stored.h"
#include "segment/channel_scan.h"
#include "segment/leaf.h"
#include "state/clock.h"

#define ASKED_AT_A_TIME	1000

/* Messages that the tables are to be asked about. */
typedef struct Asked
{
	int			n;
	MbusFacts	facts[ASKED_AT_A_TIME];
} Asked;

static bool row_expired(const MbusExpired *expired, HeapTuple tuple,
						TupleDesc desc, bool events, int64 *id);
static bool is_busy(const MbusExpired *expired, int64 id);
static void asked_count(MbusExpired *expired, Asked *asked);

/*
 * mbus_expired_begin makes a count ready whose subscription is set.  What the
 * purge has kept is copied: the cache may lose it.
 */
void
mbus_expired_begin(MbusExpired *expired)
{
	const MbusPolicy *policy = mbus_channel_policy(expired->schema,
												   expired->channel_id);

	expired->now = mbus_now();
	expired->n = 0;
	expired->cut = false;
	MemSet(&expired->policy, 0, sizeof(expired->policy));
	if (policy == NULL)
		return;
	expired->policy = *policy;
	if (policy->nkept > 0)
	{
		Size		size = 2 * policy->nkept * sizeof(int64);

		expired->policy.kept = memcpy(palloc(size), policy->kept, size);
	}
}

/*
 * mbus_expired_read counts those of a segment with ids in [lo, hi).
 */
void
mbus_expired_read(MbusExpired *expired, Relation leaf, int32 segment,
				  int64 lo, int64 hi)
{
	Relation	written = mbus_leaf_open_written(expired->schema, segment,
												 MBUS_EVENT);
	bool		events = written != NULL;
	Asked	   *asked = palloc(sizeof(Asked));
	MbusChannelScan rows;
	HeapTuple	tuple;
	int64		id;

	if (written)
		table_close(written, AccessShareLock);
	asked->n = 0;
	mbus_channel_scan_open(&rows, leaf, expired->channel_id);
	mbus_channel_scan_begin(&rows, Max(lo, expired->start_id), hi - 1,
							expired->snapshot);
	while ((tuple = mbus_channel_scan_next(&rows)) != NULL)
	{
		bool		counts = row_expired(expired, tuple,
										 RelationGetDescr(leaf), events, &id);

		if (expired->budget-- <= 0)
		{
			expired->cut = true;
			expired->reached = id;
			break;
		}
		if (!counts)
			continue;
		if (asked->n == ASKED_AT_A_TIME)
			asked_count(expired, asked);
		MemSet(&asked->facts[asked->n], 0, sizeof(MbusFacts));
		asked->facts[asked->n++].id = id;
	}
	mbus_channel_scan_close(&rows);
	asked_count(expired, asked);
	pfree(asked);
}

/*
 * row_expired tells whether a message has expired that the subscription was to
 * get, and may not have got.
 */
static bool
row_expired(const MbusExpired *expired, HeapTuple tuple, TupleDesc desc,
			bool events, int64 *id)
{
	bool		isnull;
	TimestampTz created_at;
	TimestampTz expires_at;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	*id = DatumGetInt64(READ(MBUS_COL_ID));
	created_at = DatumGetTimestampTz(READ(MBUS_COL_CREATED_AT));
	expires_at = DatumGetTimestampTz(READ(MBUS_COL_EXPIRES_AT));
#undef READ
	return expires_at <= expired->now && expires_at > expired->wanted_at &&
		(expired->start_at == 0 || created_at >= expired->start_at) &&
		!is_busy(expired, *id) &&
		!mbus_channel_purged(&expired->policy, *id) &&
		!(events && mbus_message_deleted_for_good(expired->schema, *id));
}

static bool
is_busy(const MbusExpired *expired, int64 id)
{
	return expired->nbusy > 0 &&
		bsearch(&id, expired->busy, expired->nbusy, sizeof(int64),
				mbus_int64_compare) != NULL;
}

/* Asks the tables, and counts those that are not done. */
static void
asked_count(MbusExpired *expired, Asked *asked)
{
	if (asked->n > 0)
		mbus_facts(expired->schema, expired->subscription_id,
				   expired->since_lease, asked->facts, asked->n,
				   expired->snapshot);
	for (int i = 0; i < asked->n; i++)
		expired->n += !asked->facts[i].done;
	asked->n = 0;
}
