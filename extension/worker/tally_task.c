/*
 * tally_task.c
 *		The worker gives back places of channels that are gone.
 *
 * A transaction that commits just after the drop of a channel it has used
 * counts in a place that it takes anew (state/tally.c).  Nobody drops that
 * channel again, so the worker looks for such, a part in each full pass, and
 * begins again a minute later.  What is counted is committed: a channel with a
 * place that no snapshot taken since sees was dropped.
 *
 *	crash or error		the places are in shared memory: looked at again
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "state/clock.h"
#include "state/tally.h"
#include "worker/tally_task.h"
#include "worker/task.h"

#define LOOK_EVERY_MS	60000
#define LOOK_CHANNELS	1000	/* in a pass */

static MbusOutcome channels_look(MbusWork *work, void *arg);
static uint64 channels_gone(const int32 *ids, int n);

/*
 * mbus_tallies_look looks at some of the channels that are counted, if it is
 * time to; in a group of MBUS_TASK_STORE.
 */
void
mbus_tallies_look(MbusWork *work)
{
	if (work->tallies_at == 0)
	{
		if (!TimestampDifferenceExceeds(work->tallies_looked_at, mbus_now(),
										LOOK_EVERY_MS))
			return;
		work->tallies_looked_at = mbus_now();
	}
	(void) mbus_task_run(work, MBUS_TASK_STORE, channels_look, NULL,
						 "looking for counted channels that are gone");
}

/* Gives back the places of those that are gone. */
static MbusOutcome
channels_look(MbusWork *work, void *arg)
{
	int32		ids[LOOK_CHANNELS];
	int			at = work->tallies_at;
	int			n = mbus_tallied(work->db, ids, LOOK_CHANNELS, &at);

	work->tallies_at = Max(at, 0);
	if (n == 0)
		return MBUS_DONE;
	mbus_task_begin();
	mbus_task_hold_extension(work);
	for (uint64 i = channels_gone(ids, n); i > 0; i--)
	{
		bool		isnull;

		mbus_tally_dropped(work->db, DatumGetInt32(SPI_getbinval(
																 SPI_tuptable->vals[i - 1], SPI_tuptable->tupdesc, 1, &isnull)));
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/* Reads those of some channels that do not exist, and returns how many. */
static uint64
channels_gone(const int32 *ids, int n)
{
	Datum	   *values = palloc(n * sizeof(Datum));
	Oid			types[] = {INT4ARRAYOID};
	Datum		array;

	for (int i = 0; i < n; i++)
		values[i] = Int32GetDatum(ids[i]);
	array = PointerGetDatum(construct_array(values, n, INT4OID, sizeof(int32),
											true, TYPALIGN_INT));
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT i.id FROM pg_catalog.unnest($1) AS i (id)"
							  " WHERE NOT EXISTS (SELECT FROM message_bus.channel c"
							  " WHERE c.channel_id = i.id)", 1, types, &array,
							  NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for channels");
	PopActiveSnapshot();
	return SPI_processed;
}
