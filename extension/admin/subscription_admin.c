/*
 * subscription_admin.c
 *		create_subscription, drop_subscription, pause, resume and seek.
 *
 * A subscription is made by who may consume its channel, who then owns it; its
 * owner and the channel's may change it.  The rows are written as the owner
 * of the tables (base/owner.c).  What shared memory has of a subscription
 * changes when the transaction commits (delivery/effect.c).
 *
 * A start is an id and a time: messages with lower ids or created before are
 * not wanted.  For a start in time, the id only saves reading.  No message of
 * a segment was created after the segment was closed, so it is the first id
 * of the first segment that was open then or later; or, if all were closed
 * before, the first id of the channel that was unfinished or unreserved
 * before these were looked at.
 *
 * A seek holds the scanner slot until its transaction ends, so that no lease
 * is given out between the since_lease that it writes and its commit.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "action/action.h"
#include "admin/subscription_admin.h"
#include "base/argument.h"
#include "base/columns.h"
#include "base/ids.h"
#include "base/owner.h"
#include "base/role.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/owned.h"
#include "channel/subscription.h"
#include "delivery/effect.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/scanner.h"
#include "delivery/slot.h"
#include "delivery/sub.h"
#include "segment/published.h"
#include "state/fault.h"
#include "state/range.h"
#include "state/state.h"

#define MBUS_ID_END			(INT64CONST(1) << 53)	/* behind the last id */

/* Where a subscription starts, as its caller says it. */
typedef struct Start
{
	enum
	{
		START_EARLIEST,
		START_LATEST,
		START_ID,
		START_TIME
	}			kind;
	int64		id;
	TimestampTz at;				/* 0: any time */
} Start;

static bool subscription_insert(Oid schema, int32 channel_id, text *name,
								bool ordered, const Start *start,
								int32 epoch);
static void subscription_tell(Oid schema, int32 channel_id, const char *name);
static void subscription_pause(FunctionCallInfo fcinfo, bool paused);
static int64 seek_begin(Oid schema, MbusDatabase *db,
						const MbusSubscription *subscription, uint32 *slot);
static void start_parse(text *value, Start *start);
static void start_id_parse(const char *digits, Start *start);
static void start_resolve(Oid schema, MbusDatabase *db, int32 channel_id,
						  Start *start);
static int64 first_id_since(Oid schema, TimestampTz at);
static bool subscription_find(Oid schema, FunctionCallInfo fcinfo,
							  bool missing_ok, MbusSubscription *found);
static void subscription_gone(const char *channel, const char *name,
							  bool missing_ok);
static void subscription_write(Oid schema,
							   const MbusSubscription *subscription,
							   const char *command, int nargs,
							   const Oid *types, Datum *values,
							   const char *nulls);

/*
 * create_subscription(channel, subscription, start, ordered, if_not_exists)
 * makes a subscription that belongs to the current user.
 */
MBUS_CHANNEL_FUNCTION(create_subscription)
{
	Oid			schema = mbus_schema();
	text	   *channel_name = mbus_required_text(fcinfo, 0, "channel");
	text	   *name = mbus_required_text(fcinfo, 1, "subscription");
	char	   *cname = text_to_cstring(name);
	bool		if_not_exists = !PG_ARGISNULL(4) && PG_GETARG_BOOL(4);
	int32		channel_id;
	MbusDatabase *db;
	Start		start;
	int32		epoch;

	mbus_write_check("message_bus.create_subscription()");
	mbus_name_check("subscription", cname);
	start_parse(mbus_required_text(fcinfo, 2, "start"), &start);
	channel_id = mbus_channel_open(schema, channel_name,
								   MBUS_CLAIM)->channel_id;
	db = mbus_database();
	start_resolve(schema, db, channel_id, &start);
	if (mbus_subscription_by_name(schema, channel_id, cname) == NULL)
		mbus_owned_lock(schema, MBUS_OWNED_SUBSCRIPTIONS, GetUserId());
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	epoch = db->delivery.lease_epoch;
	LWLockRelease(mbus_delivery_lock());

	if (subscription_insert(schema, channel_id, name,
							!PG_ARGISNULL(3) && PG_GETARG_BOOL(3), &start,
							epoch))
	{
		subscription_tell(schema, channel_id, cname);
		PG_RETURN_VOID();
	}

	(void) mbus_channel_open(schema, channel_name, MBUS_CLAIM); /* dropped? */
	if (mbus_subscription_by_name(schema, channel_id, cname) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to channel \"%s\"",
						text_to_cstring(channel_name)),
				 errdetail("The channel is newer than the transaction's snapshot, or the subscription was dropped meanwhile.")));
	if (!if_not_exists)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" of channel \"%s\" already exists",
						cname, text_to_cstring(channel_name))));
	ereport(NOTICE,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("subscription \"%s\" of channel \"%s\" already exists, skipping",
					cname, text_to_cstring(channel_name))));
	PG_RETURN_VOID();
}

/*
 * subscription_insert makes the row; false if there is one, or the channel
 * was dropped.
 */
static bool
subscription_insert(Oid schema, int32 channel_id, text *name, bool ordered,
					const Start *start, int32 epoch)
{
	Datum		value[7];
	char		nulls[] = "       ";
	static const Oid types[7] = {INT4OID, TEXTOID, OIDOID, BOOLOID, INT8OID,
	TIMESTAMPTZOID, INT4OID};

	value[0] = Int32GetDatum(channel_id);
	value[1] = PointerGetDatum(name);
	mbus_role_hold(GetUserId());
	value[2] = ObjectIdGetDatum(GetUserId());
	value[3] = BoolGetDatum(ordered);
	value[4] = Int64GetDatum(start->id);
	value[5] = TimestampTzGetDatum(start->at);
	nulls[5] = start->at == 0 ? 'n' : ' ';
	value[6] = Int32GetDatum(epoch);
	return mbus_run_as_owner(schema,
							 "WITH made AS ("
							 "INSERT INTO message_bus.subscription (channel_id,"
							 " name, owner, ordered, start_id, start_at, wanted_at)"
							 " SELECT c.channel_id, $2, $3, $4, $5, $6,"
							 " message_bus.clock()"
							 " FROM message_bus.channel c"
							 " WHERE c.channel_id = $1 AND NOT EXISTS"
							 " (SELECT FROM message_bus.subscription s"
							 " WHERE s.channel_id = $1 AND s.name = $2)"
							 " FOR KEY SHARE OF c"
							 " ON CONFLICT (channel_id, name) DO NOTHING"
							 " RETURNING subscription_id)"
							 " INSERT INTO message_bus.subscription_made"
							 " SELECT subscription_id, $7 FROM made",
							 7, types, value, nulls) > 0;
}

/* Records that a subscription was made. */
static void
subscription_tell(Oid schema, int32 channel_id, const char *name)
{
	const MbusSubscription *made;

	CommandCounterIncrement();
	made = mbus_subscription_by_name(schema, channel_id, name);
	if (made == NULL)
		elog(ERROR, "subscription was made and is not there");
	mbus_action_subscription(schema, channel_id, made->subscription_id,
							 "created");
}

/*
 * drop_subscription(channel, subscription, if_exists) removes a subscription;
 * its leases end.
 */
MBUS_CHANNEL_FUNCTION(drop_subscription)
{
	Oid			schema = mbus_schema();
	bool		if_exists = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	MbusSubscription subscription;
	MbusAction	action;
	Datum		value[1];
	static const Oid types[1] = {INT4OID};
	MbusDatabase *db;
	uint32		slot;

	mbus_write_check("message_bus.drop_subscription()");
	if (!subscription_find(schema, fcinfo, if_exists, &subscription))
		PG_RETURN_VOID();
	value[0] = Int32GetDatum(subscription.subscription_id);
	mbus_action_begin(&action, "subscription", subscription.channel_id,
					  "dropped");
	mbus_action_row(&action, schema, "subscription", "subscription_pkey",
					subscription.subscription_id);
	subscription_write(schema, &subscription,
					   "DELETE FROM message_bus.subscription"
					   " WHERE subscription_id = $1", 1, types, value, NULL);
	mbus_action_end(&action, schema);
	if (!mbus_preloaded())
		PG_RETURN_VOID();
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	slot = mbus_sub_find(MyDatabaseId, schema, subscription.subscription_id);
	LWLockRelease(mbus_delivery_lock());
	if (slot != MBUS_NONE)
		mbus_effect_drop(slot, schema, subscription.subscription_id);
	db = mbus_database_or_null();
	if (db != NULL && strcmp(subscription.name, "default") == 0)
		mbus_slot_drop_default(db, subscription.channel_id);
	mbus_effect_wake(subscription.channel_id);
	PG_RETURN_VOID();
}

/*
 * subscription_let_go(subscription_id) lets go, at commit, what shared memory has
 * of a subscription whose row a restore has replaced or renumbered: its leases
 * end, and it is loaded anew.
 */
MBUS_FUNCTION(subscription_let_go)
{
	Oid			schema = mbus_schema();
	int32		subscription_id = PG_GETARG_INT32(0);
	uint32		slot = MBUS_NONE;

	if (mbus_preloaded() && mbus_database_or_null() != NULL)
	{
		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		slot = mbus_sub_find(MyDatabaseId, schema, subscription_id);
		LWLockRelease(mbus_delivery_lock());
	}
	if (slot != MBUS_NONE)
		mbus_effect_drop(slot, schema, subscription_id);
	PG_RETURN_VOID();
}

/*
 * mbus_subscriptions_drop lets go, at commit, what shared memory has of a
 * channel's subscriptions; the caller has deleted the rows.
 */
void
mbus_subscriptions_drop(Oid schema, int32 channel_id)
{
	uint32	   *slots;
	int32	   *ids;
	int			nslots = 0;

	if (!mbus_preloaded())
		return;
	slots = palloc(mbus_sub_slots() * sizeof(uint32));
	ids = palloc(mbus_sub_slots() * sizeof(int32));
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	for (int i = 0; i < mbus_sub_slots(); i++)
	{
		const MbusSub *sub = mbus_sub(i);

		if (sub->database == MyDatabaseId && sub->schema == schema &&
			sub->channel_id == channel_id && !sub->dropped)
		{
			slots[nslots] = i;
			ids[nslots++] = sub->subscription_id;
		}
	}
	LWLockRelease(mbus_delivery_lock());
	for (int i = 0; i < nslots; i++)
		mbus_effect_drop(slots[i], schema, ids[i]);
	mbus_effect_wake(channel_id);
	pfree(slots);
	pfree(ids);
}

/*
 * pause(channel, subscription) stops deliveries; what is claimed can be acked.
 */
MBUS_CHANNEL_FUNCTION(pause)
{
	mbus_write_check("message_bus.pause()");
	subscription_pause(fcinfo, true);
	PG_RETURN_VOID();
}

/*
 * resume(channel, subscription) lets them go on.
 */
MBUS_CHANNEL_FUNCTION(resume)
{
	mbus_write_check("message_bus.resume()");
	subscription_pause(fcinfo, false);
	PG_RETURN_VOID();
}

/*
 * subscription_pause is pause and resume.  Whoever waits is woken by a resume
 * when its transaction has committed.
 */
static void
subscription_pause(FunctionCallInfo fcinfo, bool paused)
{
	Oid			schema = mbus_schema();
	MbusSubscription subscription;
	Datum		value[2];
	static const Oid types[2] = {INT4OID, BOOLOID};

	(void) subscription_find(schema, fcinfo, false, &subscription);
	value[0] = Int32GetDatum(subscription.subscription_id);
	value[1] = BoolGetDatum(paused);
	subscription_write(schema, &subscription,
					   "UPDATE message_bus.subscription SET paused = $2"
					   " WHERE subscription_id = $1", 2, types, value, NULL);
	mbus_action_subscription(schema, subscription.channel_id,
							 subscription.subscription_id,
							 paused ? "paused" : "resumed");
	if (!paused && mbus_preloaded())
		mbus_effect_wake(subscription.channel_id);
}

/*
 * seek(channel, subscription, start) moves a subscription: what is from there
 * on is delivered, again if it was before; its leases end at commit.
 */
MBUS_CHANNEL_FUNCTION(seek)
{
	Oid			schema = mbus_schema();
	MbusSubscription subscription;
	MbusDatabase *db;
	Start		start;
	uint32		slot = MBUS_NONE;
	int64		since_lease = 0;
	Datum		value[4];
	char		nulls[] = "    ";
	static const Oid types[4] = {INT4OID, INT8OID, TIMESTAMPTZOID, INT8OID};

	mbus_write_check("message_bus.seek()");
	(void) subscription_find(schema, fcinfo, false, &subscription);
	start_parse(mbus_required_text(fcinfo, 2, "start"), &start);
	db = mbus_database();
	/* one that nobody else sees yet has had no lease */
	if (!subscription.uncommitted)
	{
		since_lease = seek_begin(schema, db, &subscription, &slot);
	}
	start_resolve(schema, db, subscription.channel_id, &start);

	value[0] = Int32GetDatum(subscription.subscription_id);
	value[1] = Int64GetDatum(start.id);
	value[2] = TimestampTzGetDatum(start.at);
	nulls[2] = start.at == 0 ? 'n' : ' ';
	value[3] = Int64GetDatum(since_lease);
	subscription_write(schema, &subscription,
					   "UPDATE message_bus.subscription SET start_id = $2,"
					   " start_at = $3, since_lease = $4,"
					   " wanted_at = message_bus.clock()"
					   " WHERE subscription_id = $1", 4, types, value, nulls);
	(void) mbus_run_as_owner(schema,
							 "DELETE FROM message_bus.checkpoint"
							 " WHERE subscription_id = $1", 1, types, value,
							 NULL);
	mbus_action_subscription(schema, subscription.channel_id,
							 subscription.subscription_id, "moved");
	if (slot != MBUS_NONE)
		mbus_effect_seek(slot, start.id, start.at, since_lease);
	PG_RETURN_VOID();
}

/*
 * seek_begin takes the scanner slot, for the rest of the transaction, and
 * returns a lease number above all that the subscription has had.
 */
static int64
seek_begin(Oid schema, MbusDatabase *db,
		   const MbusSubscription *subscription, uint32 *slot)
{
	int64		number;

	do
		*slot = mbus_slot_open(schema, db, subscription);
	while (!mbus_scanner_acquire(*slot, schema, subscription->subscription_id,
								 true));
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	number = mbus_lease_number(db);
	LWLockRelease(mbus_delivery_lock());
	if (number == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message_bus has no lease numbers left at the moment"),
				 errhint("Try again; the worker makes new ones.")));
	return number;
}

/*
 * start_parse reads what says where a subscription starts; 22023 or 22007 for
 * what says nothing.
 */
static void
start_parse(text *value, Start *start)
{
	char	   *string = text_to_cstring(value);
	size_t		len = strlen(string);

	MemSet(start, 0, sizeof(*start));
	if (strcmp(string, "earliest") == 0)
		start->kind = START_EARLIEST;
	else if (strcmp(string, "latest") == 0)
		start->kind = START_LATEST;
	else if (len > 0 && strspn(string, "0123456789") == len)
		start_id_parse(string, start);
	else
	{
		start->kind = START_TIME;
		start->at =
			DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
													CStringGetDatum(string),
													ObjectIdGetDatum(InvalidOid),
													Int32GetDatum(-1)));
		if (TIMESTAMP_NOT_FINITE(start->at))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("start must be finite"),
					 errdetail("It is earliest, latest, an id, or a time.")));
	}
}

/* Reads a start that is an id, given as digits; 22023 if it is none. */
static void
start_id_parse(const char *digits, Start *start)
{
	start->kind = START_ID;
	for (const char *p = digits; *p; p++)
	{
		start->id = start->id * 10 + (*p - '0');
		if (start->id >= MBUS_ID_END)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("start \"%.40s\" is out of range", digits),
					 errdetail("An id is below " INT64_FORMAT ".",
							   MBUS_ID_END)));
	}
}

/*
 * start_resolve sets the start's id.  An id that was not given out yet means
 * the next one: it could be that of any segment to come.
 */
static void
start_resolve(Oid schema, MbusDatabase *db, int32 channel_id, Start *start)
{
	MbusRange  *unfinished;
	int			nunfinished;
	int64		unreserved;
	int64		settled;

	if (start->kind == START_EARLIEST)
		return;
	unreserved = mbus_unfinished_wait(db, schema, channel_id, &unfinished,
									  &nunfinished);
	settled = nunfinished > 0 ? Min(unfinished[0].lo, unreserved) : unreserved;
	switch (start->kind)
	{
		case START_LATEST:
			start->id = settled;
			break;
		case START_ID:
			start->id = Min(start->id, unreserved);
			break;
		default:
			start->id = Min(first_id_since(schema, start->at), settled);
			break;
	}
}

/*
 * first_id_since returns the first id of the segments that can hold what was
 * created at that time or later; PG_INT64_MAX if there are none.  Rows are
 * read as they are now, whatever the transaction's snapshot.
 */
static int64
first_id_since(Oid schema, TimestampTz at)
{
	Relation	rel = table_open(mbus_relation(schema, "segment"),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	int64		first = PG_INT64_MAX;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		Datum		closed_at;
		bool		open;
		bool		isnull;
		int32		segment;

		closed_at = heap_getattr(tuple, MBUS_SEGMENT_CLOSED_AT, desc, &open);
		if (!open && DatumGetTimestampTz(closed_at) < at)
			continue;
		segment =
			DatumGetInt32(heap_getattr(tuple, MBUS_SEGMENT_NO, desc, &isnull));
		first = Min(first, MbusFirstId(segment));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return first;
}

/*
 * subscription_find copies the subscription that the first two arguments
 * name.  42501 unless the current user owns it or its channel; 42P01 if there
 * is none, or a notice and false if that is no error.
 */
static bool
subscription_find(Oid schema, FunctionCallInfo fcinfo, bool missing_ok,
				  MbusSubscription *found)
{
	text	   *first = mbus_required_text(fcinfo, 0, "channel");
	text	   *second = mbus_required_text(fcinfo, 1, "subscription");
	char	   *channel_name = text_to_cstring(first);
	char	   *name = text_to_cstring(second);
	const MbusChannel *channel = mbus_channel_by_name(schema, channel_name);
	const MbusSubscription *subscription;
	Oid			owner;

	MemSet(found, 0, sizeof(*found));
	if (channel == NULL)
	{
		subscription_gone(channel_name, NULL, missing_ok);
		return false;
	}
	owner = channel->owner;
	subscription = mbus_subscription_by_name(schema, channel->channel_id,
											 name);
	if (subscription == NULL)
	{
		subscription_gone(channel_name, name, missing_ok);
		return false;
	}
	*found = *subscription;
	if (!has_privs_of_role(GetUserId(), owner) &&
		!has_privs_of_role(GetUserId(), found->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of subscription \"%s\" or of channel \"%s\"",
						name, channel_name)));
	return true;
}

/* There is no such channel (name is NULL), or no such subscription. */
static void
subscription_gone(const char *channel, const char *name, bool missing_ok)
{
	if (name == NULL)
		ereport(missing_ok ? NOTICE : ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 missing_ok ?
				 errmsg("channel \"%s\" does not exist, skipping", channel) :
				 errmsg("channel \"%s\" does not exist", channel)));
	else
		ereport(missing_ok ? NOTICE : ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 missing_ok ?
				 errmsg("subscription \"%s\" of channel \"%s\" does not exist, skipping",
						name, channel) :
				 errmsg("subscription \"%s\" of channel \"%s\" does not exist",
						name, channel)));
}

/*
 * subscription_write runs one statement on the subscription's row; 42P01 if
 * it was dropped meanwhile, 40001 if it is newer than the snapshot.
 */
static void
subscription_write(Oid schema, const MbusSubscription *subscription,
				   const char *command, int nargs, const Oid *types,
				   Datum *values, const char *nulls)
{
	if (mbus_run_as_owner(schema, command, nargs, types, values, nulls) > 0)
		return;
	if (mbus_subscription_by_id(schema, subscription->subscription_id) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("subscription \"%s\" does not exist",
						subscription->name),
				 errdetail("It was dropped meanwhile.")));
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to subscription \"%s\"",
					subscription->name),
			 errdetail("The subscription is newer than the transaction's snapshot.")));
}
