/*
 * fact_retry.c
 *		Failures whose time to be tried again has come.
 *
 * Each segment's table of failures has an index on (subscription, retry_at,
 * message_id), of those that are to be retried.  What is found by it are
 * candidates: what has become of them since, mbus_facts() tells.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/moment.h"
#include "facts/facts.h"
#include "segment/due.h"
#include "segment/leaf.h"

static void retries_due(MbusDue *due, int32 subscription_id,
						int64 since_lease, Snapshot snapshot);

/*
 * mbus_facts_retries finds failures whose retry_at lies between "from" and
 * "to", about the "most" earliest, in the segments "among" which they are:
 * *retries is set to their times and ids.
 * The rest is as with mbus_due_read().
 */
int
mbus_facts_retries(Oid schema, int32 subscription_id, int64 since_lease,
				   MbusMoment from, TimestampTz to, int most,
				   Snapshot snapshot, const MbusSegmentSet *among,
				   MbusMoment **retries, MbusMoment *reached,
				   TimestampTz *next, MbusSegmentSet *later)
{
	MbusDue		due;

	retries_due(&due, subscription_id, since_lease, snapshot);
	due.from = from;
	due.to = to;
	due.most = most;
	due.among = among;
	due.later = later;
	return mbus_due_read(schema, &due, retries, reached, next);
}

/*
 * mbus_facts_where tells in which segments some subscriptions have failures
 * that are to be retried, as mbus_due_where() does.
 */
void
mbus_facts_where(Oid schema, MbusDueOwner *owners, int n, Snapshot snapshot)
{
	MbusDue		due;

	retries_due(&due, 0, 0, snapshot);
	mbus_due_where(schema, &due, owners, n);
}

/*
 * mbus_facts_waiting finds the ids of failures with a retry_at that is not
 * before "from", all or those that are to be tried first if there are more than
 * "most": it sets *ids to them, ascending and distinct, and returns how many
 * they are.  All lie in the segments "among"; NULL: anywhere.
 */
int
mbus_facts_waiting(Oid schema, int32 subscription_id, int64 since_lease,
				   TimestampTz from, int most, Snapshot snapshot,
				   const MbusSegmentSet *among, int64 **ids)
{
	MbusDue		due;
	MbusMoment *retries;
	MbusMoment	reached;
	TimestampTz next;
	int			total;
	int			n = 0;

	retries_due(&due, subscription_id, since_lease, snapshot);
	due.from = mbus_moment(from, 0);
	due.to = PG_INT64_MAX;
	due.most = most;
	due.among = among;
	total = mbus_due_read(schema, &due, &retries, &reached, &next);
	*ids = palloc_extended(Max(total, 1) * sizeof(int64), MCXT_ALLOC_HUGE);
	for (int i = 0; i < total; i++)
		(*ids)[i] = retries[i].id;
	if (total > 0)
	{
		pfree(retries);
		qsort(*ids, total, sizeof(int64), mbus_int64_compare);
	}
	for (int i = 0; i < total; i++)
	{
		if (n == 0 || (*ids)[i] != (*ids)[n - 1])
			(*ids)[n++] = (*ids)[i];
	}
	return n;
}

/* What is to be retried of a subscription. */
static void
retries_due(MbusDue *due, int32 subscription_id, int64 since_lease,
			Snapshot snapshot)
{
	MemSet(due, 0, sizeof(*due));
	due->family = MBUS_FAILURE;
	due->owner_column = MBUS_FAILURE_SUBSCRIPTION_ID;
	due->time_column = MBUS_FAILURE_RETRY_AT;
	due->id_column = MBUS_FAILURE_MESSAGE_ID;
	due->lease_column = MBUS_FAILURE_LEASE;
	due->owner = subscription_id;
	due->since_lease = since_lease;
	due->snapshot = snapshot;
}
