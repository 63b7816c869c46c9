/*
 * acked.c
 *		Finds the segments of channels with retention "acked" in which nobody
 *		wants anything any more.
 *
 * Such a channel has a series of its own, and its segments know it.  One that
 * is open, and idle, is closed when nothing in it is wanted; not sooner, or a
 * channel with little traffic that nobody consumes would get a segment each
 * ten minutes.  A closed one is let go before its expiry when each message in it that is still there
 * (not expired, deleted or purged) is acknowledged, or moved to a dead-letter
 * channel, by every subscription that wanted it.  A channel without
 * subscriptions has acknowledged nothing; what is kept dead in place, or is
 * corrupt, stays until its expiry.  If the channel was dropped nobody wants
 * anything of it: message_bus.channel_dropped says so, until its segments are
 * gone.  That there is no channel does not: a restore may still bring it.
 *
 * A segment is let go by setting its expiry to now: segment_retire.c does
 * the rest.
 *
 * First shared memory is asked: each subscription must be past the segment
 * and have nothing outstanding in it.  That costs little and says no most of
 * the time.  Then a snapshot is taken and the tables are read
 * (acked_read.c).  Nothing is in flight by then: the segment is closed and
 * no publish in it unfinished.  A seek that commits after the snapshot finds
 * the messages gone, as if it had come later; a redrive is kept away by a
 * lock on the segment (see segment_stays in delivery/redrive.c).
 *
 * The first message that is wanted is remembered in this process: the
 * segment is not read again while that one is.
 *
 * Rows that belong to another channel (the series was given to a new one
 * while its last segment was open) keep the segment until its expiry.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "channel/series.h"
#include "delivery/pool.h"
#include "delivery/slot.h"
#include "delivery/sub.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/unfinished.h"
#include "worker/acked.h"
#include "worker/acked_read.h"
#include "worker/checkpoint.h"
#include "worker/segment_catalog.h"
#include "worker/segment_close.h"
#include "worker/segment_open.h"
#include "worker/task.h"

#define PASSES	5				/* of the worker between two looks */

typedef struct AckedSegment
{
	int32		segment;
	int32		channel_id;
	bool		exists;			/* the channel does */
	int32		open_series;	/* it is open in it; 0: it is closed */
	bool		close;			/* out: it is open and nothing is wanted */
} AckedSegment;

typedef struct Orphan
{
	int32		segment;
	int32		series;
} Orphan;

typedef struct AckedSegments
{
	MemoryContext context;
	int			n;
	AckedSegment *candidate;
	int			norphans;		/* open ones whose channel has gone */
	Orphan	   *orphan;
} AckedSegments;

static MbusWanted *wanted = NULL;
static int	nwanted = 0;
static int	maxwanted = 0;
static Oid	wanted_schema = InvalidOid;

static MbusOutcome candidates_find(MbusWork *work, void *arg);
static void orphans_find(AckedSegments *found);
static bool orphan_is_open(MbusDatabase *db, const Orphan *orphan);
static void wanted_prune(Oid schema, const AckedSegments *candidates);
static MbusOutcome segment_check(MbusWork *work, void *arg);
static MbusWanted *wanted_find(int32 segment);
static bool look_begin(MbusWork *work, const AckedSegment *candidate,
					   MbusLook *look);
static void readers_find(MbusLook *look);
static bool memory_is_past(MbusWork *work, const MbusLook *look);
static bool position_is_past(const MbusPosition *position,
							 const MbusLook *look);

/*
 * mbus_segments_acked lets go of what is acknowledged, and closes what is
 * left open of dropped channels; looks only now and then.
 */
void
mbus_segments_acked(MbusWork *work)
{
	TimestampTz now = mbus_now();
	AckedSegments candidates = {.context = CurrentMemoryContext};

	if (!TimestampDifferenceExceeds(work->acked_looked_at, now,
									PASSES * mbus_worker_interval) ||
		!mbus_tasks_begin(work, MBUS_TASK_ACKED, false))
		return;
	work->acked_looked_at = now;
	(void) mbus_task_run(work, MBUS_TASK_ACKED, candidates_find, &candidates,
						 "looking for acknowledged segments");
	for (int i = 0; i < candidates.norphans; i++)
	{
		if (orphan_is_open(work->db, &candidates.orphan[i]))
			mbus_series_close_orphan(work, candidates.orphan[i].series);
	}
	wanted_prune(work->schema, &candidates);
	for (int i = 0; i < candidates.n; i++)
	{
		work->serve(work);
		(void) mbus_task_run(work, MBUS_TASK_ACKED, segment_check,
							 &candidates.candidate[i],
							 "looking for acknowledgments of segment %d",
							 candidates.candidate[i].segment);
		if (candidates.candidate[i].close)
			mbus_series_close(work, candidates.candidate[i].open_series);
	}
	mbus_tasks_end(work, MBUS_TASK_ACKED);
}

/*
 * candidates_find lists the segments of own series.  One that was
 * opened before its channel's creation was committed learns now whose it is,
 * and a dropped channel without segments is forgotten.
 */
static MbusOutcome
candidates_find(MbusWork *work, void *arg)
{
	AckedSegments *found = arg;
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_sql("UPDATE message_bus.segment s SET channel_id = c.channel_id"
			 " FROM message_bus.channel c WHERE s.channel_id IS NULL"
			 " AND s.series >= %d AND c.series = s.series",
			 mbus_own_series());
	mbus_sql("DELETE FROM message_bus.channel_dropped WHERE channel_id IN"
			 " (SELECT d.channel_id FROM message_bus.channel_dropped d"
			 " WHERE NOT EXISTS (SELECT FROM message_bus.segment s"
			 " WHERE s.channel_id = d.channel_id) FOR UPDATE SKIP LOCKED)");

	if (SPI_execute("SELECT s.segment_no, s.channel_id,"
					" c.channel_id IS NOT NULL,"
					" CASE WHEN s.closed_at IS NULL THEN s.series ELSE 0 END"
					" FROM message_bus.segment s"
					" LEFT JOIN message_bus.channel c USING (channel_id)"
					" WHERE NOT s.detached AND s.channel_id IS NOT NULL"
	/* not of a segment that no reader finds: it may be another bus's */
					" AND (EXISTS (SELECT FROM pg_class l"
					"   WHERE l.relnamespace = 'message_bus'::regnamespace"
					"   AND l.relname = 'message_' || s.segment_no"
					"   AND l.relispartition)"
					"  OR EXISTS (SELECT FROM message_bus.unattached u"
					"   WHERE u.segment_no = s.segment_no))"
					" AND (s.closed_at IS NULL"
					"  OR s.expires_at >= message_bus.clock())"
					" AND (c.retention = 'acked' OR c.channel_id IS NULL"
					"  AND EXISTS (SELECT FROM message_bus.channel_dropped d"
					"   WHERE d.channel_id = s.channel_id))"
					" ORDER BY s.segment_no", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.segment");
	found->candidate = MemoryContextAlloc(found->context, (SPI_processed + 1) *
										  sizeof(AckedSegment));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		AckedSegment *candidate = &found->candidate[found->n++];

		candidate->segment = DatumGetInt32(SPI_getbinval(row, desc, 1,
														 &isnull));
		candidate->channel_id = DatumGetInt32(SPI_getbinval(row, desc, 2,
															&isnull));
		candidate->exists = DatumGetBool(SPI_getbinval(row, desc, 3,
													   &isnull));
		candidate->open_series = DatumGetInt32(SPI_getbinval(row, desc, 4,
															 &isnull));
		candidate->close = false;
	}

	orphans_find(found);
	mbus_task_commit();
	return MBUS_DONE;
}

/* Lists the open segments of series that their channels do not have. */
static void
orphans_find(AckedSegments *found)
{
	bool		isnull;

	if (SPI_execute("SELECT s.segment_no, s.series FROM message_bus.segment s"
					" WHERE s.closed_at IS NULL AND s.channel_id IS NOT NULL"
					" AND NOT EXISTS (SELECT FROM message_bus.channel c"
					"  WHERE c.channel_id = s.channel_id"
					"  AND c.series = s.series)", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.segment");
	found->orphan = MemoryContextAlloc(found->context,
									   (SPI_processed + 1) * sizeof(Orphan));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Orphan	   *orphan = &found->orphan[found->norphans++];

		orphan->segment = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		orphan->series = DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
	}
}

/*
 * orphan_is_open tells whether it is this segment that its series has open: the
 * number that a restored row has may be that of a series in use here.
 */
static bool
orphan_is_open(MbusDatabase *db, const Orphan *orphan)
{
	bool		open;

	if (orphan->series < 1 || orphan->series > MBUS_MAX_SERIES)
		return false;
	LWLockAcquire(&db->lock, LW_SHARED);
	open = db->series[orphan->series].open_segment == orphan->segment;
	LWLockRelease(&db->lock);
	return open;
}

/* Forgets the reasons for segments that are no candidates any more. */
static void
wanted_prune(Oid schema, const AckedSegments *candidates)
{
	int			kept = 0;

	if (schema != wanted_schema)
		nwanted = 0;			/* another extension's, numbered anew */
	wanted_schema = schema;

	for (int i = 0; i < nwanted; i++)
	{
		for (int k = 0; k < candidates->n; k++)
		{
			if (candidates->candidate[k].segment == wanted[i].segment)
			{
				wanted[kept++] = wanted[i];
				break;
			}
		}
	}
	nwanted = kept;
}

/*
 * segment_check lets one segment go, or has it closed, if nothing in it is
 * wanted.
 */
static MbusOutcome
segment_check(MbusWork *work, void *arg)
{
	AckedSegment *candidate = arg;
	MbusWanted *why = wanted_find(candidate->segment);
	MbusLook	look;
	LOCKTAG		tag;

	if (candidate->open_series < 0 ||
		candidate->open_series > MBUS_MAX_SERIES)
		return MBUS_DONE;		/* restored, and no series of ours */
	if (candidate->open_series != 0 &&
		!mbus_series_idle(work, candidate->open_series, candidate->segment))
		return MBUS_DONE;

	/* first the registry, then the snapshot */
	if (mbus_segment_unfinished(work->db, candidate->segment))
		return MBUS_BLOCKED;
	mbus_task_begin();
	mbus_task_hold_extension(work);
	/* against redrive, see delivery/redrive.c; before the snapshot */
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId,
					   get_relname_relid("segment", work->schema),
					   candidate->segment, 0);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		mbus_task_commit();
		return MBUS_BLOCKED;
	}
	if (look_begin(work, candidate, &look))
	{
		look.snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (look.last == 0 ||
			(!(why->id != 0 && mbus_still_wanted(&look, why)) &&
			 !mbus_wanted_read(&look, why)))
		{
			candidate->close = candidate->open_series != 0;
			if (!candidate->close)
				mbus_sql("UPDATE message_bus.segment"
						 " SET expires_at = message_bus.clock()"
						 " WHERE segment_no = %d", candidate->segment);
		}
		UnregisterSnapshot(look.snapshot);
	}
	mbus_task_commit();
	return MBUS_DONE;
}

/* The place for a segment's reason; its id is 0 if there is none. */
static MbusWanted *
wanted_find(int32 segment)
{
	for (int i = 0; i < nwanted; i++)
	{
		if (wanted[i].segment == segment)
			return &wanted[i];
	}
	if (nwanted >= maxwanted)
	{
		maxwanted = Max(16, maxwanted * 2);
		if (wanted)
			wanted = repalloc(wanted, maxwanted * sizeof(MbusWanted));
		else
			wanted = MemoryContextAlloc(TopMemoryContext,
										maxwanted * sizeof(MbusWanted));
	}
	MemSet(&wanted[nwanted], 0, sizeof(MbusWanted));
	wanted[nwanted].segment = segment;
	return &wanted[nwanted++];
}

/*
 * look_begin finds out who reads the segment; false if memory says that it is
 * no use to read on.
 */
static bool
look_begin(MbusWork *work, const AckedSegment *candidate, MbusLook *look)
{
	bool		isnull;
	Oid			leaf;

	MemSet(look, 0, sizeof(*look));
	look->schema = work->schema;
	look->segment = candidate->segment;
	look->channel_id = candidate->channel_id;
	look->now = mbus_now();
	look->first = MbusFirstId(candidate->segment);
	look->policy = mbus_channel_policy(work->schema, candidate->channel_id);
	if ((look->policy != NULL) != candidate->exists ||
		mbus_leaf_state(work, MBUS_MESSAGE, candidate->segment,
						&leaf) != MBUS_LEAF_ATTACHED)
		return false;
	readers_find(look);
	if (look->policy && look->nreaders == 0)
		return false;
	look->last = mbus_sql_int64(&isnull, "SELECT max(id)"
								" FROM message_bus.message_%d",
								candidate->segment);
	return isnull || memory_is_past(work, look);
}

/* Reads the subscriptions of the channel. */
static void
readers_find(MbusLook *look)
{
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(look->channel_id)};

	if (SPI_execute_with_args("SELECT subscription_id, start_id, start_at,"
							  " since_lease FROM message_bus.subscription"
							  " WHERE channel_id = $1", 1, types, values,
							  NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.subscription");
	look->reader = palloc0((SPI_processed + 1) * sizeof(MbusReader));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MbusReader *reader = &look->reader[look->nreaders++];
		Datum		start_at;
		bool		isnull;

		reader->subscription_id =
			DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
		reader->start_id = DatumGetInt64(SPI_getbinval(row, desc, 2,
													   &isnull));
		start_at = SPI_getbinval(row, desc, 3, &isnull);
		reader->start_at = isnull ? PG_INT64_MIN :
			DatumGetTimestampTz(start_at);
		reader->since_lease = DatumGetInt64(SPI_getbinval(row, desc, 4,
														  &isnull));
	}
}

/*
 * memory_is_past tells whether all readers are past the segment and have
 * nothing outstanding in it.
 */
static bool
memory_is_past(MbusWork *work, const MbusLook *look)
{
	MbusPosition position = {0};
	bool		past = true;

	for (int i = 0; i < look->nreaders && past; i++)
	{
		const MbusReader *reader = &look->reader[i];
		uint32		slot;

		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		slot = mbus_sub_find(work->db->database, work->schema,
							 reader->subscription_id);
		/* most are not past: no need to copy anything */
		past = slot != MBUS_NONE && mbus_sub(slot)->loaded &&
			mbus_sub(slot)->cursor >= look->last;
		LWLockRelease(mbus_delivery_lock());
		if (slot == MBUS_NONE)
			(void) mbus_slot_want(work->db, reader->subscription_id);
		past = past &&
			mbus_position_copy(work, slot, reader->subscription_id,
							   &position) &&
			position.since_lease == reader->since_lease &&
			position_is_past(&position, look);
	}
	return past;
}

/*
 * Whether a subscription has read all of the segment, and nothing of it is out
 * or skipped.
 */
static bool
position_is_past(const MbusPosition *position, const MbusLook *look)
{
	if (position->cursor < look->last || position->passed <= look->last)
		return false;
	for (int i = 0; i < position->npending; i++)
	{
		if (position->pending[i].id >= look->first &&
			position->pending[i].id <= look->last)
			return false;
	}
	for (int i = 0; i < position->nskips; i++)
	{
		if (position->skips[2 * i] <= look->last &&
			position->skips[2 * i + 1] > look->first)
			return false;
	}
	return true;
}
