/*
 * lock.c
 *		Locks of uploads.
 *
 * They are advisory locks of the server, in classes (the locktag's fourth
 * field) that no function of SQL reaches: pg_advisory_lock() has 1 and 2.  All
 * are held to the transaction's end, and go with it whatever ends it.
 *
 *	owner	of a role and subject, exclusive.  Who begins uploads for the same
 *			ones counts what this one has reserved.  It is tried for a moment
 *			only: frames of several sessions run in one transaction, and two such
 *			would wait for each other
 *	body	shared by who appends, exclusive for who commits or aborts, or
 *			appends very much.  Taken or not: nobody waits
 *	part	exclusive, for who writes it, likewise.  So two that write the same
 *			part never meet in its index.  Two parts of which the bodies' hashes
 *			are the same may share one: then the second is told to try again
 *	hash	exclusive, for who hashes on while others append (ahead.c); who does
 *			not get it leaves that to others
 *
 * A transaction may append any number of parts, and the table of locks is
 * everybody's: after PARTS_MAX of them it takes the body's lock exclusively
 * instead, which nobody has who appends elsewhere.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/caller.h"
#include "upload/upload.h"

#define CLASS_BODY		0x4D42
#define CLASS_PART		0x4D43
#define CLASS_OWNER		0x4D44
#define CLASS_HASH		0x4D45
#define PARTS_MAX		256		/* locks of a transaction */
#define OWNER_WAIT_US	50000
#define OWNER_WAIT_STEP_MS	5

/* How many locks of parts the transaction has taken; some may be gone with a
 * subtransaction. */
static LocalTransactionId parts_lxid = InvalidLocalTransactionId;
static int	parts_locked = 0;

static bool lock_take(uint32 first, uint32 second, uint16 class,
					  LOCKMODE mode);
static void part_busy(int64 number, int32 n);
static uint32 text_hash(const text *value);

/*
 * mbus_upload_lock_owner takes the lock of a role and subject; 55P03 if another
 * transaction has it, and does not end soon.
 */
void
mbus_upload_lock_owner(text *role, text *subject)
{
	TimestampTz until = GetCurrentTimestamp() + OWNER_WAIT_US;

	while (!lock_take(text_hash(role), subject ? text_hash(subject) : 0,
					  CLASS_OWNER, ExclusiveLock))
	{
		if (mbus_caller.no_wait || GetCurrentTimestamp() >= until)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("another transaction begins an upload for this role and subject"),
					 errhint("Try again when it has ended.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, OWNER_WAIT_STEP_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * mbus_upload_lock takes the lock of an upload's body; 55000 if somebody has
 * it who stands against that.
 */
void
mbus_upload_lock(int64 number, bool exclusive)
{
	if (lock_take((uint32) (number >> 32), (uint32) number, CLASS_BODY,
				  exclusive ? ExclusiveLock : ShareLock))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("upload " INT64_FORMAT " is in use by another transaction",
					number),
			 exclusive ?
			 errdetail("That one appends, commits or aborts.") :
			 errdetail("That one commits, aborts, or appends very much."),
			 errhint("Try again when it has ended.")));
}

/*
 * mbus_upload_lock_part takes the lock of a part that is to be written, after
 * that of its body; 55000 if another transaction writes it.
 */
void
mbus_upload_lock_part(int64 number, int32 n)
{
	uint32		body = hash_combine(hash_bytes_uint32((uint32) (number >> 32)),
									hash_bytes_uint32((uint32) number));

	if (parts_lxid != MyProc->lxid)
	{
		parts_lxid = MyProc->lxid;
		parts_locked = 0;
	}
	if (parts_locked >= PARTS_MAX)
		mbus_upload_lock(number, true);
	else if (!lock_take(body, (uint32) n, CLASS_PART, ExclusiveLock))
		part_busy(number, n);
	else
		parts_locked++;
}

static void
part_busy(int64 number, int32 n)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("another transaction appends byte " INT64_FORMAT " of upload " INT64_FORMAT,
					(int64) n * MBUS_PART_BYTES, number),
			 errhint("Try again when it has ended.")));
}

/*
 * mbus_upload_lock_hash takes the lock of who hashes on; false: somebody has
 * it.
 */
bool
mbus_upload_lock_hash(int64 number)
{
	return lock_take((uint32) (number >> 32), (uint32) number, CLASS_HASH,
					 ExclusiveLock);
}

/* Takes a lock to the end of the transaction, without waiting. */
static bool
lock_take(uint32 first, uint32 second, uint16 class, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, first, second, class);
	return LockAcquire(&tag, mode, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

static uint32
text_hash(const text *value)
{
	return hash_bytes((const unsigned char *) VARDATA_ANY(value),
					  VARSIZE_ANY_EXHDR(value));
}
