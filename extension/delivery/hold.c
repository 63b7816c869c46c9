/*
 * hold.c
 *		Taking hold of what a lease holds.
 *
 * ack, nack and the worker pin a lease's entries to their transaction before
 * they insert the rows that say what has become of them; effect.c ends that
 * with the transaction.  A pinned entry is left alone by everybody else, also
 * when its deadline passes.  extend() and the end of a session only move
 * deadlines, at once.
 *
 * All of it is under the delivery lock; nothing here waits for another
 * transaction: what one has pinned is refused to others with 55000.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "delivery/deadline.h"
#include "delivery/effect.h"
#include "delivery/hold.h"
#include "delivery/holder.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "facts/facts.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/waiter.h"

#define LOOKED_AT_A_TIME	64	/* leases that have ended */

/* The end of a gateway's session. */
typedef struct Ending
{
	MbusDatabase *db;
	Oid			schema;
	int64		session;
	const MbusSessionEnd *of;	/* its lists are sorted */
	TimestampTz now;
	bool		pinned;			/* some are left to their transactions */
	int			nchannels;		/* whose waiters are to be woken */
	int32	   *channels;
} Ending;

static bool hold(Oid schema, MbusDatabase *db, int64 lease, bool as_owner,
				 int nids, const int64 *ids, MbusPin pin,
				 MbusHolding *holding);
static const MbusChannel *lease_channel(Oid schema, MbusDatabase *db,
										int64 number, bool *mine);
static void holding_start(MbusHolding *holding, int n);
static void holding_fill(MbusHolding *holding, uint32 lease);
static void hold_check(Effect *effect, MbusHolding *holding, uint32 lease,
					   int nids, const int64 *ids, MbusPin pin, bool *busy);
static int	expired_room(MbusDatabase *db, TimestampTz now);
static bool expired_pin(MbusDatabase *db, Oid schema, TimestampTz now,
						MbusHolding *holding, int room, bool *corrupt);
static void lease_pin(uint32 lease, TimestampTz now, MbusHolding *holding,
					  bool *corrupt);
static MbusHeld *held_add(MbusHolding *holding, uint32 entry);
static void entry_pin(Effect *effect, uint32 entry, MbusPin pin);
static int	lease_move(uint32 lease, int nids, const int64 *ids,
					   TimestampTz deadline, bool move);
static int	leases_of_session(Ending *ending, bool end);
static int	lease_return(uint32 lease);
static int	lease_end(Ending *ending, uint32 lease, bool end);
static bool ids_have(const int64 *ids, int nids, int64 id);

/*
 * mbus_hold finds the entries of a lease, all (nids < 0) or those of some
 * ids, and pins them for the transaction.  Ids it does not hold are in
 * holding->missing.  False if the lease is gone, or not the caller's.  42501
 * without the privilege to consume; 55000 if another transaction has pinned
 * one, or the claim has not committed and is another's.
 */
bool
mbus_hold(Oid schema, MbusDatabase *db, int64 lease, int nids,
		  const int64 *ids, MbusPin pin, MbusHolding *holding)
{
	return hold(schema, db, lease, false, nids, ids, pin, holding);
}

/*
 * mbus_hold_as_owner does so with all of a lease of a channel that the current
 * user owns, whose ever it is.
 */
bool
mbus_hold_as_owner(Oid schema, MbusDatabase *db, int64 lease,
				   MbusHolding *holding)
{
	return hold(schema, db, lease, true, -1, NULL, MBUS_PIN_NACK, holding);
}

/* Both of these. */
static bool
hold(Oid schema, MbusDatabase *db, int64 lease, bool as_owner, int nids,
	 const int64 *ids, MbusPin pin, MbusHolding *holding)
{
	const MbusChannel *channel;
	bool		may;
	uint32		index;
	int			n;
	bool		busy = false;

	MemSet(holding, 0, sizeof(*holding));
	channel = lease_channel(schema, db, lease, &may);
	if (channel && as_owner)
		may = has_privs_of_role(GetUserId(), channel->owner);
	if (channel == NULL || !may)
		return false;
	if (!as_owner)
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
		Effect	   *effect = mbus_effect_pin(index, lease);

		holding_fill(holding, index);
		if (mbus_lease(index)->owner != -1 &&
			mbus_lease(index)->owner != MbusMyProcno())
			busy = true;
		else
			hold_check(effect, holding, index, nids, ids, pin, &busy);
		if (effect->npinned == 0)
			mbus_effect_unpin();
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

/*
 * The channel of a lease, NULL if one of them is gone, and whether the caller
 * may do what its holder may.
 */
static const MbusChannel *
lease_channel(Oid schema, MbusDatabase *db, int64 number, bool *mine)
{
	const MbusChannel *channel;
	int32		channel_id = 0;
	Oid			role = InvalidOid;
	uint64		subject = 0;
	uint32		index;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	index = mbus_lease_find(db->database, schema, number);
	if (index != MBUS_NONE)
	{
		channel_id = mbus_sub(mbus_lease(index)->sub)->channel_id;
		role = mbus_lease(index)->role;
		subject = mbus_lease(index)->subject;
	}
	LWLockRelease(mbus_delivery_lock());
	*mine = index != MBUS_NONE && mbus_holder_may(role, subject);
	if (index == MBUS_NONE)
		return NULL;
	channel = mbus_channel_by_id(schema, channel_id);
	if (channel)
		mbus_about_channel(channel->name, (int) strlen(channel->name));
	return channel;
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
	holding->lost = l->lost;
	holding->close_code = l->close_code;
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
		MbusHeld   *held;

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
		held = held_add(holding, i);
		if (!held->again)
			entry_pin(effect, i, pin);
	}
	while (nids >= 0 && next < nids)
		holding->missing[holding->nmissing++] = ids[next++];
}

/*
 * mbus_hold_retry says when a message that is pinned by a nack is to be
 * delivered again; 0: never.
 */
void
mbus_hold_retry(uint32 entry, TimestampTz retry_at)
{
	if (entry == MBUS_NONE)
		return;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	Assert(mbus_entry(entry)->pin == MBUS_PIN_NACK);
	mbus_entry(entry)->deadline = retry_at;
	LWLockRelease(mbus_delivery_lock());
}

/*
 * mbus_hold_expired pins entries of one lease of the database whose time is
 * over: those whose bytes do not match (*corrupt), or the others.  False if
 * there is none.  For the worker.
 */
bool
mbus_hold_expired(MbusDatabase *db, Oid schema, MbusHolding *holding,
				  bool *corrupt)
{
	TimestampTz now = mbus_now();
	int			room;

	while ((room = expired_room(db, now)) > 0)
	{
		mbus_effect_prepare(room);
		MemSet(holding, 0, sizeof(*holding));
		holding_start(holding, room);
		if (expired_pin(db, schema, now, holding, room, corrupt))
			return true;
		pfree(holding->held);
	}
	return false;
}

/* How many entries the lease has that has ended first; 0: none has ended. */
static int
expired_room(MbusDatabase *db, TimestampTz now)
{
	uint32		lease;
	int			room = 0;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	lease = mbus_deadline_first(db->database);
	if (lease != MBUS_NONE && mbus_lease(lease)->deadline <= now)
		room = mbus_lease(lease)->n;
	LWLockRelease(mbus_delivery_lock());
	return room;
}

/*
 * expired_pin goes through the leases that have ended until one has entries to
 * be pinned, or is larger than there is room for, or it has looked at some.
 * One that is looked at gets the earliest deadline that it has left, so that
 * the next look does not find it again.
 */
static bool
expired_pin(MbusDatabase *db, Oid schema, TimestampTz now,
			MbusHolding *holding, int room, bool *corrupt)
{
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (int looked = 0; looked < LOOKED_AT_A_TIME && holding->n == 0;
		 looked++)
	{
		uint32		lease = mbus_deadline_first(db->database);

		if (lease == MBUS_NONE || mbus_lease(lease)->deadline > now ||
			mbus_lease(lease)->n > room)
			break;
		if (mbus_sub(mbus_lease(lease)->sub)->schema == schema)
			lease_pin(lease, now, holding, corrupt);
		else
			/* of an extension that is gone: it is about to be void */
			mbus_deadline_set(lease, PG_INT64_MAX);
	}
	LWLockRelease(mbus_delivery_lock());
	return holding->n > 0;
}

/*
 * lease_pin pins those entries of a lease whose time is over, of one kind; the
 * lease's deadline becomes the earliest of the others.
 */
static void
lease_pin(uint32 lease, TimestampTz now, MbusHolding *holding, bool *corrupt)
{
	MbusLease  *l = mbus_lease(lease);
	Effect	   *effect = NULL;
	TimestampTz first = PG_INT64_MAX;

	for (uint32 i = l->first; i != MBUS_NONE; i = mbus_entry(i)->next)
	{
		MbusEntry  *e = mbus_entry(i);

		if (e->pin != MBUS_PIN_NONE)
			continue;			/* an abort has us look again */
		if (e->state != MBUS_ENTRY_LEASED)
			continue;			/* the claim's commit does, too */
		if (e->deadline > now || (effect && e->corrupt != *corrupt))
		{
			first = Min(first, e->deadline);
			continue;
		}
		if (effect == NULL)
		{
			effect = mbus_effect_pin(lease, l->number);
			holding_fill(holding, lease);
			*corrupt = e->corrupt;
		}
		(void) held_add(holding, i);
		entry_pin(effect, i, MBUS_PIN_NACK);
	}
	mbus_deadline_set(lease, first);
	if (effect && !*corrupt && !l->lost)
		mbus_sub(l->sub)->expired += holding->n;
}

/* Adds an entry to what is held; caller has made room. */
static MbusHeld *
held_add(MbusHolding *holding, uint32 entry)
{
	MbusEntry  *e = mbus_entry(entry);
	MbusHeld   *held = &holding->held[holding->n++];

	held->id = e->id;
	held->entry = entry;
	held->attempt = e->attempt;
	held->key_hash = e->key_hash;
	held->expires_at = e->expires_at;
	held->again = e->pin == MBUS_PIN_ACK;
	return held;
}

/* Pins an entry to this transaction; the effect keeps how to undo it. */
static void
entry_pin(Effect *effect, uint32 entry, MbusPin pin)
{
	MbusEntry  *e = mbus_entry(entry);

	effect->pinned[effect->npinned].entry = entry;
	effect->pinned[effect->npinned].deadline = e->deadline;
	effect->npinned++;
	e->pin = pin;
	e->owner = MbusMyProcno();
	if (pin == MBUS_PIN_NACK)
		e->deadline = 0;
}

/*
 * mbus_hold_mark_corrupt marks messages of this transaction's last claim whose
 * bytes do not match: they are not delivered, and the worker gives them up
 * when the claim has committed.
 */
void
mbus_hold_mark_corrupt(const int64 *ids, int n)
{
	uint32		lease = mbus_effect_last_claim();
	TimestampTz now = mbus_now();

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	for (uint32 i = mbus_lease(lease)->first; i != MBUS_NONE;
		 i = mbus_entry(i)->next)
	{
		if (!ids_have(ids, n, mbus_entry(i)->id))
			continue;
		mbus_entry(i)->corrupt = true;
		mbus_entry(i)->deadline = now;
	}
	LWLockRelease(mbus_delivery_lock());
}

/*
 * mbus_lease_extend moves the end of a lease, or of some of its messages, to
 * lease_us from now and returns it.  It takes effect at once: a lease is no
 * fact.  55000 if the lease, or one of the ids, is not held, or the lease is
 * not the caller's; 22023 if that is longer than the channel's max_lease.
 */
TimestampTz
mbus_lease_extend(int64 lease, int nids, const int64 *ids,
				  int64 lease_us)
{
	TimestampTz deadline = mbus_now() + lease_us;
	Oid			schema = mbus_schema();
	MbusDatabase *db = mbus_database();
	const MbusChannel *channel;
	uint32		index = MBUS_NONE;
	bool		mine;
	int			found = 0;
	int			wanted = nids < 0 ? 1 : nids;
	int64	   *sorted = palloc(Max(nids, 1) * sizeof(int64));

	if (nids > 0)
	{
		memcpy(sorted, ids, nids * sizeof(int64));
		qsort(sorted, nids, sizeof(int64), mbus_int64_compare);
	}
	channel = lease_channel(schema, db, lease, &mine);
	if (channel && mine)
	{
		mbus_channel_check(channel, MBUS_CONSUME);
		mbus_channel_lease_check(schema, channel->channel_id, lease_us);
	}
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	if (mine)
		index = mbus_lease_find(db->database, schema, lease);
	if (index != MBUS_NONE && (mbus_lease(index)->owner == -1 ||
							   mbus_lease(index)->owner == MbusMyProcno()))
	{
		found = lease_move(index, nids, sorted, deadline, false);
		/* all of the ids, or none */
		if (found >= wanted)
			(void) lease_move(index, nids, sorted, deadline, true);
	}
	LWLockRelease(mbus_delivery_lock());
	if (found < wanted)
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
 * lease_move counts the entries of a lease that can be extended, all or those
 * of some ids, and moves their end; caller holds the lock.
 */
static int
lease_move(uint32 lease, int nids, const int64 *ids, TimestampTz deadline,
		   bool move)
{
	MbusLease  *l = mbus_lease(lease);
	int			n = 0;

	for (uint32 i = l->first; i != MBUS_NONE; i = mbus_entry(i)->next)
	{
		MbusEntry  *e = mbus_entry(i);

		if (e->pin != MBUS_PIN_NONE ||
			(nids >= 0 && !ids_have(ids, nids, e->id)))
			continue;
		if (move && !e->corrupt)
			e->deadline = deadline;
		n++;
	}
	if (move)
		mbus_deadline_set(lease, Min(l->deadline, deadline));
	return n;
}

/*
 * mbus_leases_give_back ends at once the leases that were taken under a
 * gateway's session, but for those that are kept, and returns how many
 * messages they hold.  Each was an attempt, which the worker records as
 * failed, with the code that the socket was closed with.  Those that are
 * unwritten, kept or not, nobody has received: their messages are ready again
 * as if they had not been claimed.  What an open transaction has claimed or
 * pinned is left to it, but for claims of this transaction, which end when it
 * commits.  Sorts the lists in *end.
 */
int
mbus_leases_give_back(Oid schema, int64 session, MbusSessionEnd *end)
{
	Ending		ending = {0};
	int			n;

	/* it ends what is named, and names nothing */
	if (end->only && end->nunwritten == 0 && end->nwritten == 0)
		return 0;
	/* most sessions hold nothing when they end: do not stop others for it */
	ending.db = mbus_database();
	ending.schema = schema;
	ending.session = session;
	ending.of = end;
	ending.now = mbus_now();
	ending.channels = palloc(mbus_sub_slots() * sizeof(int32));
	if (end->nunwritten > 1)
		qsort(end->unwritten, end->nunwritten, sizeof(int64),
			  mbus_int64_compare);
	if (end->nwritten > 1)
		qsort(end->written, end->nwritten, sizeof(int64), mbus_int64_compare);
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	n = leases_of_session(&ending, false);
	LWLockRelease(mbus_delivery_lock());
	if (n > 0 || ending.pinned)
	{
		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		n = leases_of_session(&ending, true);
		LWLockRelease(mbus_delivery_lock());
		mbus_wake_worker(ending.db);
	}
	for (int i = 0; i < ending.nchannels; i++)
		mbus_wake_channel(ending.db->database, ending.channels[i]);
	pfree(ending.channels);
	return n;
}

/* Counts the messages, and ends their leases; caller holds the lock. */
static int
leases_of_session(Ending *ending, bool end)
{
	const MbusSessionEnd *of = ending->of;
	int			n = 0;

	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		MbusSub    *sub = mbus_sub(s);
		uint32		next;

		if (sub->database != ending->db->database ||
			sub->schema != ending->schema)
			continue;
		for (uint32 l = sub->leases; l != MBUS_NONE; l = next)
		{
			MbusLease  *lease = mbus_lease(l);
			bool		unwritten;

			next = lease->next;
			if (lease->session != ending->session)
				continue;
			unwritten = ids_have(of->unwritten, of->nunwritten, lease->number);
			if (unwritten && end)
			{
				n += lease_return(l);
				/* at most one a slot */
				if (ending->nchannels == 0 ||
					ending->channels[ending->nchannels - 1] != sub->channel_id)
					ending->channels[ending->nchannels++] = sub->channel_id;
			}
			else if (unwritten ||
					 (!lease->kept &&
					  (!of->only ||
					   ids_have(of->written, of->nwritten, lease->number))))
				n += lease_end(ending, l, end);
		}
	}
	return n;
}

/*
 * lease_return makes the messages of a lease ready, as if they had not been
 * claimed, and returns how many; those that a transaction has pinned stay.
 */
static int
lease_return(uint32 lease)
{
	MbusLease  *l = mbus_lease(lease);
	uint32	   *link = &l->first;
	uint32		chain = MBUS_NONE;
	uint32	   *last = &chain;
	int			n = 0;

	while (*link != MBUS_NONE)
	{
		uint32		number = *link;
		MbusEntry  *e = mbus_entry(number);

		if (e->pin != MBUS_PIN_NONE || e->owner != -1 || e->corrupt ||
			e->state != MBUS_ENTRY_LEASED)
		{
			link = &e->next;
			continue;
		}
		*link = e->next;
		e->next = MBUS_NONE;
		*last = number;
		last = &e->next;
		n++;
	}
	l->n -= n;
	mbus_sub(l->sub)->nleased -= n;
	if (chain != MBUS_NONE)
		mbus_ready_merge(l->sub, chain);
	if (l->first == MBUS_NONE)
		mbus_lease_release(lease);
	return n;
}

/*
 * Counts what of a lease is neither pinned nor held by another transaction,
 * and with "end" ends it now, as lost.  What is pinned ends as lost, too, if
 * its transaction aborts (effect.c).
 */
static int
lease_end(Ending *ending, uint32 lease, bool end)
{
	MbusLease  *l = mbus_lease(lease);
	int			n = 0;
	bool		pinned = false;
	TimestampTz now = ending->now;

	for (uint32 i = l->first; i != MBUS_NONE; i = mbus_entry(i)->next)
	{
		MbusEntry  *e = mbus_entry(i);

		pinned = pinned || e->pin != MBUS_PIN_NONE;
		if (e->pin != MBUS_PIN_NONE || e->corrupt ||
			(e->owner != -1 && e->owner != MbusMyProcno()))
			continue;
		if (end)
			e->deadline = Min(e->deadline, now);
		n++;
	}
	ending->pinned = ending->pinned || pinned;
	if (end && (n > 0 || pinned))
	{
		l->lost = true;
		l->close_code = (uint16) ending->of->code;
	}
	if (end && n > 0)
		mbus_deadline_set(lease, Min(l->deadline, now));
	return n;
}

/* Searches sorted ids. */
static bool
ids_have(const int64 *ids, int nids, int64 id)
{
	return nids > 0 &&
		bsearch(&id, ids, nids, sizeof(int64), mbus_int64_compare) != NULL;
}
