/*
 * waiter.c
 *		Who waits for which channels, and who is woken.
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
 * One who waits for many channels looks only at those that it is woken for
 * ("hit").  Who wakes marks the channel, then sets "woken"; who has slept
 * takes "woken" back, then the marks.  So a mark that it misses is followed by
 * another wake-up.
 *
 * A slot is left by mbus_wait_end, at the end of the transaction, when the
 * subtransaction that entered it aborts, and at process exit.  Only CALL
 * message_bus.wait() (delivery/wait.c) keeps it over its commits.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "state/clock.h"
#include "state/part.h"
#include "state/state.h"
#include "state/waiter.h"

#define MBUS_WAIT_CHANNELS	256 /* of one waiter */
#define HIT_WORDS	(MBUS_WAIT_CHANNELS / 64)

/* A process that may wait. */
typedef struct Waiter
{
	int32		place;			/* on the list */
	pg_atomic_uint32 woken;		/* since it last began to look */
	pg_atomic_uint64 hit[HIT_WORDS];	/* a bit for each channel */
	Oid			database;
	int32		n;
	int32		channel[MBUS_WAIT_CHANNELS];	/* ascending, distinct */
} Waiter;

typedef struct WaitShared
{
	LWLock		lock;			/* the waiter lock */
	pg_atomic_uint32 nwaiting;	/* written under it, read without */
} WaitShared;

static WaitShared *wait_list = NULL;
static int32 *waiting;			/* procnos, the first nwaiting count */
static Waiter *waiters;			/* by procno */

/* this process */
static bool entered = false;	/* its slot is on the list */
static bool keep = false;		/* over commits */
static bool slept = false;		/* since it entered */
static uint64 hits[HIT_WORDS];	/* what it has been woken for */
static int	entered_level;		/* of subtransactions */

static Size wait_size(void);
static void wait_startup(void *memory, bool found, int tranche);
static int	wait_slots(void);
static void waiters_wake(Oid database, const int32 *channel_id);
static bool waiter_hit(Waiter *waiter, const int32 *channel_id);
static int	channel_find(const Waiter *waiter, int32 channel_id);
static int	channel_compare(const void *a, const void *b);
static void callbacks_register(void);
static void wait_xact_callback(XactEvent event, void *arg);
static void wait_subxact_callback(SubXactEvent event, SubTransactionId mine,
								  SubTransactionId parent, void *arg);
static void wait_exit_callback(int code, Datum arg);

/*
 * mbus_wait_init adds the slots to shared memory; from _PG_init.
 */
void
mbus_wait_init(void)
{
	static const MbusStatePart part = {"message_bus waiters", wait_size,
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

	wait_list = memory;
	at += MAXALIGN(sizeof(WaitShared));
	waiting = (int32 *) at;
	at += MAXALIGN(mul_size(wait_slots(), sizeof(int32)));
	waiters = (Waiter *) at;
	if (found)
		return;

	MemSet(memory, 0, wait_size());
	LWLockInitialize(&wait_list->lock, tranche);
	pg_atomic_init_u32(&wait_list->nwaiting, 0);
	for (int i = 0; i < wait_slots(); i++)
	{
		pg_atomic_init_u32(&waiters[i].woken, 0);
		for (int w = 0; w < HIT_WORDS; w++)
			pg_atomic_init_u64(&waiters[i].hit[w], 0);
	}
}

/* Every process that there can be has a slot. */
static int
wait_slots(void)
{
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

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
	memcpy(me->channel, channels, n * sizeof(int32));
	qsort(me->channel, n, sizeof(int32), channel_compare);
	me->n = 0;
	for (int i = 0; i < n; i++)
	{
		if (i == 0 || me->channel[i] != me->channel[me->n - 1])
			me->channel[me->n++] = me->channel[i];
	}
	pg_atomic_write_u32(&me->woken, 0);
	for (int w = 0; w < HIT_WORDS; w++)
		pg_atomic_write_u64(&me->hit[w], 0);

	LWLockAcquire(&wait_list->lock, LW_EXCLUSIVE);
	place = pg_atomic_read_u32(&wait_list->nwaiting);
	me->place = (int32) place;
	waiting[place] = MbusMyProcno();
	pg_atomic_write_u32(&wait_list->nwaiting, place + 1);
	entered = true;
	LWLockRelease(&wait_list->lock);
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

	LWLockAcquire(&wait_list->lock, LW_EXCLUSIVE);
	last = pg_atomic_read_u32(&wait_list->nwaiting) - 1;
	place = waiters[MbusMyProcno()].place;
	waiting[place] = waiting[last];
	waiters[waiting[place]].place = place;
	pg_atomic_write_u32(&wait_list->nwaiting, last);
	entered = false;
	LWLockRelease(&wait_list->lock);
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
		TimestampTz now = mbus_now();

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
 * mbus_wait_hits begins to look: it takes what this process has been woken
 * for.
 */
void
mbus_wait_hits(void)
{
	Waiter	   *me = &waiters[MbusMyProcno()];

	for (int w = 0; w < HIT_WORDS; w++)
		hits[w] = pg_atomic_exchange_u64(&me->hit[w], 0);
}

/*
 * mbus_wait_hit tells whether a channel is among what was taken.
 */
bool
mbus_wait_hit(int32 channel_id)
{
	int			i = channel_find(&waiters[MbusMyProcno()], channel_id);

	return i < 0 || ((hits[i / 64] >> (i % 64)) & 1) != 0;
}

/*
 * mbus_wait_entered tells whether this process is on the list.
 */
bool
mbus_wait_entered(void)
{
	return entered;
}

/*
 * mbus_wait_keep keeps it there over commits.
 */
void
mbus_wait_keep(void)
{
	keep = true;
}

/*
 * mbus_wake_channel wakes who waits for a channel.  Call it when what they
 * wait for can be seen, with no lock held but, at most, the delivery lock.
 * Takes the waiter lock if anybody waits; cannot fail.
 */
void
mbus_wake_channel(Oid database, int32 channel_id)
{
	waiters_wake(database, &channel_id);
}

/*
 * mbus_wake_all does so for all channels of a database.
 */
void
mbus_wake_all(Oid database)
{
	waiters_wake(database, NULL);
}

/* Wakes who waits for one channel, or for any. */
static void
waiters_wake(Oid database, const int32 *channel_id)
{
	uint32		n;

	if (wait_list == NULL)
		return;
	/* what was done before must be seen by who enters after we have looked */
	pg_memory_barrier();
	if (pg_atomic_read_u32(&wait_list->nwaiting) == 0)
		return;

	LWLockAcquire(&wait_list->lock, LW_SHARED);
	n = pg_atomic_read_u32(&wait_list->nwaiting);
	for (uint32 i = 0; i < n; i++)
	{
		Waiter	   *waiter = &waiters[waiting[i]];

		if (waiter->database != database || !waiter_hit(waiter, channel_id))
			continue;
		/* set already: its latch is or was, and it will look again */
		if (pg_atomic_exchange_u32(&waiter->woken, 1) == 0)
			SetLatch(&ProcGlobal->allProcs[waiting[i]].procLatch);
	}
	LWLockRelease(&wait_list->lock);
}

/* Marks a channel, or all; false if it does not wait for it. */
static bool
waiter_hit(Waiter *waiter, const int32 *channel_id)
{
	int			at;

	if (channel_id == NULL)
	{
		for (int w = 0; w < HIT_WORDS; w++)
			pg_atomic_write_u64(&waiter->hit[w], ~UINT64CONST(0));
		return true;
	}
	at = channel_find(waiter, *channel_id);
	if (at < 0)
		return false;
	pg_atomic_fetch_or_u64(&waiter->hit[at / 64],
						   UINT64CONST(1) << (at % 64));
	return true;
}

/* Where a channel is among those of a waiter; -1: it is not. */
static int
channel_find(const Waiter *waiter, int32 channel_id)
{
	const int32 *found = bsearch(&channel_id, waiter->channel, waiter->n,
								 sizeof(int32), channel_compare);

	return found == NULL ? -1 : (int) (found - waiter->channel);
}

static int
channel_compare(const void *a, const void *b)
{
	return mbus_order(*(const int32 *) a, *(const int32 *) b);
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

/*
 * The end of the transaction is the end of its waiting, but for a commit that
 * CALL wait() makes itself.
 */
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
