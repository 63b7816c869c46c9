/*
 * access.c
 *		Reads that are recorded.
 *
 * Each read of a channel with record_reads, and each retrieve_message, is a
 * row of message_bus.event, by role, subject and session.  The call records
 * before it returns what it has read.  Who inserts the row, and what becomes
 * of it when the transaction is READ ONLY or is rolled back, is told in
 * state/read_ring.c.  On a standby nothing can be recorded: the read fails.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"

#include "base/caller.h"
#include "message/access.h"
#include "message/insert.h"
#include "state/read_ring.h"
#include "state/state.h"

static void record(Oid schema, MbusDatabase *db, const int64 *ids, int n);

/*
 * mbus_access_record records that the caller reads messages, by ascending id.
 * Errors: 25006 on a standby, 55000 if the worker does not record them.
 */
void
mbus_access_record(Oid schema, const int64 *ids, int n)
{
	MbusDatabase *db;

	if (n == 0)
		return;
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot read message " INT64_FORMAT " during recovery",
						ids[0]),
				 errdetail("Reads of it are recorded, which a standby cannot do.")));
	db = mbus_database();
	for (int from = 0; from < n; from += MBUS_READ_IDS)
		record(schema, db, ids + from, Min(n - from, MBUS_READ_IDS));
}

static void
record(Oid schema, MbusDatabase *db, const int64 *ids, int n)
{
	MbusRead   *read = mbus_read_make(schema, ids, n);
	MbusEventBy by = {0};

	if (XactReadOnly ||
		(!mbus_caller.in_relay && !mbus_read_reserve(db, read)))
		mbus_read_put(db, read);
	else
	{
		by.at = read->at;
		by.session = read->session;
		by.role = GetUserNameFromId(GetUserId(), false);
		by.subject = mbus_subject();
		mbus_insert_events(schema, ids, n, "accessed", &by);
	}
	pfree(read);
}
