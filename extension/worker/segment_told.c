/*
 * segment_told.c
 *		What goes with a segment that some subscription was not done with.
 *
 * Before a segment is dropped, leases in it end whose messages may still
 * become dead letters (delivery/overdue.c).  Then, for each subscription, the
 * messages are counted that have expired before it was done with them.  One
 * transaction adds this to message_bus.expired and marks the segment's row as
 * told, so that each is counted once, whenever the server goes down; after its
 * commit a line in the log tells.  What the facts say of a segment is final by
 * then: all in it has expired, and no publish in it is unfinished.  An ack that
 * comes later is of a message that is out, and these are not counted.
 *
 * Most subscriptions are done with all of it, and memory knows: they are past
 * it, and none was passed over because it had expired.  For the others the
 * tables are read, some rows in each task, and others are served between.
 * After ROWS_MAX rows the count is given up; what it has come to is a lower
 * bound then, and marked as such.
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "delivery/expired.h"
#include "delivery/overdue.h"
#include "delivery/pool.h"
#include "delivery/skip.h"
#include "delivery/sub.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/state.h"
#include "worker/segment_told.h"
#include "worker/task.h"

#define ROWS_AT_A_TIME	100000	/* in one task */
#define ROWS_MAX		INT64CONST(50000000)	/* of one segment */
#define NAMED			5		/* subscriptions in the log */

/* A segment whose leases are to end. */
typedef struct Overdue
{
	int32		segment;
	int			held;			/* out: messages that still are */
} Overdue;

/* A subscription, and what it was not done with. */
typedef struct Counted
{
	MbusExpired expired;		/* "n" is of all reads */
	char	   *channel;
	char	   *subscription;
	int64		n;
	bool		cut;
} Counted;

/* The segment that was counted last; in a memory context of its own. */
static struct
{
	int32		segment;		/* 0: none */
	bool		told;			/* it was counted before */
	int			n;
	Counted    *counted;
	int64		rows;			/* that were read */
}			last;
static MemoryContext last_context = NULL;

static MbusOutcome overdue_run(MbusWork *work, Overdue *overdue);
static MbusOutcome overdue_end(MbusWork *work, void *arg);
static MbusOutcome reader_count_all(MbusWork *work, Counted *counted);
static MbusOutcome count_store(MbusWork *work, void *arg);
static void count_tell(void);
static MbusOutcome readers_list(MbusWork *work, void *arg);
static Counted *reader_add(HeapTuple row, TupleDesc desc);
static MbusOutcome reader_count(MbusWork *work, void *arg);
static bool memory_knows_none(MbusWork *work, Counted *counted,
							  Relation leaf);
static bool slot_is_past(const MbusSub *sub, int32 segment);
static bool has_delayed(Relation leaf, int32 channel_id);
static void busy_collect(MbusWork *work, Counted *counted);
static int	busy_list(const MbusSub *sub, int32 segment, int64 *ids,
					  int room);
static int64 last_total(int *subscriptions, bool *cut);

/*
 * mbus_segment_settle has leases in an expired segment end whose messages may
 * still become dead letters.  False if some are held on.
 */
bool
mbus_segment_settle(MbusWork *work, int32 segment)
{
	Overdue		overdue = {.segment = segment};
	MbusOutcome outcome = overdue_run(work, &overdue);

	if (outcome == MBUS_DONE && overdue.held > 0)
	{
		work->serve(work);
		outcome = overdue_run(work, &overdue);
	}
	/* on a full disk space comes first */
	return outcome == MBUS_DONE && (overdue.held == 0 || work->disk.full);
}

static MbusOutcome
overdue_run(MbusWork *work, Overdue *overdue)
{
	return mbus_task_run(work, MBUS_TASK_RETIRE, overdue_end, overdue,
						 "ending leases of segment %d", overdue->segment);
}

/* Ends leases; it looks up channels, and so needs a transaction. */
static MbusOutcome
overdue_end(MbusWork *work, void *arg)
{
	Overdue    *overdue = arg;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	overdue->held = mbus_overdue_end(work->schema, work->db,
									 overdue->segment);
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * mbus_segment_count counts what subscriptions were not done with in a segment
 * that is about to be dropped, unless that was done before.
 */
MbusOutcome
mbus_segment_count(MbusWork *work, int32 segment)
{
	MbusOutcome outcome;

	if (last_context == NULL)
		last_context = AllocSetContextCreate(TopMemoryContext,
											 "message_bus expired",
											 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(last_context);
	MemSet(&last, 0, sizeof(last));
	last.segment = segment;
	outcome = mbus_task_run(work, MBUS_TASK_RETIRE, readers_list, NULL,
							"looking who reads segment %d", segment);
	if (last.told)
		return outcome;
	for (int i = 0; i < last.n && outcome == MBUS_DONE; i++)
		outcome = reader_count_all(work, &last.counted[i]);
	if (outcome == MBUS_DONE)
		outcome = mbus_task_run(work, MBUS_TASK_RETIRE, count_store, NULL,
								"telling what goes with segment %d", segment);
	if (outcome == MBUS_DONE)
		count_tell();
	return outcome;
}

/* Counts for one subscription, some rows at a time. */
static MbusOutcome
reader_count_all(MbusWork *work, Counted *counted)
{
	MbusOutcome outcome;

	do
	{
		counted->cut = last.rows >= ROWS_MAX;
		if (counted->cut)
			return MBUS_DONE;
		outcome = mbus_task_run(work, MBUS_TASK_RETIRE, reader_count, counted,
								"counting what goes with segment %d",
								last.segment);
		if (counted->expired.cut)
			work->serve(work);
	} while (outcome == MBUS_DONE && counted->expired.cut);
	/* what cannot be read must go all the same */
	counted->cut = outcome == MBUS_FAILED;
	return counted->cut ? MBUS_DONE : outcome;
}

/* Lists the subscriptions. */
static MbusOutcome
readers_list(MbusWork *work, void *arg)
{
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	last.told = mbus_sql_int64(&isnull, "SELECT told::int::int8"
							   " FROM message_bus.segment"
							   " WHERE segment_no = %d", last.segment) != 0;
	if (SPI_execute("SELECT s.subscription_id, s.channel_id, s.start_id,"
					" s.start_at, s.wanted_at, s.since_lease, c.name, s.name"
					" FROM message_bus.subscription s"
					" JOIN message_bus.channel c"
					" ON c.channel_id = s.channel_id"
					" ORDER BY s.subscription_id", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read message_bus.subscription");
	last.counted = MemoryContextAllocZero(last_context, (SPI_processed + 1) *
										  sizeof(Counted));
	for (uint64 i = 0; i < SPI_processed; i++)
		reader_add(SPI_tuptable->vals[i],
				   SPI_tuptable->tupdesc)->expired.schema = work->schema;
	mbus_task_commit();
	return MBUS_DONE;
}

static Counted *
reader_add(HeapTuple row, TupleDesc desc)
{
	Counted    *counted = &last.counted[last.n++];
	MbusExpired *expired = &counted->expired;
	MemoryContext caller = MemoryContextSwitchTo(last_context);
	Datum		start_at;
	bool		isnull;

	expired->subscription_id = DatumGetInt32(SPI_getbinval(row, desc, 1,
														   &isnull));
	expired->channel_id = DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
	expired->start_id = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
	start_at = SPI_getbinval(row, desc, 4, &isnull);
	expired->start_at = isnull ? 0 : DatumGetTimestampTz(start_at);
	expired->wanted_at = DatumGetTimestampTz(SPI_getbinval(row, desc, 5,
														   &isnull));
	expired->since_lease = DatumGetInt64(SPI_getbinval(row, desc, 6,
													   &isnull));
	counted->channel = TextDatumGetCString(SPI_getbinval(row, desc, 7,
														 &isnull));
	counted->subscription = TextDatumGetCString(SPI_getbinval(row, desc, 8,
															  &isnull));
	expired->reached = MbusFirstId(last.segment);
	MemoryContextSwitchTo(caller);
	return counted;
}

/* Counts some rows for one subscription. */
static MbusOutcome
reader_count(MbusWork *work, void *arg)
{
	Counted    *counted = arg;
	MbusExpired *expired = &counted->expired;
	Relation	leaf;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	expired->cut = false;
	leaf = mbus_leaf_open(work->schema, last.segment, MBUS_MESSAGE,
						  AccessShareLock);
	if (leaf != NULL && !memory_knows_none(work, counted, leaf))
	{
		busy_collect(work, counted);
		expired->snapshot = RegisterSnapshot(GetLatestSnapshot());
		expired->budget = ROWS_AT_A_TIME;
		mbus_expired_begin(expired);
		mbus_expired_read(expired, leaf, last.segment, expired->reached,
						  MbusFirstId((int64) last.segment + 1));
		UnregisterSnapshot(expired->snapshot);
		last.rows += ROWS_AT_A_TIME - Max(expired->budget, 0);
		counted->n += expired->n;
	}
	if (leaf)
		table_close(leaf, AccessShareLock);
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * memory_knows_none tells whether memory says that nothing in the segment has
 * expired before the subscription was done with it.  Takes the delivery lock.
 */
static bool
memory_knows_none(MbusWork *work, Counted *counted, Relation leaf)
{
	uint32		slot;
	bool		past;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	slot = mbus_sub_find(work->db->database, work->schema,
						 counted->expired.subscription_id);
	past = slot != MBUS_NONE && slot_is_past(mbus_sub(slot), last.segment);
	LWLockRelease(mbus_delivery_lock());
	return past && !has_delayed(leaf, counted->expired.channel_id);
}

/*
 * slot_is_past tells whether a subscription has had all of a segment but for
 * what is delayed.  A scan at work may have taken what waits for a retry.
 * Caller holds the lock.
 */
static bool
slot_is_past(const MbusSub *sub, int32 segment)
{
	int64		end = MbusFirstId((int64) segment + 1);

	if (!sub->loaded || sub->scanner != -1 || sub->cursor < end - 1 ||
		sub->expired_low < end || sub->wait_low != 0 ||
		mbus_set_has(&sub->retry_in, segment) || sub->ready != MBUS_NONE ||
		sub->nexts != MBUS_NONE)
		return false;
	for (uint32 s = sub->skipped; s != MBUS_NONE; s = mbus_skip(s)->next)
	{
		if (mbus_skip(s)->lo < end)
			return false;
	}
	return true;
}

/* Whether the channel has a delayed message in the segment. */
static bool
has_delayed(Relation leaf, int32 channel_id)
{
	MbusLeafScan rows;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		has;

	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_CHANNEL_ID,
						MBUS_COL_AVAILABLE_AT, true);
	mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, channel_id);
	mbus_leaf_scan_begin(&rows, snapshot);
	has = mbus_leaf_scan_next(&rows) != NULL;
	mbus_leaf_scan_close(&rows);
	UnregisterSnapshot(snapshot);
	return has;
}

/* Lists what is out of the segment.  Takes the delivery lock. */
static void
busy_collect(MbusWork *work, Counted *counted)
{
	int			room = 64;
	int64	   *ids = palloc(room * sizeof(int64));
	int			n;

	for (;;)
	{
		uint32		slot;

		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		slot = mbus_sub_find(work->db->database, work->schema,
							 counted->expired.subscription_id);
		n = slot == MBUS_NONE ? 0 :
			busy_list(mbus_sub(slot), last.segment, ids, room);
		LWLockRelease(mbus_delivery_lock());
		if (n <= room)
			break;
		room = n + n / 4;
		ids = repalloc_huge(ids, room * sizeof(int64));
	}
	qsort(ids, n, sizeof(int64), mbus_int64_compare);
	counted->expired.busy = ids;
	counted->expired.nbusy = n;
}

/* Fills in what there is room for; returns how many there are. */
static int
busy_list(const MbusSub *sub, int32 segment, int64 *ids, int room)
{
	int			n = 0;

	for (uint32 l = sub->leases; l != MBUS_NONE; l = mbus_lease(l)->next)
	{
		for (uint32 e = mbus_lease(l)->first; e != MBUS_NONE;
			 e = mbus_entry(e)->next)
		{
			if (MbusSegmentOf(mbus_entry(e)->id) != segment)
				continue;
			if (n < room)
				ids[n] = mbus_entry(e)->id;
			n++;
		}
	}
	return n;
}

/* Adds what was counted, in one transaction with the mark that it was. */
static MbusOutcome
count_store(MbusWork *work, void *arg)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	for (int i = 0; i < last.n; i++)
	{
		const Counted *counted = &last.counted[i];

		if (counted->n == 0 && !counted->cut)
			continue;
		mbus_sql("INSERT INTO message_bus.expired AS e"
				 " SELECT s.subscription_id, " INT64_FORMAT ", %s"
				 " FROM message_bus.subscription s"
				 " WHERE s.subscription_id = %d"
				 " ON CONFLICT (subscription_id) DO UPDATE SET"
				 " n = e.n + EXCLUDED.n,"
				 " at_least = e.at_least OR EXCLUDED.at_least",
				 counted->n, counted->cut ? "true" : "false",
				 counted->expired.subscription_id);
	}
	mbus_sql("UPDATE message_bus.segment SET told = true"
			 " WHERE segment_no = %d", last.segment);
	mbus_task_commit();
	return MBUS_DONE;
}

/*
 * count_tell writes a line into the log, if something goes with the segment
 * that somebody was not done with.
 */
static void
count_tell(void)
{
	int			subscriptions;
	bool		cut;
	int64		total = last_total(&subscriptions, &cut);
	int			named = 0;
	StringInfoData list;

	if (subscriptions == 0)
		return;
	initStringInfo(&list);
	for (int i = 0; i < last.n && named < NAMED; i++)
	{
		const Counted *counted = &last.counted[i];

		if (counted->n == 0 && !counted->cut)
			continue;
		appendStringInfo(&list, "%s" INT64_FORMAT "%s of channel \"%s\" for subscription \"%s\"",
						 named++ > 0 ? ", " : "", counted->n,
						 counted->cut ? " or more" : "", counted->channel,
						 counted->subscription);
	}
	if (subscriptions > named)
		appendStringInfo(&list, ", and %d subscriptions more",
						 subscriptions - named);
	ereport(LOG,
			(errmsg("message_bus drops segment %d with %s" INT64_FORMAT " messages that have expired before a subscription was done with them",
					last.segment, cut ? "at least " : "", total),
			 errdetail("%s.", list.data),
			 errhint("See message_bus.subscriptions.expired; with dead_letter_expired a channel keeps them as dead letters.")));
	pfree(list.data);
}

/* How many in all, and for how many subscriptions. */
static int64
last_total(int *subscriptions, bool *cut)
{
	int64		total = 0;

	*subscriptions = 0;
	*cut = false;
	for (int i = 0; i < last.n; i++)
	{
		total += last.counted[i].n;
		*cut |= last.counted[i].cut;
		*subscriptions += last.counted[i].n > 0 || last.counted[i].cut;
	}
	return total;
}
