/*
 * published.c
 *		What of a channel is published: asked for when a worker has begun.
 */
#include "postgres.h"

#include "pgstat.h"
#include "storage/condition_variable.h"
#include "utils/timestamp.h"

#include "segment/leaf.h"
#include "segment/published.h"
#include "state/range.h"
#include "state/state.h"
#include "state/unfinished.h"

#define MBUS_READY_MS		30000	/* for the worker, before giving up */

/*
 * mbus_unfinished_wait is mbus_unfinished_copy() for who cannot do without:
 * it waits for a worker that is starting, 55000 if that takes too long.
 */
int64
mbus_unfinished_wait(MbusDatabase *db, Oid schema, int32 channel_id,
					 MbusRange **ranges, int *nranges)
{
	TimestampTz started = GetCurrentTimestamp();

	for (;;)
	{
		MbusLeaf   *leaves;
		int			nleaves = mbus_leaves(schema, &leaves);
		int64		limit;

		limit = mbus_unfinished_copy(db, schema, channel_id,
									 nleaves ? leaves[nleaves - 1].segment : 0,
									 ranges, nranges);
		pfree(leaves);
		if (limit >= 0)
		{
			ConditionVariableCancelSleep();
			return limit;
		}
		pfree(*ranges);
		if (TimestampDifferenceExceeds(started, GetCurrentTimestamp(),
									   MBUS_READY_MS))
			break;
		mbus_wake_worker(db);
		(void) ConditionVariableTimedSleep(&db->changed, 200,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("message_bus is not ready in this database"),
			 errdetail("Its worker did not answer within %d seconds.",
					   MBUS_READY_MS / 1000),
			 errhint("See the view message_bus.worker_status and the server's log; an extension made in this transaction can be used after COMMIT.")));
}
