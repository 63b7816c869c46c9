/*
 * ahead.c
 *		How far the table of a series' open segment has empty pages ahead.
 *
 * Who needs a page that a table does not have extends it, and on that way
 * writes out some other page while all who need one wait.  So the worker
 * extends the table of an open segment that grows fast (worker/segment_ahead.c),
 * and publishers find the pages in the free space map.
 *
 * All here are hints, read and written with no lock.  Publishers say which
 * page they wrote last, and ask the worker for more once when half of those
 * ahead are used.  A value that is lost, or of the segment before, costs some
 * pages, or has publishers extend the table by themselves, as ever.
 */
#include "postgres.h"

#include "state/ahead.h"

#define AHEAD_FROM		128		/* pages of a table that is not extended yet */

/*
 * mbus_ahead_used notes that a page of the table of a series' open segment
 * was written, and asks the worker for more when few are left.
 */
void
mbus_ahead_used(MbusDatabase *db, int32 series, BlockNumber block)
{
	MbusAhead  *ahead = &db->ahead[series];
	uint32		limit = pg_atomic_read_u32(&ahead->limit);

	if (block <= pg_atomic_read_u32(&ahead->used))
		return;
	pg_atomic_write_u32(&ahead->used, block);
	if (block < (limit == 0 ? AHEAD_FROM : pg_atomic_read_u32(&ahead->low)))
		return;
	if (pg_atomic_exchange_u32(&ahead->asked, 1) == 0)
		mbus_wake_worker(db);
}

/*
 * mbus_ahead_forget begins anew for a series whose next segment opens.
 */
void
mbus_ahead_forget(MbusDatabase *db, int32 series)
{
	MbusAhead  *ahead = &db->ahead[series];

	pg_atomic_write_u32(&ahead->limit, 0);
	pg_atomic_write_u32(&ahead->low, 0);
	pg_atomic_write_u32(&ahead->used, 0);
	pg_atomic_write_u32(&ahead->asked, 0);
}
