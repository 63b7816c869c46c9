/*
 * fact_insert.c
 *		Rows that say what became of deliveries: acks and failures.
 *
 * An ack row lies in the segment of its ids and covers less than
 * MBUS_ACK_SPAN of them; a batch that was claimed and acked as a whole is one
 * row.  Rows are inserted as messages are (segment/inserter.c), into leaves
 * opened by their OIDs: no right is asked for, who may ack is settled before.
 * Nothing is said of a segment that is gone, and 55000 of one that is hidden.  Each row has a number, taken
 * just before it is inserted (state/fact_number.c).
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/ids.h"
#include "facts/facts.h"
#include "segment/inserter.h"
#include "segment/leaf.h"
#include "state/fact_number.h"
#include "state/state.h"
#include "state/unfinished.h"

/*
 * The texts that failures of one call have in common, made once: they are as
 * long as a client likes, and there may be thousands of rows.
 */
typedef struct MbusSaid
{
	const char *kind_of;		/* what the texts were made of */
	const char *reason_of;
	const char *not_moved_of;
	text	   *kind;
	text	   *reason;			/* NULL: none */
	text	   *not_moved;		/* NULL: none */
	text	   *role;
	text	   *subject;		/* NULL: none */
} MbusSaid;

static int	segment_acks(Oid schema, const MbusHolding *holding,
						 const MbusHeld **held, int n, const char *outcome);
static Relation facts_open(Oid schema, int32 segment, MbusFamily family);
static int	row_acks(MbusInserter *inserter, Oid schema,
					 const MbusHolding *holding, const MbusHeld **held, int n,
					 const char *outcome);
static Datum runs_array(const MbusHeld **held, int n, bool *isnull);
static int	held_compare(const void *a, const void *b);
static int	segment_failures(Oid schema, const MbusHolding *holding,
							 const MbusFailure *failures, int n);
static void said_set(MbusSaid *said, const MbusFailure *failure);
static void failure_fill(TupleTableSlot *slot, Oid schema,
						 const MbusHolding *holding,
						 const MbusFailure *failure, const MbusSaid *said);
static void fill_text(TupleTableSlot *slot, int column, const text *value);
static text *text_or_null(const char *value);
static void fill_who(TupleTableSlot *slot, int role, int subject, int session);

/*
 * mbus_ack_insert records that the subscription is done with what is held,
 * but for what was acked before in this transaction.
 */
void
mbus_ack_insert(Oid schema, const MbusHolding *holding, const char *outcome)
{
	const MbusHeld **held = palloc(Max(holding->n, 1) * sizeof(MbusHeld *));
	bool		mixed = false;
	int			n = 0;

	for (int i = 0; i < holding->n; i++)
	{
		if (holding->held[i].again)
			continue;
		held[n++] = &holding->held[i];
		mixed |= held[n - 1]->attempt != held[0]->attempt;
	}
	/* a row has one attempt */
	if (mixed)
		qsort(held, n, sizeof(MbusHeld *), held_compare);
	for (int i = 0; i < n;)
		i += segment_acks(schema, holding, held + i, n - i, outcome);
	pfree(held);
	if (n > 0)
		CommandCounterIncrement();
}

/* Inserts the rows of the first segment; returns how many ids they hold. */
static int
segment_acks(Oid schema, const MbusHolding *holding, const MbusHeld **held,
			 int n, const char *outcome)
{
	int32		segment = MbusSegmentOf(held[0]->id);
	int			end = 1;
	Relation	leaf;
	MbusInserter *inserter;

	while (end < n && MbusSegmentOf(held[end]->id) == segment)
		end++;
	leaf = facts_open(schema, segment, MBUS_ACK);
	if (leaf == NULL)
		return end;				/* the segment was retired: nothing to say */
	inserter = mbus_inserter_open(RelationGetRelid(leaf), MBUS_ACK_COLUMNS,
								  false);
	table_close(leaf, NoLock);
	for (int i = 0; i < end;)
		i += row_acks(inserter, schema, holding, held + i, end - i, outcome);
	mbus_inserter_close(inserter);
	return end;
}

/*
 * facts_open opens the table that facts of a segment go to; NULL if the segment
 * is gone.  One that is hidden is not gone (state/unfinished.c): 55000, it may
 * be said later.  Of that the worker says nothing.
 */
static Relation
facts_open(Oid schema, int32 segment, MbusFamily family)
{
	MbusDatabase *db = mbus_database();
	bool		hidden = mbus_segment_hidden(db, segment);
	Relation	leaf = mbus_leaf_open(schema, segment, family,
									  RowExclusiveLock);

	if (leaf == NULL && db->worker.pid != MyProcPid &&
		(hidden || mbus_segment_hidden(db, segment)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("segment %d of message_bus is being restored",
						segment),
				 errhint("Try again when its tables are filled.")));
	return leaf;
}

/* Inserts one row with as many ids as it may have, and returns how many. */
static int
row_acks(MbusInserter *inserter, Oid schema, const MbusHolding *holding,
		 const MbusHeld **held, int n, const char *outcome)
{
	TupleTableSlot *slot = mbus_inserter_slot(inserter);
	Datum	   *values = slot->tts_values - 1;	/* columns count from 1 */
	bool	   *isnull = slot->tts_isnull - 1;
	int64		lo = held[0]->id;
	int			end = 1;

	while (end < n && held[end]->attempt == held[0]->attempt &&
		   held[end]->id - lo < MBUS_ACK_SPAN)
		end++;
	values[MBUS_ACK_LO] = Int64GetDatum(lo);
	values[MBUS_ACK_HI] = Int64GetDatum(held[end - 1]->id);
	values[MBUS_ACK_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[MBUS_ACK_CLAIMED_AT] = TimestampTzGetDatum(holding->claimed_at);
	values[MBUS_ACK_LEASE] = Int64GetDatum(holding->lease);
	values[MBUS_ACK_NO] =
		Int64GetDatum(mbus_fact_number(mbus_database(), schema,
									   MbusSegmentOf(lo)));
	values[MBUS_ACK_SUBSCRIPTION_ID] = Int32GetDatum(holding->subscription_id);
	values[MBUS_ACK_N] = Int32GetDatum(end);
	values[MBUS_ACK_ATTEMPT] = Int16GetDatum(held[0]->attempt);
	mbus_slot_text(slot, MBUS_ACK_OUTCOME, outcome);
	values[MBUS_ACK_RUNS] = runs_array(held, end, &isnull[MBUS_ACK_RUNS]);
	fill_who(slot, MBUS_ACK_ROLE, MBUS_ACK_SUBJECT, MBUS_ACK_SESSION);
	mbus_inserter_put(inserter);
	return end;
}

/* The runs of consecutive ids; null if there is one only. */
static Datum
runs_array(const MbusHeld **held, int n, bool *isnull)
{
	int64		lo = held[0]->id;
	Datum	   *runs;
	int			nruns = 0;

	*isnull = held[n - 1]->id - lo == n - 1;
	if (*isnull)
		return (Datum) 0;
	runs = palloc(2 * n * sizeof(Datum));
	for (int i = 0, start = 0; i < n; i++)
	{
		if (i + 1 < n && held[i + 1]->id == held[i]->id + 1)
			continue;
		runs[nruns++] = Int32GetDatum((int32) (held[start]->id - lo));
		runs[nruns++] = Int32GetDatum(i + 1 - start);
		start = i + 1;
	}
	return PointerGetDatum(construct_array(runs, nruns, INT4OID,
										   sizeof(int32), true,
										   TYPALIGN_INT));
}

/* By segment, attempt and id. */
static int
held_compare(const void *a, const void *b)
{
	const MbusHeld *x = *(const MbusHeld *const *) a;
	const MbusHeld *y = *(const MbusHeld *const *) b;

	if (MbusSegmentOf(x->id) == MbusSegmentOf(y->id) &&
		x->attempt != y->attempt)
		return mbus_order(x->attempt, y->attempt);
	return mbus_order(x->id, y->id);
}

/*
 * mbus_failure_insert records one failure.  retry_at, dead_letter_id: 0 is
 * none; reason: NULL is none.
 */
void
mbus_failure_insert(Oid schema, const MbusHolding *holding,
					const MbusHeld *held, const char *kind,
					TimestampTz retry_at, int64 dead_letter_id,
					const char *reason)
{
	MbusFailure failure = {0};

	failure.held = held;
	failure.kind = kind;
	failure.retry_at = retry_at;
	failure.dead_letter_id = dead_letter_id;
	failure.reason = reason;
	mbus_failures_insert(schema, holding, &failure, 1);
}

/*
 * mbus_failures_insert records failures of one holding, by ascending id.
 */
void
mbus_failures_insert(Oid schema, const MbusHolding *holding,
					 const MbusFailure *failures, int n)
{
	for (int i = 0; i < n;)
		i += segment_failures(schema, holding, failures + i, n - i);
	if (n > 0)
		CommandCounterIncrement();
}

/* Inserts the rows of the first segment; returns how many these were. */
static int
segment_failures(Oid schema, const MbusHolding *holding,
				 const MbusFailure *failures, int n)
{
	int32		segment = MbusSegmentOf(failures[0].held->id);
	int			end = 1;
	Relation	leaf;
	MbusInserter *inserter;
	MbusSaid	said = {0};

	while (end < n && MbusSegmentOf(failures[end].held->id) == segment)
		end++;
	leaf = facts_open(schema, segment, MBUS_FAILURE);
	if (leaf == NULL)
		return end;				/* the segment was retired: nothing to say */
	inserter = mbus_inserter_open(RelationGetRelid(leaf),
								  MBUS_FAILURE_COLUMNS, false);
	table_close(leaf, NoLock);
	for (int i = 0; i < end; i++)
	{
		CHECK_FOR_INTERRUPTS();
		said_set(&said, &failures[i]);
		failure_fill(mbus_inserter_slot(inserter), schema, holding,
					 &failures[i], &said);
		mbus_inserter_put(inserter);
	}
	mbus_inserter_close(inserter);
	return end;
}

/* Makes the texts of a failure, unless they are those of the one before. */
static void
said_set(MbusSaid *said, const MbusFailure *failure)
{
	if (said->role == NULL)
	{
		said->role = text_or_null(GetUserNameFromId(GetUserId(), false));
		said->subject = text_or_null(mbus_subject());
	}
	if (said->kind_of != failure->kind)
		said->kind = text_or_null(failure->kind);
	if (said->reason_of != failure->reason)
		said->reason = text_or_null(failure->reason);
	if (said->not_moved_of != failure->not_moved)
		said->not_moved = text_or_null(failure->not_moved);
	said->kind_of = failure->kind;
	said->reason_of = failure->reason;
	said->not_moved_of = failure->not_moved;
}

static text *
text_or_null(const char *value)
{
	return value ? cstring_to_text(value) : NULL;
}

/* Fills in a row of failures. */
static void
failure_fill(TupleTableSlot *slot, Oid schema, const MbusHolding *holding,
			 const MbusFailure *failure, const MbusSaid *said)
{
	Datum	   *values = slot->tts_values - 1;	/* columns count from 1 */
	bool	   *isnull = slot->tts_isnull - 1;

	values[MBUS_FAILURE_MESSAGE_ID] = Int64GetDatum(failure->held->id);
	values[MBUS_FAILURE_AT] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[MBUS_FAILURE_NO] =
		Int64GetDatum(mbus_fact_number(mbus_database(), schema,
									   MbusSegmentOf(failure->held->id)));
	values[MBUS_FAILURE_CLAIMED_AT] = TimestampTzGetDatum(holding->claimed_at);
	isnull[MBUS_FAILURE_CLAIMED_AT] = holding->claimed_at == 0;
	values[MBUS_FAILURE_RETRY_AT] = TimestampTzGetDatum(failure->retry_at);
	isnull[MBUS_FAILURE_RETRY_AT] = failure->retry_at == 0;
	values[MBUS_FAILURE_LEASE] = Int64GetDatum(holding->lease);
	values[MBUS_FAILURE_DEAD_LETTER_ID] =
		Int64GetDatum(failure->dead_letter_id);
	isnull[MBUS_FAILURE_DEAD_LETTER_ID] = failure->dead_letter_id == 0;
	values[MBUS_FAILURE_KEY_HASH] = Int64GetDatum(failure->held->key_hash);
	isnull[MBUS_FAILURE_KEY_HASH] = failure->held->key_hash == 0;
	values[MBUS_FAILURE_SUBSCRIPTION_ID] =
		Int32GetDatum(holding->subscription_id);
	values[MBUS_FAILURE_ATTEMPT] = Int16GetDatum(failure->held->attempt);
	values[MBUS_FAILURE_SESSION] = Int64GetDatum(mbus_caller.session);
	isnull[MBUS_FAILURE_SESSION] = mbus_caller.session == 0;
	fill_text(slot, MBUS_FAILURE_KIND, said->kind);
	fill_text(slot, MBUS_FAILURE_REASON, said->reason);
	fill_text(slot, MBUS_FAILURE_NOT_MOVED, said->not_moved);
	fill_text(slot, MBUS_FAILURE_ROLE, said->role);
	fill_text(slot, MBUS_FAILURE_SUBJECT, said->subject);
}

/* Sets a text column; NULL is NULL. */
static void
fill_text(TupleTableSlot *slot, int column, const text *value)
{
	slot->tts_isnull[column - 1] = value == NULL;
	slot->tts_values[column - 1] = PointerGetDatum(value);
}

/* Who says it: the columns' numbers are given. */
static void
fill_who(TupleTableSlot *slot, int role, int subject, int session)
{
	mbus_slot_text(slot, role, GetUserNameFromId(GetUserId(), false));
	mbus_slot_text(slot, subject, mbus_subject());
	slot->tts_values[session - 1] = Int64GetDatum(mbus_caller.session);
	slot->tts_isnull[session - 1] = mbus_caller.session == 0;
}
