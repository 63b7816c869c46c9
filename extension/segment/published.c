/*
 * published.c
 *		What of a channel is published, for who cannot do without an answer.
 *
 * While the worker has not numbered nothing can be said.  A claim tries again
 * by itself; purge and seek wait here.
 */
#include "postgres.h"

#include "storage/condition_variable.h"
#include "utils/timestamp.h"

#include "segment/published.h"
#include "state/range.h"
#include "state/state.h"
#include "state/unfinished.h"

/*
 * mbus_unfinished_wait is mbus_unfinished_copy() for who cannot do without:
 * it waits for a worker that is starting, 55000 if that takes too long.
 */
int64
mbus_unfinished_wait(MbusDatabase *db, Oid schema, int32 channel_id,
					 MbusRange **ranges, int *nranges)
{
	TimestampTz started = 0;

	for (;;)
	{
		int64		limit = mbus_unfinished_copy(db, schema, channel_id, ranges,
												 nranges);

		if (limit >= 0)
		{
			ConditionVariableCancelSleep();
			return limit;
		}
		pfree(*ranges);
		mbus_worker_wait(db, &started, NULL);
	}
}
