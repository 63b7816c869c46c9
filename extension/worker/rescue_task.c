/*
 * rescue_task.c
 *		Messages of channels with dead_letter_expired become dead letters
 *		before they expire.
 *
 * The worker looks at each subscription of such a channel once a pass, and
 * moves what expires before the next look but one, and in the next second at
 * least (delivery/rescue.c), but no sooner than in the last quarter of the
 * channel's TTL.  A look reads all of
 * the channel's messages: the next is put off until it is EFFORT times as long
 * ago as the last one took, and what it moves is what expires by then.
 *
 * What expires all the same, because the worker was busy or the server down, is
 * moved at the next look, or before its segment is dropped: mbus_expired_move.
 *
 * A dead-letter channel's segment may have to be opened by this very process:
 * as in expiry.c the task is blocked then, the segment is opened, and the task
 * runs again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/settings.h"
#include "channel/dead_letter_target.h"
#include "delivery/rescue.h"
#include "state/clock.h"
#include "worker/rescue_task.h"
#include "worker/segment_open.h"
#include "worker/task.h"

#define EFFORT		20
#define TTL_PART	4
#define LEAD_LEAST_US	USECS_PER_SEC
#define BLOCKED		3			/* tries, if segments must be opened */

/* A subscription of such a channel. */
typedef struct Reader
{
	int32		subscription_id;
	int64		ttl_us;
} Reader;

typedef struct Readers
{
	MemoryContext context;
	int			n;
	Reader	   *reader;
} Readers;

/* One transaction's work. */
typedef struct Moving
{
	int32		subscription_id;
	TimestampTz until;
	int			moved;			/* out */
	MbusRescued rescued;		/* out */
} Moving;

static TimestampTz look_at = 0; /* when to look again */
static int64 took_us = 0;		/* the last look */

static bool readers_move(MbusWork *work, int64 lead_us);
static MbusOutcome readers_find(MbusWork *work, void *arg);
static bool reader_move(MbusWork *work, const Reader *reader, int64 lead_us);
static MbusOutcome some_move(MbusWork *work, void *arg);

/*
 * mbus_expiring_move moves what is about to expire, if it is time to look.
 */
void
mbus_expiring_move(MbusWork *work)
{
	TimestampTz started = mbus_now();
	int64		period_us;

	/* the clock may have been set */
	if (started < look_at &&
		look_at - started <= EFFORT * took_us + USECS_PER_MINUTE)
		return;
	if (!mbus_tasks_begin(work, MBUS_TASK_RESCUE, false))
		return;
	period_us = Max((int64) mbus_worker_interval * 1000, EFFORT * took_us);
	(void) readers_move(work, Max(2 * period_us, LEAD_LEAST_US));
	mbus_tasks_end(work, MBUS_TASK_RESCUE);
	took_us = Max(mbus_now() - started, 0);
	look_at = started + EFFORT * took_us;
}

/*
 * mbus_expired_move moves what has expired: segments are about to be dropped.
 * False if somebody is in the way for a moment.
 */
bool
mbus_expired_move(MbusWork *work)
{
	return readers_move(work, 0);
}

/* False if something is left for later. */
static bool
readers_move(MbusWork *work, int64 lead_us)
{
	Readers		readers = {.context = CurrentMemoryContext};
	bool		all = true;
	MbusOutcome outcome;

	outcome = mbus_task_run(work, MBUS_TASK_RESCUE, readers_find, &readers,
							"looking for channels with dead_letter_expired");
	if (outcome != MBUS_DONE)
		return outcome == MBUS_FAILED;
	for (int i = 0; i < readers.n; i++)
	{
		work->serve(work);
		all = reader_move(work, &readers.reader[i], lead_us) && all;
	}
	return all;
}

/* Lists the subscriptions, of channels whose dead letters go somewhere. */
static MbusOutcome
readers_find(MbusWork *work, void *arg)
{
	Readers    *readers = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (SPI_execute("SELECT s.subscription_id, c.ttl, c.channel_id"
					" FROM message_bus.channel c"
					" JOIN message_bus.subscription s"
					" ON s.channel_id = c.channel_id"
					" WHERE c.dead_letter_expired"
					" AND c.dead_letter_id IS NOT NULL"
					" ORDER BY s.subscription_id", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.channel");
	readers->reader = MemoryContextAlloc(readers->context,
										 (SPI_processed + 1) * sizeof(Reader));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Reader	   *reader = &readers->reader[readers->n];
		const MbusChannel *target;
		Datum		ttl;
		bool		isnull;

		if (mbus_target_find(work->schema,
							 DatumGetInt32(SPI_getbinval(row, desc, 3,
														 &isnull)),
							 &target) != MBUS_TARGET_READY)
			continue;
		readers->n++;
		reader->subscription_id =
			DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		ttl = SPI_getbinval(row, desc, 2, &isnull);
		reader->ttl_us = mbus_interval_us(DatumGetIntervalP(ttl));
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/* Moves all there is of one; false if something is left for later. */
static bool
reader_move(MbusWork *work, const Reader *reader, int64 lead_us)
{
	Moving		moving = {.subscription_id = reader->subscription_id};
	MbusOutcome outcome;
	int			blocked = 0;

	moving.until = mbus_now() + Min(lead_us, reader->ttl_us / TTL_PART);
	do
	{
		outcome = mbus_task_run(work, MBUS_TASK_RESCUE, some_move, &moving,
								"moving what expires for subscription %d",
								reader->subscription_id);
		mbus_task_let_go(work);
		mbus_segments_open(work);
	} while ((outcome == MBUS_DONE && moving.rescued == MBUS_RESCUE_MORE) ||
			 (outcome == MBUS_BLOCKED && ++blocked <= BLOCKED));

	/*
	 * What fails, fails again: space is not kept for it.  Nor on a full disk,
	 * where no segment is opened that it could go to.
	 */
	return outcome == MBUS_FAILED || work->disk.full ||
		(outcome == MBUS_DONE && moving.rescued == MBUS_RESCUE_DONE);
}

/* Moves some, in one transaction. */
static MbusOutcome
some_move(MbusWork *work, void *arg)
{
	Moving	   *moving = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	moving->rescued = mbus_rescue(work->schema, work->db,
								  moving->subscription_id, moving->until,
								  &moving->moved);
	mbus_task_commit();
	return MBUS_DONE;
}
