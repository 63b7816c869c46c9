/*
 * verifying.c
 *		Who verifies the log, and how far.
 *
 * Each call of audit_verify() takes one of SLOTS places in shared memory,
 * which is one for the server: who comes when all are taken works unseen.  The
 * place is given back when the call ends, in whatever way: also if the process
 * ends with it (FATAL), which no PG_CATCH sees.  That of one that is gone
 * without is free as soon as somebody looks.
 *
 * The lock is held for a few assignments, and nothing under it can fail.  How
 * far a call is it writes without it, alone.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "utils/timestamp.h"

#include "state/clock.h"
#include "state/part.h"
#include "state/verifying.h"

#define SLOTS	8

typedef struct Verifying
{
	int			pid;			/* 0: free; the lock, as the next four */
	Oid			database;
	int64		from;
	int64		to;
	TimestampTz started_at;
	pg_atomic_uint64 at;		/* no lock */
	pg_atomic_uint64 faults;
} Verifying;

typedef struct Verifiers
{
	LWLock		lock;
	Verifying	slot[SLOTS];
} Verifiers;

static Verifiers *shared = NULL;

static Size verifying_size(void);
static void verifying_startup(void *memory, bool found, int tranche);
static void process_ends(int code, Datum arg);

/*
 * mbus_verifying_init asks for shared memory; from _PG_init.
 */
void
mbus_verifying_init(void)
{
	static const MbusStatePart part = {"message_bus verifying", verifying_size,
	verifying_startup};

	mbus_state_part(&part);
}

static Size
verifying_size(void)
{
	return sizeof(Verifiers);
}

static void
verifying_startup(void *memory, bool found, int tranche)
{
	shared = memory;
	if (found)
		return;
	memset(shared, 0, sizeof(*shared));
	LWLockInitialize(&shared->lock, tranche);
	for (int i = 0; i < SLOTS; i++)
	{
		pg_atomic_init_u64(&shared->slot[i].at, 0);
		pg_atomic_init_u64(&shared->slot[i].faults, 0);
	}
}

/*
 * mbus_verifying_begin takes a place; -1 if there is none.
 */
int
mbus_verifying_begin(int64 from, int64 to)
{
	static int	registered;		/* the process that has */
	TimestampTz now = mbus_now();
	int			dead[SLOTS];	/* processes that were found not to be there */
	int			taken = -1;

	if (shared == NULL)
		return -1;
	if (registered != MyProcPid)
		before_shmem_exit(process_ends, (Datum) 0);
	registered = MyProcPid;
	for (int i = 0; i < SLOTS; i++)
	{
		int			pid = shared->slot[i].pid;

		dead[i] = BackendPidGetProc(pid) == NULL ? pid : -1;
	}
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < SLOTS && taken < 0; i++)
	{
		Verifying  *slot = &shared->slot[i];

		if (slot->pid != 0 && slot->pid != dead[i])
			continue;
		slot->pid = MyProcPid;
		slot->database = MyDatabaseId;
		slot->from = from;
		slot->to = to;
		slot->started_at = now;
		pg_atomic_write_u64(&slot->at, (uint64) from);
		pg_atomic_write_u64(&slot->faults, 0);
		taken = i;
	}
	LWLockRelease(&shared->lock);
	return taken;
}

/*
 * mbus_verifying_at tells how far the call is that has this place.
 */
void
mbus_verifying_at(int slot, int64 at, int64 faults)
{
	if (slot < 0)
		return;
	pg_atomic_write_u64(&shared->slot[slot].at, (uint64) at);
	pg_atomic_write_u64(&shared->slot[slot].faults, (uint64) faults);
}

/*
 * mbus_verifying_end gives the place back.
 */
void
mbus_verifying_end(int slot)
{
	if (slot < 0)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->slot[slot].pid == MyProcPid)
		shared->slot[slot].pid = 0;
	LWLockRelease(&shared->lock);
}

/* Gives back what the process has. */
static void
process_ends(int code, Datum arg)
{
	for (int i = 0; i < SLOTS; i++)
		mbus_verifying_end(i);
}

/*
 * mbus_verifying (SQL: message_bus.verifying()) returns who verifies in this
 * database.
 */
PG_FUNCTION_INFO_V1(mbus_verifying);
Datum
mbus_verifying(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; shared && i < SLOTS; i++)
	{
		Datum		values[6];
		bool		isnull[6] = {false};
		Verifying  *slot = &shared->slot[i];
		bool		ours;

		LWLockAcquire(&shared->lock, LW_SHARED);
		ours = slot->pid != 0 && slot->database == MyDatabaseId;
		values[0] = Int32GetDatum(slot->pid);
		values[1] = Int64GetDatum(slot->from);
		values[2] = Int64GetDatum(slot->to);
		values[5] = TimestampTzGetDatum(slot->started_at);
		LWLockRelease(&shared->lock);
		values[3] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->at));
		values[4] = Int64GetDatum((int64) pg_atomic_read_u64(&slot->faults));
		if (ours && BackendPidGetProc(DatumGetInt32(values[0])) != NULL)
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
	}
	return (Datum) 0;
}
