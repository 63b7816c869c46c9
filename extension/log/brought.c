/*
 * brought.c
 *		A log that a restore has brought.
 *
 * A dump has the log's tables but for the key and what witnesses have signed,
 * and a restore fills them in an order of its own, in many transactions.  So as long as anything says that a
 * log is coming none is begun, and one that has come does not go on before it
 * is whole: its runs go up to its size, the edge of its tree is there, nobody
 * writes to its tables, and so it was SETTLE_MS ago.  Meanwhile nothing is
 * logged and what is not logged is not dropped; the server's log says so.  If
 * the rest does not come in LONGEST_MS, or if audit_restart() is called, what
 * there is is removed and another log begins.
 *
 * What says that a log is coming: rows of tiles, runs or checkpoints, what it
 * says of itself (log_action, which is not asked for writers: whoever changes a
 * channel is one to the end of his transaction), and segments that were of a log (log_id) and not yet of one here (log_to, which a
 * trigger leaves out).  A log is this bus's own if it has its identity,
 * server_state.bus.
 *
 * Where there is a log of its own, a trigger leaves out what a restore brings
 * of another: two cannot be one.  So it does with COPY into a table that another
 * restore has filled, of which each COPY is of one dump; with INSERT keys may
 * meet, unless pg_dump was told --on-conflict-do-nothing, and then the log is
 * never whole.  It asks once for a statement: COPY holds RowExclusive on its
 * table to its end, and a log begins, or goes on, under ShareRowExclusive on all
 * of them, had without waiting.  The worker is not asked, nor audit_restart().
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/schema.h"
#include "log/brought.h"
#include "state/clock.h"

#define SETTLE_MS	2000
#define LONGEST_MS	3600000
#define SAY_MS		60000

static const char *const tables[] = {"log_state", "log_tile", "log_run",
"log_gone", "log_tile_look", "log_checkpoint"};

static bool own = false;		/* this process writes the log */

static bool restored_left_out(const char *table);
static bool tables_lock(Oid schema);
static bool asked(const char *sql);
static bool waits(MbusLog *log, bool locked);

PG_FUNCTION_INFO_V1(mbus_log_restored);

/*
 * mbus_brought_some tells whether a restore brings a log, and nothing is to
 * begin.  In a pass that has found none.
 */
bool
mbus_brought_some(Oid schema, MbusLog *log)
{
	bool		locked = tables_lock(schema);

	if (locked &&
		!asked("SELECT EXISTS (SELECT FROM message_bus.log_tile)"
			   " OR EXISTS (SELECT FROM message_bus.log_run)"
			   " OR EXISTS (SELECT FROM message_bus.log_checkpoint)"
			   " OR EXISTS (SELECT FROM message_bus.log_action"
			   "  WHERE no >= 0 AND kind = ANY ('{log,drop-segment,gap}'))"
			   " OR EXISTS (SELECT FROM message_bus.segment"
			   "  WHERE log_id IS NOT NULL AND log_to IS NULL)"))
	{
		log->brought_at = 0;
		return false;
	}
	return waits(log, locked);
}

/*
 * mbus_brought_whole tells whether a log that a restore has brought may go on.
 */
bool
mbus_brought_whole(Oid schema, MbusLog *log, const MbusLogState *state)
{
	bool		locked = tables_lock(schema);
	bool		whole = locked &&
	asked("SELECT (size & 255 = 0 OR size = (SELECT r.first_index + r.n"
		  "   FROM message_bus.log_run AS r"
		  "   ORDER BY r.first_index DESC LIMIT 1))"
		  " AND NOT EXISTS (SELECT FROM generate_series(0, 6) AS l (l)"
		  "  WHERE (size >> 8 * l) & 255 <>"
		  "   (SELECT coalesce(sum(octet_length(t.hashes)), 0) / 32"
		  "    FROM message_bus.log_tile AS t"
		  "    WHERE t.level = l AND t.n = size >> 8 * (l + 1)))"
		  " FROM message_bus.log_state");

	if (!whole)
		log->whole_at = 0;
	else if (log->whole_at == 0)
		log->whole_at = mbus_now();
	if (whole && TimestampDifferenceExceeds(log->whole_at, mbus_now(),
											SETTLE_MS))
	{
		log->brought_at = log->whole_at = 0;
		return true;
	}
	/* it may be removed: then there is none, and the next pass begins one */
	if (!whole)
		(void) waits(log, locked);
	return false;
}

/*
 * Says from time to time that the log waits; false if it has waited for too
 * long, and all that was brought is removed.  As long as a restore is seen to
 * be at work (it has one of the tables, or segments are hidden) the time begins
 * anew.
 */
static bool
waits(MbusLog *log, bool locked)
{
	TimestampTz now = mbus_now();

	if (log->brought_at == 0)
		log->brought_said = now;
	if (log->brought_at == 0 || !locked || log->hiding)
		log->brought_at = now;
	if (TimestampDifferenceExceeds(log->brought_at, now, LONGEST_MS))
	{
		mbus_brought_clear();
		log->brought_at = 0;
		ereport(LOG,
				(errmsg("message_bus begins another log: one that a restore has brought is not whole")));
		return false;
	}
	if (TimestampDifferenceExceeds(log->brought_said, now, SAY_MS))
	{
		log->brought_said = now;
		ereport(LOG,
				(errmsg("message_bus waits for the rest of a log, which a restore brings"),
				 errdetail("Nothing is logged, and what is not logged is not dropped."),
				 errhint("If there is no more to come, call message_bus.audit_restart(). Another log begins by itself after an hour.")));
	}
	return true;
}

/* Whether nobody else writes the log's tables; nobody can until we commit. */
static bool
tables_lock(Oid schema)
{
	for (int i = 0; i < (int) lengthof(tables); i++)
	{
		if (!ConditionalLockRelationOid(mbus_relation(schema, tables[i]),
										ShareRowExclusiveLock))
			return false;
	}
	return true;
}

/* The answer to a question. */
static bool
asked(const char *sql)
{
	bool		isnull;
	bool		answer;

	mbus_log_execute(sql, 0, NULL, NULL);
	if (SPI_processed == 0)
		return false;
	answer = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 1, &isnull));
	return answer && !isnull;
}

/*
 * mbus_brought_clear removes what there is of a log; in a transaction with
 * SPI.
 */
void
mbus_brought_clear(void)
{
	static const char *const cleared[] = {
		"DELETE FROM message_bus.log_state",
		"DELETE FROM message_bus.log_tile",
		"DELETE FROM message_bus.log_run",
		"DELETE FROM message_bus.log_gone",
		"DELETE FROM message_bus.log_tile_look",
		"DELETE FROM message_bus.log_checkpoint",
		"DELETE FROM message_bus.log_cosignature",
		"DELETE FROM message_bus.log_action"
		" WHERE kind = ANY ('{log,drop-segment,gap}')",
		"UPDATE message_bus.segment SET log_id = NULL, log_to = NULL"
		" WHERE log_id IS NOT NULL"
	};

	for (int i = 0; i < (int) lengthof(cleared); i++)
		mbus_log_execute(cleared[i], 0, NULL, NULL);
}

/*
 * mbus_brought_own says whether this process writes the log, and no restore.
 */
void
mbus_brought_own(bool is)
{
	own = is;
}

/*
 * mbus_log_restored (trigger) leaves out a row that a restore brings where
 * there is a log already.
 */
Datum
mbus_log_restored(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	const char *answer = fcinfo->flinfo->fn_extra;

	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mbus_log_restored: not called as a trigger");
	if (own || IsBackgroundWorker)
		return PointerGetDatum(data->tg_trigtuple);
	if (answer == NULL)
	{
		answer = restored_left_out(RelationGetRelationName(data->tg_relation)) ?
			"left out" : "taken";
		fcinfo->flinfo->fn_extra = unconstify(char *, answer);
	}
	return PointerGetDatum(*answer == 'l' ? NULL : data->tg_trigtuple);
}

/* Whether what a statement brings is left out. */
static bool
restored_left_out(const char *table)
{
	bool		copied = ActivePortal != NULL &&
	ActivePortal->commandTag == CMDTAG_COPY;
	bool		left_out;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	left_out = asked("SELECT EXISTS (SELECT FROM message_bus.log_state AS s,"
					 " message_bus.server_state AS b"
					 " WHERE s.bus OPERATOR(pg_catalog.=) b.bus)");
	/* what was changed here is there before a log is */
	if (!left_out && copied)
		left_out = asked(strcmp(table, "log_action") == 0 ?
						 "SELECT EXISTS (SELECT FROM message_bus.log_action"
						 " WHERE kind OPERATOR(pg_catalog.=) 'log')" :
						 psprintf("SELECT EXISTS (SELECT FROM message_bus.%s)",
								  quote_identifier(table)));
	SPI_finish();
	return left_out;
}
