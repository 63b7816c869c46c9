/*
 * store.c
 *		The log's tables, written by the worker.
 *
 * All of it is called in a transaction of the worker with SPI, and nobody else
 * writes these tables.  The row of log_state is locked first.  Results are in
 * the current memory context.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "log/store.h"

static void execute_planned(SPIPlanPtr *plan, const char *sql, int nargs,
							const Oid *types, Datum *values,
							const char *nulls);
static Datum value_of(int row, int column, bool *isnull);
static void tile_write(void *arg, const MbusTilePart *part);
static int	run_write(int64 first_index, const MbusLogged *rows, int n);
static Datum runs_of(const MbusLogged *rows, int n);

/*
 * mbus_log_execute runs a statement, none of whose arguments is NULL.
 */
void
mbus_log_execute(const char *sql, int nargs, const Oid *types, Datum *values)
{
	int			result = SPI_execute_with_args(sql, nargs,
											   unconstify(Oid *, types),
											   values, NULL, false, 0);

	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql,
			 SPI_result_code_string(result));
}

/* The same for what is run often: its plan is kept as long as the process. */
static void
execute_planned(SPIPlanPtr *plan, const char *sql, int nargs,
				const Oid *types, Datum *values, const char *nulls)
{
	int			result;

	if (*plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare(sql, nargs, unconstify(Oid *, types));

		if (made == NULL || SPI_keepplan(made) != 0)
			elog(ERROR, "could not prepare \"%s\": %s", sql,
				 SPI_result_code_string(SPI_result));
		*plan = made;
	}
	result = SPI_execute_plan(*plan, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", sql,
			 SPI_result_code_string(result));
}

/* A value of the last result, which columns count from 1. */
static Datum
value_of(int row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull);
}

/*
 * mbus_log_state_lock reads and locks the one row; false if there is no log.
 */
bool
mbus_log_state_lock(MbusLogState *state)
{
	bool		isnull;
	Datum		pending;

	mbus_log_execute("SELECT log_id, origin, prefix, system_id, timeline,"
					 " database, size, facts_to, facts_pending"
					 " FROM message_bus.log_state FOR UPDATE", 0, NULL, NULL);
	if (SPI_processed == 0)
		return false;
	state->log_id = *DatumGetUUIDP(value_of(0, 1, &isnull));
	state->origin = TextDatumGetCString(value_of(0, 2, &isnull));
	state->prefix = TextDatumGetCString(value_of(0, 3, &isnull));
	state->system_id = DatumGetInt64(value_of(0, 4, &isnull));
	state->timeline = DatumGetInt64(value_of(0, 5, &isnull));
	state->database = DatumGetObjectId(value_of(0, 6, &isnull));
	state->size = DatumGetInt64(value_of(0, 7, &isnull));
	state->facts_to = DatumGetInt64(value_of(0, 8, &isnull));
	pending = value_of(0, 9, &isnull);
	state->facts_pending = mbus_spans_read(pending, isnull);
	return true;
}

/*
 * mbus_log_state_insert makes the row.
 */
void
mbus_log_state_insert(const MbusLogState *state)
{
	static const Oid types[] = {UUIDOID, TEXTOID, TEXTOID, INT8OID, INT8OID,
	OIDOID, INT8OID, INT8OID, INT8ARRAYOID};
	Datum		values[] = {
		UUIDPGetDatum(&state->log_id), CStringGetTextDatum(state->origin),
		CStringGetTextDatum(state->prefix), Int64GetDatum(state->system_id),
		Int64GetDatum(state->timeline), ObjectIdGetDatum(state->database),
		Int64GetDatum(state->size), Int64GetDatum(state->facts_to),
	mbus_spans_array(&state->facts_pending)};

	mbus_log_execute("INSERT INTO message_bus.log_state (log_id, origin,"
					 " prefix, system_id, timeline, database, size, facts_to,"
					 " facts_pending)"
					 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
					 lengthof(types), types, values);
}

/*
 * mbus_log_state_update writes how far the log is.
 */
void
mbus_log_state_update(const MbusLogState *state)
{
	static const Oid types[] = {INT8OID, INT8OID, INT8ARRAYOID};
	Datum		values[] = {Int64GetDatum(state->size),
		Int64GetDatum(state->facts_to),
	mbus_spans_array(&state->facts_pending)};

	mbus_log_execute("UPDATE message_bus.log_state SET size = $1,"
					 " facts_to = $2, facts_pending = $3",
					 lengthof(types), types, values);
}

/*
 * mbus_log_segments_read reads one segment or, with 0, all, by ascending
 * number; returns how many there are.
 */
int
mbus_log_segments_read(const MbusLogState *state, int32 only,
					   MbusLogSegment **segments)
{
	static const Oid types[] = {UUIDOID, INT4OID};
	Datum		values[] = {UUIDPGetDatum(&state->log_id),
	Int32GetDatum(only)};
	int			n;

	mbus_log_execute("SELECT segment_no, coalesce(log_id = $1, false), log_to,"
					 " log_pending, log_facts FROM message_bus.segment"
					 " WHERE $2 = 0 OR segment_no = $2"
					 " ORDER BY segment_no", lengthof(types), types, values);
	n = (int) SPI_processed;
	*segments = palloc0(Max(n, 1) * sizeof(MbusLogSegment));
	for (int i = 0; i < n; i++)
	{
		MbusLogSegment *segment = &(*segments)[i];
		bool		isnull;
		Datum		value;

		segment->segment = DatumGetInt32(value_of(i, 1, &isnull));
		segment->ours = DatumGetBool(value_of(i, 2, &isnull));
		segment->to = DatumGetInt64(value_of(i, 3, &isnull));
		segment->ours = segment->ours && !isnull;
		value = value_of(i, 4, &isnull);
		segment->pending = mbus_spans_read(value, isnull);
		value = value_of(i, 5, &isnull);
		segment->facts = mbus_spans_read(value, isnull);
	}
	return n;
}

/*
 * mbus_log_segment_update writes how far the log is with a segment.
 */
void
mbus_log_segment_update(const MbusLogState *state,
						const MbusLogSegment *segment)
{
	static const Oid types[] = {INT4OID, UUIDOID, INT8OID, INT8ARRAYOID,
	INT8ARRAYOID};
	Datum		values[] = {Int32GetDatum(segment->segment),
		UUIDPGetDatum(&state->log_id), Int64GetDatum(segment->to),
		mbus_spans_array(&segment->pending),
	mbus_spans_array(&segment->facts)};

	mbus_log_execute("UPDATE message_bus.segment SET log_id = $2, log_to = $3,"
					 " log_pending = $4, log_facts = $5 WHERE segment_no = $1",
					 lengthof(types), types, values);
}

/*
 * mbus_log_append writes rows' hashes to the tree, and which they are: a run
 * for those of a segment and kind that stand together by ascending number.
 */
void
mbus_log_append(MbusEdge *edge, const MbusLogged *rows, int n)
{
	/* an error leaves a torn edge: then it is read again */
	edge->read = false;
	for (int i = 0; i < n;)
	{
		int			written = run_write(edge->size, &rows[i], n - i);

		for (int end = i + written; i < end; i++)
			mbus_edge_append(edge, &rows[i].hash, tile_write, NULL);
	}
	mbus_edge_flush(edge, tile_write, NULL);
	edge->read = true;
}

/* Writes a tile, or a part of one. */
static void
tile_write(void *arg, const MbusTilePart *part)
{
	static const Oid types[] = {INT4OID, INT8OID, INT4OID, BYTEAOID};
	static SPIPlanPtr remove = NULL;
	static SPIPlanPtr insert = NULL;
	Size		len = part->count * sizeof(MbusHash);
	bytea	   *hashes = palloc(VARHDRSZ + len);
	Datum		values[] = {Int32GetDatum(part->level),
		Int64GetDatum(part->n), Int32GetDatum(part->from),
	PointerGetDatum(hashes)};

	SET_VARSIZE(hashes, VARHDRSZ + len);
	memcpy(VARDATA(hashes), part->hash, len);
	if (part->replaces)
		execute_planned(&remove, "DELETE FROM message_bus.log_tile"
						" WHERE level = $1 AND n = $2", 2, types, values,
						NULL);
	execute_planned(&insert, "INSERT INTO message_bus.log_tile"
					" (level, n, from_hash, hashes) VALUES ($1, $2, $3, $4)",
					lengthof(types), types, values, NULL);
	pfree(hashes);
}

/*
 * Writes the row about the first of these, as many as it can be about, and
 * returns how many they are.
 */
static int
run_write(int64 first_index, const MbusLogged *rows, int n)
{
	static const Oid types[] = {INT8OID, INT8OID, INT4OID, INT4OID, INT4OID,
	INT4ARRAYOID};
	static SPIPlanPtr insert = NULL;
	int			end = 1;
	Datum		values[] = {Int64GetDatum(first_index),
		Int64GetDatum(rows[0].number), Int32GetDatum(rows[0].segment),
	Int32GetDatum(rows[0].kind), (Datum) 0, (Datum) 0};
	char		nulls[] = "      ";

	while (end < n && rows[end].segment == rows[0].segment &&
		   rows[end].kind == rows[0].kind &&
		   rows[end].number > rows[end - 1].number &&
		   rows[end].number - rows[0].number < PG_INT32_MAX)
		end++;
	values[4] = Int32GetDatum(end);
	if (rows[end - 1].number - rows[0].number == end - 1)
		nulls[5] = 'n';
	else
		values[5] = runs_of(rows, end);
	execute_planned(&insert, "INSERT INTO message_bus.log_run"
					" (first_index, lo, segment_no, kind, n, runs)"
					" VALUES ($1, $2, $3, $4, $5, $6)",
					lengthof(types), types, values, nulls);
	return end;
}

/* Offsets from the first number, and lengths, of those without a gap. */
static Datum
runs_of(const MbusLogged *rows, int n)
{
	Datum	   *runs = palloc(2 * n * sizeof(Datum));
	int			nruns = 0;

	for (int i = 0, start = 0; i < n; i++)
	{
		if (i + 1 < n && rows[i + 1].number == rows[i].number + 1)
			continue;
		runs[nruns++] = Int32GetDatum((int32) (rows[start].number -
											   rows[0].number));
		runs[nruns++] = Int32GetDatum(i + 1 - start);
		start = i + 1;
	}
	return PointerGetDatum(construct_array(runs, nruns, INT4OID, sizeof(int32),
										   true, TYPALIGN_INT));
}
