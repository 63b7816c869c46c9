/*
 * effect.c
 *		What an open transaction has done to leases and entries.
 *
 * Claims, acks, nacks, seeks and drops of a transaction are kept in a list of
 * this process, with the subtransaction each belongs to.  Entries that a
 * claim holds or that an ack or nack has pinned carry this process's number
 * (MbusEntry.owner); nobody else moves or frees them, so that the callbacks
 * find them as they were left.
 *
 *	PRE_COMMIT	pinned entries must not have been made void meanwhile (55000);
 *				from here on they are "committing".  Those of a frame are
 *				checked when the frame ends: what comes later is no reason to
 *				undo the frames of others
 *	COMMIT		in the order of the calls: held entries become leased, acked
 *				ones go, failed ones wait for their time
 *	ABORT		in reverse order: pins are taken off, claims become ready
 *
 * A subtransaction that aborts undoes its own effects, one that commits gives
 * them to its parent.  COMMIT and ABORT allocate nothing and cannot fail: all
 * they need is in the list, which is extended before shared memory is
 * touched.  They take the delivery lock, and after it the lock of those who
 * wait.
 *
 * The deadline of an entry that is pinned by a nack holds its retry_at (0: the
 * message is given up); the list keeps the lease's deadline for an abort.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "delivery/deadline.h"
#include "delivery/effect.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/skip.h"
#include "delivery/sub.h"
#include "state/clock.h"
#include "state/waiter.h"

static MemoryContext effect_context = NULL;
static Effect *effects = NULL;
static int	neffects = 0;
static int	maxeffects = 0;
static Pinned *prepared = NULL; /* memory for the next PIN */

static Effect *effect_new(EffectKind kind, uint32 slot);
static void effect_xact(XactEvent event, void *arg);
static void effects_forget(void);
static void effect_subxact(SubXactEvent event, SubTransactionId subid,
						   SubTransactionId parent, void *arg);
static void effects_check(int first);
static void effects_commit(void);
static void effects_abort(int first);
static void effects_wake(int first);
static void effect_commit(Effect *effect);
static void claim_commit(uint32 lease);
static bool lease_settle(const Effect *effect);
static void seek_commit(Effect *effect);
static void redrive_end(MbusSub *sub);
static void redrive_commit(MbusSub *sub, TimestampTz at);
static void effect_abort(Effect *effect);
static void void_free(uint32 lease, bool leased);
static bool claim_abort(uint32 lease);

/*
 * mbus_effect_init registers the callbacks; from _PG_init.
 */
void
mbus_effect_init(void)
{
	RegisterXactCallback(effect_xact, NULL);
	RegisterSubXactCallback(effect_subxact, NULL);
}

/* ------------------------------------------------------------------------
 * The list
 * ------------------------------------------------------------------------
 */

/*
 * mbus_effect_prepare makes room for one more effect with n entries, so that
 * what follows under the lock allocates nothing.
 */
void
mbus_effect_prepare(int n)
{
	if (effect_context == NULL)
		effect_context = AllocSetContextCreate(TopMemoryContext,
											   "message_bus effects",
											   ALLOCSET_SMALL_SIZES);
	if (neffects >= maxeffects)
	{
		int			max = Max(8, maxeffects * 2);

		if (effects == NULL)
			effects = MemoryContextAlloc(effect_context, max * sizeof(Effect));
		else
			effects = repalloc_huge(effects, max * sizeof(Effect));
		maxeffects = max;
	}
	prepared = n > 0 ? MemoryContextAlloc(effect_context,
										  n * sizeof(Pinned)) : NULL;
}

/*
 * mbus_effect_claim takes note of a claim.  Room was made for it, and the
 * caller holds the delivery lock.
 */
void
mbus_effect_claim(uint32 lease)
{
	Effect	   *effect = effect_new(EFFECT_CLAIM, MBUS_NONE);

	effect->lease = lease;
	effect->number = mbus_lease(lease)->number;
}

/*
 * mbus_effect_pin begins an effect of pinned entries, for which room was made
 * (mbus_effect_prepare); the caller holds the delivery lock and fills it in.
 */
Effect *
mbus_effect_pin(uint32 lease, int64 number)
{
	Effect	   *effect = effect_new(EFFECT_PIN, MBUS_NONE);

	effect->lease = lease;
	effect->number = number;
	if (mbus_lease(lease)->sub != MBUS_NONE)
		effect->redriven = mbus_sub(mbus_lease(lease)->sub)->redriven;
	return effect;
}

/*
 * mbus_effect_unpin takes the last one back, which has pinned nothing: its
 * lease may go meanwhile.
 */
void
mbus_effect_unpin(void)
{
	Assert(neffects > 0 && effects[neffects - 1].npinned == 0);
	neffects--;
}

/*
 * mbus_effect_last_claim returns the lease of the claim that was just made.
 */
uint32
mbus_effect_last_claim(void)
{
	return effects[neffects - 1].lease;
}

/*
 * mbus_effect_seek moves a subscription when the transaction commits, whose
 * scanner this process is.
 */
void
mbus_effect_seek(uint32 slot, int64 start_id, TimestampTz start_at,
				 int64 since_lease)
{
	Effect	   *effect;

	mbus_effect_prepare(0);
	effect = effect_new(EFFECT_SEEK, slot);
	effect->start_id = start_id;
	effect->at = start_at;
	effect->since_lease = since_lease;
}

/*
 * mbus_effect_drop lets a subscription's slot go when the transaction commits,
 * if it still is its own.
 */
void
mbus_effect_drop(uint32 slot, Oid schema, int32 subscription_id)
{
	mbus_effect_prepare(0);
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	if (mbus_sub_is(slot, MyDatabaseId, schema, subscription_id))
		(void) effect_new(EFFECT_DROP, slot);
	LWLockRelease(mbus_delivery_lock());
}

/*
 * mbus_effect_wake wakes a channel's waiters when the transaction commits.
 */
void
mbus_effect_wake(int32 channel_id)
{
	mbus_effect_prepare(0);
	effect_new(EFFECT_WAKE, MBUS_NONE)->channel_id = channel_id;
}

/*
 * mbus_effect_redrive has a subscription look for retries from "at" on when
 * the transaction has committed.  To be called before the first row is
 * inserted: a checkpoint written meanwhile must not be above it.  False if the
 * slot is not the subscription's any more.
 */
bool
mbus_effect_redrive(uint32 slot, Oid schema, int32 subscription_id,
					TimestampTz at)
{
	MbusSub    *sub = mbus_sub(slot);
	bool		same;

	mbus_effect_prepare(0);
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	same = mbus_sub_is(slot, MyDatabaseId, schema, subscription_id);
	if (same)
	{
		effect_new(EFFECT_REDRIVE, slot)->at = at;
		sub->redrives++;
		sub->retry_floor = Min(sub->retry_floor, at);
	}
	LWLockRelease(mbus_delivery_lock());
	return same;
}

/* The next effect; room was made for it. */
static Effect *
effect_new(EffectKind kind, uint32 slot)
{
	Effect	   *effect = &effects[neffects++];

	MemSet(effect, 0, sizeof(*effect));
	effect->kind = kind;
	effect->subid = GetCurrentSubTransactionId();
	effect->lease = MBUS_NONE;
	effect->slot = slot;
	if (slot != MBUS_NONE)
		effect->generation = mbus_sub(slot)->generation;
	effect->pinned = prepared;
	prepared = NULL;
	return effect;
}

/* ------------------------------------------------------------------------
 * Ends of transactions
 * ------------------------------------------------------------------------
 */

/*
 * effect_xact ends the transaction's effects, as the top of this file says.
 */
static void
effect_xact(XactEvent event, void *arg)
{
	if (neffects == 0)
	{
		/* what was prepared for an effect that did not come */
		if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
			event == XACT_EVENT_PREPARE)
			effects_forget();
		return;
	}
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			effects_check(0);
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has claimed or acknowledged messages"),
					 errhint("Use COMMIT.")));
			break;
		case XACT_EVENT_COMMIT:
			effects_commit();
			effects_forget();
			break;
		case XACT_EVENT_ABORT:
			effects_abort(0);
			effects_forget();
			break;
		default:
			break;
	}
}

/* Empties the list and gives its memory back. */
static void
effects_forget(void)
{
	if (effect_context == NULL || effects == NULL)
		return;
	neffects = 0;
	maxeffects = 0;
	effects = NULL;
	prepared = NULL;
	MemoryContextReset(effect_context);
}

/*
 * effect_subxact undoes a subtransaction's effects, or gives them to its
 * parent.
 */
static void
effect_subxact(SubXactEvent event, SubTransactionId subid,
			   SubTransactionId parent, void *arg)
{
	if (neffects == 0)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		int			first = neffects;

		/* those of a subtransaction are the last ones */
		while (first > 0 && effects[first - 1].subid == subid)
			first--;
		effects_abort(first);
		neffects = first;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = neffects - 1; i >= 0 && effects[i].subid == subid; i--)
			effects[i].subid = parent;
	}
}

/*
 * mbus_effects_check does for the current subtransaction, a frame's, what
 * PRE_COMMIT does for the transaction: 55000 if messages that it acknowledged
 * are not held any more.
 */
void
mbus_effects_check(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	int			first = neffects;
	bool		pinned = false;

	while (first > 0 && effects[first - 1].subid == subid)
		pinned |= effects[--first].npinned > 0;
	if (pinned)
		effects_check(first);
}

/*
 * effects_check marks the entries pinned by the effects from "first" on as
 * committing, or errors if some have been made void before.
 */
static void
effects_check(int first)
{
	bool		voided = false;
	int64		number = 0;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = first; i < neffects; i++)
	{
		for (int k = 0; k < effects[i].npinned; k++)
		{
			MbusEntry  *e = mbus_entry(effects[i].pinned[k].entry);

			if (e->voided && !e->committing)
			{
				voided = true;
				number = mbus_lease(effects[i].lease)->number;
			}
			e->committing = true;
		}
	}
	LWLockRelease(mbus_delivery_lock());
	if (voided)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("acknowledged messages are not held any more"),
				 errdetail("The subscription of lease " INT64_FORMAT " was moved or dropped.",
						   number)));
}

/* Makes all effects come true, in their order. */
static void
effects_commit(void)
{
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < neffects; i++)
		effect_commit(&effects[i]);
	LWLockRelease(mbus_delivery_lock());
	effects_wake(0);
}

/* Undoes the effects from "first" on, the last one first. */
static void
effects_abort(int first)
{
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = neffects - 1; i >= first; i--)
		effect_abort(&effects[i]);
	LWLockRelease(mbus_delivery_lock());
	effects_wake(first);
}

/* Wakes those who wait for the channels; takes no lock but theirs. */
static void
effects_wake(int first)
{
	for (int i = first; i < neffects; i++)
	{
		if (effects[i].woken && effects[i].channel_id != 0)
			mbus_wake_channel(MyDatabaseId, effects[i].channel_id);
	}
}

/*
 * effect_commit does what an effect stands for; caller holds the lock.  Of
 * two acks of one lease the first one ends both, and the lease with them.
 */
static void
effect_commit(Effect *effect)
{
	MbusSub    *sub = NULL;

	if (effect->slot != MBUS_NONE)
	{
		sub = mbus_sub(effect->slot);
		if (sub->generation != effect->generation)
			sub = NULL;			/* it is another one's now */
		else
			effect->channel_id = sub->channel_id;
	}
	switch (effect->kind)
	{
		case EFFECT_CLAIM:
			if (mbus_lease(effect->lease)->number == effect->number)
				claim_commit(effect->lease);
			break;
		case EFFECT_PIN:
			if (mbus_lease(effect->lease)->number != effect->number)
				break;
			if (mbus_lease(effect->lease)->sub != MBUS_NONE)
				effect->channel_id = mbus_sub(mbus_lease(effect->lease)->sub)->channel_id;
			effect->woken = lease_settle(effect);
			break;
		case EFFECT_SEEK:
			if (sub)
				seek_commit(effect);
			break;				/* scanner.c wakes, with the slot free */
		case EFFECT_DROP:
			if (sub)
				mbus_sub_drop(effect->slot);
			effect->woken = true;
			break;
		case EFFECT_REDRIVE:
			redrive_end(sub);
			if (sub)
				redrive_commit(sub, effect->at);
			effect->woken = true;
			break;
		case EFFECT_WAKE:
			effect->woken = true;
			break;
	}
}

/* The claim has committed: its lease belongs to nobody now. */
static void
claim_commit(uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);
	TimestampTz deadline = l->deadline;

	if (l->sub == MBUS_NONE)
	{
		/* a seek or drop came between */
		void_free(lease, false);
		return;
	}
	l->owner = -1;
	for (uint32 e = l->first; e != MBUS_NONE; e = mbus_entry(e)->next)
	{
		MbusEntry  *entry = mbus_entry(e);

		entry->state = MBUS_ENTRY_LEASED;
		if (entry->pin == MBUS_PIN_NONE)
		{
			entry->owner = -1;
			/* the worker has passed over it while it was held */
			deadline = Min(deadline, entry->deadline);
		}
	}
	mbus_deadline_set(lease, deadline);
	mbus_sub(l->sub)->changed_since = true;
}

/*
 * lease_settle ends the entries of a lease that this process has pinned.
 * True if waiters are to be woken.
 */
static bool
lease_settle(const Effect *effect)
{
	MbusLease  *l = mbus_lease(effect->lease);
	MbusSub    *sub = l->sub == MBUS_NONE ? NULL : mbus_sub(l->sub);
	uint32	   *link = &l->first;
	bool		woken = false;
	bool		died = false;

	while (*link != MBUS_NONE)
	{
		uint32		number = *link;
		MbusEntry  *e = mbus_entry(number);
		MbusPin		pin = (MbusPin) e->pin;

		if (e->owner != MbusMyProcno() || pin == MBUS_PIN_NONE)
		{
			link = &e->next;
			continue;
		}
		*link = e->next;
		e->next = MBUS_NONE;
		l->n--;
		if (e->voided || sub == NULL)
		{
			mbus_entries_free(number);
			continue;
		}
		sub->nleased--;
		if (pin == MBUS_PIN_NACK && e->deadline != 0)
		{
			sub->nacked++;
			mbus_entry_failed(l->sub, number, e->deadline);
			woken = true;
			continue;
		}
		sub->acks++;
		if (pin == MBUS_PIN_ACK)
			sub->acked++;
		else
		{
			sub->dead++;
			died = true;
		}
		if (mbus_entry_done(l->sub, number))
			woken = true;
	}
	/* a redrive may have found dead what others still saw as outstanding */
	if (died && sub->redriven != effect->redriven)
	{
		mbus_retries_pull(sub, sub->redriven_at);
		woken = true;
	}
	if (l->first == MBUS_NONE)
		mbus_lease_release(effect->lease);
	return woken;
}

/*
 * seek_commit moves a subscription to its new start: it has nothing
 * outstanding any more, and facts under leases of before do not count.  Its
 * scanner is this process, until scanner.c lets it go.
 */
static void
seek_commit(Effect *effect)
{
	MbusSub    *sub = mbus_sub(effect->slot);
	uint32		before = effect->generation;

	mbus_sub_void(effect->slot);
	/* later effects of this transaction are still about this subscription */
	for (int i = 0; i < neffects; i++)
	{
		if (effects[i].slot == effect->slot &&
			effects[i].generation == before)
			effects[i].generation = sub->generation;
	}
	sub->redrives = 0;			/* the others' effects find another generation */
	sub->retry_floor = sub->expired_low = PG_INT64_MAX;
	sub->start_id = effect->start_id;
	sub->start_at = effect->at;
	sub->since_lease = effect->since_lease;
	sub->cursor = Max(effect->start_id - 1, 0);
	sub->check_below = 0;
	sub->due_position = mbus_moment(PG_INT64_MIN, 0);
	sub->next_due = PG_INT64_MIN;
	mbus_set_none(&sub->due_in);
	mbus_retries_pull(sub, PG_INT64_MIN);
	mbus_keys_clear(effect->slot);
}

/* A redrive has committed: the next scan finds what it has redriven. */
static void
redrive_commit(MbusSub *sub, TimestampTz at)
{
	sub->redriven++;
	sub->redriven_at = at;
	mbus_retries_pull(sub, sub->redriven_at);
}

/*
 * One redrive less is open; after the last of them checkpoints need not look
 * back.
 */
static void
redrive_end(MbusSub *sub)
{
	if (sub == NULL || sub->redrives == 0)
		return;
	if (--sub->redrives == 0)
		sub->retry_floor = PG_INT64_MAX;
}

/* Caller holds the lock. */
static void
effect_abort(Effect *effect)
{
	MbusLease  *l;

	if (effect->kind == EFFECT_REDRIVE &&
		mbus_sub(effect->slot)->generation == effect->generation)
		redrive_end(mbus_sub(effect->slot));
	if (effect->lease == MBUS_NONE)
		return;
	l = mbus_lease(effect->lease);
	Assert(l->number == effect->number);
	if (l->sub != MBUS_NONE)
		effect->channel_id = mbus_sub(l->sub)->channel_id;
	if (effect->kind == EFFECT_CLAIM)
	{
		effect->woken = claim_abort(effect->lease);
		return;
	}

	for (int k = 0; k < effect->npinned; k++)
	{
		MbusEntry  *e = mbus_entry(effect->pinned[k].entry);

		e->pin = MBUS_PIN_NONE;
		e->committing = false;
		e->deadline = effect->pinned[k].deadline;
		/* its session has ended meanwhile, and left it to us */
		if (l->lost)
			e->deadline = Min(e->deadline, mbus_now());
		if (e->state == MBUS_ENTRY_LEASED)
			e->owner = -1;
	}
	if (l->sub == MBUS_NONE)
		void_free(effect->lease, true);
	else
		/* a deadline may have been passed over meanwhile */
		mbus_deadline_set(effect->lease, PG_INT64_MIN);
}

/*
 * void_free frees the entries of a void lease that nobody has pinned; with
 * "leased" only those that are not held either.
 */
static void
void_free(uint32 lease, bool leased)
{
	MbusLease  *l = mbus_lease(lease);
	uint32	   *link = &l->first;

	while (*link != MBUS_NONE)
	{
		uint32		number = *link;
		MbusEntry  *e = mbus_entry(number);

		if (leased ? e->owner != -1 : e->pin != MBUS_PIN_NONE)
		{
			link = &e->next;
			continue;
		}
		*link = e->next;
		e->next = MBUS_NONE;
		mbus_entries_free(number);
	}
	if (l->first == MBUS_NONE)
		mbus_lease_release(lease);
}

/* Makes the entries of a claim ready for the next one. */
static bool
claim_abort(uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);
	uint32		chain = l->first;
	uint32		slot = l->sub;

	l->first = MBUS_NONE;
	if (slot == MBUS_NONE)
		mbus_entries_free(chain);
	else
	{
		mbus_sub(slot)->nleased -= l->n;
		mbus_ready_merge(slot, chain);
	}
	mbus_lease_release(lease);
	return slot != MBUS_NONE;
}
