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
#include "delivery/scan_expiring.h"
#include "delivery/scan_range.h"
#include "delivery/scan_record.h"
#include "delivery/scan_room.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "delivery/skip.h"
#include "delivery/sub.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/range.h"
#include "state/unfinished.h"

static void scan_begin(MbusScan *scan);
static void policy_copy(MbusScan *scan);
static void waiting_allocate(MbusScan *scan);
static int	slot_copy(MbusScan *scan);
static void gone_reread(MbusScan *scan);
static bool waits_gone(MbusScan *scan, const MbusSub *sub);
static bool leaf_there(MbusScan *scan, int32 segment);
static int	leaves_upto(MbusScan *scan, int32 segment);
static void waiting_copy(MbusScan *scan);
static int	waiting_list(uint32 first, MbusWaiting *to, int max);
static void positions_begin(MbusScan *scan);
static void limit_ordered(MbusScan *scan);
static void scan_read(MbusScan *scan);
static int	found_compare(const void *a, const void *b);

/*
 * mbus_scan takes up to scan->batch messages for a subscription, or, as a
 * probe, only looks whether there are some.  False: nothing was done because
 * the worker has to do something first, or a seek came between; ask again.
 * 53400 if the subscription may have no more entries.
 */
bool
mbus_scan(MbusScan *scan)
{
	int			batch = scan->batch;	/* who claims may have less */
	bool		recorded;

	scan->nfound = 0;
	scan->lease = 0;
	scan_begin(scan);
	scan->limit = mbus_unfinished_copy(scan->db, scan->schema,
									   scan->channel_id, &scan->unfinished,
									   &scan->nunfinished);
	if (scan->limit < 0)
	{
		scan->batch = batch;
		return false;
	}
	if (scan->sub.ordered)
		limit_ordered(scan);
	if (scan->until == 0)
		mbus_scan_reserve_skips(scan);
	scan->snapshot = RegisterSnapshot(GetLatestSnapshot());
	/* what this transaction has written, a redrive, may yet be undone */
	scan->snapshot->curcid = FirstCommandId;
	scan->nleaves = mbus_leaves(scan->schema, &scan->leaves);
	if (scan->until == 0)
		scan_read(scan);
	else
		mbus_scan_expiring(scan);
	UnregisterSnapshot(scan->snapshot);
	/* what waited in a segment that went meanwhile may not have been seen */
	if (scan->sub.wait_low != 0)
		scan->nleaves = mbus_leaves(scan->schema, &scan->leaves);
	scan->waits_seen = !waits_gone(scan, &scan->sub);
	qsort(scan->found, scan->nfound, sizeof(MbusFound), found_compare);

	if (!scan->probe)
		mbus_effect_prepare(0);
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	recorded = mbus_scan_record(scan);
	mbus_scan_undo(scan->slot);
	LWLockRelease(mbus_delivery_lock());
	scan->batch = batch;
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

	/* entries that wait need no new ones */
	scan->room = scan->probe ? 1 : got;
	if (scan->batch == 0 ||
		(scan->room == 0 && scan->nready == 0 && scan->nnexts == 0))
		mbus_scan_room_refuse(scan);
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

	scan->ready = palloc(batch * sizeof(MbusWaiting));
	scan->nready = batch;
	scan->nexts = palloc(batch * sizeof(MbusWaiting));
	scan->nnexts = batch;
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

	sub->used_at = scan->now;
	sub->reloaded = false;
	gone_reread(scan);
	scan->sub = *sub;
	scan->read_retries = sub->next_retry <= scan->now;
	if (scan->until != 0)
		scan->read_retries = false;
	waiting_copy(scan);
	return scan->probe ? 0 : mbus_scan_reserve(scan);
}

/*
 * gone_reread has a subscription read again what may have been passed over
 * for a message that waited for a retry and has gone with its segment.
 */
static void
gone_reread(MbusScan *scan)
{
	MbusSub    *sub = mbus_sub(scan->slot);
	bool		left = sub->wait_more;

	if (sub->wait_low == 0)
		return;
	if (waits_gone(scan, sub))
		mbus_sub_reread(scan->slot, sub->wait_passed == 0 ? sub->wait_low :
						Min(sub->wait_low, sub->wait_passed - 1));
	for (int i = 0; i < MBUS_WAIT_SEGMENTS; i++)
	{
		if (!leaf_there(scan, sub->wait_segment[i]))
			sub->wait_segment[i] = 0;
		left |= sub->wait_segment[i] != 0;
	}
	sub->wait_upto = MbusSegmentOf(Max(sub->cursor, sub->check_below));
	sub->wait_leaves = leaves_upto(scan, sub->wait_upto);
	if (!left)
		mbus_keys_clear(scan->slot);
}

/* Whether a segment has gone in which one of a key may have waited. */
static bool
waits_gone(MbusScan *scan, const MbusSub *sub)
{
	for (int i = 0; i < MBUS_WAIT_SEGMENTS; i++)
	{
		if (sub->wait_segment[i] != 0 &&
			!leaf_there(scan, sub->wait_segment[i]))
			return true;
	}
	return sub->wait_more &&
		leaves_upto(scan, sub->wait_upto) < sub->wait_leaves;
}

static bool
leaf_there(MbusScan *scan, int32 segment)
{
	return segment != 0 &&
		mbus_leaf_search(scan->leaves, scan->nleaves, segment) != NULL;
}

/* How many segments there are up to one. */
static int
leaves_upto(MbusScan *scan, int32 segment)
{
	int			n = 0;

	while (n < scan->nleaves && scan->leaves[n].segment <= segment)
		n++;
	return n;
}

/* Copies the lists; caller holds the lock. */
static void
waiting_copy(MbusScan *scan)
{
	const MbusSub *sub = mbus_sub(scan->slot);
	int			s = 0;

	scan->nready = waiting_list(sub->ready, scan->ready, scan->nready);
	scan->nnexts = waiting_list(sub->nexts, scan->nexts, scan->nnexts);
	for (uint32 i = sub->skipped; i != MBUS_NONE && s < scan->nskipped;
		 i = mbus_skip(i)->next)
	{
		scan->skipped[s].lo = mbus_skip(i)->lo;
		scan->skipped[s++].hi = mbus_skip(i)->hi;
	}
	scan->nskipped = s;
}

/* Copies the first "max" entries of a list; returns how many. */
static int
waiting_list(uint32 first, MbusWaiting *to, int max)
{
	int			n = 0;

	for (uint32 i = first; i != MBUS_NONE && n < max; i = mbus_entry(i)->next)
	{
		MbusEntry  *e = mbus_entry(i);

		to[n].entry = i;
		to[n].id = e->id;
		to[n].key_hash = e->key_hash;
		to[n].attempt = e->attempt;
		n++;
	}
	return n;
}

/* The positions that the scan moves on. */
static void
positions_begin(MbusScan *scan)
{
	scan->cursor = scan->sub.cursor;
	scan->quiet_from = scan->sub.quiet_from;
	scan->due_position = scan->sub.due_position;
	scan->next_due = scan->sub.next_due;
	scan->due_in = scan->sub.due_in;
	scan->retry_position = scan->sub.retry_position;
	scan->next_retry = scan->sub.next_retry;
	scan->retry_in = scan->sub.retry_in;
	scan->bytes = 0;
	scan->full = false;
	scan->nread = 0;
	scan->ngone = 0;
	scan->read_due = scan->due_left = scan->retries_left = false;
	scan->expired_low = PG_INT64_MAX;
}

/*
 * limit_ordered ends the scan before the first range that is loose: a message
 * in it may have been published before one of its key that lies behind.
 */
static void
limit_ordered(MbusScan *scan)
{
	for (int i = 0; i < scan->nunfinished; i++)
	{
		if (scan->unfinished[i].loose)
			scan->limit = Min(scan->limit, scan->unfinished[i].lo);
	}
}

/*
 * Step 4.  Redeliveries come first, but a quarter of a batch is kept for new
 * messages, of single claims each fourth.  Where these are too few the rest is
 * for redeliveries, too.
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
	if (last || scan->retries_left)
		mbus_scan_retries(scan, scan->batch);
	if (last || scan->due_left)
		mbus_scan_due(scan, scan->batch);
}

static int
found_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusFound *) a)->id,
					  ((const MbusFound *) b)->id);
}
