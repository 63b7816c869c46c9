/*
 * upload_task.c
 *		The worker removes rows of uploads that ended a while ago.
 *
 * Rows of an upload go with its store.  Some would stay too long with it: of
 * one that was committed, which counts for nothing, its store lives as long as
 * messages do; and one that was aborted or has expired in a store that it
 * shares would count for its caller's quota until its neighbours expire.
 * These go message_bus.upload_ttl after the end, until when a call that is
 * repeated finds them.
 *
 * What somebody has locked is passed over: it is being committed or aborted.
 *
 *	crash or error		all rows of an upload go in one transaction
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "state/clock.h"
#include "worker/task.h"
#include "worker/upload_task.h"

#define LOOK_EVERY_MS	60000
#define UPLOADS_MAX		1000	/* in a pass */

static MbusOutcome uploads_prune(MbusWork *work, void *arg);

/*
 * mbus_uploads_look removes some rows, if it is time to or expire() asks; in a
 * group of MBUS_TASK_STORE.
 */
void
mbus_uploads_look(MbusWork *work)
{
	if (work->pass.ticket == 0 &&
		!TimestampDifferenceExceeds(work->uploads_looked_at, mbus_now(),
									LOOK_EVERY_MS))
		return;
	if (mbus_task_run(work, MBUS_TASK_STORE, uploads_prune, NULL,
					  "removing uploads that have ended") == MBUS_DONE)
		work->uploads_looked_at = mbus_now();
}

/* Removes them; BLOCKED: there may be more. */
static MbusOutcome
uploads_prune(MbusWork *work, void *arg)
{
	int64		removed;
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_become_owner(work);
	removed = mbus_sql_int64(&isnull,
							 "WITH old AS (SELECT u.body FROM message_bus.upload u"
							 "  LEFT JOIN message_bus.upload_end e ON e.body = u.body"
							 "  WHERE CASE WHEN e.body IS NULL"
							 "   THEN NOT u.own AND u.begun_at < message_bus.clock() - 2 * interval '%d s'"
							 "   ELSE (u.done OR NOT u.own) AND e.at < message_bus.clock() - interval '%d s' END"
							 "  LIMIT %d FOR UPDATE OF u SKIP LOCKED),"
							 " hashes AS (DELETE FROM message_bus.upload_hash h USING old WHERE h.body = old.body),"
							 " ends AS (DELETE FROM message_bus.upload_end e USING old WHERE e.body = old.body),"
							 " gone AS (DELETE FROM message_bus.upload u USING old WHERE u.body = old.body RETURNING u.body)"
							 " SELECT pg_catalog.count(*) FROM gone",
							 mbus_upload_ttl, mbus_upload_ttl, UPLOADS_MAX);
	mbus_task_commit();
	return removed < UPLOADS_MAX ? MBUS_DONE : MBUS_BLOCKED;
}
