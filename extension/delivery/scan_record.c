/*
 * scan_record.c
 *		The end of a scan: what it has found becomes a lease.
 *
 * What a scan takes from shared memory before that, free entries and skip
 * nodes and the retry position, is in "reserved", so that an error in between
 * puts it back (mbus_scan_undo).
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/ids.h"
#include "delivery/effect.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/scan_record.h"
#include "delivery/scanning.h"
#include "state/clock.h"
#include "state/range.h"
#include "state/state.h"

/* What this scan has taken from shared memory and not recorded. */
static struct
{
	uint32		entries;
	uint32		skips;
	bool		retry_moved;
	TimestampTz retry_at;
	TimestampTz next_retry;
}			reserved = {MBUS_NONE, MBUS_NONE};

static void retries_begin(MbusScan *scan, MbusSub *sub);
static void record_positions(MbusScan *scan, MbusSub *sub);
static void record_skips(MbusScan *scan, MbusSub *sub);
static void record_gone(MbusScan *scan);
static bool record_waiting(MbusScan *scan);
static bool record_lease(MbusScan *scan, MbusSub *sub, int64 number);
static uint32 record_entry(MbusScan *scan, MbusFound *found);
static void list_remove(MbusSub *sub, uint32 entry);
static void times_next(MbusScan *scan, const MbusSub *sub);

/*
 * mbus_scan_reserve sets entries aside for a batch and begins with the
 * retries; returns how many entries there are.  Caller holds the lock.
 */
int
mbus_scan_reserve(MbusScan *scan)
{
	int			got = 0;

	reserved.entries = mbus_entries_take(scan->batch, &got);
	if (scan->read_retries)
		retries_begin(scan, mbus_sub(scan->slot));
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

/*
 * mbus_scan_reserve_skips sets skip nodes aside for the unfinished ranges that
 * the cursor may pass; if there are too few the scan ends before the first
 * that gets none.  Takes the lock.
 */
void
mbus_scan_reserve_skips(MbusScan *scan)
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
 * mbus_scan_undo puts back what a scan has taken and not recorded; caller
 * holds the lock.
 */
void
mbus_scan_undo(uint32 slot)
{
	MbusSub    *sub = mbus_sub(slot);

	mbus_entries_free(reserved.entries);
	mbus_skips_free(reserved.skips);
	reserved.entries = MBUS_NONE;
	reserved.skips = MBUS_NONE;
	if (reserved.retry_moved)
	{
		sub->retry_at = Min(sub->retry_at, reserved.retry_at);
		sub->next_retry = Min(sub->next_retry, reserved.next_retry);
		sub->retry_from = PG_INT64_MAX;
	}
	reserved.retry_moved = false;
}

/*
 * mbus_scan_record, step 5, makes what was found a lease and moves the
 * positions.  False if it cannot be: a seek came between, or the worker has to
 * begin an epoch.  Caller holds the lock.
 */
bool
mbus_scan_record(MbusScan *scan)
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

/*
 * Makes the lease; false if nothing was found.
 */
static bool
record_lease(MbusScan *scan, MbusSub *sub, int64 number)
{
	TimestampTz now = mbus_now();	/* reading may have taken long */
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
		entry = reserved.entries;
		reserved.entries = mbus_entry(entry)->next;
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
