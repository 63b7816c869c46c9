/*
 * wait.c
 *		CALL message_bus.wait(): sleeping until a subscription has something.
 *
 * The procedure looks in short transactions and sleeps in one that has
 * nothing: no snapshot, no lock, no transaction id.  So it is no reason for
 * anybody not to vacuum or to drop a segment, however long it sleeps.  It
 * enters itself as a waiter before it looks, and stays one over its commits;
 * why no wake-up is lost is told in state/waiter.c.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/claim.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/waiter.h"

#define DEFAULT_SUBSCRIPTION "default"

/* A call of message_bus.wait(). */
typedef struct WaitCall
{
	bool		atomic;			/* it cannot end its transaction */
	int			n;
	text	  **channel;
	char	  **subscription;
	int32	   *channel_id;		/* as last entered in the slot */
	bool	   *ready;
	TimestampTz *next;			/* of each: when to look without being woken */
	TimestampTz until;
} WaitCall;

static void wait_arguments(FunctionCallInfo fcinfo, WaitCall *call);
static void wait_subscriptions(FunctionCallInfo fcinfo, WaitCall *call);
static int	wait_texts(FunctionCallInfo fcinfo, int argno, const char *name,
					   Datum **values, bool **isnull);
static void wait_for_ready(WaitCall *call);
static bool wait_look(WaitCall *call, MbusDatabase *db, TimestampTz *next);
static bool wait_enter(WaitCall *call, MbusDatabase *db, Oid schema);
static bool wait_probe(Oid schema, MbusDatabase *db, text *channel_name,
					   const char *name, TimestampTz *next);
static Datum wait_result(FunctionCallInfo fcinfo, const WaitCall *call);

/*
 * wait(channels, subscriptions, timeout, INOUT ready) returns the channels
 * that have something for their subscription, after waiting for one.
 */
MBUS_FUNCTION(wait)
{
	WaitCall	call;

	mbus_write_check("message_bus.wait()");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait in a transaction of isolation level REPEATABLE READ or SERIALIZABLE"),
				 errhint("Use READ COMMITTED.")));
	wait_arguments(fcinfo, &call);
	if (call.atomic)
		wait_for_ready(&call);
	else
	{
		if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		SPI_commit();
		wait_for_ready(&call);
		SPI_finish();
	}
	return wait_result(fcinfo, &call);
}

/*
 * wait_arguments reads the arguments, all of which outlive a commit.
 */
static void
wait_arguments(FunctionCallInfo fcinfo, WaitCall *call)
{
	CallContext *context = (CallContext *) fcinfo->context;
	Datum	   *channels;
	bool	   *isnull;
	int64		timeout;
	int			n = wait_texts(fcinfo, 0, "channels", &channels, &isnull);

	mbus_required(fcinfo, 0, "channels");
	mbus_required(fcinfo, 2, "timeout");
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channels must not be empty")));

	call->n = n;
	call->channel = palloc(n * sizeof(text *));
	call->subscription = palloc(n * sizeof(char *));
	call->channel_id = palloc0(n * sizeof(int32));
	call->ready = palloc0(n * sizeof(bool));
	call->next = palloc0(n * sizeof(TimestampTz));
	for (int i = 0; i < n; i++)
	{
		if (isnull[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("channels must not hold a null")));
		call->channel[i] = DatumGetTextPCopy(channels[i]);
		call->subscription[i] = DEFAULT_SUBSCRIPTION;
	}
	if (!PG_ARGISNULL(1))
		wait_subscriptions(fcinfo, call);

	timeout = mbus_interval_us(PG_GETARG_INTERVAL_P(2));
	if (timeout < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	if (pg_add_s64_overflow(mbus_now(), timeout, &call->until))
		call->until = PG_INT64_MAX;
	/* within a subtransaction nothing can be committed either */
	call->atomic = context == NULL || !IsA(context, CallContext) ||
		context->atomic || IsSubTransaction();
}

/* The subscriptions that are not the default ones. */
static void
wait_subscriptions(FunctionCallInfo fcinfo, WaitCall *call)
{
	Datum	   *subscriptions;
	bool	   *isnull;
	int			n = wait_texts(fcinfo, 1, "subscriptions", &subscriptions,
							   &isnull);

	if (n != call->n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("subscriptions has %d elements, channels has %d",
						n, call->n)));
	for (int i = 0; i < n; i++)
	{
		if (!isnull[i])
			call->subscription[i] = TextDatumGetCString(subscriptions[i]);
	}
}

/*
 * Takes an array of texts apart, as a copy that outlives a commit; 0 elements
 * if it is null.
 */
static int
wait_texts(FunctionCallInfo fcinfo, int argno, const char *name,
		   Datum **values, bool **isnull)
{
	ArrayType  *array = mbus_array_argument(fcinfo, argno, name);
	int			n;

	if (array == NULL)
		return 0;
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, values, isnull,
					  &n);
	return n;
}

/*
 * wait_for_ready looks and sleeps until a channel is ready or the time is
 * over.  In a transaction that cannot be ended it errors with 25001 instead
 * of sleeping.
 */
static void
wait_for_ready(WaitCall *call)
{
	MbusDatabase *db = mbus_database();
	TimestampTz next;

	while (!wait_look(call, db, &next))
	{
		if (mbus_now() >= call->until)
			break;
		if (call->atomic)
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("message_bus.wait() cannot wait inside a transaction block or a function"),
					 errdetail("It ends its transaction, so that it holds back nobody while it sleeps."),
					 errhint("CALL it on its own, or with a timeout of 0.")));
		SPI_commit();
		mbus_wait_sleep(Min(next, call->until));
	}
	mbus_wait_end();
}

/*
 * wait_look tells whether a channel is ready, and which are; else *next is
 * when to look again if nobody wakes us.  Of those that it has looked at
 * before it looks again at what it was woken for, and whose time has come.
 */
static bool
wait_look(WaitCall *call, MbusDatabase *db, TimestampTz *next)
{
	MemoryContext looking = AllocSetContextCreate(CurrentMemoryContext,
												  "message_bus wait",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(looking);
	Oid			schema = mbus_schema();
	bool		any = false;
	bool		all;

	PushActiveSnapshot(GetTransactionSnapshot());
	mbus_wait_hits();
	all = wait_enter(call, db, schema);
	*next = PG_INT64_MAX;
	for (int i = 0; i < call->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (all || call->next[i] <= mbus_now() ||
			mbus_wait_hit(call->channel_id[i]))
			call->ready[i] = wait_probe(schema, db, call->channel[i],
										call->subscription[i],
										&call->next[i]);
		*next = Min(*next, call->next[i]);
		any |= call->ready[i];
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(looking);
	return any;
}

/*
 * wait_enter enters this process as one that waits for the call's channels,
 * if they are not those that it waits for already; then it has to look at
 * all.
 */
static bool
wait_enter(WaitCall *call, MbusDatabase *db, Oid schema)
{
	bool		changed = !mbus_wait_entered();

	for (int i = 0; i < call->n; i++)
	{
		int32		channel_id = mbus_channel_open(schema, call->channel[i],
												   MBUS_CLAIM)->channel_id;

		changed |= channel_id != call->channel_id[i];
		call->channel_id[i] = channel_id;
	}
	if (changed && !call->atomic)
	{
		mbus_wait_begin(db, call->channel_id, call->n);
		mbus_wait_keep();
	}
	return changed;
}

/*
 * wait_probe tells whether a claim would find something, or else sets *next
 * to when it may.  A subscription "default" that does not exist is
 * ready: the first claim makes it.
 */
static bool
wait_probe(Oid schema, MbusDatabase *db, text *channel_name,
		   const char *name, TimestampTz *next)
{
	MbusChannel channel = *mbus_channel_open(schema, channel_name,
											 MBUS_CLAIM);
	const MbusSubscription *found;
	MbusSubscription subscription;

	*next = PG_INT64_MAX;
	found = mbus_subscription_by_name(schema, channel.channel_id, name);
	if (found == NULL)
	{
		if (strcmp(name, DEFAULT_SUBSCRIPTION) == 0)
			return true;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("subscription \"%s\" of channel \"%s\" does not exist",
						name, channel.name)));
	}
	subscription = *found;
	return mbus_claim_probe(schema, db, &channel, &subscription, next);
}

/*
 * wait_result makes the procedure's row: the names of the channels that are
 * ready, in the order given.
 */
static Datum
wait_result(FunctionCallInfo fcinfo, const WaitCall *call)
{
	Datum	   *names = palloc(call->n * sizeof(Datum));
	TupleDesc	desc;
	Datum		value;
	bool		isnull = false;
	int			n = 0;

	for (int i = 0; i < call->n; i++)
	{
		if (call->ready[i])
			names[n++] = PointerGetDatum(call->channel[i]);
	}
	value = PointerGetDatum(construct_array(names, n, TEXTOID, -1, false,
											TYPALIGN_INT));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "message_bus.wait() does not return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value,
											 &isnull));
}
