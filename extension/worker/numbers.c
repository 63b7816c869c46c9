/*
 * numbers.c
 *		Whose numbers a database gives out, and how many it has left.
 *
 * The node is recorded in message_bus.server_state when the first segment is
 * opened.  From then on the database is served by a server of that node only:
 * on another one it is not numbered, publishes and claims are refused
 * (state.c), and the log says so at every try.  A dump does not have the
 * record: restored, the messages keep the ids of their node, and what comes
 * goes on with that of the server.
 *
 * How far segments are numbered: see restore.c.
 *
 * Segments and epochs of leases are counted up to a highest number, and not
 * reused.  From MBUS_NUMBERS_WARN percent on the log says so once an hour, and
 * the view worker_status does (worker_sql.c).
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "state/clock.h"
#include "state/state.h"
#include "worker/numbers.h"
#include "worker/task.h"

#define WARN_MS		3600000
#define MBUS_NUMBERS_WARN	80	/* percent */

/*
 * mbus_node_check errors if the database is another node's, and lets others
 * know; in a numbering's transaction.
 */
void
mbus_node_check(MbusWork *work)
{
	MbusDatabase *db = work->db;
	bool		isnull;
	int64		node = mbus_sql_int64(&isnull, "SELECT node::int8"
									  " FROM message_bus.server_state");

	if (isnull || node == mbus_node)
		return;
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->numbering.refused = true;
	db->numbering.node = (int32) node;
	LWLockRelease(&db->lock);
	mbus_node_refuse((int32) node);
}

/*
 * mbus_node_record writes the node down, in the transaction that opens a
 * segment.
 */
void
mbus_node_record(void)
{
	mbus_sql("UPDATE message_bus.server_state SET node = %d"
			 " WHERE node IS NULL", mbus_node);
}

/*
 * mbus_numbers_warn tells the log, once an hour, that numbers run out.
 */
void
mbus_numbers_warn(MbusWork *work)
{
	TimestampTz now = mbus_now();
	MbusNumbersUsed used;

	if (!TimestampDifferenceExceeds(work->numbers_warned_at, now, WARN_MS))
		return;
	work->numbers_warned_at = now;
	mbus_numbers_used(work->db, &used);
	if (used.warning[0] != '\0')
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s", used.warning),
				 errhint("Only DROP EXTENSION and CREATE EXTENSION begin at the first number again.")));
}

/*
 * mbus_numbers_used tells what is used, and warns of what is used up soon or
 * cannot be used.
 */
void
mbus_numbers_used(MbusDatabase *db, MbusNumbersUsed *used)
{
	MbusNumbering numbering;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	used->epochs = 100.0 * db->delivery.lease_epoch / MBUS_EPOCH_MAX;
	LWLockRelease(mbus_delivery_lock());
	LWLockAcquire(&db->lock, LW_SHARED);
	numbering = db->numbering;
	used->stores = 100.0 * db->stores.next_store / MBUS_SEGMENT_MAX;
	LWLockRelease(&db->lock);
	used->segments = 100.0 * numbering.next_segment / MBUS_SEGMENT_MAX;

	used->warning[0] = '\0';
	if (numbering.refused)
		snprintf(used->warning, sizeof(used->warning),
				 "message_bus.node is %d, but this database is node %d",
				 mbus_node, numbering.node);
	else if (used->segments >= MBUS_NUMBERS_WARN)
		snprintf(used->warning, sizeof(used->warning),
				 "message_bus has used %.1f %% of its segment numbers",
				 used->segments);
	else if (used->stores >= MBUS_NUMBERS_WARN)
		snprintf(used->warning, sizeof(used->warning),
				 "message_bus has used %.1f %% of its numbers of stores",
				 used->stores);
	else if (used->epochs >= MBUS_NUMBERS_WARN)
		snprintf(used->warning, sizeof(used->warning),
				 "message_bus has used %.1f %% of its lease epochs",
				 used->epochs);
}

/*
 * mbus_numbering_raise lets segments be numbered from "next" on.
 */
void
mbus_numbering_raise(MbusDatabase *db, int64 next)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (next > db->numbering.next_segment)
	{
		db->numbering.next_segment = (int32) next;
		pg_atomic_write_u32(&db->numbering.known, (uint32) next);
	}
	LWLockRelease(&db->lock);
}

/*
 * mbus_numbering_store writes it down, in the caller's transaction.
 */
void
mbus_numbering_store(MbusDatabase *db)
{
	int32		next;

	LWLockAcquire(&db->lock, LW_SHARED);
	next = db->numbering.next_segment;
	LWLockRelease(&db->lock);
	mbus_sql("UPDATE message_bus.server_state SET next_segment = %d"
			 " WHERE next_segment < %d", next, next);
}
