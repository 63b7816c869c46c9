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
 *				from here on they are "committing"
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

#include "compat.h"
#include "delivery.h"
#include "fault.h"
#include "relay.h"

typedef enum EffectKind
{
	EFFECT_CLAIM,
	EFFECT_PIN,
	EFFECT_SEEK,
	EFFECT_DROP,
	EFFECT_WAKE,
	EFFECT_REDRIVE
} EffectKind;

typedef struct Pinned
{
	uint32		entry;
	TimestampTz deadline;
} Pinned;

typedef struct Effect
{
	EffectKind	kind;
	SubTransactionId subid;
	uint32		lease;			/* CLAIM, PIN */
	int64		number;			/* the lease's: it may be gone before */
	bool		woken;			/* waiters of channel_id are to be woken */
	uint32		slot;			/* SEEK, DROP, REDRIVE */
	uint32		generation;		/* of the slot then */
	int32		channel_id;		/* WAKE */
	int64		start_id;		/* SEEK */
	TimestampTz at;				/* SEEK: start_at; REDRIVE: retry_at */
	int64		since_lease;
	int			npinned;
	Pinned	   *pinned;
} Effect;

static MemoryContext context = NULL;
static Effect *effects = NULL;
static int	neffects = 0;
static int	maxeffects = 0;
static Pinned *prepared = NULL; /* memory for the next PIN */

static Effect *effect_new(EffectKind kind, uint32 slot);
static void effects_forget(void);
static void effect_xact(XactEvent event, void *arg);
static void effect_subxact(SubXactEvent event, SubTransactionId subid,
						   SubTransactionId parent, void *arg);
static void effects_check(void);
static void effects_commit(void);
static void effects_abort(int first);
static void redrive_end(MbusSub *sub);
static void effects_wake(int first);
static void effect_commit(Effect *effect);
static void void_free(uint32 lease, bool leased);
static void sub_reload(MbusSub *sub);
static void claim_commit(uint32 lease);
static bool lease_settle(uint32 lease);
static void seek_commit(Effect *effect);
static void effect_abort(Effect *effect);
static bool claim_abort(uint32 lease);
static bool lease_channel(Oid schema, MbusDatabase *db, int64 number,
						  int32 *channel_id);
static bool ids_have(const int64 *ids, int nids, int64 id);
static int	int64_compare(const void *a, const void *b);
static void hold_check(Effect *effect, MbusHolding *holding, uint32 lease,
					   int nids, const int64 *ids, MbusPin pin, bool *busy);
static void holding_start(MbusHolding *holding, int n);
static void holding_fill(MbusHolding *holding, uint32 lease);
static bool hold_one_expired(MbusDatabase *db, Oid schema,
							 MbusHolding *holding, bool corrupt);
static int	leases_of_session(MbusDatabase *db, Oid schema, int64 session,
							  bool end);
static int	lease_end(uint32 lease, TimestampTz now, bool end);

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
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext,
										"message_bus effects",
										ALLOCSET_SMALL_SIZES);
	if (neffects >= maxeffects)
	{
		int			max = Max(8, maxeffects * 2);

		if (effects == NULL)
			effects = MemoryContextAlloc(context, max * sizeof(Effect));
		else
			effects = repalloc_huge(effects, max * sizeof(Effect));
		maxeffects = max;
	}
	prepared = n > 0 ? MemoryContextAlloc(context, n * sizeof(Pinned)) : NULL;
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

static void
effects_forget(void)
{
	if (context == NULL || effects == NULL)
		return;
	neffects = 0;
	maxeffects = 0;
	effects = NULL;
	prepared = NULL;
	MemoryContextReset(context);
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
 * mbus_effect_drop lets a subscription's slot go when the transaction commits.
 */
void
mbus_effect_drop(uint32 slot)
{
	mbus_effect_prepare(0);
	(void) effect_new(EFFECT_DROP, slot);
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
 * inserted: a checkpoint written meanwhile must not be above it.
 */
void
mbus_effect_redrive(uint32 slot, TimestampTz at)
{
	MbusSub    *sub = mbus_sub(slot);

	mbus_effect_prepare(0);
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	effect_new(EFFECT_REDRIVE, slot)->at = at;
	sub->redrives++;
	sub->retry_floor = Min(sub->retry_floor, at);
	LWLockRelease(mbus_delivery_lock());
}

/* ------------------------------------------------------------------------
 * Ends of transactions
 * ------------------------------------------------------------------------
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
			effects_check();
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
 * effects_check marks the pinned entries as committing, or errors if some
 * have been made void.
 */
static void
effects_check(void)
{
	bool		voided = false;
	int64		number = 0;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < neffects; i++)
	{
		for (int k = 0; k < effects[i].npinned; k++)
		{
			MbusEntry  *e = mbus_entry(effects[i].pinned[k].entry);

			if (e->voided)
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
			effect->woken = lease_settle(effect->lease);
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
			if (sub && sub->ordered)
				sub_reload(sub);
			else if (sub)
			{
				sub->retry_at = Min(sub->retry_at, effect->at);
				sub->next_retry = PG_INT64_MIN;
			}
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
			l->deadline = Min(l->deadline, entry->deadline);
		}
		/* the worker may have looked in vain while it was held */
		if (entry->corrupt)
			mbus_sub(l->sub)->corrupt = true;
	}
	mbus_sub(l->sub)->earliest = Min(mbus_sub(l->sub)->earliest, l->deadline);
	mbus_sub(l->sub)->changed_since = true;
}

/*
 * lease_settle ends the entries of a lease that this process has pinned.
 * True if waiters are to be woken.
 */
static bool
lease_settle(uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);
	MbusSub    *sub = l->sub == MBUS_NONE ? NULL : mbus_sub(l->sub);
	uint32	   *link = &l->first;
	bool		woken = false;

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
			sub->dead++;
		if (mbus_entry_done(l->sub, number))
			woken = true;
	}
	if (l->first == MBUS_NONE)
		mbus_lease_release(lease);
	return woken;
}

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
	sub->retry_floor = PG_INT64_MAX;
	sub->start_id = effect->start_id;
	sub->start_at = effect->at;
	sub->since_lease = effect->since_lease;
	sub->cursor = Max(effect->start_id - 1, 0);
	sub->check_below = 0;
	sub->due_at = sub->retry_at = PG_INT64_MIN;
	sub->next_due = sub->next_retry = PG_INT64_MIN;
}

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
		if (e->state == MBUS_ENTRY_LEASED)
			e->owner = -1;
	}
	if (l->sub == MBUS_NONE)
		void_free(effect->lease, true);
	else
	{
		/* a deadline may have been passed over meanwhile */
		l->deadline = PG_INT64_MIN;
		mbus_sub(l->sub)->earliest = PG_INT64_MIN;
	}
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

/*
 * sub_reload has an ordered subscription read again from its start, each
 * message as a candidate: one it is done with is wanted again.
 */
static void
sub_reload(MbusSub *sub)
{
	sub->check_below = Max(sub->check_below, sub->cursor + 1);
	sub->cursor = Max(sub->start_id - 1, 0);
	/* the cursor comes to them again */
	mbus_skips_free(sub->skipped);
	sub->skipped = MBUS_NONE;
	sub->nskipped = 0;
	sub->due_at = sub->next_due = PG_INT64_MIN;
	sub->changed_since = true;
	sub->reloaded = true;
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

/* ------------------------------------------------------------------------
 * Holding on to a lease's entries
 * ------------------------------------------------------------------------
 */

/*
 * mbus_hold finds the entries of a lease, all (nids < 0) or those of some
 * ids, and pins them for the transaction.  Ids it does not hold are in
 * holding->missing.  False if the lease is gone.  42501 without the privilege
 * to consume; 55000 if another transaction has pinned one, or the claim has
 * not committed and is another's.
 */
bool
mbus_hold(Oid schema, MbusDatabase *db, int64 lease, int nids,
		  const int64 *ids, MbusPin pin, MbusHolding *holding)
{
	int32		channel_id;
	const MbusChannel *channel;
	uint32		index;
	int			n;
	bool		busy = false;

	MemSet(holding, 0, sizeof(*holding));
	if (!lease_channel(schema, db, lease, &channel_id))
		return false;
	channel = mbus_channel_by_id(schema, channel_id);
	if (channel == NULL)
		return false;
	mbus_channel_check(channel, MBUS_CONSUME);

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	index = mbus_lease_find(db->database, schema, lease);
	n = index == MBUS_NONE ? 0 : mbus_lease(index)->n;
	LWLockRelease(mbus_delivery_lock());
	if (index == MBUS_NONE)
		return false;
	/* a lease never grows */
	if (nids >= 0)
		n = Min(n, nids);
	mbus_effect_prepare(n);
	holding_start(holding, n);
	holding->missing = palloc(Max(nids, 1) * sizeof(int64));

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	index = mbus_lease_find(db->database, schema, lease);
	if (index != MBUS_NONE)
	{
		Effect	   *effect = effect_new(EFFECT_PIN, MBUS_NONE);

		effect->lease = index;
		effect->number = lease;
		holding_fill(holding, index);
		if (mbus_lease(index)->owner != -1 &&
			mbus_lease(index)->owner != MbusMyProcno())
			busy = true;
		else
			hold_check(effect, holding, index, nids, ids, pin, &busy);
		/* nothing pinned, nothing to remember: the lease may go meanwhile */
		if (effect->npinned == 0)
			neffects--;
	}
	LWLockRelease(mbus_delivery_lock());
	if (busy)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lease " INT64_FORMAT " is in use by another transaction",
						lease),
				 errdetail("It has claimed, acknowledged or given back the same messages and has not ended.")));
	return index != MBUS_NONE;
}

/* The channel of a lease; false if it is gone. */
static bool
lease_channel(Oid schema, MbusDatabase *db, int64 number, int32 *channel_id)
{
	uint32		index;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	index = mbus_lease_find(db->database, schema, number);
	if (index != MBUS_NONE)
		*channel_id = mbus_sub(mbus_lease(index)->sub)->channel_id;
	LWLockRelease(mbus_delivery_lock());
	return index != MBUS_NONE;
}

static void
holding_start(MbusHolding *holding, int n)
{
	holding->held = palloc(Max(n, 1) * sizeof(MbusHeld));
}

/* Caller holds the lock. */
static void
holding_fill(MbusHolding *holding, uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);
	MbusSub    *sub = mbus_sub(l->sub);

	holding->lease = l->number;
	holding->sub = l->sub;
	holding->subscription_id = sub->subscription_id;
	holding->channel_id = sub->channel_id;
	holding->since_lease = sub->since_lease;
	holding->ordered = sub->ordered;
	holding->claimed_at = l->claimed_at;
}

/*
 * hold_check walks a lease: pins what is wanted and free, sets *busy if
 * another transaction has it.  Both lists are sorted.
 */
static void
hold_check(Effect *effect, MbusHolding *holding, uint32 lease, int nids,
		   const int64 *ids, MbusPin pin, bool *busy)
{
	int			next = 0;

	for (uint32 i = mbus_lease(lease)->first; i != MBUS_NONE;
		 i = mbus_entry(i)->next)
	{
		MbusEntry  *e = mbus_entry(i);
		bool		mine = e->owner == MbusMyProcno();
		MbusHeld   *held = &holding->held[holding->n];

		if (nids >= 0)
		{
			while (next < nids && ids[next] < e->id)
				holding->missing[holding->nmissing++] = ids[next++];
			if (next >= nids || ids[next] != e->id)
				continue;
		}
		if (e->corrupt)
		{
			/* it was not delivered: the worker gives it up */
			if (nids >= 0)
				holding->missing[holding->nmissing++] = ids[next++];
			continue;
		}
		if (e->pin != MBUS_PIN_NONE && !mine)
		{
			*busy = true;
			return;
		}
		if (e->pin == MBUS_PIN_NACK || (e->pin == MBUS_PIN_ACK &&
										pin != MBUS_PIN_ACK))
		{
			if (nids >= 0)
				holding->missing[holding->nmissing++] = ids[next++];
			continue;
		}
		next++;
		held->id = e->id;
		held->entry = i;
		held->attempt = e->attempt;
		held->again = e->pin == MBUS_PIN_ACK;
		holding->n++;
		if (held->again)
			continue;
		effect->pinned[effect->npinned].entry = i;
		effect->pinned[effect->npinned].deadline = e->deadline;
		effect->npinned++;
		e->pin = pin;
		e->owner = MbusMyProcno();
		if (pin == MBUS_PIN_NACK)
			e->deadline = 0;
	}
	while (nids >= 0 && next < nids)
		holding->missing[holding->nmissing++] = ids[next++];
}

/*
 * mbus_effect_retry says when a message that is pinned by a nack is to be
 * delivered again; 0: never.
 */
void
mbus_effect_retry(uint32 entry, TimestampTz retry_at)
{
	if (entry == MBUS_NONE)
		return;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	Assert(mbus_entry(entry)->pin == MBUS_PIN_NACK);
	mbus_entry(entry)->deadline = retry_at;
	LWLockRelease(mbus_delivery_lock());
}

/*
 * mbus_hold_expired pins the entries of one lease of the database whose time
 * is over; false if there is none.  For the worker.
 */
bool
mbus_hold_expired(MbusDatabase *db, Oid schema, MbusHolding *holding)
{
	return hold_one_expired(db, schema, holding, false);
}

/*
 * mbus_hold_corrupt does the same with messages whose bytes do not match.
 */
bool
mbus_hold_corrupt(MbusDatabase *db, Oid schema, MbusHolding *holding)
{
	return hold_one_expired(db, schema, holding, true);
}

static bool
hold_one_expired(MbusDatabase *db, Oid schema, MbusHolding *holding,
				 bool corrupt)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz earliest_of_all;
	Effect	   *effect = NULL;

	MemSet(holding, 0, sizeof(*holding));
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	earliest_of_all = mbus_earliest_deadline(db->database);
	LWLockRelease(mbus_delivery_lock());
	if (earliest_of_all > now)
		return false;
	mbus_effect_prepare(MBUS_CLAIM_MAX);
	holding_start(holding, MBUS_CLAIM_MAX);
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int s = 0; s < mbus_sub_slots() && holding->n == 0; s++)
	{
		MbusSub    *sub = mbus_sub(s);
		TimestampTz earliest = PG_INT64_MAX;

		if (sub->database != db->database || sub->schema != schema ||
			(corrupt ? !sub->corrupt : sub->earliest > now))
			continue;
		for (uint32 l = sub->leases; l != MBUS_NONE && holding->n == 0;
			 l = mbus_lease(l)->next)
		{
			TimestampTz first = PG_INT64_MAX;

			if (!corrupt && mbus_lease(l)->deadline > now)
			{
				earliest = Min(earliest, mbus_lease(l)->deadline);
				continue;
			}
			for (uint32 i = mbus_lease(l)->first; i != MBUS_NONE;
				 i = mbus_entry(i)->next)
			{
				MbusEntry  *e = mbus_entry(i);
				MbusHeld   *held = &holding->held[holding->n];

				if (e->pin != MBUS_PIN_NONE)
					continue;	/* an abort has us look again */
				if (e->state != MBUS_ENTRY_LEASED)
					continue;	/* the claim's commit does, too */
				if ((corrupt ? !e->corrupt : e->deadline > now))
				{
					first = Min(first, e->deadline);
					continue;
				}
				if (effect == NULL)
				{
					effect = effect_new(EFFECT_PIN, MBUS_NONE);
					effect->lease = l;
					effect->number = mbus_lease(l)->number;
					holding_fill(holding, l);
				}
				held->id = e->id;
				held->entry = i;
				held->attempt = e->attempt;
				held->again = false;
				effect->pinned[effect->npinned].entry = i;
				effect->pinned[effect->npinned].deadline = e->deadline;
				effect->npinned++;
				holding->n++;
				e->pin = MBUS_PIN_NACK;
				e->owner = MbusMyProcno();
				e->deadline = 0;
			}
			if (!corrupt)
				mbus_lease(l)->deadline = first;
			earliest = Min(earliest, first);
		}
		if (holding->n > 0 && !corrupt)
			sub->expired += holding->n;
		else if (corrupt)
			sub->corrupt = holding->n > 0;
		else
			sub->earliest = earliest;
	}
	LWLockRelease(mbus_delivery_lock());
	return holding->n > 0;
}

/*
 * mbus_effect_corrupt marks messages of this transaction's last claim whose
 * bytes do not match: they are not delivered, and the worker gives them up
 * when the claim has committed.
 */
void
mbus_effect_corrupt(const int64 *ids, int n)
{
	uint32		lease = effects[neffects - 1].lease;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (uint32 i = mbus_lease(lease)->first; i != MBUS_NONE;
		 i = mbus_entry(i)->next)
	{
		if (ids_have(ids, n, mbus_entry(i)->id))
			mbus_entry(i)->corrupt = true;
	}
	if (mbus_lease(lease)->sub != MBUS_NONE)
		mbus_sub(mbus_lease(lease)->sub)->corrupt = true;
	LWLockRelease(mbus_delivery_lock());
}

/*
 * mbus_lease_extend moves the end of a lease, or of some of its messages, and
 * returns it.  It takes effect at once: a lease is no fact.  55000 if
 * the lease, or one of the ids, is not held.
 */
TimestampTz
mbus_lease_extend(int64 lease, int nids, const int64 *ids,
				  TimestampTz deadline)
{
	Oid			schema = mbus_schema();
	MbusDatabase *db = mbus_database();
	int32		channel_id;
	uint32		index;
	int			found = 0;
	int			wanted = Max(nids, 0);
	int64	   *sorted = palloc(Max(nids, 1) * sizeof(int64));

	if (nids > 0)
		memcpy(sorted, ids, nids * sizeof(int64));
	qsort(sorted, wanted, sizeof(int64), int64_compare);
	if (lease_channel(schema, db, lease, &channel_id))
	{
		const MbusChannel *channel = mbus_channel_by_id(schema, channel_id);

		if (channel)
			mbus_channel_check(channel, MBUS_CONSUME);
	}
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	index = mbus_lease_find(db->database, schema, lease);
	if (index != MBUS_NONE && (mbus_lease(index)->owner == -1 ||
							   mbus_lease(index)->owner == MbusMyProcno()))
	{
		MbusLease  *l = mbus_lease(index);

		/* two rounds: all of the ids, or none */
		for (int round = 0; round < 2; round++)
		{
			if (round == 1 && (nids >= 0 ? found < wanted : found == 0))
				break;
			for (uint32 i = l->first; i != MBUS_NONE; i = mbus_entry(i)->next)
			{
				MbusEntry  *e = mbus_entry(i);

				if (e->pin != MBUS_PIN_NONE ||
					(nids >= 0 && !ids_have(sorted, nids, e->id)))
					continue;
				if (round == 0)
					found++;
				else
					e->deadline = deadline;
			}
			if (round == 1)
			{
				l->deadline = Min(l->deadline, deadline);
				mbus_sub(l->sub)->earliest =
					Min(mbus_sub(l->sub)->earliest, deadline);
			}
		}
	}
	LWLockRelease(mbus_delivery_lock());
	if (nids >= 0 ? found < wanted : found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 nids >= 0 && index != MBUS_NONE ?
				 errmsg("lease " INT64_FORMAT " does not hold all of these messages",
						lease) :
				 errmsg("lease " INT64_FORMAT " is not held", lease),
				 errdetail("It has ended, or its messages are being acknowledged.")));
	mbus_wake_worker(db);
	return deadline;
}

/*
 * mbus_leases_give_back ends at once, as if their time were over, the leases
 * that were taken under a gateway's session, and returns how many messages
 * they hold.  What an open transaction has claimed or pinned is left to it,
 * but for claims of this transaction, which end when it commits.
 */
int
mbus_leases_give_back(Oid schema, int64 session)
{
	MbusDatabase *db = mbus_database();
	int			n;

	/* most sessions hold nothing when they end: do not stop others for it */
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	n = leases_of_session(db, schema, session, false);
	LWLockRelease(mbus_delivery_lock());
	if (n == 0)
		return 0;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	n = leases_of_session(db, schema, session, true);
	LWLockRelease(mbus_delivery_lock());
	if (n > 0)
		mbus_wake_worker(db);
	return n;
}

/* Counts the messages, and ends their leases; caller holds the lock. */
static int
leases_of_session(MbusDatabase *db, Oid schema, int64 session, bool end)
{
	TimestampTz now = GetCurrentTimestamp();
	int			n = 0;

	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		MbusSub    *sub = mbus_sub(s);

		if (sub->database != db->database || sub->schema != schema)
			continue;
		for (uint32 l = sub->leases; l != MBUS_NONE; l = mbus_lease(l)->next)
		{
			int			of_lease;

			if (mbus_lease(l)->session != session)
				continue;
			of_lease = lease_end(l, now, end);
			if (end && of_lease > 0)
			{
				mbus_lease(l)->deadline = Min(mbus_lease(l)->deadline, now);
				sub->earliest = Min(sub->earliest, now);
			}
			n += of_lease;
		}
	}
	return n;
}

static int
lease_end(uint32 lease, TimestampTz now, bool end)
{
	int			n = 0;

	for (uint32 i = mbus_lease(lease)->first; i != MBUS_NONE;
		 i = mbus_entry(i)->next)
	{
		MbusEntry  *e = mbus_entry(i);

		if (e->pin != MBUS_PIN_NONE || e->corrupt ||
			(e->owner != -1 && e->owner != MbusMyProcno()))
			continue;
		if (end)
			e->deadline = Min(e->deadline, now);
		n++;
	}
	return n;
}

/* Searches sorted ids. */
static bool
ids_have(const int64 *ids, int nids, int64 id)
{
	return bsearch(&id, ids, nids, sizeof(int64), int64_compare) != NULL;
}

static int
int64_compare(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}
