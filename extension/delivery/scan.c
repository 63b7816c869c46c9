/*
 * scan.c
 *		The scan of a claim: what a subscription gets next.
 *
 * The steps, their order and why it matters are in delivery/README.md, section
 * "The scan".  The caller holds the scanner slot (scanner.c).  Entries that
 * wait to be claimed stay on their lists until the scan is recorded: only a
 * scanner takes them off.  What is taken from shared memory before that is in
 * scan_room.c (free entries) or in "reserved" (skip nodes and the retry
 * position), so that an error in between puts it back (mbus_scan_undo).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "delivery/effect.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/scan.h"
#include "delivery/scan_due.h"
#include "delivery/scan_range.h"
#include "delivery/scan_room.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "segment/leaf.h"
#include "state/range.h"
#include "state/state.h"
#include "state/unfinished.h"

/* What this scan has taken from shared memory and not recorded. */
static struct
{
	uint32		skips;
	bool		retry_moved;
	TimestampTz retry_at;
	TimestampTz next_retry;
}			reserved = {MBUS_NONE};

static void scan_begin(MbusScan *scan);
static void policy_copy(MbusScan *scan);
static void waiting_allocate(MbusScan *scan);
static int	slot_copy(MbusScan *scan);
static void retries_begin(MbusScan *scan, MbusSub *sub);
static void waiting_copy(MbusScan *scan, bool busy);
static int	waiting_list(uint32 first, MbusWaiting *to, int max,
						 TimestampTz now);
static int	busy_copy(MbusScan *scan, const MbusSub *sub);
static void positions_begin(MbusScan *scan);
static void skips_reserve(MbusScan *scan);
static void scan_read(MbusScan *scan);
static bool scan_record(MbusScan *scan);
static void record_positions(MbusScan *scan, MbusSub *sub);
static void record_skips(MbusScan *scan, MbusSub *sub);
static void record_gone(MbusScan *scan);
static bool record_waiting(MbusScan *scan);
static void list_remove(MbusSub *sub, uint32 entry);
static bool record_lease(MbusScan *scan, MbusSub *sub, int64 number);
static uint32 record_entry(MbusScan *scan, MbusFound *found);
static void times_next(MbusScan *scan, const MbusSub *sub);
static int	found_compare(const void *a, const void *b);
static int	waiting_compare(const void *a, const void *b);

/*
 * mbus_scan takes up to scan->batch messages for a subscription, or, as a
 * probe, only looks whether there are some.  False: nothing was done because
 * the worker has to do something first, or a seek came between; ask again.
 * 53400 if the subscription may have no more entries.
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
	skips_reserve(scan);
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
	recorded = scan_record(scan);
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

	scan->now = GetCurrentTimestamp();
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
	scan->room = scan->probe ? 1 : got;
	if (scan->room == 0 && scan->nready == 0 && scan->nnexts == 0 &&
		scan->nretries == 0)
		mbus_scan_room_refuse(scan);
	positions_begin(scan);
}

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
	int			got;

	sub->used_at = scan->now;
	sub->reloaded = false;
	scan->sub = *sub;
	scan->read_retries = !sub->ordered && sub->next_retry <= scan->now;
	scan->read_due = sub->next_due <= scan->now ||
		sub->delays_seen != mbus_delays(scan->db, scan->channel_id);
	busy = scan->read_retries || scan->read_due || sub->nexts != MBUS_NONE ||
		sub->cursor + 1 < sub->check_below ||
		(sub->nskipped > 0 && sub->check_below > 0);
	waiting_copy(scan, busy);
	if (scan->probe)
		return 0;
	got = mbus_scan_room_begin(scan);
	if (scan->read_retries)
		retries_begin(scan, sub);
	return got;
}

/*
 * retries_begin moves the retry position to now, so that who comes meanwhile
 * pulls it back from there; mbus_scan_undo undoes it.
 */
static void
retries_begin(MbusScan *scan, MbusSub *sub)
{
	reserved.retry_moved = true;
	reserved.retry_at = sub->retry_at;
	reserved.next_retry = sub->next_retry;
	sub->retry_from = sub->retry_at;
	sub->retry_at = scan->now;
	sub->next_retry = PG_INT64_MAX;
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
 * Sets skip nodes aside for the unfinished ranges that the cursor may pass;
 * if there are too few the scan ends before the first that gets none.
 */
static void
skips_reserve(MbusScan *scan)
{
	int			n = 0;
	int			got = 0;
	int			seen = 0;

	for (int i = 0; i < scan->nunfinished; i++)
		n += scan->unfinished[i].hi > scan->cursor + 1;
	/* one more: a skipped range may be read in part */
	if (n == 0 || scan->probe)
		return;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	reserved.skips = mbus_skips_take(n, &got);
	LWLockRelease(mbus_delivery_lock());
	for (int i = 0; i < scan->nunfinished && got < n; i++)
	{
		if (scan->unfinished[i].hi > scan->cursor + 1 && seen++ == got)
			scan->limit = Min(scan->limit, scan->unfinished[i].lo);
	}
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

/*
 * Step 5; caller holds the lock.
 */
static bool
scan_record(MbusScan *scan)
{
	MbusSub    *sub = mbus_sub(scan->slot);
	int64		number = 0;
	bool		any = false;

	if (sub->generation != scan->sub.generation || sub->reloaded)
		return false;
	if (scan->probe)
	{
		/* the cursor stays, so nothing is passed over meanwhile */
		record_gone(scan);
		times_next(scan, &scan->sub);
		if (record_waiting(scan))
			scan->next = PG_INT64_MIN;	/* it was in the way of others */
		return true;
	}
	for (int i = 0; i < scan->nfound; i++)
		any |= scan->found[i].retry_at == 0;
	if (any)
	{
		number = mbus_lease_number(scan->db);
		if (number == 0)
		{
			mbus_wake_worker(scan->db);
			return false;
		}
	}
	sub->turn++;
	record_positions(scan, sub);
	record_skips(scan, sub);
	record_gone(scan);
	if (record_lease(scan, sub, number))
		sub->changed_since = true;
	times_next(scan, sub);
	return true;
}

/* The retry position may have been pulled back meanwhile. */
static void
record_positions(MbusScan *scan, MbusSub *sub)
{
	if (sub->cursor != scan->cursor || scan->read_due || scan->read_retries)
		sub->changed_since = true;
	sub->cursor = scan->cursor;
	if (scan->read_due)
	{
		sub->due_at = scan->due_at;
		sub->due_id = scan->due_id;
		sub->next_due = scan->next_due;
		sub->delays_seen = scan->delays;
	}
	if (scan->read_retries)
	{
		sub->retry_at = Min(sub->retry_at, scan->retry_at);
		sub->next_retry = Min(sub->next_retry, scan->next_retry);
		sub->retry_from = PG_INT64_MAX;
		reserved.retry_moved = false;
	}
}

/*
 * What is left of the skipped ranges, and those of unfinished publishes that
 * the cursor has passed.  A range that the cursor stands in is skipped from
 * there on as far as it has been passed.
 */
static void
record_skips(MbusScan *scan, MbusSub *sub)
{
	uint32	   *link = &sub->skipped;
	int			s = 0;

	while (*link != MBUS_NONE && s < scan->nskipped)
	{
		MbusSkip   *skip = mbus_skip(*link);
		uint32		number = *link;

		skip->lo = scan->skipped[s].lo;
		s++;
		if (skip->lo < skip->hi)
		{
			link = &skip->next;
			continue;
		}
		*link = skip->next;
		skip->next = MBUS_NONE;
		mbus_skips_free(number);
		sub->nskipped--;
	}
	while (*link != MBUS_NONE)
		link = &mbus_skip(*link)->next;
	for (int i = 0; i < scan->nunfinished && reserved.skips != MBUS_NONE; i++)
	{
		MbusRange  *range = &scan->unfinished[i];
		uint32		number = reserved.skips;
		int64		lo = Max(range->lo, scan->sub.cursor + 1);
		int64		hi = Min(range->hi, scan->cursor + 1);

		if (lo >= hi)
			continue;
		reserved.skips = mbus_skip(number)->next;
		mbus_skip(number)->lo = lo;
		mbus_skip(number)->hi = hi;
		mbus_skip(number)->next = MBUS_NONE;
		*link = number;
		link = &mbus_skip(number)->next;
		sub->nskipped++;
	}
}

/* Entries whose message is there no more; or, of a key, no next one. */
static void
record_gone(MbusScan *scan)
{
	for (int i = 0; i < scan->ngone; i++)
	{
		list_remove(mbus_sub(scan->slot), scan->gone[i]);
		(void) mbus_entry_done(scan->slot, scan->gone[i]);
	}
}

/*
 * What a probe has found for a free key and is to wait for its retry: as a
 * claim would, it keeps that in memory.  False if there is none.
 */
static bool
record_waiting(MbusScan *scan)
{
	bool		any = false;

	for (int i = 0; i < scan->nfound; i++)
	{
		MbusFound  *found = &scan->found[i];

		if (found->retry_at == 0 || found->entry == MBUS_NONE)
			continue;
		mbus_entry_retry(scan->slot, record_entry(scan, found),
						 found->retry_at);
		any = true;
	}
	return any;
}

/* Takes an entry off the list it is on. */
static void
list_remove(MbusSub *sub, uint32 entry)
{
	MbusEntry  *e = mbus_entry(entry);
	uint32	   *link;

	if (e->state == MBUS_ENTRY_READY)
	{
		link = &sub->ready;
		sub->nready--;
	}
	else if (e->state == MBUS_ENTRY_RETRY)
	{
		link = &sub->retry;
		sub->nretry--;
	}
	else
		link = &sub->nexts;
	while (*link != entry)
		link = &mbus_entry(*link)->next;
	*link = e->next;
	e->next = MBUS_NONE;
}

/*
 * Makes the lease; false if nothing was found.
 */
static bool
record_lease(MbusScan *scan, MbusSub *sub, int64 number)
{
	TimestampTz now = GetCurrentTimestamp();	/* reading may have taken long */
	TimestampTz deadline = now + scan->lease_us;
	uint32		first = MBUS_NONE;
	uint32		last = MBUS_NONE;
	uint32		lease;
	int			n = 0;

	for (int i = 0; i < scan->nfound; i++)
	{
		uint32		entry = record_entry(scan, &scan->found[i]);
		MbusEntry  *e = mbus_entry(entry);

		if (scan->found[i].retry_at != 0)
		{
			mbus_entry_retry(scan->slot, entry, scan->found[i].retry_at);
			continue;
		}
		e->state = MBUS_ENTRY_HELD;
		e->owner = MbusMyProcno();
		e->deadline = deadline;
		e->next = MBUS_NONE;
		if (last == MBUS_NONE)
			first = entry;
		else
			mbus_entry(last)->next = entry;
		last = entry;
		n++;
		sub->delivered++;
		if (e->attempt > 1)
			sub->redelivered++;
	}
	if (n == 0)
		return false;
	lease = mbus_lease_create(scan->slot, number, first, n, deadline);
	for (uint32 i = first; i != MBUS_NONE; i = mbus_entry(i)->next)
		mbus_entry(i)->lease = lease;
	mbus_lease(lease)->claimed_at = now;
	mbus_lease(lease)->owner = MbusMyProcno();
	mbus_lease(lease)->pid = MyProcPid;
	mbus_lease(lease)->role = GetUserId();
	mbus_lease(lease)->session = mbus_caller.session;
	mbus_effect_claim(lease);
	scan->lease = number;
	if (deadline < scan->db->delivery.expiry_wake)
	{
		scan->db->delivery.expiry_wake = deadline;
		mbus_wake_worker(scan->db);
	}
	return true;
}

/* The entry of a message: the one it had, or one that was set aside. */
static uint32
record_entry(MbusScan *scan, MbusFound *found)
{
	uint32		entry = found->entry;

	if (entry != MBUS_NONE)
		list_remove(mbus_sub(scan->slot), entry);
	else
	{
		entry = mbus_scan_room_entry();
		mbus_entry_add(scan->slot, entry, found->id, found->attempt,
					   found->key_hash);
	}
	mbus_entry(entry)->id = found->id;
	mbus_entry(entry)->corrupt = false; /* claim_result looks again */
	mbus_entry(entry)->attempt = found->attempt;
	if (found->passed != 0 && (mbus_entry(entry)->passed == 0 ||
							   found->passed < mbus_entry(entry)->passed))
		mbus_entry(entry)->passed = found->passed;
	return entry;
}

/* When to look again without being woken. */
static void
times_next(MbusScan *scan, const MbusSub *sub)
{
	/* a key's next message may have been passed over by this very scan */
	if (mbus_sub(scan->slot)->nexts != MBUS_NONE)
	{
		scan->next = PG_INT64_MIN;
		return;
	}
	scan->next = Min(scan->read_due ? scan->next_due : sub->next_due,
					 sub->next_retry);
	if (scan->probe && scan->read_retries)
		scan->next = Min(scan->next_due, scan->next_retry);
	if (sub->ordered)
	{
		TimestampTz earliest = PG_INT64_MAX;

		for (uint32 i = mbus_sub(scan->slot)->retry; i != MBUS_NONE;
			 i = mbus_entry(i)->next)
			earliest = Min(earliest, mbus_entry(i)->deadline);
		scan->next = Min(scan->read_due ? scan->next_due : sub->next_due,
						 Min(earliest, scan->waits));
	}
}

/*
 * mbus_scan_undo puts back what a scan has taken and not recorded; caller
 * holds the lock.
 */
void
mbus_scan_undo(uint32 slot)
{
	MbusSub    *sub = mbus_sub(slot);

	mbus_scan_room_undo();
	mbus_skips_free(reserved.skips);
	reserved.skips = MBUS_NONE;
	if (reserved.retry_moved)
	{
		sub->retry_at = Min(sub->retry_at, reserved.retry_at);
		sub->next_retry = Min(sub->next_retry, reserved.next_retry);
		sub->retry_from = PG_INT64_MAX;
	}
	reserved.retry_moved = false;
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
