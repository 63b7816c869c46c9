/*
 * scan_record.c
 *		The end of a scan: what it has found becomes a lease.
 *
 * What a scan takes from shared memory before that is in scan_room.c (free
 * entries) or in "reserved" (skip nodes and the retry position), so that an
 * error in between puts it back (mbus_scan_undo).
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
#include "delivery/scan_room.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "delivery/skip.h"
#include "state/clock.h"
#include "state/range.h"
#include "state/state.h"

/* What this scan has taken from shared memory and not recorded. */
static struct
{
	uint32		skips;
	bool		retry_moved;
	MbusMoment	retry_position;
	TimestampTz next_retry;
	MbusSegmentSet retry_in;
}			reserved = {MBUS_NONE};

static void retries_begin(MbusScan *scan, MbusSub *sub);
static void record_positions(MbusScan *scan, MbusSub *sub);
static bool skip_grows(MbusScan *scan, const MbusRange *unfinished);
static void record_skips(MbusScan *scan, MbusSub *sub);
static uint32 *skip_add(MbusSub *sub, uint32 *link, int64 lo, int64 hi);
static void record_gone(MbusScan *scan);
static bool record_lease(MbusScan *scan, MbusSub *sub, int64 number);
static uint32 record_entry(MbusScan *scan, MbusFound *found);
static void record_next(MbusScan *scan, MbusFound *found);
static void list_remove(MbusSub *sub, uint32 entry);
static void times_next(MbusScan *scan, const MbusSub *sub);

/*
 * mbus_scan_reserve sets some entries aside and begins with the
 * retries; returns how many entries there are.  Caller holds the lock.
 */
int
mbus_scan_reserve(MbusScan *scan)
{
	int			got = mbus_scan_room_begin(scan);

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
	reserved.retry_position = sub->retry_position;
	reserved.next_retry = sub->next_retry;
	reserved.retry_in = sub->retry_in;
	sub->retry_from = sub->retry_position;
	sub->retry_position = mbus_moment(scan->now, 0);
	sub->next_retry = PG_INT64_MAX;
	mbus_set_none(&sub->retry_in);
}

/*
 * mbus_scan_reserve_skips sets skip nodes aside for the unfinished ranges that
 * the cursor may pass; if there are too few the scan ends before the first
 * that gets none.  Takes the lock.
 */
void
mbus_scan_reserve_skips(MbusScan *scan)
{
	int			first = mbus_scan_range_after(scan->unfinished,
											  scan->nunfinished,
											  scan->cursor + 1);
	int			got;

	if (scan->probe || first >= scan->nunfinished)
		return;
	if (skip_grows(scan, &scan->unfinished[first]))
		first++;				/* it needs no node */
	if (first >= scan->nunfinished)
		return;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	reserved.skips = mbus_skips_take(scan->slot, scan->nunfinished - first,
									 &got);
	LWLockRelease(mbus_delivery_lock());
	if (first + got < scan->nunfinished)
		scan->limit = Min(scan->limit, scan->unfinished[first + got].lo);
}

/*
 * skip_grows tells whether an unfinished range that the cursor is about to
 * pass further goes on from the last skipped one: that is a part of it, and
 * nothing that was read lies between.
 */
static bool
skip_grows(MbusScan *scan, const MbusRange *unfinished)
{
	int64		end;

	if (scan->nskipped == 0)
		return false;
	end = scan->skipped[scan->nskipped - 1].hi;
	return unfinished->lo < end && scan->sub.quiet_from <= end;
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
	mbus_skips_free(slot, reserved.skips);
	reserved.skips = MBUS_NONE;
	if (reserved.retry_moved)
	{
		sub->retry_position = mbus_moment_min(sub->retry_position,
											  reserved.retry_position);
		sub->next_retry = Min(sub->next_retry, reserved.next_retry);
		mbus_set_join(&sub->retry_in, &reserved.retry_in);
		sub->retry_from = mbus_moment(PG_INT64_MAX, 0);
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
	if (scan->until == 0)
		sub->expired_low = Min(sub->expired_low, scan->expired_low);
	if (scan->probe)
	{
		/* the cursor stays, so nothing is passed over meanwhile */
		record_gone(scan);
		times_next(scan, &scan->sub);
		return true;
	}
	for (int i = 0; i < scan->nfound; i++)
		any |= !scan->found[i].next;
	if (any)
	{
		number = mbus_lease_number(scan->db);
		if (number == 0)
		{
			mbus_wake_worker(scan->db);
			return false;
		}
	}
	/* the cursor has not come to what is taken so */
	for (int i = 0; i < scan->nfound && scan->until != 0; i++)
		sub->check_below = Max(sub->check_below, scan->found[i].id + 1);
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
	sub->due_position = scan->due_position;
	sub->next_due = scan->next_due;
	sub->due_in = scan->due_in;
	if (scan->read_retries)
	{
		sub->retry_position = mbus_moment_min(sub->retry_position,
											  scan->retry_position);
		sub->next_retry = Min(sub->next_retry, scan->next_retry);
		mbus_set_join(&sub->retry_in, &scan->retry_in);
		sub->retry_from = mbus_moment(PG_INT64_MAX, 0);
		reserved.retry_moved = false;
		/* all that had to be retried was looked at, and nothing failed since */
		if (sub->next_retry == PG_INT64_MAX && scan->waits_seen)
			mbus_keys_clear(scan->slot);
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
	uint32		last = MBUS_NONE;
	bool		grows = true;

	for (int s = 0; *link != MBUS_NONE && s < scan->nskipped; s++)
	{
		uint32		number = *link;
		MbusSkip   *skip = mbus_skip(number);

		skip->lo = scan->skipped[s].lo;
		if (skip->lo < skip->hi)
		{
			last = number;
			link = &skip->next;
			continue;
		}
		*link = skip->next;
		skip->next = MBUS_NONE;
		mbus_skips_free(scan->slot, number);
		sub->nskipped--;
	}
	for (int i = mbus_scan_range_after(scan->unfinished, scan->nunfinished,
									   scan->sub.cursor + 1);
		 i < scan->nunfinished && scan->unfinished[i].lo <= scan->cursor; i++)
	{
		MbusRange  *range = &scan->unfinished[i];
		int64		hi = Min(range->hi, scan->cursor + 1);

		if (grows && last != MBUS_NONE && skip_grows(scan, range))
			mbus_skip(last)->hi = hi;
		else if (hi > scan->sub.cursor + 1)
			link = skip_add(sub, link, Max(range->lo, scan->sub.cursor + 1),
							hi);
		grows = false;
	}
	sub->quiet_from = scan->quiet_from;
}

/* Adds a node behind the others, of those set aside; returns its link. */
static uint32 *
skip_add(MbusSub *sub, uint32 *link, int64 lo, int64 hi)
{
	uint32		number = reserved.skips;
	MbusSkip   *skip = mbus_skip(number);

	reserved.skips = skip->next;
	skip->lo = lo;
	skip->hi = hi;
	skip->next = MBUS_NONE;
	*link = number;
	sub->nskipped++;
	return &skip->next;
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
		uint32		entry;
		MbusEntry  *e;

		if (scan->found[i].next)
		{
			record_next(scan, &scan->found[i]);
			continue;
		}
		entry = record_entry(scan, &scan->found[i]);
		e = mbus_entry(entry);
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
		if (scan->until != 0)
			continue;			/* it is delivered to nobody */
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
	mbus_lease(lease)->subject = scan->subject;
	mbus_lease(lease)->session = mbus_caller.session;
	mbus_lease(lease)->kept = scan->keep;
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
	{
		list_remove(mbus_sub(scan->slot), entry);
		mbus_scan_room_claimed(entry);
	}
	else
	{
		entry = mbus_scan_room_entry();
		mbus_entry_add(scan->slot, entry, found->id, found->attempt,
					   found->key_hash);
	}
	if (mbus_entry(entry)->state == MBUS_ENTRY_NEXT)
		mbus_entry_identify(scan->slot, entry, found->id);
	mbus_entry(entry)->corrupt = false; /* claim_result looks again */
	mbus_entry(entry)->attempt = found->attempt;
	mbus_entry(entry)->expires_at = found->expires_at;
	if (found->passed != 0 && (mbus_entry(entry)->passed == 0 ||
							   found->passed < mbus_entry(entry)->passed))
		mbus_entry(entry)->passed = found->passed;
	return entry;
}

/* A key whose next message is wanted gets an entry for that. */
static void
record_next(MbusScan *scan, MbusFound *found)
{
	uint32		entry = mbus_scan_room_entry();

	mbus_entry_add(scan->slot, entry, found->id, 1, found->key_hash);
	mbus_entry(entry)->passed = found->passed == 0 ? found->id :
		Min(found->id, found->passed);
	(void) mbus_entry_done(scan->slot, entry);
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
	scan->next = Min(scan->next_due, sub->next_retry);
	if (scan->probe && scan->read_retries)
		scan->next = Min(scan->next_due, scan->next_retry);
}
