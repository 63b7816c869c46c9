/*
 * log_task.c
 *		The worker logs.
 *
 * Every LOOK_EVERY_MS it looks whether anything has moved, and then logs a
 * slice (log/pass.c); where more is left it comes again at once, after what
 * others wait for was seen to.  A checkpoint is a task of its own.
 *
 * What it has of segments that are gone it prunes (log/prune.c) after some were
 * dropped, when expire() asks, and once in PRUNE_EVERY_MS.
 *
 * A segment is not retired before all its messages are logged.  If they cannot
 * be it stays, and the server's log says why, until message_bus.log is turned
 * off.  So on a full disk, where nothing else is logged, those of a segment that
 * is to be retired are: that takes some bytes for each, out of the reserve of
 * space (disk_reserve.c) if need be, and the drop gives back all.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/settings.h"
#include "log/checkpoint.h"
#include "log/pass.h"
#include "log/prune.h"
#include "log/sound.h"
#include "log/unread.h"
#include "state/clock.h"
#include "worker/epoch.h"
#include "worker/foreign.h"
#include "worker/log_task.h"
#include "worker/task.h"

#define LOOK_EVERY_MS	200
#define PRUNE_EVERY_MS	60000
#define PRUNE_MS		50		/* in a pass */
#define CATCH_UP_MS		1000	/* for who wants to retire a segment */
#define SAY_WAITS_MS	60000

/* Whether a segment has to wait. */
typedef struct Waiting
{
	int32		segment;
	bool		waits;
} Waiting;

static bool log_works(const MbusWork *work);
static bool log_on(const MbusWork *work);
static void log_slice(MbusWork *work, int32 only);
static void waits_say(MbusWork *work, int32 segment);
static MbusOutcome slice_log(MbusWork *work, void *arg);
static MbusOutcome checkpoint_make(MbusWork *work, void *arg);
static MbusOutcome checkpoints_thin(MbusWork *work, void *arg);
static MbusOutcome slice_prune(MbusWork *work, void *arg);
static MbusOutcome segment_ask(MbusWork *work, void *arg);

/* Whether there is a log to be written, and room for it. */
static bool
log_works(const MbusWork *work)
{
	return log_on(work) && !work->disk.full;
}

static bool
log_on(const MbusWork *work)
{
	return mbus_log_enabled && OidIsValid(work->schema);
}

/*
 * mbus_log_moved tells whether the worker is to log, if it is time to look.
 */
bool
mbus_log_moved(MbusWork *work)
{
	TimestampTz now = mbus_now();
	MbusLogLook look = {0};

	if (!log_works(work))
		return false;
	if (work->log_more || mbus_log_checkpoint_due(work->log))
		return true;
	if (!TimestampDifferenceExceeds(work->log_looked_at, now, LOOK_EVERY_MS))
		return false;
	if (mbus_log_look(work->db, work->schema, work->log, &look))
		return true;
	work->log_looked_at = now;
	return false;
}

/*
 * mbus_log_run logs a slice, if it is time to look and anything has moved, and
 * makes a checkpoint that is due.
 */
void
mbus_log_run(MbusWork *work)
{
	TimestampTz now = mbus_now();

	if (!log_works(work))
	{
		work->log_more = false;
		return;
	}
	if (!work->log_more &&
		!TimestampDifferenceExceeds(work->log_looked_at, now, LOOK_EVERY_MS))
		return;
	work->log_looked_at = now;
	work->log_more = false;
	if (!mbus_tasks_begin(work, MBUS_TASK_LOG, false))
		return;
	log_slice(work, 0);
	if (mbus_log_checkpoint_due(work->log))
		(void) mbus_task_run(work, MBUS_TASK_LOG, checkpoint_make, NULL,
							 "making a checkpoint of the log");
	mbus_tasks_end(work, MBUS_TASK_LOG);
}

/*
 * Logs a slice, of one segment's messages or of all, and says whether there
 * is more to do.
 */
static void
log_slice(MbusWork *work, int32 only)
{
	MbusLogLook look = {.only = only};
	MbusOutcome outcome;

	work->log_more = false;
	if (!mbus_log_look(work->db, work->schema, work->log, &look) && only == 0)
		return;
	if (!look.segments.ready || look.facts.next == 0)
		return;
	outcome = mbus_task_run(work, MBUS_TASK_LOG, slice_log, &look, "logging");
	if (outcome == MBUS_DONE)
		work->log_more = look.more;
	else if (mbus_log_failed(work, outcome))
		/* the next slice leaves that out: no reason to wait */
		work->backoff[MBUS_TASK_LOG].failed = false;
	if (work->log->epoch != 0)
		(void) mbus_epoch_raise(work, work->log->epoch);
}

/*
 * mbus_log_failed forgets what a transaction that logs and did not commit has
 * left in memory, and notes what could not be read, if an error that speaks of
 * damage has ended it: then it is true.
 */
bool
mbus_log_failed(MbusWork *work, MbusOutcome outcome)
{
	bool		damaged = outcome == MBUS_FAILED &&
	mbus_sound_error(work->failed_code);

	work->log->edge.read = false;
	work->log->logged = 0;
	/* nobody but this process writes last_error */
	return mbus_unread_failed(work->log,
							  damaged ? work->db->worker.last_error : NULL);
}

static MbusOutcome
slice_log(MbusWork *work, void *arg)
{
	MbusLogLook *look = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_log_pass(work->db, work->schema, work->log, look);
	mbus_task_commit();
	mbus_log_passed(work->log, look);
	return MBUS_DONE;
}

static MbusOutcome
checkpoint_make(MbusWork *work, void *arg)
{
	int64		size;
	TimestampTz at;
	bool		made;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	made = mbus_log_checkpoint(work->schema, work->log, &size, &at);
	mbus_task_commit();
	if (made)
	{
		work->log->checkpoint_size = size;
		work->log->checkpoint_at = at;
	}
	return MBUS_DONE;
}

/*
 * mbus_log_prune_run prunes the log for a while, if there may be something to
 * prune.
 */
void
mbus_log_prune_run(MbusWork *work)
{
	TimestampTz started = mbus_now();
	bool		thin = work->pass.ticket != 0 ||
	TimestampDifferenceExceeds(work->log_pruned_at, started,
							   PRUNE_EVERY_MS);
	bool		more = true;

	if (!work->log_prune && !thin)
		return;
	if (!mbus_tasks_begin(work, MBUS_TASK_PRUNE, work->pass.ticket != 0))
		return;
	if (thin &&
		mbus_task_run(work, MBUS_TASK_PRUNE, checkpoints_thin, NULL,
					  "thinning checkpoints of the log") == MBUS_DONE)
		work->log_pruned_at = started;
	while (more && !TimestampDifferenceExceeds(started, mbus_now(), PRUNE_MS) &&
		   mbus_task_run(work, MBUS_TASK_PRUNE, slice_prune, &more,
						 "pruning the log") == MBUS_DONE)
		;
	work->log_prune = more;
	mbus_tasks_end(work, MBUS_TASK_PRUNE);
}

static MbusOutcome
checkpoints_thin(MbusWork *work, void *arg)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_log_thin();
	mbus_task_commit();
	return MBUS_DONE;
}

static MbusOutcome
slice_prune(MbusWork *work, void *arg)
{
	bool	   *more = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	*more = mbus_log_prune();
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * mbus_log_forget forgets what was known of the log: the extension is another
 * one.
 */
void
mbus_log_forget(MbusWork *work)
{
	if (work->log->unread)
		pfree(work->log->unread);
	memset(work->log, 0, sizeof(MbusLog));
	work->log_more = false;
}

/*
 * mbus_log_wake says when the worker is to look again, at the latest at
 * "next".
 */
TimestampTz
mbus_log_wake(MbusWork *work, TimestampTz next)
{
	if (!log_works(work))
		return next;
	if (work->log_more)
		return mbus_now();
	return Min(next, TimestampTzPlusMilliseconds(work->log_looked_at,
												 LOOK_EVERY_MS));
}

/*
 * mbus_log_lets_go tells whether a segment may be retired: nothing in it is to
 * be logged any more but facts that are still to come, and few of these.  It
 * catches up, if need be, for a while.
 */
bool
mbus_log_lets_go(MbusWork *work, int32 segment)
{
	TimestampTz started = mbus_now();
	Waiting		waiting = {.segment = segment,.waits = true};
	bool		once_more = false;

	if (!mbus_log_enabled)
		return true;
	for (;;)
	{
		if (mbus_task_run(work, MBUS_TASK_RETIRE, segment_ask, &waiting,
						  "asking whether segment %d is logged",
						  segment) != MBUS_DONE)
			return false;
		if (!waiting.waits && work->log->origin_known &&
			work->log->facts_done)
			return true;
		if (once_more ||
			TimestampDifferenceExceeds(started, mbus_now(), CATCH_UP_MS) ||
			!mbus_tasks_begin(work, MBUS_TASK_LOG, false))
			break;
		log_slice(work, segment);
		/* all that can be is logged, or an error is in the way */
		once_more = !work->log_more;
		work->disk.wanted = work->disk.wanted || work->disk.lacking;
		mbus_tasks_end(work, MBUS_TASK_LOG);
		work->serve(work);
	}
	waits_say(work, segment);
	return false;
}

/* Tells the server's log that an error in the log keeps a segment. */
static void
waits_say(MbusWork *work, int32 segment)
{
	TimestampTz now = mbus_now();

	if (work->backoff[MBUS_TASK_LOG].failures == 0 ||
		(work->retire.log_said != 0 &&
		 !TimestampDifferenceExceeds(work->retire.log_said, now, SAY_WAITS_MS)))
		return;
	work->retire.log_said = now;
	ereport(LOG,
			(errmsg("message_bus does not drop segment %d, which has expired: it is not logged",
					segment),
			 errdetail("Logging fails: %s", work->db->worker.last_error),
			 errhint("With message_bus.log = off it is dropped all the same.")));
}

static MbusOutcome
segment_ask(MbusWork *work, void *arg)
{
	Waiting    *waiting = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	waiting->waits = mbus_log_waits(work->schema, work->log,
									waiting->segment);
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * mbus_log_dropped logs what a segment still has, and that it is dropped, or
 * notes that it goes unlogged; in the transaction that drops it.  False if it
 * has too much for that.  Another bus's segment was never to be logged.
 */
bool
mbus_log_dropped(MbusWork *work, int32 segment)
{
	work->log_prune = true;
	if (mbus_log_has(segment))
	{
		if (mbus_log_enabled)
			return mbus_log_drop(work->schema, work->log, segment);
		mbus_log_drop_unlogged(segment);
	}
	else if (!mbus_foreign_judge(segment))
		mbus_log_drop_unlogged(segment);
	return true;
}
