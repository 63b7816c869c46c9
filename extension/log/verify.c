/*
 * verify.c
 *		audit_verify(): what is stored, compared with the log.
 *
 * All is read under one snapshot.  It has rows, runs, tiles, cursors and the
 * size as some pass left them, so that nothing is accused that is in flight: a
 * run that is seen has rows that are seen, and a row below the cursors that is
 * in no run is one that no pass has logged.
 *
 * The entries are gone through in parts of MBUS_VERIFY_PART:
 *
 *	verify_tree.c	the part's tiles: of each the root is the hash above it;
 *					at the end the levels above, and the checkpoints
 *	verify_run.c	the part's runs: they have each entry once
 *	verify_part.c	the rows that the runs name, in the order of their numbers
 *	verify_row.c	one row: its bytes, its payload, its entry
 *	verify_rest.c	what is gone, and what is there and in no run: the tables
 *					are counted, and where one has more rows than the log,
 *					each is looked up
 *	verify_state.c	whether channels are as they were last changed
 *
 * Memory: 256 kB of hashes and the runs of a part; a row at a time, with its
 * payload; 40 bytes for an entry that has no run, up to 65,536 of them; and the
 * segments.  Faults go to a tuplestore, which has work_mem.
 *
 * Locks: AccessShare on the log's tables while each is read, and on the tables
 * of a segment no longer than a part.  A segment that is dropped meanwhile is
 * found to be gone, and with it that the log says so.
 *
 * Errors: what is damaged raises them.  The rows of a part are read in a
 * subtransaction; if it fails the row that it was at is read alone, in one of
 * its own, and told if that fails too, and the rest is gone on with.  Only
 * errors that speak of damage (classes XX and 58) are caught.  Rows are checked
 * for lengths that point out of them before they are taken apart.
 *
 * A hash in a tile that is wrong makes others wrong: rows are not compared with
 * tiles that are not as the hash above says, nor checkpoints with what such
 * tiles have a part in.  The tiles at the edge have no hash above; whether a
 * row or the tile was changed there is told by the newest checkpoint that is
 * over it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/uuid.h"

#include "base/columns.h"
#include "base/schema.h"
#include "log/sound.h"
#include "log/table.h"
#include "log/verify.h"
#include "segment/leaf.h"
#include "segment/leaf_keep.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"
#include "state/verifying.h"

#define COLUMNS	5

/* A log of more, 2^48 entries, is none: so many are not written in years. */
#define TILES_MOST	(INT64CONST(1) << 40)

static bool state_read(MbusVerify *v);
static void state_work(void *arg);
static bool log_left(MbusVerify *v);
static void state_size(MbusVerify *v);
static int64 runs_end(MbusVerify *v);
static int64 tiles_end(MbusVerify *v, int level);
static void verify_open(MbusVerify *v, FunctionCallInfo fcinfo);
static void verify_all(MbusVerify *v);
static void part_verify(MbusVerify *v, int64 from, int64 to);
static void segments_read(void *arg);
static HTAB *table_make(const char *name, Size key, Size entry);
pg_noreturn static void range_bad(int64 from, int64 to, int64 size);

/*
 * audit_verify(from_index, to_index) returns what is not as the log has it.
 */
MBUS_FUNCTION(audit_verify)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusVerify	v = {0};

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	v.result = rsinfo->setResult;
	v.desc = rsinfo->setDesc;
	v.schema = mbus_schema();
	v.snapshot = RegisterSnapshot(GetLatestSnapshot());
	v.slot = -1;
	if (state_read(&v))
	{
		verify_open(&v, fcinfo);
		v.slot = mbus_verifying_begin(v.from, v.to);
		PG_TRY();
		{
			verify_all(&v);
		}
		PG_CATCH();
		{
			mbus_verifying_end(v.slot);
			PG_RE_THROW();
		}
		PG_END_TRY();
		mbus_verifying_end(v.slot);
	}
	UnregisterSnapshot(v.snapshot);
	return (Datum) 0;
}

/*
 * Reads the state; false, and that is told, if it is gone or damaged, without
 * which there is nothing to compare with.  55000 if there is no log.
 */
static bool
state_read(MbusVerify *v)
{
	if (!mbus_verify_try(state_work, v))
		mbus_verify_fault(v, -1, "log", -1, 0, "unreadable");
	else if (v->state.origin)
		return true;
	else if (log_left(v))
		mbus_verify_fault(v, -1, "log", -1, 0, "state");
	else
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no log"),
				 errhint("Set message_bus.log = on.")));
	return false;
}

static void
state_work(void *arg)
{
	MbusVerify *v = arg;

	(void) mbus_log_state_seen(v->schema, v->snapshot, &v->state);
	state_size(v);
}

/* Whether there is anything that only a log has. */
static bool
log_left(MbusVerify *v)
{
	static const char *const tables[] = {"log_key", "log_tile", "log_run",
	"log_checkpoint", "log_cosignature"};
	bool		left = false;

	for (int i = 0; i < (int) lengthof(tables) && !left; i++)
	{
		Relation	rel = table_open(mbus_relation(v->schema, tables[i]),
									 AccessShareLock);
		SysScanDesc scan = systable_beginscan(rel, InvalidOid, false,
											  v->snapshot, 0, NULL);

		left = systable_getnext(scan) != NULL;
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
	}
	return left;
}

/*
 * state_size tells if the size is neither that of the runs nor that of the
 * tiles, of which one may lack its end.  Not more is gone through than there
 * is: a size is believed no farther than they go.
 */
static void
state_size(MbusVerify *v)
{
	int64		runs;
	int64		tiles;

	if (v->state.origin == NULL)
		return;
	runs = runs_end(v);
	/* the lowest may have been pruned, that above has their roots */
	tiles = Max(tiles_end(v, 0),
				tiles_end(v, 1));
	if (v->state.size == runs || v->state.size == tiles ||
		(v->state.size > Min(runs, tiles) && v->state.size < Max(runs, tiles)))
		return;
	mbus_verify_fault(v, -1, "log", -1, 0, "state");
	v->state.size = Max(Min(v->state.size, Max(runs, tiles)), 0);
}

/* Where the last run ends; 0 if there is none, or it is damaged. */
static int64
runs_end(MbusVerify *v)
{
	Relation	rel = table_open(mbus_relation(v->schema, "log_run"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	int64		end = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, rel, MBUS_RUN_FIRST_INDEX, 0, false);
	mbus_leaf_scan_begin(&rows, v->snapshot);
	tuple = systable_getnext_ordered(rows.rows, BackwardScanDirection);
	if (tuple && mbus_sound(tuple, desc))
	{
		bool		isnull;
		int64		first = DatumGetInt64(heap_getattr(tuple,
													   MBUS_RUN_FIRST_INDEX,
													   desc, &isnull));
		int32		n = DatumGetInt32(heap_getattr(tuple, MBUS_RUN_N, desc,
												   &isnull));

		if (first >= 0 && first < TILES_MOST << MBUS_TILE_BITS && n > 0)
			end = first + n;
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return end;
}

/* How many entries a level's hashes are over, by its last part; or 0. */
static int64
tiles_end(MbusVerify *v, int level)
{
	Relation	rel = table_open(mbus_relation(v->schema, "log_tile"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	int64		end = 0;
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, rel, MBUS_TILE_LEVEL, MBUS_TILE_N, false);
	mbus_leaf_scan_int4(&rows, MBUS_TILE_LEVEL, level);
	mbus_leaf_scan_begin(&rows, v->snapshot);
	tuple = systable_getnext_ordered(rows.rows, BackwardScanDirection);
	if (tuple && mbus_sound(tuple, desc))
	{
		bool		isnull;
		int64		n = DatumGetInt64(heap_getattr(tuple, MBUS_TILE_N, desc,
												   &isnull));
		int32		from = DatumGetInt32(heap_getattr(tuple,
													  MBUS_TILE_FROM_HASH,
													  desc, &isnull));
		Datum		hashes = heap_getattr(tuple, MBUS_TILE_HASHES, desc,
										  &isnull);

		if (!isnull && n >= 0 && n < TILES_MOST &&
			from >= 0 && from < MBUS_TILE_WIDTH)
			end = ((n << MBUS_TILE_BITS) + from +
				   (int64) (VARSIZE_ANY_EXHDR(DatumGetByteaPP(hashes)) /
							MBUS_HASH_BYTES)) << (MBUS_TILE_BITS * level);
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return end;
}

/* Gets ready; 22023 if the arguments are no range of entries. */
static void
verify_open(MbusVerify *v, FunctionCallInfo fcinfo)
{
	v->from = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0);
	v->to = PG_ARGISNULL(1) ? v->state.size : PG_GETARG_INT64(1);
	if (v->from < 0 || v->from > v->to || v->to > v->state.size)
		range_bad(v->from, v->to, v->state.size);
	v->segments = table_make("message_bus verified segments", sizeof(int32),
							 sizeof(MbusVerifySegment));
	v->doubted = table_make("message_bus doubted tiles", 2 * sizeof(int64),
							2 * sizeof(int64));
	v->orphans = table_make("message_bus entries without a run",
							sizeof(MbusHash), sizeof(MbusHash));
	v->lasting = CurrentMemoryContext;
	v->part = AllocSetContextCreate(CurrentMemoryContext,
									"message_bus verified part",
									ALLOCSET_DEFAULT_SIZES);
	v->row = AllocSetContextCreate(CurrentMemoryContext,
								   "message_bus verified row",
								   ALLOCSET_DEFAULT_SIZES);
	v->hash = palloc0(MBUS_VERIFY_PART * sizeof(MbusHash));
	v->edge = palloc(MBUS_TILE_WIDTH * sizeof(MbusEdgeDoubt));
	mbus_entry_init(&v->entry, false);
	v->covered = v->from;
	if (!mbus_verify_try(segments_read, v))
		mbus_verify_fault(v, -1, "segment", -1, 0, "unreadable");
}

static HTAB *
table_make(const char *name, Size key, Size entry)
{
	HASHCTL		info = {0};

	info.keysize = key;
	info.entrysize = entry;
	info.hcxt = CurrentMemoryContext;
	return hash_create(name, 64, &info, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
range_bad(int64 from, int64 to, int64 size)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid range of entries: from_index " INT64_FORMAT ", to_index " INT64_FORMAT,
					from, to),
			 errdetail("The log has " INT64_FORMAT ".", size)));
}

/* Verifies part after part, and then what is over all of them. */
static void
verify_all(MbusVerify *v)
{
	int64		from = v->from;

	while (from < v->to)
	{
		int64		to = Min((from / MBUS_VERIFY_PART + 1) * MBUS_VERIFY_PART,
							 v->to);

		CHECK_FOR_INTERRUPTS();
		part_verify(v, from, to);
		mbus_verifying_at(v->slot, to, v->faults);
		from = to;
	}
	mbus_verify_upper(v);
	mbus_verify_checkpoints(v);
	if (v->from == 0 && v->to == v->state.size)
	{
		mbus_verify_added(v);
		mbus_verify_state(v);
	}
}

/* Verifies some entries, which are of one part. */
static void
part_verify(MbusVerify *v, int64 from, int64 to)
{
	MemoryContext caller = MemoryContextSwitchTo(v->part);

	v->first_tile = from >> MBUS_TILE_BITS;
	v->ntiles = (int) (((to - 1) >> MBUS_TILE_BITS) - v->first_tile) + 1;
	v->span = NULL;
	v->nspans = 0;
	v->room = 0;
	mbus_verify_tiles(v);
	mbus_verify_runs(v, from, to);
	mbus_verify_rows(v);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(v->part);
}

/* ------------------------------------------------------------------------
 * What the rest uses
 * ------------------------------------------------------------------------
 */

/*
 * mbus_verify_try does work in a subtransaction; false if that raised an error
 * that speaks of damage.  Locks, pins and tables are let go; memory that was
 * allocated in the current context stays.
 */
bool
mbus_verify_try(void (*work) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (!mbus_sound_error(error->sqlerrcode))
			ReThrowError(error);
		FreeErrorData(error);
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

/*
 * mbus_verify_fault adds a fault; below 0, and 0 as segment: not given.
 */
void
mbus_verify_fault(MbusVerify *v, int64 index, const char *kind, int64 id,
				  int32 segment, const char *fault)
{
	Datum		values[COLUMNS];
	bool		isnull[COLUMNS] = {false};

	values[0] = Int64GetDatum(index);
	isnull[0] = index < 0;
	values[1] = CStringGetTextDatum(kind);
	values[2] = Int64GetDatum(id);
	isnull[2] = id < 0;
	values[3] = Int32GetDatum(segment);
	isnull[3] = segment == 0;
	values[4] = CStringGetTextDatum(fault);
	tuplestore_putvalues(v->result, v->desc, values, isnull);
	v->faults++;
}

/*
 * mbus_verify_kind returns the name of a kind of rows.
 */
const char *
mbus_verify_kind(int kind)
{
	static const char *const names[MBUS_LOG_KINDS] = {
		[MBUS_MESSAGE] = "message",
		[MBUS_EVENT] = "event",
		[MBUS_ACK] = "ack",
		[MBUS_FAILURE] = "failure",
		[MBUS_LOG_ACTION] = "action",
	};

	return names[kind];
}

/*
 * mbus_verify_segment returns what is known of a segment, which may be no
 * more than that it is not there.
 */
MbusVerifySegment *
mbus_verify_segment(MbusVerify *v, int32 number)
{
	bool		found;
	MbusVerifySegment *segment = hash_search(v->segments, &number, HASH_ENTER,
											 &found);

	if (!found)
		memset((char *) segment + sizeof(int32), 0,
			   sizeof(MbusVerifySegment) - sizeof(int32));
	return segment;
}

/*
 * mbus_verify_table opens the table of a kind of rows in a segment, by its
 * name, also if it is detached or empty; NULL if it is gone.
 */
Relation
mbus_verify_table(MbusVerify *v, int kind, int32 segment)
{
	Oid			relid;
	Relation	rel;

	if (kind == MBUS_LOG_ACTION)
		return table_open(mbus_relation(v->schema, "log_action"),
						  AccessShareLock);
	relid = get_relname_relid(psprintf("%s_%d",
									   mbus_family_name((MbusFamily) kind),
									   segment), v->schema);
	rel = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;
	if (rel)
		mbus_leaf_keep(rel);
	return rel;
}

/* Reads how far the log is with each segment; 0 is what is of none. */
static void
segments_read(void *arg)
{
	MbusVerify *v = arg;
	Relation	rel = table_open(mbus_relation(v->schema, "segment"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, v->snapshot,
										  0, NULL);
	MbusVerifySegment *segment = mbus_verify_segment(v, 0);
	HeapTuple	tuple;

	segment->there = true;
	segment->ours = true;
	segment->to = PG_INT64_MAX;
	while ((tuple = systable_getnext(scan)) != NULL)
	{
		bool		isnull;
		Datum		value;

		CHECK_FOR_INTERRUPTS();
		if (!mbus_sound(tuple, desc) ||
			heap_attisnull(tuple, MBUS_SEGMENT_NO, desc))
		{
			mbus_verify_fault(v, -1, "segment", -1, 0, "unreadable");
			continue;
		}
#define READ(column) heap_getattr(tuple, column, desc, &isnull)
		segment = mbus_verify_segment(v, DatumGetInt32(READ(MBUS_SEGMENT_NO)));
		segment->there = true;
		value = READ(MBUS_SEGMENT_LOG_ID);
		segment->ours = !isnull && memcmp(DatumGetUUIDP(value),
										  &v->state.log_id, UUID_LEN) == 0;
		value = READ(MBUS_SEGMENT_LOG_TO);
		segment->to = isnull ? 0 : DatumGetInt64(value);
		value = READ(MBUS_SEGMENT_LOG_PENDING);
		segment->pending = mbus_spans_read(value, isnull);
		value = READ(MBUS_SEGMENT_LOG_FACTS);
		segment->facts = mbus_spans_read(value, isnull);
#undef READ
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}
