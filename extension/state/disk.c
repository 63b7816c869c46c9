/*
 * disk.c
 *		Whether there is room on the database's disk.
 *
 * The worker keeps a reserve there (worker/disk_reserve.c), and says here while the
 * disk is full: then nothing is published, so that the space which it has given
 * up to drop what has expired is not used up by new messages.  Who fails for
 * want of space leaves word in MbusDisk.told (fault.c), and the worker looks.
 *
 * Publishers read "full" without a lock: who comes a moment too early or too
 * late finds space or finds none, as ever.
 */
#include "postgres.h"

#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "state/disk.h"
#include "state/state.h"

/*
 * mbus_disk_check errors with 53100 while the disk is full.
 */
void
mbus_disk_check(MbusDatabase *db)
{
	if (likely(pg_atomic_read_u32(&db->disk.full) == 0))
		return;
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_DISK_FULL),
			 errmsg("message_bus takes no messages: the disk of the database is full"),
			 errdetail("There is no room for its reserve of %d MB.",
					   mbus_disk_reserve),
			 errhint("It goes on by itself as soon as there is. See \"message_bus.disk_reserve\".")));
}

/*
 * mbus_disk_full_since returns since when the disk has been full; 0: it is
 * not.  Takes the state lock.
 */
TimestampTz
mbus_disk_full_since(MbusDatabase *db)
{
	TimestampTz since;

	LWLockAcquire(&db->lock, LW_SHARED);
	since = db->disk.full_since;
	LWLockRelease(&db->lock);
	return since;
}

/*
 * mbus_disk_told tells whether somebody has failed for want of space since the
 * last call.  Takes the state lock.
 */
bool
mbus_disk_told(MbusDatabase *db)
{
	bool		told;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	told = db->disk.told;
	db->disk.told = false;
	LWLockRelease(&db->lock);
	return told;
}

/*
 * mbus_disk_set says whether the disk is full, and wakes who waits for the
 * worker: he is refused, or may go on.  Takes the state lock.
 */
void
mbus_disk_set(MbusDatabase *db, bool full)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (!full)
		db->disk.full_since = 0;
	else if (db->disk.full_since == 0)
		db->disk.full_since = GetCurrentTimestamp();
	pg_atomic_write_u32(&db->disk.full, full ? 1 : 0);
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
}
