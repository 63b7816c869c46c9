/*
 * wait.c
 *		Sleeping until something may be there for a subscription.
 *
 * Each process has a slot in shared memory, found by its number: the channels
 * of one database that it waits for.  The numbers of those that wait stand in
 * a list without holes.  All of it is protected by the waiter lock, which is
 * taken last of all and held for straight-line code only; what a slot says is
 * written by its process alone, while it is not on the list.
 *
 * No wake-up is lost.  A waiter enters its slot (mbus_wait_begin), then
 * looks, then sleeps.  A publisher's callback takes its ranges out of the
 * registry, then looks who waits.  Both pass the state lock in between: either
 * the publisher sees the slot, or the waiter finds the message.  "woken" in
 * the slot remembers a wake-up for the next sleep, since looking may itself
 * wait for something and so reset the latch.  Wake-ups are hints: who wakes
 * looks again.
 *
 * A slot is left by mbus_wait_end, at the end of the transaction, when the
 * subtransaction that entered it aborts, and at process exit.  Only CALL
 * message_bus.wait() keeps it over its commits.
 *
 * That procedure looks in short transactions and sleeps in one that has
 * nothing: no snapshot, no lock, no transaction id.  So it is no reason for
 * anybody not to vacuum or to drop a segment, however long it sleeps.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/compat.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/claim.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/waiter.h"

#define MBUS_WAIT_CHANNELS	256 /* of one waiter */
#define DEFAULT_SUBSCRIPTION "default"

/* A process that may wait. */
typedef struct Waiter
{
	int32		place;			/* on the list */
	pg_atomic_uint32 woken;		/* since it last began to look */
	Oid			database;
	int32		n;
	int32		channel[MBUS_WAIT_CHANNELS];	/* ascending */
} Waiter;

typedef struct WaitShared
{
	LWLock		lock;			/* the waiter lock */
	pg_atomic_uint32 nwaiting;	/* written under it, read without */
} WaitShared;

/* A call of message_bus.wait(). */
typedef struct WaitCall
{
	bool		atomic;			/* it cannot end its transaction */
	int			n;
	text	  **channel;
	char	  **subscription;
	int32	   *channel_id;		/* as last entered in the slot */
	bool	   *ready;
	TimestampTz until;
} WaitCall;

static WaitShared *shared = NULL;
static int32 *waiting;			/* procnos, the first nwaiting count */
static Waiter *waiters;			/* by procno */

/* this process */
static bool entered = false;	/* its slot is on the list */
static bool keep = false;		/* over commits */
static bool slept = false;		/* since it entered */
static int	entered_level;		/* of subtransactions */

static void callbacks_register(void);
static void wait_xact_callback(XactEvent event, void *arg);
static void wait_subxact_callback(SubXactEvent event, SubTransactionId mine,
								  SubTransactionId parent, void *arg);
static Size wait_size(void);
static void wait_startup(void *memory, bool found, int tranche);
static void wait_exit_callback(int code, Datum arg);
static int	channel_compare(const void *a, const void *b);
static void wait_arguments(FunctionCallInfo fcinfo, WaitCall *call);
static int	wait_texts(FunctionCallInfo fcinfo, int argno, const char *name,
					   Datum **values, bool **isnull);
static void wait_for_ready(WaitCall *call);
static bool wait_look(WaitCall *call, MbusDatabase *db, TimestampTz *next);
static void wait_enter(WaitCall *call, MbusDatabase *db, Oid schema);
static bool wait_probe(Oid schema, MbusDatabase *db, text *channel_name,
					   const char *name, TimestampTz *next);
static Datum wait_result(FunctionCallInfo fcinfo, const WaitCall *call);

/* ------------------------------------------------------------------------
 * Memory
 * ------------------------------------------------------------------------
 */

static int
wait_slots(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

/*
 * mbus_wait_init adds the slots to shared memory; from _PG_init.
 */
void
mbus_wait_init(void)
{
	static const MbusPart part = {"message_bus waiters", wait_size,
	wait_startup};

	mbus_state_part(&part);
}

static Size
wait_size(void)
{
	Size		size = MAXALIGN(sizeof(WaitShared));

	size = add_size(size, MAXALIGN(mul_size(wait_slots(), sizeof(int32))));
	return add_size(size, mul_size(wait_slots(), sizeof(Waiter)));
}

/*
 * wait_startup finds the memory's parts, and fills it if it is new.
 */
static void
wait_startup(void *memory, bool found, int tranche)
{
	char	   *at = memory;

	shared = memory;
	at += MAXALIGN(sizeof(WaitShared));
	waiting = (int32 *) at;
	at += MAXALIGN(mul_size(wait_slots(), sizeof(int32)));
	waiters = (Waiter *) at;
	if (found)
		return;

	MemSet(memory, 0, wait_size());
	LWLockInitialize(&shared->lock, tranche);
	pg_atomic_init_u32(&shared->nwaiting, 0);
	for (int i = 0; i < wait_slots(); i++)
		pg_atomic_init_u32(&waiters[i].woken, 0);
}

/* ------------------------------------------------------------------------
 * Slots
 * ------------------------------------------------------------------------
 */

/*
 * mbus_wait_begin enters this process as one that waits for channels, in
 * place of those it waited for; look only then.  54000 if they are too many.
 */
void
mbus_wait_begin(MbusDatabase *db, const int32 *channels, int n)
{
	Waiter	   *me = &waiters[MbusMyProcno()];
	uint32		place;

	if (n > MBUS_WAIT_CHANNELS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many channels to wait for: %d", n),
				 errdetail("The limit is %d.", MBUS_WAIT_CHANNELS)));
	callbacks_register();
	mbus_wait_end();

	me->database = db->database;
	me->n = n;
	memcpy(me->channel, channels, n * sizeof(int32));
	qsort(me->channel, n, sizeof(int32), channel_compare);
	pg_atomic_write_u32(&me->woken, 0);

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	place = pg_atomic_read_u32(&shared->nwaiting);
	me->place = (int32) place;
	waiting[place] = MbusMyProcno();
	pg_atomic_write_u32(&shared->nwaiting, place + 1);
	entered = true;
	LWLockRelease(&shared->lock);
	entered_level = GetCurrentTransactionNestLevel();
	slept = false;
}

/*
 * mbus_wait_end takes this process off the list, if it is on it.  Takes the
 * waiter lock; cannot fail.
 */
void
mbus_wait_end(void)
{
	uint32		last;
	int32		place;

	keep = false;
	if (!entered)
		return;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	last = pg_atomic_read_u32(&shared->nwaiting) - 1;
	place = waiters[MbusMyProcno()].place;
	waiting[place] = waiting[last];
	waiters[waiting[place]].place = place;
	pg_atomic_write_u32(&shared->nwaiting, last);
	entered = false;
	LWLockRelease(&shared->lock);
}

/*
 * mbus_wait_sleep sleeps until the process is woken or the time has come
 * (PG_INT64_MAX: only woken), but for no longer than nothing has happened
 * since it began to look.  It may return early: look again.
 */
void
mbus_wait_sleep(TimestampTz until)
{
	Waiter	   *me = &waiters[MbusMyProcno()];
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long		timeout = -1;

	CHECK_FOR_INTERRUPTS();
	if (pg_atomic_exchange_u32(&me->woken, 0) != 0)
		return;
	if (until != PG_INT64_MAX)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (until <= now)
			return;
		timeout = TimestampDifferenceMilliseconds(now, until);
		events |= WL_TIMEOUT;
	}
	if (!slept)
		mbus_count(MBUS_C_WAITS, 1);
	slept = true;

	/* as the server does before it waits for a client */
	InvalidateCatalogSnapshotConditionally();
	(void) WaitLatch(MyLatch, events, timeout, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	(void) pg_atomic_exchange_u32(&me->woken, 0);
}

/*
 * mbus_wake_channel wakes who waits for a channel.  Call it when what they
 * wait for can be seen, with no lock held but, at most, the delivery lock.
 * Takes the waiter lock if anybody waits; cannot fail.
 */
void
mbus_wake_channel(Oid database, int32 channel_id)
{
	uint32		n;

	if (shared == NULL)
		return;
	/* what was done before must be seen by who enters after we have looked */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&shared->nwaiting) == 0)
		return;

	LWLockAcquire(&shared->lock, LW_SHARED);
	n = pg_atomic_read_u32(&shared->nwaiting);
	for (uint32 i = 0; i < n; i++)
	{
		Waiter	   *waiter = &waiters[waiting[i]];

		if (waiter->database != database ||
			bsearch(&channel_id, waiter->channel, waiter->n, sizeof(int32),
					channel_compare) == NULL)
			continue;
		/* set already: its latch is or was, and it will look again */
		if (pg_atomic_exchange_u32(&waiter->woken, 1) == 0)
			SetLatch(&ProcGlobal->allProcs[waiting[i]].procLatch);
	}
	LWLockRelease(&shared->lock);
}

static int
channel_compare(const void *a, const void *b)
{
	int32		x = *(const int32 *) a;
	int32		y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

/* Once in a process, before it enters its slot. */
static void
callbacks_register(void)
{
	static bool registered = false;

	if (registered)
		return;
	before_shmem_exit(wait_exit_callback, (Datum) 0);
	RegisterXactCallback(wait_xact_callback, NULL);
	RegisterSubXactCallback(wait_subxact_callback, NULL);
	registered = true;
}

static void
wait_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			if (!keep)
				mbus_wait_end();
			break;
		case XACT_EVENT_ABORT:
			mbus_wait_end();
			break;
		default:
			break;
	}
}

static void
wait_subxact_callback(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB &&
		GetCurrentTransactionNestLevel() <= entered_level)
		mbus_wait_end();
}

static void
wait_exit_callback(int code, Datum arg)
{
	mbus_wait_end();
}

/* ------------------------------------------------------------------------
 * CALL message_bus.wait()
 * ------------------------------------------------------------------------
 */

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
	Datum	   *subscriptions;
	bool	   *isnull;
	int64		timeout;
	int			n = wait_texts(fcinfo, 0, "channels", &channels, &isnull);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null",
						PG_ARGISNULL(0) ? "channels" : "timeout")));
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channels must not be empty")));

	call->n = n;
	call->channel = palloc(n * sizeof(text *));
	call->subscription = palloc(n * sizeof(char *));
	call->channel_id = palloc0(n * sizeof(int32));
	call->ready = palloc0(n * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		if (isnull[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("channels must not hold a null")));
		call->channel[i] = DatumGetTextPP(channels[i]);
		call->subscription[i] = DEFAULT_SUBSCRIPTION;
	}

	if (!PG_ARGISNULL(1))
	{
		int			nsubscriptions = wait_texts(fcinfo, 1, "subscriptions",
												&subscriptions, &isnull);

		if (nsubscriptions != n)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("subscriptions has %d elements, channels has %d",
							nsubscriptions, n)));
		for (int i = 0; i < n; i++)
		{
			if (!isnull[i])
				call->subscription[i] = TextDatumGetCString(subscriptions[i]);
		}
	}

	timeout = mbus_interval_us(PG_GETARG_INTERVAL_P(2));
	if (timeout < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	if (pg_add_s64_overflow(GetCurrentTimestamp(), timeout, &call->until))
		call->until = PG_INT64_MAX;
	/* within a subtransaction nothing can be committed either */
	call->atomic = context == NULL || !IsA(context, CallContext) ||
		context->atomic || IsSubTransaction();
}

static int
wait_texts(FunctionCallInfo fcinfo, int argno, const char *name,
		   Datum **values, bool **isnull)
{
	ArrayType  *array;
	int			n;

	if (PG_ARGISNULL(argno))
		return 0;
	array = PG_GETARG_ARRAYTYPE_P_COPY(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be an array of one dimension", name)));
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
		if (GetCurrentTimestamp() >= call->until)
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
 * when to look again if nobody wakes us.
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

	PushActiveSnapshot(GetTransactionSnapshot());
	wait_enter(call, db, schema);
	*next = PG_INT64_MAX;
	for (int i = 0; i < call->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		call->ready[i] = wait_probe(schema, db, call->channel[i],
									call->subscription[i], next);
		any |= call->ready[i];
	}
	PopActiveSnapshot();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(looking);
	return any;
}

/*
 * wait_enter enters this process as one that waits for the call's channels,
 * if they are not those that it waits for already.
 */
static void
wait_enter(WaitCall *call, MbusDatabase *db, Oid schema)
{
	bool		changed = !entered;

	for (int i = 0; i < call->n; i++)
	{
		int32		channel_id = mbus_channel_open(schema, call->channel[i],
												   MBUS_CONSUME)->channel_id;

		changed |= channel_id != call->channel_id[i];
		call->channel_id[i] = channel_id;
	}
	if (changed && !call->atomic)
	{
		mbus_wait_begin(db, call->channel_id, call->n);
		keep = true;
	}
}

/*
 * wait_probe tells whether a claim would find something, or else pulls *next
 * forward to when it may.  A subscription "default" that does not exist is
 * ready: the first claim makes it.
 */
static bool
wait_probe(Oid schema, MbusDatabase *db, text *channel_name,
		   const char *name, TimestampTz *next)
{
	MbusChannel channel = *mbus_channel_open(schema, channel_name,
											 MBUS_CONSUME);
	const MbusSubscription *found;
	MbusSubscription subscription;
	TimestampTz when = PG_INT64_MAX;

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
	if (mbus_claim_probe(schema, db, &channel, &subscription, &when))
		return true;
	*next = Min(*next, when);
	return false;
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
