/*
 * verify_run.c
 *		The runs of a part: which rows its entries are of.
 *
 * Each entry has one run, but for those of tiles that were pruned.  Where an
 * entry has none its hash is remembered: a row that has it was logged, and is
 * not taken for one that was added (verify_rest.c).  Where two runs have an
 * entry the second one is told, and only the first believed.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/rel.h"

#include "base/columns.h"
#include "base/schema.h"
#include "log/sound.h"
#include "log/verify.h"
#include "segment/leaf_scan.h"

#define RUNS_BYTES	(64 * 1024 * 1024)	/* of an array that is read */
#define ORPHANS		65536

/* A row of log_run. */
typedef struct Run
{
	int64		first;
	int64		lo;
	int32		segment;
	int32		kind;
	int32		n;
	int			nruns;			/* numbers in "runs"; 0: there is no gap */
	const int32 *runs;
	bool		sound;
} Run;

/* The reading of a part's runs. */
typedef struct RunWork
{
	MbusVerify *v;
	int64		from;
	int64		to;
	int64		lowest;			/* where its first run begins */
} RunWork;

static void runs_read(void *arg);
static int64 run_before(MbusVerify *v, Relation rel, int64 index);
static void run_take(RunWork *work, HeapTuple tuple, TupleDesc desc);
static void run_read(HeapTuple tuple, TupleDesc desc, Run *run);
static bool runs_sound(Run *run, Datum value);
static void run_spans(RunWork *work, const Run *run, int64 from);
static void span_add(RunWork *work, const Run *run, int64 index, int64 number,
					 int64 n, int64 from);
static void entries_lack(MbusVerify *v, int64 from, int64 to, bool tell);
static void orphan_add(MbusVerify *v, const MbusHash *hash);

/*
 * mbus_verify_runs reads the runs of the part's entries, in its context.
 */
void
mbus_verify_runs(MbusVerify *v, int64 from, int64 to)
{
	RunWork		work = {.v = v,.from = from,.to = to};

	if (!mbus_verify_try(runs_read, &work))
	{
		v->nspans = 0;
		v->covered = from;
	}
	entries_lack(v, Max(v->covered, from), to, true);
	v->covered = Max(v->covered, to);
}

static void
runs_read(void *arg)
{
	RunWork    *work = arg;
	MbusVerify *v = work->v;
	Relation	rel = table_open(mbus_relation(v->schema, "log_run"),
								 AccessShareLock);
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, rel, MBUS_RUN_FIRST_INDEX, 0, false);
	work->lowest = run_before(v, rel, work->from);
	mbus_leaf_scan_int8(&rows, MBUS_RUN_FIRST_INDEX, work->lowest,
						work->to - 1);
	mbus_leaf_scan_begin(&rows, v->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
		run_take(work, tuple, RelationGetDescr(rel));
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
}

/* Where the last run begins that does not begin behind an entry. */
static int64
run_before(MbusVerify *v, Relation rel, int64 index)
{
	MbusLeafScan rows;
	HeapTuple	tuple;
	bool		isnull;

	mbus_leaf_scan_open(&rows, rel, MBUS_RUN_FIRST_INDEX, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_RUN_FIRST_INDEX, PG_INT64_MIN, index);
	mbus_leaf_scan_begin(&rows, v->snapshot);
	tuple = systable_getnext_ordered(rows.rows, BackwardScanDirection);
	/* one that is damaged is told when the part is read where it begins */
	if (tuple && mbus_sound(tuple, RelationGetDescr(rel)))
		index = Min(index,
					DatumGetInt64(heap_getattr(tuple, MBUS_RUN_FIRST_INDEX,
											   RelationGetDescr(rel),
											   &isnull)));
	mbus_leaf_scan_close(&rows);
	return index;
}

/* Takes what a run has of the part. */
static void
run_take(RunWork *work, HeapTuple tuple, TupleDesc desc)
{
	MbusVerify *v = work->v;
	int64		from;
	int64		end;
	Run			run;

	if (!mbus_sound(tuple, desc))
	{
		mbus_verify_fault(v, -1, "run", -1, 0, "unreadable");
		return;
	}
	run_read(tuple, desc, &run);
	/* the index may have led to a row that is elsewhere: nothing is believed */
	if (run.n <= 0 || run.first < Max(work->lowest, 0) ||
		run.first >= work->to)
	{
		mbus_verify_fault(v, -1, "run", -1, 0, "run");
		return;
	}
	end = run.first + run.n;
	if (end <= work->from)
		return;
	from = Max(run.first, work->from);
	entries_lack(v, Max(v->covered, work->from), from, true);
	/* what began before this part, or goes on behind it, is told there */
	if (run.first >= work->from && run.first < v->covered)
		mbus_verify_fault(v, run.first, "run", run.lo, run.segment, "run");
	from = Max(from, v->covered);
	if (!run.sound)
	{
		if (run.first >= work->from)
			mbus_verify_fault(v, run.first, "run", run.lo, run.segment,
							  "run");
		entries_lack(v, from, Min(end, work->to), false);
	}
	else
		run_spans(work, &run, from);
	v->covered = Max(v->covered, Min(end, work->to));
}

static void
run_read(HeapTuple tuple, TupleDesc desc, Run *run)
{
	bool		isnull;
	Datum		runs;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	run->first = DatumGetInt64(READ(MBUS_RUN_FIRST_INDEX));
	run->lo = DatumGetInt64(READ(MBUS_RUN_LO));
	run->segment = DatumGetInt32(READ(MBUS_RUN_SEGMENT_NO));
	run->kind = DatumGetInt32(READ(MBUS_RUN_KIND));
	run->n = DatumGetInt32(READ(MBUS_RUN_N));
	runs = READ(MBUS_RUN_RUNS);
#undef READ
	run->nruns = 0;
	run->runs = NULL;
	run->sound = run->kind >= 0 && run->kind < MBUS_LOG_KINDS &&
		(run->segment == 0) == (run->kind == MBUS_LOG_ACTION) &&
		(isnull || runs_sound(run, runs));
}

/* Whether offsets and lengths are ascending and as many as there are rows. */
static bool
runs_sound(Run *run, Datum value)
{
	ArrayType  *array;
	int64		end = 0;
	int64		n = 0;

	if (toast_raw_datum_size(value) > RUNS_BYTES)
		return false;
	array = mbus_sound_array(value, INT4OID);
	if (array == NULL || ARR_NDIM(array) == 0 || ARR_DIMS(array)[0] % 2 != 0)
		return false;
	run->nruns = ARR_DIMS(array)[0];
	run->runs = (const int32 *) ARR_DATA_PTR(array);
	for (int i = 0; i < run->nruns; i += 2)
	{
		if (run->runs[i] < end || run->runs[i + 1] <= 0)
			return false;
		end = (int64) run->runs[i] + run->runs[i + 1];
		n += run->runs[i + 1];
	}
	return n == run->n;
}

/* Adds the spans of a run from an entry on, as far as they are of the part. */
static void
run_spans(RunWork *work, const Run *run, int64 from)
{
	int64		index = run->first;

	if (run->nruns == 0)
		span_add(work, run, index, run->lo, run->n, from);
	for (int i = 0; i < run->nruns && index < work->to; i += 2)
	{
		span_add(work, run, index, run->lo + run->runs[i], run->runs[i + 1],
				 from);
		index += run->runs[i + 1];
	}
}

static void
span_add(RunWork *work, const Run *run, int64 index, int64 number, int64 n,
		 int64 from)
{
	MbusVerify *v = work->v;
	int64		begin = Max(index, from);
	int64		end = Min(index + n, work->to);
	MbusVerifySpan *span;

	if (begin >= end)
		return;
	if (v->nspans == v->room)
	{
		v->room = Max(2 * v->room, 64);
		v->span = v->span ?
			repalloc(v->span, v->room * sizeof(MbusVerifySpan)) :
			palloc(v->room * sizeof(MbusVerifySpan));
	}
	span = &v->span[v->nspans++];
	span->index = begin;
	span->number = number + (begin - index);
	span->n = (int32) (end - begin);
	span->segment = run->segment;
	span->kind = run->kind;
}

/*
 * Notes that entries have no run; "tell" if there is nothing about them, which
 * is as it should be where their tile was pruned.
 */
static void
entries_lack(MbusVerify *v, int64 from, int64 to, bool tell)
{
	for (int64 index = from; index < to; index++)
	{
		int			place = (int) (index - (v->first_tile << MBUS_TILE_BITS));

		if (v->tile[place / MBUS_TILE_WIDTH] == MBUS_TILE_MISSING)
		{
			index |= MBUS_TILE_WIDTH - 1;
			continue;
		}
		if (tell)
			mbus_verify_fault(v, index, "run", -1, 0, "run");
		tell = false;
		orphan_add(v, &v->hash[place]);
	}
}

static void
orphan_add(MbusVerify *v, const MbusHash *hash)
{
	if (hash_get_num_entries(v->orphans) >= ORPHANS)
		v->too_many = true;
	else
		hash_search(v->orphans, hash, HASH_ENTER, NULL);
}
