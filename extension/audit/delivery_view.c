/*
 * delivery_view.c
 *		What is going on now: the functions behind the views subscriptions
 *		and leases.
 *
 * A subscription is copied under the delivery lock, into memory that was
 * allocated before; everything else is done with the copy, outside of it.
 * Each call copies one subscription: the views call once for each that the
 * query asks for.
 *
 * Everybody may call these functions.  They tell nothing of a channel that
 * the current user may not consume, audit or monitor.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "audit/backlog.h"
#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/pool.h"
#include "delivery/skip.h"
#include "delivery/sub.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"

#define STATUS_COLUMNS		15
#define LAG_COLUMNS			5
#define LEASE_COLUMNS		9

static double lag_seconds(const MbusBacklog *backlog);
static const char *lease_state(const MbusEntry *entry);
static bool sub_read(int32 subscription_id, MbusSubCopy *copy,
					 bool *numbers);
static void sub_make_room(MbusSubCopy *copy, int *out_room, int *skip_room);
static uint32 sub_slot(MbusDatabase *db, Oid schema, int32 subscription_id,
					   uint32 hint);
static bool sub_copy(uint32 slot, MbusSubCopy *copy, int out_room,
					 int skip_room);
static bool out_copy_list(MbusSubCopy *copy, uint32 first, int room);
static bool out_copy_leases(MbusSubCopy *copy, int room);
static int	out_compare(const void *a, const void *b);
static int	skip_compare(const void *a, const void *b);

/*
 * subscription_status(subscription_id integer) returns what the view
 * subscriptions shows of one subscription; NULL if it is not loaded, or not
 * for the current user.
 */
MBUS_FUNCTION(subscription_status)
{
	MbusSubCopy copy;
	MbusBacklog backlog;
	Datum		values[STATUS_COLUMNS];
	bool		isnull[STATUS_COLUMNS] = {0};
	TupleDesc	desc;
	int			count[MBUS_ENTRY_LEASED + 1] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "subscription_status: not called for a row");
	if (!sub_read(PG_GETARG_INT32(0), &copy, NULL))
		PG_RETURN_NULL();
	mbus_backlog(mbus_schema(), &copy, false, &backlog);
	for (int i = 0; i < copy.nout; i++)
		count[copy.out[i].entry.state]++;

	values[0] = Int64GetDatum(backlog.messages);
	values[1] = Float8GetDatum(lag_seconds(&backlog));
	values[2] = Int32GetDatum(count[MBUS_ENTRY_HELD] +
							  count[MBUS_ENTRY_LEASED]);
	values[3] = Int64GetDatum(copy.sub.redelivered);
	values[4] = Int64GetDatum(backlog.oldest_id);
	values[5] = TimestampTzGetDatum(backlog.oldest_at);
	isnull[4] = isnull[5] = backlog.oldest_id == 0;
	values[6] = Int32GetDatum(count[MBUS_ENTRY_READY]);
	values[7] = Int64GetDatum(backlog.retrying);
	values[8] = Int64GetDatum(copy.sub.delivered);
	values[9] = Int64GetDatum(copy.sub.acked);
	values[10] = Int64GetDatum(copy.sub.nacked);
	values[11] = Int64GetDatum(copy.sub.expired);
	values[12] = Int64GetDatum(copy.sub.dead);
	values[13] = Int64GetDatum(copy.sub.cursor);
	values[14] = BoolGetDatum(backlog.estimated);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/*
 * subscription_lag(channel, subscription) returns how far a subscription is
 * behind, counted message by message; NULL if it is not loaded, or not for the
 * current user.
 */
MBUS_FUNCTION(subscription_lag)
{
	Oid			schema = mbus_schema();
	const MbusSubscription *subscription = NULL;
	const MbusChannel *channel;
	MbusSubCopy copy;
	MbusBacklog backlog;
	Datum		values[LAG_COLUMNS];
	bool		isnull[LAG_COLUMNS] = {0};
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "subscription_lag: not called for a row");
	channel = mbus_channel_by_name(schema,
								   text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (channel)
		subscription = mbus_subscription_by_name(schema, channel->channel_id,
												 text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (subscription == NULL ||
		!sub_read(subscription->subscription_id, &copy, NULL))
		PG_RETURN_NULL();
	mbus_backlog(schema, &copy, true, &backlog);

	values[0] = Int64GetDatum(backlog.messages);
	values[1] = Float8GetDatum(lag_seconds(&backlog));
	values[2] = Int64GetDatum(backlog.oldest_id);
	values[3] = TimestampTzGetDatum(backlog.oldest_at);
	isnull[2] = isnull[3] = backlog.oldest_id == 0;
	values[4] = Int64GetDatum(backlog.retrying);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* Age of the oldest message that is behind. */
static double
lag_seconds(const MbusBacklog *backlog)
{
	if (backlog->oldest_id == 0)
		return 0.0;
	return (double) (mbus_now() - backlog->oldest_at) / USECS_PER_SEC;
}

/*
 * lease_rows(subscription_id integer) returns the messages of one
 * subscription that are claimed, by ascending id; without the leases' numbers
 * to who only monitors.
 */
MBUS_FUNCTION(lease_rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusSubCopy copy;
	bool		numbers;

	InitMaterializedSRF(fcinfo, 0);
	if (!sub_read(PG_GETARG_INT32(0), &copy, &numbers))
		return (Datum) 0;
	for (int i = 0; i < copy.nout; i++)
	{
		const MbusOut *out = &copy.out[i];
		Datum		values[LEASE_COLUMNS];
		bool		isnull[LEASE_COLUMNS] = {0};
		char	   *role;

		CHECK_FOR_INTERRUPTS();
		if (out->lease == 0)
			continue;
		role = GetUserNameFromId(out->role, true);
		values[0] = Int64GetDatum(out->lease);
		isnull[0] = !numbers;
		values[1] = Int64GetDatum(out->entry.id);
		values[2] = Int32GetDatum(out->entry.attempt);
		values[3] = TimestampTzGetDatum(out->claimed_at);
		values[4] = TimestampTzGetDatum(out->entry.deadline);
		values[5] = CStringGetTextDatum(lease_state(&out->entry));
		values[6] = Int32GetDatum(out->pid);
		isnull[7] = role == NULL;
		values[7] = role ? CStringGetTextDatum(role) : (Datum) 0;
		isnull[8] = out->session == 0;
		values[8] = Int64GetDatum(out->session);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
							 isnull);
	}
	return (Datum) 0;
}

static const char *
lease_state(const MbusEntry *entry)
{
	if (entry->pin == MBUS_PIN_ACK)
		return "acking";
	if (entry->pin == MBUS_PIN_NACK)
		return "nacking";
	return entry->state == MBUS_ENTRY_HELD ? "held" : "leased";
}

/*
 * sub_read copies a subscription that the current user may consume from or audit,
 * all its messages, or monitor, into the current memory context; false if there is none or it is
 * not loaded.  *numbers, if not NULL, is set to whether he may see leases'
 * numbers.  Takes the delivery lock.
 */
static bool
sub_read(int32 subscription_id, MbusSubCopy *copy, bool *numbers)
{
	Oid			schema = mbus_schema();
	const MbusSubscription *subscription;
	const MbusChannel *channel;

	subscription = mbus_subscription_by_id(schema, subscription_id);
	if (subscription == NULL)
		return false;
	channel = mbus_channel_by_id(schema, subscription->channel_id);
	if (channel == NULL ||
		(!mbus_channel_allows(channel, MBUS_SEE_WHOLE) && !mbus_monitors()))
		return false;
	if (numbers)
		*numbers = mbus_channel_allows(channel, MBUS_SEE_WHOLE);
	return mbus_sub_read_any(subscription_id, copy);
}

/*
 * mbus_sub_read_any does so whoever the current user is.
 */
bool
mbus_sub_read_any(int32 subscription_id, MbusSubCopy *copy)
{
	MbusDatabase *db = mbus_database_or_null();
	Oid			schema = mbus_schema();
	const MbusSubscription *subscription;
	uint32		hint;
	int			out_room = 0;
	int			skip_room = 0;

	MemSet(copy, 0, sizeof(*copy));
	subscription = mbus_subscription_by_id(schema, subscription_id);
	if (db == NULL || subscription == NULL)
		return false;
	hint = subscription->slot;
	for (;;)
	{
		uint32		slot;
		bool		loaded;
		bool		copied = false;

		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		slot = sub_slot(db, schema, subscription_id, hint);
		loaded = slot != MBUS_NONE && mbus_sub(slot)->loaded;
		if (loaded)
			copied = sub_copy(slot, copy, out_room, skip_room);
		LWLockRelease(mbus_delivery_lock());
		if (!loaded)
			return false;
		hint = slot;
		if (copied)
			break;
		sub_make_room(copy, &out_room, &skip_room);
		CHECK_FOR_INTERRUPTS();
	}
	mbus_subscription_remember(subscription_id, hint);
	qsort(copy->out, copy->nout, sizeof(MbusOut), out_compare);
	qsort(copy->skip, copy->nskips, sizeof(MbusSkip), skip_compare);
	return true;
}

/* Makes room for what there was, and for some more. */
static void
sub_make_room(MbusSubCopy *copy, int *out_room, int *skip_room)
{
	*out_room = copy->sub.nentries + 64;
	*skip_room = copy->sub.nskipped + 16;
	if (copy->out)
		pfree(copy->out);
	if (copy->skip)
		pfree(copy->skip);
	copy->out = palloc_extended(*out_room * sizeof(MbusOut), MCXT_ALLOC_HUGE);
	copy->skip = palloc(*skip_room * sizeof(MbusSkip));
}

/*
 * sub_slot finds a subscription's slot, which may be where it was last seen.
 * Caller holds the delivery lock, as for all that follows.
 */
static uint32
sub_slot(MbusDatabase *db, Oid schema, int32 subscription_id, uint32 hint)
{
	if (hint != MBUS_NONE)
	{
		const MbusSub *sub = mbus_sub(hint);

		if (sub->subscription_id == subscription_id && !sub->dropped &&
			sub->database == db->database && sub->schema == schema)
			return hint;
	}
	return mbus_sub_find(db->database, schema, subscription_id);
}

/*
 * sub_copy copies a subscription; false if there is too little room for its
 * entries or skipped ranges.
 */
static bool
sub_copy(uint32 slot, MbusSubCopy *copy, int out_room, int skip_room)
{
	MbusSub    *sub = &copy->sub;

	*sub = *mbus_sub(slot);
	copy->nout = 0;
	copy->nskips = 0;
	if (sub->nentries > out_room || sub->nskipped > skip_room)
		return false;
	for (uint32 s = sub->skipped; s != MBUS_NONE; s = mbus_skip(s)->next)
	{
		if (copy->nskips >= skip_room)
			return false;
		copy->skip[copy->nskips++] = *mbus_skip(s);
	}
	return out_copy_list(copy, sub->ready, out_room) &&
		out_copy_list(copy, sub->nexts, out_room) &&
		out_copy_leases(copy, out_room);
}

/* Copies a list of entries; false if there is no room. */
static bool
out_copy_list(MbusSubCopy *copy, uint32 first, int room)
{
	for (uint32 e = first; e != MBUS_NONE; e = mbus_entry(e)->next)
	{
		MbusOut    *out = &copy->out[copy->nout];

		if (copy->nout >= room)
			return false;
		MemSet(out, 0, sizeof(*out));
		out->entry = *mbus_entry(e);
		copy->nout++;
	}
	return true;
}

/*
 * Copies the entries of all leases, each with what its lease says; false if
 * there is no room.
 */
static bool
out_copy_leases(MbusSubCopy *copy, int room)
{
	for (uint32 l = copy->sub.leases; l != MBUS_NONE; l = mbus_lease(l)->next)
	{
		const MbusLease *lease = mbus_lease(l);
		int			first = copy->nout;

		if (!out_copy_list(copy, lease->first, room))
			return false;
		for (int i = first; i < copy->nout; i++)
		{
			MbusOut    *out = &copy->out[i];

			out->lease = lease->number;
			out->claimed_at = lease->claimed_at;
			out->pid = lease->pid;
			out->role = lease->role;
			out->session = lease->session;
		}
	}
	return true;
}

static int
out_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusOut *) a)->entry.id,
					  ((const MbusOut *) b)->entry.id);
}

static int
skip_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusSkip *) a)->lo,
					  ((const MbusSkip *) b)->lo);
}
