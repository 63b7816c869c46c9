/*
 * scrub_task.c
 *		The worker reads stored messages again: the scrubber.
 *
 * A cycle goes through all segments by ascending id and looks at each message
 * (message/scrub.c); the next one begins when scrub_interval is over since
 * the beginning of the last.  What is damaged goes into quarantine.  What
 * somebody else has found damaged is looked at first, whatever the rate; it
 * counts against it, and while nothing is left a pass looks at one.
 *
 * Pace.  Each pass of the worker reads what scrub_rate allows for the time
 * since the last, a second's worth at most, and SLICE_MS at most; then others
 * are served.  Where passes are many a slice waits until it is worth its
 * transaction, a tenth of a second's.  A message that is larger than that is
 * paid for by the passes that follow, unless it has a body: of that a pass
 * reads what it may, and the next one goes on (MbusBodyLook, in this process's
 * memory).  The setting is looked at in each.
 *
 * Locks.  A slice holds AccessShare on one leaf; the worker drops segments
 * itself, so it is never in its own way.  What cannot be locked in
 * MBUS_LOCK_WAIT_MS is tried in the next pass, as is a slice that lacks
 * memory, and after PASSED_OVER tries the rest of its segment is left to the
 * next cycle (scrub_status counts it).  A
 * session that has put the same message into quarantine and not committed is
 * in the way likewise: after so many tries what the slice has found is left to
 * it, or to the next cycle.
 *
 * The place is in scrub_state, one row: written with what is put into
 * quarantine, at the beginning and end of a cycle, and each PLACE_EVERY_MS.
 *
 *	crash or error in a slice		nothing is left of it; read again
 *	behind its commit				the place is that of the last row: what was
 *									read since is read again
 *	the row is lost (a restore)		a cycle begins
 *	a segment is dropped meanwhile	it is passed over; its quarantine has gone
 *									in the transaction of the drop
 *	a session's row of quarantine,	it stays until the next cycle begins
 *	not committed at the drop
 *
 * The server's log has SAY_MOST lines a minute; then how many were left out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/schema.h"
#include "base/settings.h"
#include "message/quarantine.h"
#include "message/scrub.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/scrub_state.h"
#include "state/state.h"
#include "worker/scrub_task.h"
#include "worker/task.h"

#define SLICE_MS		50
#define SLICES			10		/* a second, where the rate is kept */
#define PLACE_EVERY_MS	30000
#define PASSED_OVER		20
#define FILTER_EVERY_MS	60000	/* where the quarantine seems to be full */
#define SAY_MOST		5
#define SAY_EVERY_MS	60000

static bool scrub_ready(MbusWork *work);
static MbusOutcome scrub_load(MbusWork *work, void *arg);
static MbusOutcome quarantine_load(MbusWork *work, void *arg);
static bool cycle_goes_on(MbusWork *work);
static MbusOutcome cycle_begin(MbusWork *work, void *arg);
static void wanted_look(MbusWork *work);
static int64 budget_now(MbusWork *work);
static void slice_run(MbusWork *work, MbusScrub *scrub);
static MbusOutcome slice_look(MbusWork *work, void *arg);
static void place_store(const MbusScrubStatus *status);
static void slice_tell(MbusWork *work, const MbusScrub *scrub, bool wanted);
static void damage_say(MbusWork *work, const MbusDamage *damage);
static void status_set(MbusWork *work, const MbusScrubStatus *status);

/*
 * mbus_scrub_run looks at what is wanted, and reads a slice if it is time to.
 */
void
mbus_scrub_run(MbusWork *work)
{
	int64		budget;
	MbusScrub	scrub;

	work->scrub.more = false;
	if (!mbus_tasks_begin(work, MBUS_TASK_SCRUB, false))
		return;
	if (scrub_ready(work))
	{
		wanted_look(work);
		budget = budget_now(work);
		if (budget > 0 && cycle_goes_on(work))
		{
			MemSet(&scrub, 0, sizeof(scrub));
			scrub.next = work->db->scrub.status.next_id;
			scrub.last = PG_INT64_MAX;
			scrub.bytes_max = budget;
			scrub.ms_max = SLICE_MS;
			scrub.doubted = work->scrub.doubted;
			scrub.look = work->scrub.look;
			slice_run(work, &scrub);
		}
	}
	mbus_tasks_end(work, MBUS_TASK_SCRUB);
}

/*
 * mbus_scrub_forget forgets the place: the extension is another one.
 */
void
mbus_scrub_forget(MbusWork *work)
{
	MemSet(&work->scrub, 0, sizeof(work->scrub));
}

/*
 * Sees that the place is known, and reads the filter of the quarantine where
 * that is due and nobody is in the way.
 */
static bool
scrub_ready(MbusWork *work)
{
	/* what was rolled back or let out still counts */
	if (pg_atomic_read_u32(&work->db->scrub.quarantined) >= MBUS_QUARANTINE_MAX &&
		TimestampDifferenceExceeds(work->scrub.filtered_at, mbus_now(),
								   FILTER_EVERY_MS))
		work->scrub.filtered = false;
	if (!work->scrub.filtered)
		(void) mbus_task_run(work, MBUS_TASK_SCRUB, quarantine_load, NULL,
							 "reading the quarantine");
	if (!work->scrub.loaded)
		work->scrub.loaded =
			mbus_task_run(work, MBUS_TASK_SCRUB, scrub_load, NULL,
						  "looking where the scrubber is") == MBUS_DONE;
	return work->scrub.loaded;
}

/* Reads the place that was written down last. */
static MbusOutcome
scrub_load(MbusWork *work, void *arg)
{
	MbusScrubStatus status = {0};

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (SPI_execute("SELECT cycle, started_at, ended_at, next_id, messages,"
					" bytes, bad, unread FROM message_bus.scrub_state",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.scrub_state");
	if (SPI_processed > 0)
	{
		Datum		value[8];
		bool		isnull[8];

		for (int i = 0; i < 8; i++)
			value[i] = SPI_getbinval(SPI_tuptable->vals[0],
									 SPI_tuptable->tupdesc, i + 1, &isnull[i]);
		status.cycle = DatumGetInt64(value[0]);
		status.started_at = DatumGetTimestampTz(value[1]);
		status.ended_at = isnull[2] ? 0 : DatumGetTimestampTz(value[2]);
		status.next_id = DatumGetInt64(value[3]);
		status.messages = DatumGetInt64(value[4]);
		status.bytes = DatumGetInt64(value[5]);
		status.bad = DatumGetInt64(value[6]);
		status.unread = DatumGetInt64(value[7]);
	}
	mbus_task_commit();
	status_set(work, &status);
	return MBUS_DONE;
}

/*
 * quarantine_load makes the filter that of the table.  Under Share nobody is
 * between marking a message and its commit; while somebody is the filter stays
 * as it is, which is not wrong.
 */
static MbusOutcome
quarantine_load(MbusWork *work, void *arg)
{
	int64	   *ids;
	int			n;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (!ConditionalLockRelationOid(mbus_relation(work->schema, "quarantine"),
									ShareLock))
	{
		mbus_task_commit();
		return MBUS_BLOCKED;
	}
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute("SELECT message_id FROM message_bus.quarantine", true,
					0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.quarantine");
	PopActiveSnapshot();
	n = (int) SPI_processed;
	ids = palloc(Max(n, 1) * sizeof(int64));
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		ids[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
											 SPI_tuptable->tupdesc, 1,
											 &isnull));
	}
	mbus_quarantine_known(work->db, ids, n);
	mbus_task_commit();
	work->scrub.filtered = true;
	work->scrub.filtered_at = mbus_now();
	return MBUS_DONE;
}

/* Whether there is something to read in this cycle; begins one that is due. */
static bool
cycle_goes_on(MbusWork *work)
{
	MbusScrubStatus next = {0};
	const MbusScrubStatus *status = &work->db->scrub.status;

	if (status->cycle != 0 && status->ended_at == 0)
		return true;
	next.started_at = mbus_now();
	if (status->cycle != 0 && next.started_at < status->started_at +
		mbus_scrub_interval * USECS_PER_SEC)
		return false;
	next.cycle = status->cycle + 1;
	next.next_id = 1;
	if (mbus_task_run(work, MBUS_TASK_SCRUB, cycle_begin, &next,
					  "beginning to scrub") != MBUS_DONE)
		return false;
	status_set(work, &next);
	work->scrub.stored_at = next.started_at;
	return true;
}

/* Writes a cycle down, and lets go what is left of segments that are gone. */
static MbusOutcome
cycle_begin(MbusWork *work, void *arg)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_sql("DELETE FROM message_bus.quarantine WHERE message_id IN"
			 " (SELECT message_id FROM message_bus.quarantine q"
			 " WHERE NOT EXISTS (SELECT FROM message_bus.segment s"
			 " WHERE s.segment_no = q.message_id >> %d)"
			 " FOR UPDATE SKIP LOCKED)", MBUS_ROW_BITS);
	place_store(arg);
	mbus_task_commit();
	work->scrub.filtered = false;	/* who has left may go from it */
	return MBUS_DONE;
}

/*
 * wanted_look looks at messages that somebody has found damaged: one only, as
 * long as what may be read is used up.  They count against it.  One with a body
 * is looked at for SLICE_MS in a pass, and others wait.
 */
static void
wanted_look(MbusWork *work)
{
	int64		ids[MBUS_SCRUB_WANTED];
	int			n = mbus_scrub_wanted(work->db, ids);

	if (work->scrub.budget <= 0)
		n = Min(n, 1);
	for (int i = 0; i < n; i++)
	{
		MbusScrub	scrub = {.next = ids[i],.last = ids[i],
			.bytes_max = PG_INT64_MAX,.ms_max = SLICE_MS,
		.look = work->scrub.wanted};
		MbusOutcome outcome;

		do
			outcome = mbus_task_run(work, MBUS_TASK_SCRUB, slice_look,
									&scrub,
									"looking at message " INT64_FORMAT,
									ids[i]);
		while (outcome == MBUS_DONE && scrub.doubt);
		work->scrub.budget -= scrub.cost;
		work->scrub.wanted = scrub.look;
		if (outcome == MBUS_DONE && !scrub.ended)
			break;
		/* where somebody is in the way it is wanted again by who reads it */
		if (outcome == MBUS_DONE)
			slice_tell(work, &scrub, true);
		mbus_scrub_seen(work->db, ids[i]);
		work->serve(work);
	}
}

/*
 * budget_now returns how many bytes may be read now: what the rate allows
 * since it was asked last, a second's at most, less what was read beyond; 0: none.
 */
static int64
budget_now(MbusWork *work)
{
	TimestampTz now = mbus_now();
	int64		rate = (int64) mbus_scrub_rate * 1024;
	int64		us = Min(now - work->scrub.budget_at, USECS_PER_SEC);

	if (work->scrub.budget_at != 0 && us > 0)
		work->scrub.budget += (int64) ((double) rate * us / USECS_PER_SEC);
	work->scrub.budget = Min(work->scrub.budget, rate);
	if (rate == 0)
		work->scrub.budget = 0; /* nothing would ever pay its debts */
	work->scrub.budget_at = now;
	/* passes may be many: a slice is worth its transaction */
	return work->scrub.budget < rate / SLICES ? 0 : work->scrub.budget;
}

/* Reads a slice of the cycle, and tells how far it is. */
static void
slice_run(MbusWork *work, MbusScrub *scrub)
{
	MbusScrubStatus status = work->db->scrub.status;
	MbusOutcome outcome;

	outcome = mbus_task_run(work, MBUS_TASK_SCRUB, slice_look, scrub,
							"scrubbing segment %d",
							MbusSegmentOf(scrub->next));
	/* it is in the segment in which it ended; what it read before is lost */
	if (outcome != MBUS_DONE && ++work->scrub.blocked > PASSED_OVER &&
		!scrub->whole)
	{
		work->scrub.blocked = 0;
		status.unread++;
		status.next_id = MbusFirstId(MbusSegmentOf(scrub->next) + 1);
		status_set(work, &status);
	}
	if (outcome != MBUS_DONE)
		return;
	work->scrub.blocked = 0;
	work->scrub.doubted = scrub->doubt ? scrub->doubted : 0;
	work->scrub.look = scrub->look;
	work->scrub.budget -= scrub->cost;
	/* what the disk is doubted for is looked at after a pause */
	work->scrub.more = !scrub->ended && !scrub->doubt &&
		work->scrub.budget >= scrub->bytes_max / 2;
	slice_tell(work, scrub, false);
}

/*
 * slice_look reads one slice, and settles and writes down what is to be
 * written.  A look at one message is none of the cycle.
 */
static MbusOutcome
slice_look(MbusWork *work, void *arg)
{
	MbusScrub  *scrub = arg;
	bool		cycle = scrub->last == PG_INT64_MAX;
	TimestampTz now = mbus_now();
	MbusScrubStatus status;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_scrub_slice(work->schema, scrub);
	if (work->scrub.blocked >= PASSED_OVER)
		scrub->n = 0;
	(void) mbus_quarantine_settle(work->schema, scrub->found, scrub->n);
	if (cycle)
	{
		status = work->db->scrub.status;
		status.next_id = scrub->next;
		status.messages += scrub->messages;
		status.bytes += scrub->bytes;
		status.bad += scrub->bad;
		status.unread += scrub->unread;
		if (scrub->ended)
			status.ended_at = now;
		if (scrub->n > 0 || scrub->ended ||
			TimestampDifferenceExceeds(work->scrub.stored_at, now,
									   PLACE_EVERY_MS))
		{
			place_store(&status);
			work->scrub.stored_at = now;
		}
	}
	mbus_task_commit();
	if (cycle)
		status_set(work, &status);
	return MBUS_DONE;
}

/* Writes the place down; in a task's transaction. */
static void
place_store(const MbusScrubStatus *status)
{
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
	INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		values[8];
	char		nulls[] = "        ";

	values[0] = Int64GetDatum(status->cycle);
	values[1] = TimestampTzGetDatum(status->started_at);
	values[2] = TimestampTzGetDatum(status->ended_at);
	if (status->ended_at == 0)
		nulls[2] = 'n';
	values[3] = Int64GetDatum(status->next_id);
	values[4] = Int64GetDatum(status->messages);
	values[5] = Int64GetDatum(status->bytes);
	values[6] = Int64GetDatum(status->bad);
	values[7] = Int64GetDatum(status->unread);
	if (SPI_execute_with_args("INSERT INTO message_bus.scrub_state AS s"
							  " (cycle, started_at, ended_at, next_id, messages, bytes, bad, unread)"
							  " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
							  " ON CONFLICT (only_row) DO UPDATE SET cycle = $1,"
							  " started_at = $2, ended_at = $3, next_id = $4,"
							  " messages = $5, bytes = $6, bad = $7, unread = $8",
							  8, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not write message_bus.scrub_state");
}

/*
 * slice_tell tells what was found: the view errors, unless who wanted the look
 * has done so, and the server's log.
 */
static void
slice_tell(MbusWork *work, const MbusScrub *scrub, bool wanted)
{
	for (int i = 0; i < scrub->n; i++)
	{
		const MbusDamage *damage = &scrub->found[i];
		char		why[100];

		if (damage->kind == NULL)
			continue;
		snprintf(why, sizeof(why), "the scrubber found message " INT64_FORMAT
				 " damaged: %s", damage->id, damage->kind);
		if (!wanted)
			mbus_fault_checksum(damage->id, why);
		damage_say(work, damage);
	}
}

/* Has a line in the log for a damaged message, or counts it as left out. */
static void
damage_say(MbusWork *work, const MbusDamage *damage)
{
	TimestampTz now = mbus_now();

	if (work->scrub.said_at == 0 ||
		TimestampDifferenceExceeds(work->scrub.said_at, now, SAY_EVERY_MS))
	{
		if (work->scrub.said > SAY_MOST)
			ereport(LOG,
					(errmsg("message_bus found %d more damaged messages in database %u",
							work->scrub.said - SAY_MOST, MyDatabaseId)));
		work->scrub.said_at = now;
		work->scrub.said = 0;
	}
	if (++work->scrub.said > SAY_MOST)
		return;
	ereport(LOG,
			(errmsg("message_bus found message " INT64_FORMAT " of channel %d damaged: %s",
					damage->id, damage->channel_id, damage->kind),
			 damage->detail[0] ? errdetail("%s", damage->detail) : 0,
			 errhint("See the view message_bus.quarantined.")));
}

/* Tells everybody where the scrubber is. */
static void
status_set(MbusWork *work, const MbusScrubStatus *status)
{
	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	work->db->scrub.status = *status;
	LWLockRelease(&work->db->lock);
}
