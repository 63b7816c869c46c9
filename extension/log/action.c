/*
 * action.c
 *		Actions that do not come to the log by the facts' numbers.
 *
 * What was changed (action/action.c) has a number of facts, so that a pass
 * finds it with these, as if it were in a segment 0.  Two kinds of it come
 * otherwise:
 *
 *	- what was changed before the log began: its numbers are in actions_pending
 *	  of log_state, until they have been gone through.  It is set when a pass
 *	  first finds it NULL, in the transaction that begins the log: to all numbers
 *	  below facts_to that are not in facts_pending;
 *	- what got no number in time: it is given one here, of the facts that are
 *	  still to come, and the next pass logs it.  An action is in the table
 *	  under one number at any time, and is logged under numbers of facts only.
 *
 * Both in the transaction of the pass: a crash leaves them as they were.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"

#include "action/action.h"
#include "log/action.h"
#include "log/row.h"
#include "log/unread.h"
#include "state/fact_number.h"

#define NUMBERED_MOST	256		/* in a pass */

static void actions_number(MbusDatabase *db, Oid schema);
static MbusSpans pending_read(const MbusLogState *state, bool *isnull);
static void pending_write(const MbusSpans *pending);

/*
 * mbus_log_actions adds what was changed before the log began, and gives
 * numbers to what has none; false if the slice has no room for all.  Called
 * before the facts' cursor is moved.
 */
bool
mbus_log_actions(MbusDatabase *db, Oid schema, const MbusLog *log,
				 const MbusLogState *state,
				 MbusRows *rows)
{
	static const int32 actions = 0; /* the segment of what has none */
	MbusSpans	none = {0};
	MbusSpans	left_out = mbus_unread_without(log, none);
	MbusCursor	cursor = {0};
	bool		first;
	bool		all;

	actions_number(db, schema);
	cursor.pending = pending_read(state, &first);
	if (cursor.pending.n == 0 && !first)
		return true;
	all = mbus_collect(schema, &actions, 1, MBUS_LOG_ACTION, MBUS_LOG_ACTION,
					   &cursor, 0, &left_out, rows);
	pending_write(&cursor.pending);
	return all;
}

/* Gives numbers to some that have none, the oldest first. */
static void
actions_number(MbusDatabase *db, Oid schema)
{
	static const Oid types[] = {INT8OID, INT8OID};
	int64		old[NUMBERED_MOST];
	int			n;

	mbus_log_execute(psprintf("SELECT no FROM message_bus.log_action"
							  " WHERE no < " INT64_FORMAT
							  " ORDER BY at, no LIMIT %d",
							  MBUS_ACTION_UNNUMBERED, NUMBERED_MOST),
					 0, NULL, NULL);
	n = (int) Min(SPI_processed, NUMBERED_MOST);
	for (int i = 0; i < n; i++)
	{
		bool		isnull;

		old[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
											 SPI_tuptable->tupdesc, 1,
											 &isnull));
	}
	for (int i = 0; i < n; i++)
	{
		int64		no = mbus_fact_number_now(db, schema, 0);
		Datum		values[] = {Int64GetDatum(old[i]), Int64GetDatum(no)};

		if (no < MBUS_ACTION_FIRST)
			break;
		mbus_log_execute("UPDATE message_bus.log_action SET no = $2"
						 " WHERE no = $1", lengthof(types), types, values);
	}
}

/* Reads actions_pending; where it is NULL, *isnull, what it is to be. */
static MbusSpans
pending_read(const MbusLogState *state, bool *isnull)
{
	MbusSpans	before = {0};
	Datum		value;

	mbus_log_execute("SELECT actions_pending FROM message_bus.log_state", 0,
					 NULL, NULL);
	if (SPI_processed == 0)
		elog(ERROR, "the log has no state");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						  isnull);
	if (!*isnull)
		return mbus_spans_read(value, false);
	if (state->facts_to > MBUS_ACTION_FIRST)
		mbus_spans_add(&before, MBUS_ACTION_FIRST, state->facts_to);
	return mbus_spans_minus(&before, &state->facts_pending);
}

static void
pending_write(const MbusSpans *pending)
{
	static const Oid types[] = {INT8ARRAYOID};
	Datum		values[] = {mbus_spans_array(pending)};

	mbus_log_execute("UPDATE message_bus.log_state SET actions_pending = $1",
					 lengthof(types), types, values);
}
