/*
 * scanner.c
 *		The scanner slot of a subscription: one claim or seek at a time.
 *
 * The slot is a field of shared memory (MbusSub.scanner), waited for with a
 * condition variable, so that a wait can be interrupted.  A claim holds it
 * for its scan; a seek to the end of its transaction, which is why a claim
 * does not wait for a seek but is refused: nothing would find a deadlock.
 *
 * An error leaves the slot to the callback of the (sub)transaction it was
 * taken in, which releases it and puts back what scan.c had taken
 * (mbus_scan_undo).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/memutils.h"

#include "base/compat.h"
#include "delivery/pool.h"
#include "delivery/scan_record.h"
#include "delivery/scanner.h"
#include "delivery/sub.h"
#include "state/waiter.h"

/* The slots that this process has: those of its seeks, and of one claim. */
typedef struct HeldScanner
{
	uint32		slot;
	bool		seek;
	SubTransactionId subid;
} HeldScanner;

static HeldScanner *held = NULL;
static int	nheld = 0;
static int	held_room = 0;

static void held_make_room(void);
static void held_add(uint32 slot, bool seek);
static void scanner_free(const HeldScanner *mine);
static void scanner_xact(XactEvent event, void *arg);
static void scanner_subxact(SubXactEvent event, SubTransactionId subid,
							SubTransactionId parent, void *arg);

/*
 * mbus_scanner_init registers the callbacks; from _PG_init.
 */
void
mbus_scanner_init(void)
{
	RegisterXactCallback(scanner_xact, NULL);
	RegisterSubXactCallback(scanner_subxact, NULL);
}

/*
 * mbus_scanner_acquire makes this process the scanner of a subscription; false
 * if the slot is not its own any more.  It waits for a claim that is at work;
 * 55000 if a seek holds the slot, this transaction's too.
 */
bool
mbus_scanner_acquire(uint32 slot, Oid schema, int32 subscription_id,
					 bool seek)
{
	MbusSub    *sub = mbus_sub(slot);
	bool		slept = false;
	bool		same;

	held_make_room();
	for (;;)
	{
		int32		scanner;
		bool		seeking;

		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		scanner = sub->scanner;
		seeking = sub->seeking;
		same = mbus_sub_is(slot, MyDatabaseId, schema, subscription_id) &&
			sub->loaded;
		if (scanner == -1 && same)
			held_add(slot, seek);
		LWLockRelease(mbus_delivery_lock());
		if (scanner == -1 || !same)
			break;
		if (seeking)
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("subscription is being moved by %s",
							scanner == MbusMyProcno() ?
							"this transaction" : "another transaction"),
					 errhint("Try again when message_bus.seek() has been committed.")));
		}
		if (!slept)
			ConditionVariablePrepareToSleep(&sub->changed);
		slept = true;
		(void) ConditionVariableTimedSleep(&sub->changed, 1000,
										   PG_WAIT_EXTENSION);
	}
	if (slept)
		ConditionVariableCancelSleep();
	return same;
}

/*
 * mbus_scanner_try does so for a claim without waiting; false if somebody else
 * is the scanner, or the slot is not the subscription's.
 */
bool
mbus_scanner_try(uint32 slot, Oid schema, int32 subscription_id)
{
	MbusSub    *sub = mbus_sub(slot);
	bool		mine;

	held_make_room();
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	mine = mbus_sub_is(slot, MyDatabaseId, schema, subscription_id) &&
		sub->loaded && sub->scanner == -1;
	if (mine)
		held_add(slot, false);
	LWLockRelease(mbus_delivery_lock());
	return mine;
}

/* Room for one more: the callbacks cannot allocate. */
static void
held_make_room(void)
{
	int			room = Max(8, held_room * 2);

	if (nheld < held_room)
		return;
	held = held ? repalloc(held, room * sizeof(HeldScanner)) :
		MemoryContextAlloc(TopMemoryContext, room * sizeof(HeldScanner));
	held_room = room;
}

/* Takes a slot that is free; caller holds the lock. */
static void
held_add(uint32 slot, bool seek)
{
	MbusSub    *sub = mbus_sub(slot);

	sub->scanner = MbusMyProcno();
	sub->seeking = seek;
	held[nheld].slot = slot;
	held[nheld].seek = seek;
	held[nheld].subid = GetCurrentSubTransactionId();
	nheld++;
}

/*
 * mbus_scanner_release gives a claim's slot back, the last one acquired.
 */
void
mbus_scanner_release(void)
{
	if (nheld > 0 && !held[nheld - 1].seek)
		scanner_free(&held[--nheld]);
}

/*
 * scanner_free gives a slot back, after an undo of what an interrupted scan
 * has left, and wakes one who wants to be the scanner; behind a seek also
 * those who wait for the channel.
 */
static void
scanner_free(const HeldScanner *mine)
{
	MbusSub    *sub = mbus_sub(mine->slot);
	int32		channel_id;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	channel_id = sub->channel_id;
	if (!mine->seek)
		mbus_scan_undo(mine->slot);
	sub->scanner = -1;
	sub->seeking = false;
	if (sub->dropped)
		mbus_sub_let_go(mine->slot);
	LWLockRelease(mbus_delivery_lock());
	/* only those who want to be the scanner sleep on it, and one can be */
	ConditionVariableSignal(&sub->changed);
	if (mine->seek)
		mbus_wake_channel(MyDatabaseId, channel_id);
}

static void
scanner_xact(XactEvent event, void *arg)
{
	/* effect.c's callback, called before, has made seeks come true */
	if (event != XACT_EVENT_ABORT && event != XACT_EVENT_COMMIT)
		return;
	while (nheld > 0)
		scanner_free(&held[--nheld]);
}

/*
 * An abort frees what the subtransaction acquired, a commit leaves it to the
 * parent.
 */
static void
scanner_subxact(SubXactEvent event, SubTransactionId subid,
				SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		/* those of a subtransaction are the last ones */
		while (nheld > 0 && held[nheld - 1].subid == subid)
			scanner_free(&held[--nheld]);
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		for (int i = nheld - 1; i >= 0 && held[i].subid == subid; i--)
			held[i].subid = parent;
	}
}
