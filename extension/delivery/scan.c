/*
 * scan.c
 *		The scan of a claim: what a subscription gets next.
 *
 * The steps, their order and why it matters are in delivery/README.md, section
 * "The scan".  The caller holds the scanner slot (scanner.c).  Entries that
 * wait to be claimed stay on their lists until the scan is recorded: only a
 * scanner takes them off.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "delivery/effect.h"
#include "delivery/pool.h"
#include "delivery/scan.h"
#include "delivery/scan_due.h"
#include "delivery/scan_range.h"
#include "delivery/scan_record.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/range.h"
#include "state/unfinished.h"

static void scan_begin(MbusScan *scan);
static void policy_copy(MbusScan *scan);
static void waiting_allocate(MbusScan *scan);
static int	slot_copy(MbusScan *scan);
static void waiting_copy(MbusScan *scan, bool busy);
static int	waiting_list(uint32 first, MbusWaiting *to, int max,
						 TimestampTz now);
static int	busy_copy(MbusScan *scan, const MbusSub *sub);
static void positions_begin(MbusScan *scan);
static void scan_read(MbusScan *scan);
static int	found_compare(const void *a, const void *b);
static int	waiting_compare(const void *a, const void *b);

/*
 * mbus_scan takes up to scan->batch messages for a subscription, or, as a
 * probe, only looks whether there are some.  False: nothing was done because
 * the worker has to do something first, or a seek came between; ask again.
 * 53400 if the pool of entries is used up.
 */
bool
mbus_scan(MbusScan *scan)
{
	int32		highest = 0;	/* segment */
	bool		recorded;

	scan->nfound = 0;
	scan->lease = 0;
	scan_begin(scan);
	if (scan->nleaves > 0)
		highest = scan->leaves[scan->nleaves - 1].segment;
	scan->limit = mbus_unfinished_copy(scan->db, scan->schema,
									   scan->channel_id, highest,
									   &scan->unfinished, &scan->nunfinished);
	if (scan->limit < 0)
		return false;
	scan->delays = mbus_delays(scan->db, scan->channel_id);
	mbus_scan_reserve_skips(scan);
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	/* what this transaction has written, a redrive, may yet be undone */
	scan->snapshot->curcid = FirstCommandId;
	scan->nleaves = mbus_leaves(scan->schema, &scan->leaves);
	scan_read(scan);
	UnregisterSnapshot(scan->snapshot);
	qsort(scan->found, scan->nfound, sizeof(MbusFound), found_compare);

	if (!scan->probe)
		mbus_effect_prepare(0);
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	recorded = mbus_scan_record(scan);
	mbus_scan_undo(scan->slot);
	LWLockRelease(mbus_delivery_lock());
	return recorded;
}

/*
 * Step 1: what is in memory, as it is now, and what is needed to go on.
 */
static void
scan_begin(MbusScan *scan)
{
	int			got;

	scan->now = mbus_now();
	policy_copy(scan);
	scan->nleaves = mbus_leaves(scan->schema, &scan->leaves);
	waiting_allocate(scan);

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	got = slot_copy(scan);
	LWLockRelease(mbus_delivery_lock());
	qsort(scan->busy, scan->nbusy, sizeof(int64), mbus_int64_compare);
	qsort(scan->retries, scan->nretries, sizeof(MbusWaiting), waiting_compare);
	scan->nretries = Min(scan->nretries, scan->batch);

	/* entries that wait need no new ones */
	scan->room = scan->probe ? 1 : Min(scan->batch, got);
	if (scan->room == 0 && scan->nready == 0 && scan->nnexts == 0 &&
		scan->nretries == 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many messages are claimed"),
				 errdetail("The server follows at most %d messages that are claimed at one time.",
						   mbus_max_leases),
				 errhint("Acknowledge some, or raise \"message_bus.max_leases\" and restart the server.")));
	positions_begin(scan);
}

/*
 * Copies the channel's policy, which the cache may lose while the scan reads;
 * 42P01 if the channel is gone.
 */
static void
policy_copy(MbusScan *scan)
{
	const MbusPolicy *policy = mbus_channel_policy(scan->schema,
												   scan->channel_id);

	if (policy == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("channel %d does not exist", scan->channel_id),
				 errdetail("It was dropped meanwhile.")));
	scan->policy = *policy;
	if (scan->policy.nkept > 0)
	{
		Size		size = 2 * scan->policy.nkept * sizeof(int64);

		/* the cache may go meanwhile */
		scan->policy.kept = memcpy(palloc(size), scan->policy.kept, size);
	}
}

/*
 * Memory for what waiting_copy copies.  Only the scanner, which we are, adds
 * entries and skipped ranges; only what is ready or next may become more.
 */
static void
waiting_allocate(MbusScan *scan)
{
	MbusSub    *sub = mbus_sub(scan->slot);
	int			n = Max(sub->nentries, 1);
	int			batch = Max(Min(scan->batch, n), 1);

	scan->busy = palloc(n * sizeof(int64));
	scan->nbusy = n;
	scan->ready = palloc(batch * sizeof(MbusWaiting));
	scan->nready = batch;
	scan->nexts = palloc(batch * sizeof(MbusWaiting));
	scan->nnexts = batch;
	/* all that are due: those that wait longest go first */
	scan->nretries = sub->ordered ? n : 0;
	scan->retries = palloc(Max(scan->nretries, 1) * sizeof(MbusWaiting));
	scan->gone = palloc(3 * batch * sizeof(uint32));
	scan->nskipped = sub->nskipped;
	scan->skipped = palloc(Max(sub->nskipped, 1) * sizeof(MbusRange));
	scan->maxfound = 0;
	scan->found = NULL;
	scan->keys = NULL;
}

/*
 * slot_copy copies the subscription's slot and what waits in it, and sets
 * entries aside; returns how many.  Caller holds the lock.
 */
static int
slot_copy(MbusScan *scan)
{
	MbusSub    *sub = mbus_sub(scan->slot);
	bool		busy;

	sub->reloaded = false;
	scan->sub = *sub;
	scan->read_retries = !sub->ordered && sub->next_retry <= scan->now;
	scan->read_due = sub->next_due <= scan->now ||
		sub->delays_seen != mbus_delays(scan->db, scan->channel_id);
	busy = scan->read_retries || scan->read_due || sub->nexts != MBUS_NONE ||
		sub->cursor + 1 < sub->check_below ||
		(sub->nskipped > 0 && sub->check_below > 0);
	waiting_copy(scan, busy);
	return scan->probe ? 0 : mbus_scan_reserve(scan);
}

/* Copies the lists, and with "busy" all ids; caller holds the lock. */
static void
waiting_copy(MbusScan *scan, bool busy)
{
	const MbusSub *sub = mbus_sub(scan->slot);
	int			s = 0;

	scan->nready = waiting_list(sub->ready, scan->ready, scan->nready,
								scan->now);
	scan->nnexts = waiting_list(sub->nexts, scan->nexts, scan->nnexts,
								scan->now);
	scan->nretries = waiting_list(sub->retry, scan->retries, scan->nretries,
								  scan->now);
	for (uint32 i = sub->skipped; i != MBUS_NONE && s < scan->nskipped;
		 i = mbus_skip(i)->next)
	{
		scan->skipped[s].lo = mbus_skip(i)->lo;
		scan->skipped[s++].hi = mbus_skip(i)->hi;
	}
	scan->nskipped = s;
	scan->nbusy = busy ? busy_copy(scan, sub) : 0;
}

/* Copies the first "max" entries of a list that are due; returns how many. */
static int
waiting_list(uint32 first, MbusWaiting *to, int max, TimestampTz now)
{
	int			n = 0;

	for (uint32 i = first; i != MBUS_NONE && n < max; i = mbus_entry(i)->next)
	{
		MbusEntry  *e = mbus_entry(i);

		if (e->state == MBUS_ENTRY_RETRY && e->deadline > now)
			continue;
		to[n].entry = i;
		to[n].id = e->id;
		to[n].key_hash = e->key_hash;
		to[n].at = e->deadline;
		to[n].attempt = e->attempt;
		n++;
	}
	return n;
}

/* Copies the ids of all entries; returns how many. */
static int
busy_copy(MbusScan *scan, const MbusSub *sub)
{
	uint32		lists[] = {sub->ready, sub->nexts, sub->retry};
	int			n = 0;

	for (int i = 0; i < lengthof(lists); i++)
	{
		for (uint32 e = lists[i]; e != MBUS_NONE && n < scan->nbusy;
			 e = mbus_entry(e)->next)
		{
			/* a "next" is no message yet */
			if (mbus_entry(e)->state != MBUS_ENTRY_NEXT)
				scan->busy[n++] = mbus_entry(e)->id;
		}
	}
	for (uint32 l = sub->leases; l != MBUS_NONE; l = mbus_lease(l)->next)
	{
		for (uint32 e = mbus_lease(l)->first;
			 e != MBUS_NONE && n < scan->nbusy; e = mbus_entry(e)->next)
			scan->busy[n++] = mbus_entry(e)->id;
	}
	return n;
}

/* The positions that the scan moves on. */
static void
positions_begin(MbusScan *scan)
{
	scan->cursor = scan->sub.cursor;
	scan->due_at = scan->sub.due_at;
	scan->due_id = scan->sub.due_id;
	scan->next_due = scan->sub.next_due;
	scan->retry_at = scan->sub.retry_at;
	scan->next_retry = scan->sub.next_retry;
	scan->bytes = 0;
	scan->full = false;
	scan->nread = 0;
	scan->ngone = 0;
	scan->waits = PG_INT64_MAX;
}

/*
 * Step 4.  Redeliveries come first, but a quarter of a batch is kept for new
 * messages, of single claims each fourth.
 */
static void
scan_read(MbusScan *scan)
{
	int			most = Max(scan->batch - scan->batch / 4, 1);
	bool		last = scan->batch == 1 && scan->sub.turn % 4 == 3;

	if (scan->cursor + 1 >= scan->limit && scan->nskipped == 0)
		most = scan->batch;		/* there are no new ones */
	mbus_scan_ready(scan);
	mbus_scan_nexts(scan);
	if (!last)
	{
		mbus_scan_retries(scan, most);
		mbus_scan_due(scan, most);
	}
	mbus_scan_skipped(scan);
	mbus_scan_fresh(scan);
	if (last)
	{
		mbus_scan_retries(scan, most);
		mbus_scan_due(scan, most);
	}
}

static int
found_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusFound *) a)->id,
					  ((const MbusFound *) b)->id);
}

/* Retries by their time, those of one time by their ids. */
static int
waiting_compare(const void *a, const void *b)
{
	const MbusWaiting *x = a;
	const MbusWaiting *y = b;

	if (x->at != y->at)
		return mbus_order(x->at, y->at);
	return mbus_order(x->id, y->id);
}
