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
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "compat.h"
#include "delivery.h"
#include "scan.h"

static uint32 my_slot = MBUS_NONE;
static bool my_seek = false;
static SubTransactionId my_subid;

static void scanner_free(void);
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
 * mbus_scanner_acquire makes this process the scanner of a subscription.  It
 * waits for a claim that is at work; 55000 if a seek holds the slot, this
 * transaction's too.
 */
void
mbus_scanner_acquire(uint32 slot, bool seek)
{
	MbusSub    *sub = mbus_sub(slot);
	bool		slept = false;

	for (;;)
	{
		int32		scanner;
		bool		seeking;

		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		scanner = sub->scanner;
		seeking = sub->seeking;
		if (scanner == -1)
		{
			sub->scanner = MbusMyProcno();
			sub->seeking = seek;
			my_slot = slot;
			my_seek = seek;
			my_subid = GetCurrentSubTransactionId();
		}
		LWLockRelease(mbus_delivery_lock());
		if (scanner == -1)
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
}

/*
 * mbus_scanner_release gives the slot back.
 */
void
mbus_scanner_release(void)
{
	if (my_slot != MBUS_NONE)
		scanner_free();
}

static void
scanner_free(void)
{
	MbusSub    *sub = mbus_sub(my_slot);

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	mbus_scan_undo(my_slot);
	sub->scanner = -1;
	sub->seeking = false;
	if (sub->dropped)
		sub->database = InvalidOid;
	LWLockRelease(mbus_delivery_lock());
	my_slot = MBUS_NONE;
	ConditionVariableBroadcast(&sub->changed);
}

static void
scanner_xact(XactEvent event, void *arg)
{
	/* effect.c's callback, registered before, has made a seek come true */
	if (my_slot != MBUS_NONE &&
		(event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT))
		scanner_free();
}

static void
scanner_subxact(SubXactEvent event, SubTransactionId subid,
				SubTransactionId parent, void *arg)
{
	if (my_slot == MBUS_NONE || my_subid != subid)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		scanner_free();
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		my_subid = parent;
}
