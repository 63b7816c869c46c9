/*
 * verify_rest.c
 *		What is gone, and what is there and was not logged.
 *
 * A segment that is gone has an action, logged, that says so; one that is
 * dropped while we read has it as soon as its tables are gone.  So it is looked
 * for with a new snapshot.  Actions are removed when they are old; of what was
 * logged before the first checkpoint that is younger nothing is told.
 *
 * What was logged has been found, row by row, and counted.  A table that has as
 * many rows that a pass has settled has no others.  They are counted by reading
 * the table, without its indexes; only where that is not so each row is looked
 * up.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/columns.h"
#include "base/ids.h"
#include "base/schema.h"
#include "base/settings.h"
#include "log/sound.h"
#include "log/table.h"
#include "log/verify.h"
#include "segment/leaf_scan.h"
#include "state/clock.h"

/* Facts have numbers from here on; the log's own actions are below. */
#define FACTS_FIRST	(INT64CONST(1) << 56)

/* A table whose rows are counted, and then perhaps looked up. */
typedef struct TableWork
{
	MbusVerify *v;
	MbusVerifySegment *segment;
	int			kind;
	bool		look;
	int64		n;
} TableWork;

static int64 expired_find(MbusVerify *v);
static void dropped_read(MbusVerify *v);
static bool dropped(const MbusVerify *v, int32 segment);
static void table_verify(MbusVerify *v, MbusVerifySegment *segment, int kind);
static void table_count(void *arg);
static bool row_settled(const MbusVerify *v, const MbusVerifySegment *segment,
						int kind, int64 number);
static bool spans_have(const MbusSpans *spans, int64 number);
static void row_look(TableWork *work, HeapTuple tuple, TupleDesc desc,
					 int64 number);

/*
 * mbus_verify_gone tells of a segment whose tables or secret are not there,
 * unless the log says that it was dropped; once.
 */
void
mbus_verify_gone(MbusVerify *v, MbusVerifySegment *segment, int64 index)
{
	if (v->dropped == NULL)
		dropped_read(v);
	if (!dropped(v, segment->segment) && segment->there)
		dropped_read(v);		/* meanwhile? */
	segment->gone = true;
	if (!dropped(v, segment->segment) &&
		(index < 0 || !mbus_verify_expired(v, index)))
		mbus_verify_fault(v, index, "segment", -1, segment->segment,
						  "segment");
}

/*
 * mbus_verify_expired tells whether an entry is so old that an action of its
 * time may have been removed (message_bus.log_action_ttl).
 */
bool
mbus_verify_expired(MbusVerify *v, int64 index)
{
	if (!v->expired_known)
		v->expired_to = expired_find(v);
	v->expired_known = true;
	return index < v->expired_to;
}

/* The size of the first checkpoint that is young enough, or of the log. */
static int64
expired_find(MbusVerify *v)
{
	TimestampTz oldest = mbus_now() - mbus_log_action_ttl * USECS_PER_SEC;
	Relation	rel = table_open(mbus_relation(v->schema, "log_checkpoint"),
								 AccessShareLock);
	int64		size = v->state.size;
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, rel, MBUS_LOGGED_SIZE, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_LOGGED_SIZE, 0, PG_INT64_MAX);
	mbus_leaf_scan_begin(&rows, v->snapshot);
	while ((tuple = systable_getnext_ordered(rows.rows,
											 BackwardScanDirection)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (!mbus_sound(tuple, desc))
			continue;			/* told by itself */
		if (DatumGetTimestampTz(heap_getattr(tuple, MBUS_LOGGED_AT, desc,
											 &isnull)) < oldest)
			break;
		size = DatumGetInt64(heap_getattr(tuple, MBUS_LOGGED_SIZE, desc,
										  &isnull));
	}
	/* even the oldest is young: no action can have been removed */
	if (tuple == NULL)
		size = 0;
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return size;
}

/* Reads of which segments the log says that they were dropped. */
static void
dropped_read(MbusVerify *v)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	Relation	rel = table_open(mbus_relation(v->schema, "log_action"),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	HASHCTL		info = {0};
	HeapTuple	tuple;

	if (v->dropped)
		hash_destroy(v->dropped);
	info.keysize = sizeof(int32);
	info.entrysize = sizeof(int32);
	info.hcxt = v->lasting;
	v->dropped = hash_create("message_bus dropped segments", 64, &info,
							 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		int32		segment;
		int64		no;

		CHECK_FOR_INTERRUPTS();
		if (!mbus_sound(tuple, desc))
			continue;			/* told as what it is */
		segment = DatumGetInt32(heap_getattr(tuple, MBUS_ACTION_SEGMENT_NO,
											 desc, &isnull));
		if (isnull)
			continue;
		no = DatumGetInt64(heap_getattr(tuple, MBUS_ACTION_NO, desc, &isnull));
		/* below 0: dropped while nothing was logged, which will be */
		if (no < 0 || mbus_run_find(v->schema, snapshot, 0, MBUS_LOG_ACTION,
									no, PG_INT32_MAX) >= 0)
			hash_search(v->dropped, &segment, HASH_ENTER, NULL);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	UnregisterSnapshot(snapshot);
}

static bool
dropped(const MbusVerify *v, int32 segment)
{
	return hash_search(v->dropped, &segment, HASH_FIND, NULL) != NULL;
}

/*
 * mbus_verify_added tells which rows are there, and were not logged although
 * the log is behind them.
 */
void
mbus_verify_added(MbusVerify *v)
{
	HASH_SEQ_STATUS status;
	MbusVerifySegment *segment;
	MemoryContext caller = MemoryContextSwitchTo(v->part);

	hash_seq_init(&status, v->segments);
	while ((segment = hash_seq_search(&status)) != NULL)
	{
		int			first = segment->segment == 0 ? MBUS_LOG_ACTION : 0;
		int			last = segment->segment == 0 ? MBUS_LOG_ACTION :
		MBUS_LOG_ACTION - 1;

		if (!segment->there || !segment->ours || segment->gone)
			continue;
		for (int kind = first; kind <= last; kind++)
			table_verify(v, segment, kind);
		MemoryContextReset(v->part);
	}
	MemoryContextSwitchTo(caller);
}

/* Counts a table's rows, and looks them up if they are not as many. */
static void
table_verify(MbusVerify *v, MbusVerifySegment *segment, int kind)
{
	TableWork	work = {.v = v,.segment = segment,.kind = kind};
	bool		read = mbus_verify_try(table_count, &work);

	if (read && work.n != segment->found[kind])
	{
		work.look = true;
		read = mbus_verify_try(table_count, &work);
	}
	if (!read)
		mbus_verify_fault(v, -1, mbus_verify_kind(kind), -1, segment->segment,
						  "unreadable");
}

static void
table_count(void *arg)
{
	TableWork  *work = arg;
	MbusVerify *v = work->v;
	int32		segment = work->segment->segment;
	Relation	rel = mbus_verify_table(v, work->kind, segment);
	AttrNumber	column = mbus_row_number(work->kind);
	TupleDesc	desc;
	TableScanDesc scan;
	HeapTuple	tuple;

	if (rel == NULL)
	{
		mbus_verify_gone(v, work->segment, -1);
		work->n = work->segment->found[work->kind];
		return;
	}
	desc = RelationGetDescr(rel);
	scan = table_beginscan(rel, v->snapshot, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		int64		number = DatumGetInt64(heap_getattr(tuple, column, desc,
														&isnull));

		CHECK_FOR_INTERRUPTS();
		if (isnull || !row_settled(v, work->segment, work->kind, number))
			continue;
		work->n++;
		if (work->look)
			row_look(work, tuple, desc, number);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * Whether the log is behind a number: a row that has it was logged, if it was
 * there in time.
 */
static bool
row_settled(const MbusVerify *v, const MbusVerifySegment *segment, int kind,
			int64 number)
{
	/* what the log says of itself is logged by who inserts it; below 0: later */
	if (kind == MBUS_LOG_ACTION && number < FACTS_FIRST)
		return number >= 0;
	if (kind == MBUS_MESSAGE)
		return number < segment->to && !spans_have(&segment->pending, number);
	return number < v->state.facts_to &&
		!spans_have(&v->state.facts_pending, number) &&
		!spans_have(kind == MBUS_LOG_ACTION ? &v->state.actions_pending :
					&segment->facts, number);
}

static bool
spans_have(const MbusSpans *spans, int64 number)
{
	for (int i = 0; i < spans->n && spans->span[i].lo <= number; i++)
	{
		if (number < spans->span[i].hi)
			return true;
	}
	return false;
}

/* Tells of a row that is in no run, nor in an entry whose run is missing. */
static void
row_look(TableWork *work, HeapTuple tuple, TupleDesc desc, int64 number)
{
	MbusVerify *v = work->v;
	int32		segment = work->segment->segment;
	MemoryContext caller = MemoryContextSwitchTo(v->row);
	bool		logged = v->too_many;
	MbusHash	hash;

	if (!logged && hash_get_num_entries(v->orphans) > 0 &&
		(work->segment->secret_known || segment == 0) &&
		mbus_verify_row(v, work->segment, work->kind, tuple, desc,
						&hash) == NULL)
		logged = hash_search(v->orphans, &hash, HASH_FIND, NULL) != NULL;
	logged = logged || mbus_run_find(v->schema, v->snapshot, segment,
									 work->kind, number,
									 PG_INT32_MAX) >= 0;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(v->row);
	if (!logged)
		mbus_verify_fault(v, -1, mbus_verify_kind(work->kind), number,
						  segment, "added");
}
