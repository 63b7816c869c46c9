/*
 * expired_view.c
 *		How many messages expired before a subscription was done with them.
 *
 * Those of segments that are gone, or about to go, are in message_bus.expired,
 * and the segments marked as told; those of the others are counted here, from
 * the tables, where memory says that there may be some: delivery/README.md,
 * section "Expiry".  A segment that goes meanwhile is in neither: its table
 * cannot be opened although it was not told by the snapshot that both were
 * read by.  Then all of it is done again.
 *
 * Where a subscription is not loaded, as on a standby, the tables alone tell.
 *
 * No more rows are read than the budget allows; what is told then is a lower
 * bound, and marked as such.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit/backlog.h"
#include "base/columns.h"
#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/expired.h"
#include "delivery/sub.h"
#include "facts/facts.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/unfinished.h"

#define TRIES			20		/* segments are not dropped as fast */
#define TOTAL_BUDGET	2000	/* of each subscription */

/* What is told of a subscription. */
typedef struct Told
{
	int64		n;
	bool		at_least;
} Told;

/* Segments that need not be read, ascending. */
typedef struct Segments
{
	int			n;
	int32	   *segment;
} Segments;

static Datum told_row(FunctionCallInfo fcinfo, const Told *told);
static bool may_see(const MbusSubscription *subscription);
static int	subscriptions_list(Oid schema, int32 **ids);
static void expired_tell(Oid schema, int32 subscription_id, int64 budget,
						 Told *told);
static bool expired_begin(MbusExpired *expired, const MbusSubCopy *copy,
						  bool loaded);
static bool expired_try(MbusExpired *expired, int64 low, Told *told);
static void gone_read(const MbusExpired *expired, Told *told);
static void told_read(const MbusExpired *expired, Segments *told);
static bool is_told(const Segments *told, int32 segment);
static int	segment_compare(const void *a, const void *b);
static bool leaves_read(MbusExpired *expired, const Segments *told,
						int64 low);
static void busy_list(const MbusSubCopy *copy, MbusExpired *expired);
static int64 low_find(const MbusExpired *expired, const MbusSubCopy *copy);
static int64 low_in_memory(const MbusSubCopy *copy);
static int64 low_delayed(const MbusExpired *expired, const MbusSub *sub,
						 int64 low);

/*
 * expired_status(subscription_id, budget) returns what the view subscriptions
 * shows of one; NULL if there is none, or not for the current user.  budget:
 * rows that are read at most.
 */
MBUS_FUNCTION(expired_status)
{
	Oid			schema = mbus_schema();
	Told		told;

	if (!may_see(mbus_subscription_by_id(schema, PG_GETARG_INT32(0))))
		PG_RETURN_NULL();
	expired_tell(schema, PG_GETARG_INT32(0), PG_GETARG_INT64(1), &told);
	PG_RETURN_DATUM(told_row(fcinfo, &told));
}

/*
 * subscription_expired(channel, subscription) returns it whatever has to be
 * read for it.
 */
MBUS_FUNCTION(subscription_expired)
{
	Oid			schema = mbus_schema();
	const MbusSubscription *subscription = NULL;
	const MbusChannel *channel;
	int32		id;
	Told		told;

	channel = mbus_channel_by_name(schema,
								   text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (channel)
		subscription = mbus_subscription_by_name(schema, channel->channel_id,
												 text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (subscription == NULL)
		PG_RETURN_NULL();
	id = subscription->subscription_id;
	if (!may_see(subscription))
		PG_RETURN_NULL();
	expired_tell(schema, id, PG_INT64_MAX, &told);
	PG_RETURN_DATUM(told_row(fcinfo, &told));
}

/* Makes the row of what is told. */
static Datum
told_row(FunctionCallInfo fcinfo, const Told *told)
{
	TupleDesc	desc;
	Datum		values[2];
	bool		isnull[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "subscription_expired: not called for a row");
	values[0] = Int64GetDatum(told->n);
	values[1] = BoolGetDatum(told->at_least);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values,
											 isnull));
}

/* Whether the current user may see a subscription; NULL: there is none. */
static bool
may_see(const MbusSubscription *subscription)
{
	const MbusChannel *channel;

	if (subscription == NULL)
		return false;
	channel = mbus_channel_by_id(mbus_schema(), subscription->channel_id);
	return channel != NULL &&
		(mbus_channel_allows(channel, MBUS_SEE_WHOLE) || mbus_monitors());
}

/*
 * expired_total() adds that up, for pg_monitor; NULL where no worker has run,
 * as with the counters.
 */
MBUS_FUNCTION(expired_total)
{
	Oid			schema = mbus_schema();
	Told		total = {0};
	TupleDesc	desc;
	Datum		values[2];
	bool		isnull[2] = {false, false};
	int32	   *ids;
	int			n;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "expired_total: not called for a row");
	if (mbus_database_or_null() == NULL)
		PG_RETURN_NULL();
	n = subscriptions_list(schema, &ids);
	for (int i = 0; i < n; i++)
	{
		Told		told;

		CHECK_FOR_INTERRUPTS();
		expired_tell(schema, ids[i], TOTAL_BUDGET, &told);
		total.n += told.n;
		total.at_least |= told.at_least;
	}
	values[0] = Int64GetDatum(total.n);
	values[1] = BoolGetDatum(total.at_least);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* Lists the subscriptions of the database. */
static int
subscriptions_list(Oid schema, int32 **ids)
{
	Relation	rel = table_open(mbus_relation(schema, "subscription"),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;
	int			room = 64;
	int			n = 0;
	bool		isnull;

	*ids = palloc(room * sizeof(int32));
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (n >= room)
			*ids = repalloc(*ids, (room *= 2) * sizeof(int32));
		(*ids)[n++] = DatumGetInt32(heap_getattr(tuple, MBUS_SUBSCRIPTION_ID,
												 RelationGetDescr(rel),
												 &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return n;
}

/* Counts in a memory context of its own. */
static void
expired_tell(Oid schema, int32 subscription_id, int64 budget, Told *told)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller,
												  "message_bus expired",
												  ALLOCSET_DEFAULT_SIZES);
	bool		settled = false;

	MemoryContextSwitchTo(context);
	for (int i = 0; i < TRIES && !settled; i++)
	{
		MbusExpired expired = {0};
		MbusSubCopy copy;
		bool		loaded;
		int64		low = 0;

		CHECK_FOR_INTERRUPTS();
		MemSet(told, 0, sizeof(*told));
		loaded = mbus_sub_read_any(subscription_id, &copy);
		expired.schema = schema;
		expired.subscription_id = subscription_id;
		expired.budget = budget;
		settled = !expired_begin(&expired, &copy, loaded);
		if (settled)
			break;				/* it is gone */
		expired.snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (loaded)
			low = low_find(&expired, &copy);
		settled = expired_try(&expired, low, told);
		UnregisterSnapshot(expired.snapshot);
	}
	told->at_least |= !settled;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
}

/* Says what the subscription is to get, and what is out; false if it is gone. */
static bool
expired_begin(MbusExpired *expired, const MbusSubCopy *copy, bool loaded)
{
	const MbusSubscription *subscription;

	subscription = mbus_subscription_by_id(expired->schema,
										   expired->subscription_id);
	if (subscription == NULL)
		return false;
	expired->channel_id = subscription->channel_id;
	expired->start_id = subscription->start_id;
	expired->start_at = subscription->start_at;
	expired->wanted_at = subscription->wanted_at;
	expired->since_lease = subscription->since_lease;
	if (loaded)
		busy_list(copy, expired);
	return true;
}

/* Counts once; false if a segment went meanwhile. */
static bool
expired_try(MbusExpired *expired, int64 low, Told *told)
{
	Segments	segments;

	mbus_expired_begin(expired);
	gone_read(expired, told);
	told_read(expired, &segments);
	if (!leaves_read(expired, &segments, low))
		return false;
	told->n += expired->n;
	told->at_least |= expired->cut;
	return true;
}

/* Reads what was counted of segments that go. */
static void
gone_read(const MbusExpired *expired, Told *told)
{
	Relation	rel = table_open(mbus_relation(expired->schema, "expired"),
								 AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull;

	MemSet(told, 0, sizeof(*told));
	ScanKeyInit(&key, MBUS_EXPIRED_SUBSCRIPTION_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(expired->subscription_id));
	scan = systable_beginscan(rel, mbus_relation(expired->schema,
												 "expired_pkey"), true,
							  expired->snapshot, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);

		told->n = DatumGetInt64(heap_getattr(tuple, MBUS_EXPIRED_N, desc,
											 &isnull));
		told->at_least = DatumGetBool(heap_getattr(tuple,
												   MBUS_EXPIRED_AT_LEAST,
												   desc, &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Lists the segments of which that is. */
static void
told_read(const MbusExpired *expired, Segments *told)
{
	Relation	rel = table_open(mbus_relation(expired->schema, "segment"),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false,
										  expired->snapshot, 0, NULL);
	HeapTuple	tuple;
	int			room = 16;
	bool		isnull;

	told->n = 0;
	told->segment = palloc(room * sizeof(int32));
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);

		if (!DatumGetBool(heap_getattr(tuple, MBUS_SEGMENT_TOLD, desc,
									   &isnull)))
			continue;
		if (told->n >= room)
			told->segment = repalloc(told->segment,
									 (room *= 2) * sizeof(int32));
		told->segment[told->n++] =
			DatumGetInt32(heap_getattr(tuple, MBUS_SEGMENT_NO, desc,
									   &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	qsort(told->segment, told->n, sizeof(int32), segment_compare);
}

static bool
is_told(const Segments *told, int32 segment)
{
	return bsearch(&segment, told->segment, told->n, sizeof(int32),
				   segment_compare) != NULL;
}

static int
segment_compare(const void *a, const void *b)
{
	return mbus_order(*(const int32 *) a, *(const int32 *) b);
}

/* Counts in the segments that are there; false if one is gone. */
static bool
leaves_read(MbusExpired *expired, const Segments *told, int64 low)
{
	MbusDatabase *db = mbus_database_or_null();
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(expired->schema, &leaves);

	for (int i = 0; i < nleaves && !expired->cut; i++)
	{
		int32		segment = leaves[i].segment;
		int64		end = MbusFirstId((int64) segment + 1);
		Relation	leaf;

		if (end <= low || is_told(told, segment) ||
			(db && mbus_segment_hidden(db, segment)))
			continue;
		leaf = mbus_leaf_open(expired->schema, segment, MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			return false;
		mbus_expired_read(expired, leaf, segment,
						  Max(low, MbusFirstId(segment)), end);
		table_close(leaf, AccessShareLock);
	}
	return true;
}

/* What is out is not lost yet; what only waits to be claimed may be. */
static void
busy_list(const MbusSubCopy *copy, MbusExpired *expired)
{
	int64	   *busy = palloc_extended(Max(copy->nout, 1) * sizeof(int64),
									   MCXT_ALLOC_HUGE);

	expired->nbusy = 0;
	for (int i = 0; i < copy->nout; i++)
	{
		const MbusEntry *entry = &copy->out[i].entry;

		if (entry->state == MBUS_ENTRY_HELD ||
			entry->state == MBUS_ENTRY_LEASED)
			busy[expired->nbusy++] = entry->id;
	}
	expired->busy = busy;
}

/*
 * low_find returns an id below which the subscription has got all that it was
 * to get, or it was counted at a drop.
 */
static int64
low_find(const MbusExpired *expired, const MbusSubCopy *copy)
{
	int64		low = low_in_memory(copy);
	const MbusSub *sub = &copy->sub;
	int64	   *ids;
	int			n;

	if (low <= sub->start_id)
		return low;
	/* a scan at work has taken what it looks for */
	if (sub->scanner == -1 && sub->next_retry == PG_INT64_MAX)
		return low_delayed(expired, sub, low);
	n = mbus_facts_waiting(expired->schema, sub->subscription_id,
						   sub->since_lease,
						   Min(sub->retry_position.at, sub->retry_from.at),
						   PG_INT32_MAX, expired->snapshot,
						   mbus_sub_retries_in(sub), &ids);
	if (n > 0)
		low = Min(low, ids[0]);
	pfree(ids);
	return low_delayed(expired, sub, low);
}

/* Of what memory knows to have been passed, or to be wanted again. */
static int64
low_in_memory(const MbusSubCopy *copy)
{
	const MbusSub *sub = &copy->sub;
	int64		low = Min(sub->cursor + 1, sub->expired_low);

	for (int i = 0; i < copy->nskips; i++)
		low = Min(low, copy->skip[i].lo);
	for (int i = 0; i < copy->nout; i++)
	{
		const MbusEntry *entry = &copy->out[i].entry;

		low = Min(low, entry->id);
		if (entry->passed != 0)
			low = Min(low, entry->passed);
	}
	if (sub->wait_low != 0)
		low = Min(low, sub->wait_low);
	if (sub->wait_passed != 0)
		low = Min(low, sub->wait_passed);
	return low;
}

/* Delayed messages below that, which the subscription has not looked at. */
static int64
low_delayed(const MbusExpired *expired, const MbusSub *sub, int64 low)
{
	MbusLeaf   *leaves;
	int			nleaves;

	/* the last scan has seen that none is to come */
	if (sub->scanner == -1 && sub->next_due == PG_INT64_MAX)
		return low;
	nleaves = mbus_leaves(expired->schema, &leaves);
	for (int i = 0; i < nleaves; i++)
	{
		Relation	leaf;
		MbusLeafScan rows;
		HeapTuple	tuple;
		bool		isnull;

		if (MbusFirstId(leaves[i].segment) >= low ||
			!mbus_set_has(&sub->due_in, leaves[i].segment))
			continue;
		leaf = mbus_leaf_open(expired->schema, leaves[i].segment,
							  MBUS_MESSAGE, AccessShareLock);
		if (leaf == NULL)
			continue;
		mbus_leaf_scan_open(&rows, leaf, MBUS_COL_CHANNEL_ID,
							MBUS_COL_AVAILABLE_AT, true);
		mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, sub->channel_id);
		mbus_leaf_scan_time(&rows, MBUS_COL_AVAILABLE_AT,
							sub->due_position.at, PG_INT64_MAX);
		mbus_leaf_scan_begin(&rows, expired->snapshot);
		while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
			low = Min(low, DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID,
													  RelationGetDescr(leaf),
													  &isnull)));
		mbus_leaf_scan_close(&rows);
		table_close(leaf, AccessShareLock);
	}
	pfree(leaves);
	return low;
}
