/*
 * table.c
 *		The log's tables, read.
 *
 * They are read by their indexes, with the caller's snapshot and without
 * asking for rights: who may see what is settled before (show.c).  Each is
 * locked AccessShare while it is read.
 *
 * A row is looked through before it is taken apart (sound.c): XX001 if it is
 * damaged.  A tile ends, and a run is passed over, where that is so.
 *
 * A tile is one row of 256 hashes or, at the right edge, parts, one behind the
 * other; the transaction that fills it replaces them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/uuid.h"

#include "action/action.h"
#include "base/columns.h"
#include "base/compat.h"
#include "base/schema.h"
#include "log/sound.h"
#include "log/table.h"
#include "segment/leaf_scan.h"

typedef struct TileKey
{
	int64		level;
	int64		n;
} TileKey;

typedef struct Tile
{
	TileKey		key;
	int			count;			/* hashes that are there, from the first on */
	MbusHash	hash[MBUS_TILE_WIDTH];
} Tile;

/* A table of the log and an index of it. */
typedef struct Reading
{
	Relation	rel;
	MbusLeafScan rows;
} Reading;

static void reading_open(Reading *reading, Oid schema, const char *table,
						 const char *index);
static void reading_close(Reading *reading);
static Datum column(const Reading *reading, HeapTuple tuple, int number,
					bool *isnull);
static bool value_of(HeapTuple tuple, TupleDesc desc, int number,
					 Datum *value);
pg_noreturn static void row_damaged(Relation rel);
static Tile *tile_find(MbusTiles *tiles, int level, int64 n);
static void tile_read(MbusTiles *tiles, Tile *tile);
static int64 run_index(const Reading *reading, HeapTuple tuple, int64 number);
static bool checkpoint_read(Oid schema, Snapshot snapshot, int64 lo, int64 hi,
							MbusCheckpoint *checkpoint);
static int64 cosignatures_scan(Oid schema, Snapshot snapshot, int64 lo,
							   int64 hi, StringInfo lines);
static HeapTuple row_only(Oid schema, const char *table, Snapshot snapshot,
						  TupleDesc *desc);

/* Opens a table and an index, to be scanned. */
static void
reading_open(Reading *reading, Oid schema, const char *table,
			 const char *index)
{
	reading->rel = table_open(mbus_relation(schema, table), AccessShareLock);
	mbus_leaf_scan_on(&reading->rows, reading->rel,
					  index_open(mbus_relation(schema, index),
								 AccessShareLock));
}

static void
reading_close(Reading *reading)
{
	mbus_leaf_scan_close(&reading->rows);
	table_close(reading->rel, AccessShareLock);
}

static Datum
column(const Reading *reading, HeapTuple tuple, int number, bool *isnull)
{
	return heap_getattr(tuple, number, RelationGetDescr(reading->rel), isnull);
}

/* Reads a column of a row that is sound; false if it is NULL. */
static bool
value_of(HeapTuple tuple, TupleDesc desc, int number, Datum *value)
{
	bool		isnull;

	*value = heap_getattr(tuple, number, desc, &isnull);
	return !isnull;
}

static void
row_damaged(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("a row of message_bus.%s is damaged",
					RelationGetRelationName(rel))));
}

/* ------------------------------------------------------------------------
 * Tiles
 * ------------------------------------------------------------------------
 */

/*
 * mbus_tiles_open prepares to read tiles, each once, into the current memory
 * context.
 */
void
mbus_tiles_open(MbusTiles *tiles, Oid schema, Snapshot snapshot)
{
	HASHCTL		info = {0};

	info.keysize = sizeof(TileKey);
	info.entrysize = sizeof(Tile);
	info.hcxt = CurrentMemoryContext;
	tiles->schema = schema;
	tiles->snapshot = snapshot;
	tiles->last = NULL;
	tiles->read = hash_create("message_bus tiles", 64, &info,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * mbus_tiles_hash returns a hash, or NULL if it is not there.
 */
const MbusHash *
mbus_tiles_hash(MbusTiles *tiles, int level, int64 n)
{
	Tile	   *tile = tile_find(tiles, level, n >> MBUS_TILE_BITS);
	int			place = (int) (n % MBUS_TILE_WIDTH);

	return place < tile->count ? &tile->hash[place] : NULL;
}

/*
 * mbus_tiles_read copies the hashes that a tile has, for which there is room;
 * returns how many they are.
 */
int
mbus_tiles_read(MbusTiles *tiles, int level, int64 n, MbusHash *hashes)
{
	Tile	   *tile = tile_find(tiles, level, n);

	memcpy(hashes, tile->hash, tile->count * sizeof(MbusHash));
	return tile->count;
}

static const MbusHash *
tiles_hash(void *arg, int level, int64 n)
{
	const MbusHash *hash = mbus_tiles_hash(arg, level, n);

	if (hash == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log lacks hash " INT64_FORMAT " of level %d",
						n, level)));
	return hash;
}

/*
 * mbus_tiles_source lets a tree read its hashes from the tiles: 55000 if one
 * is not there.
 */
MbusTreeSource
mbus_tiles_source(MbusTiles *tiles)
{
	MbusTreeSource source = {tiles_hash, tiles};

	return source;
}

/*
 * mbus_tiles_leaf reads the hash of an entry; false if its tile is not there
 * (any more).
 */
bool
mbus_tiles_leaf(MbusTiles *tiles, int64 index, MbusHash *hash)
{
	Tile	   *tile = tile_find(tiles, 0, index >> MBUS_TILE_BITS);
	int			place = (int) (index % MBUS_TILE_WIDTH);

	if (place >= tile->count)
		return false;
	*hash = tile->hash[place];
	return true;
}

/* A tile, read if it was not yet. */
static Tile *
tile_find(MbusTiles *tiles, int level, int64 n)
{
	TileKey		key = {level, n};
	bool		found;
	Tile	   *tile = tiles->last;

	/* mostly it is the same again */
	if (tile && tile->key.level == level && tile->key.n == n)
		return tile;
	tile = hash_search(tiles->read, &key, HASH_ENTER, &found);
	if (!found)
	{
		tile->count = 0;
		tile_read(tiles, tile);
	}
	tiles->last = tile;
	return tile;
}

/* Reads the parts of a tile, which follow one another. */
static void
tile_read(MbusTiles *tiles, Tile *tile)
{
	Reading		reading;
	HeapTuple	tuple;

	reading_open(&reading, tiles->schema, "log_tile", "log_tile_pkey");
	mbus_leaf_scan_int4(&reading.rows, MBUS_TILE_LEVEL, (int32) tile->key.level);
	mbus_leaf_scan_int8(&reading.rows, MBUS_TILE_N, tile->key.n, tile->key.n);
	mbus_leaf_scan_begin(&reading.rows, tiles->snapshot);
	while ((tuple = mbus_leaf_scan_next(&reading.rows)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(reading.rel);
		Datum		from_hash;
		Datum		value;
		bytea	   *hashes;
		int			from;
		int			n;

		if (!mbus_sound(tuple, desc) ||
			!value_of(tuple, desc, MBUS_TILE_FROM_HASH, &from_hash) ||
			!value_of(tuple, desc, MBUS_TILE_HASHES, &value))
			break;
		from = DatumGetInt32(from_hash);
		hashes = DatumGetByteaPP(value);
		n = VARSIZE_ANY_EXHDR(hashes) / MBUS_HASH_BYTES;
		if (from != tile->count || n <= 0 || n > MBUS_TILE_WIDTH - from)
			break;				/* a gap: what is behind it is not there */
		memcpy(&tile->hash[from], VARDATA_ANY(hashes), n * MBUS_HASH_BYTES);
		tile->count += n;
	}
	reading_close(&reading);
}

/*
 * mbus_edge_read reads the right edge of a tree of a size.
 */
void
mbus_edge_read(MbusEdge *edge, MbusTiles *tiles, int64 size)
{
	memset(edge, 0, sizeof(*edge));
	for (int level = 0; level < MBUS_TILE_LEVELS; level++)
	{
		int64		hashes = size >> (MBUS_TILE_BITS * level);
		int			count = (int) (hashes % MBUS_TILE_WIDTH);
		Tile	   *tile;

		if (count == 0)
			continue;
		tile = tile_find(tiles, level, hashes >> MBUS_TILE_BITS);
		if (tile->count != count)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the log has %d hashes in its last tile of level %d and not %d",
							tile->count, level, count)));
		memcpy(edge->hash[level], tile->hash, count * sizeof(MbusHash));
		edge->count[level] = count;
		edge->stored[level] = count;
	}
	edge->size = size;
	edge->read = true;
}

/* ------------------------------------------------------------------------
 * Runs
 * ------------------------------------------------------------------------
 */

/*
 * mbus_run_find returns the index of the entry of a row, -1 if the log has
 * none; it looks into so many runs at most.
 */
int64
mbus_run_find(Oid schema, Snapshot snapshot, int32 segment, int kind,
			  int64 number, int most)
{
	Reading		reading;
	HeapTuple	tuple;
	int64		index = -1;

	reading_open(&reading, schema, "log_run", "log_run_number_idx");
	mbus_leaf_scan_int4(&reading.rows, MBUS_RUN_SEGMENT_NO, segment);
	mbus_leaf_scan_int4(&reading.rows, MBUS_RUN_KIND, kind);
	mbus_leaf_scan_int8(&reading.rows, MBUS_RUN_LO, PG_INT64_MIN, number);
	mbus_leaf_scan_begin(&reading.rows, snapshot);
	/* the nearest is mostly the one; late commits are in others */
	while (index < 0 && most-- > 0 &&
		   (tuple = systable_getnext_ordered(reading.rows.rows,
											 BackwardScanDirection)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		index = run_index(&reading, tuple, number);
	}
	reading_close(&reading);
	return index;
}

/* The index that a run has for a number, or -1. */
static int64
run_index(const Reading *reading, HeapTuple tuple, int64 number)
{
	bool		isnull;
	int64		first;
	int64		offset;
	int32		n;
	Datum		runs;
	ArrayType  *array;
	const int32 *run;

	if (!mbus_sound(tuple, RelationGetDescr(reading->rel)))
		return -1;
	first = DatumGetInt64(column(reading, tuple, MBUS_RUN_FIRST_INDEX,
								 &isnull));
	offset = number - DatumGetInt64(column(reading, tuple, MBUS_RUN_LO,
										   &isnull));
	n = DatumGetInt32(column(reading, tuple, MBUS_RUN_N, &isnull));
	runs = column(reading, tuple, MBUS_RUN_RUNS, &isnull);
	if (offset < 0)
		return -1;				/* the index has led to another row */
	if (isnull)
		return offset < n ? first + offset : -1;
	array = mbus_sound_array(runs, INT4OID);
	if (array == NULL || ARR_NDIM(array) == 0)
		return -1;
	run = (const int32 *) ARR_DATA_PTR(array);
	n = ARR_DIMS(array)[0];
	for (int i = 0; i + 1 < n && run[i] <= offset; i += 2)
	{
		if (offset < (int64) run[i] + run[i + 1])
			return first + offset - run[i];
		first += run[i + 1];
	}
	return -1;
}

/* ------------------------------------------------------------------------
 * Rows
 * ------------------------------------------------------------------------
 */

/*
 * mbus_checkpoint_newest reads the newest checkpoint; false if there is none.
 */
bool
mbus_checkpoint_newest(Oid schema, Snapshot snapshot,
					   MbusCheckpoint *checkpoint)
{
	return checkpoint_read(schema, snapshot, 0, PG_INT64_MAX, checkpoint);
}

/*
 * mbus_checkpoint_of reads that of a size; false if there is none.
 */
bool
mbus_checkpoint_of(Oid schema, Snapshot snapshot, int64 size,
				   MbusCheckpoint *checkpoint)
{
	return checkpoint_read(schema, snapshot, size, size, checkpoint);
}

/* Reads the newest one of these sizes. */
static bool
checkpoint_read(Oid schema, Snapshot snapshot, int64 lo, int64 hi,
				MbusCheckpoint *checkpoint)
{
	Reading		reading;
	HeapTuple	tuple;

	reading_open(&reading, schema, "log_checkpoint", "log_checkpoint_pkey");
	mbus_leaf_scan_int8(&reading.rows, MBUS_LOGGED_SIZE, lo, hi);
	mbus_leaf_scan_begin(&reading.rows, snapshot);
	tuple = systable_getnext_ordered(reading.rows.rows, BackwardScanDirection);
	if (tuple &&
		!mbus_checkpoint_row(tuple, RelationGetDescr(reading.rel), checkpoint))
		row_damaged(reading.rel);
	reading_close(&reading);
	return tuple != NULL;
}

/*
 * mbus_checkpoint_row reads a row of log_checkpoint; false if it is damaged.
 */
bool
mbus_checkpoint_row(HeapTuple tuple, TupleDesc desc,
					MbusCheckpoint *checkpoint)
{
	Datum		size;
	Datum		origin;
	Datum		root;
	Datum		signature;
	bytea	   *bytes;

	if (!mbus_sound(tuple, desc) ||
		!value_of(tuple, desc, MBUS_LOGGED_SIZE, &size) ||
		!value_of(tuple, desc, MBUS_LOGGED_ORIGIN, &origin) ||
		!value_of(tuple, desc, MBUS_LOGGED_ROOT, &root) ||
		!value_of(tuple, desc, MBUS_LOGGED_SIGNATURE, &signature))
		return false;
	bytes = DatumGetByteaPP(root);
	checkpoint->size = DatumGetInt64(size);
	checkpoint->origin = TextDatumGetCString(origin);
	checkpoint->signature = TextDatumGetCString(signature);
	memset(&checkpoint->root, 0, sizeof(checkpoint->root));
	memcpy(checkpoint->root.bytes, VARDATA_ANY(bytes),
		   Min(VARSIZE_ANY_EXHDR(bytes), MBUS_HASH_BYTES));
	return true;
}

/*
 * mbus_witnesses_read reads who cosigns, for whom there is room for
 * MBUS_WITNESSES; returns how many there are.
 */
int
mbus_witnesses_read(Oid schema, Snapshot snapshot, MbusWitness *witness)
{
	Relation	rel = table_open(mbus_relation(schema, "log_witness"),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	HeapTuple	tuple;
	int			n = 0;

	while (n < MBUS_WITNESSES && (tuple = systable_getnext(scan)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(rel);
		Datum		vkey;

		if (!mbus_sound(tuple, desc) ||
			!value_of(tuple, desc, MBUS_WITNESS_VKEY, &vkey))
			row_damaged(rel);
		if (mbus_witness_parse(TextDatumGetCString(vkey), &witness[n]))
			n++;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return n;
}

/*
 * mbus_cosignatures_read returns the lines of the witnesses that there are
 * under the checkpoint of a size; '' if there are none.
 */
char *
mbus_cosignatures_read(Oid schema, Snapshot snapshot, int64 size)
{
	StringInfoData lines;

	initStringInfo(&lines);
	(void) cosignatures_scan(schema, snapshot, size, size, &lines);
	return lines.data;
}

/*
 * mbus_cosigned_newest returns the size of the newest checkpoint with the line
 * of a witness; 0 if there is none.
 */
int64
mbus_cosigned_newest(Oid schema, Snapshot snapshot)
{
	return cosignatures_scan(schema, snapshot, 0, PG_INT64_MAX, NULL);
}

/*
 * Reads cosignatures of some sizes by the witnesses that there are, newest
 * first: all, whose lines it adds, or one.  Returns the last one's size.
 */
static int64
cosignatures_scan(Oid schema, Snapshot snapshot, int64 lo, int64 hi,
				  StringInfo lines)
{
	MbusWitness witness[MBUS_WITNESSES];
	int			n = mbus_witnesses_read(schema, snapshot, witness);
	int64		size = 0;
	Reading		reading;
	HeapTuple	tuple;

	if (n == 0)
		return 0;
	reading_open(&reading, schema, "log_cosignature", "log_cosignature_pkey");
	mbus_leaf_scan_int8(&reading.rows, MBUS_COSIGNED_SIZE, lo, hi);
	mbus_leaf_scan_begin(&reading.rows, snapshot);
	while ((lines || size == 0) &&
		   (tuple = systable_getnext_ordered(reading.rows.rows,
											 BackwardScanDirection)) != NULL)
	{
		MbusCosignature row;
		int			w = 0;

		CHECK_FOR_INTERRUPTS();
		if (!mbus_cosignature_row(tuple, RelationGetDescr(reading.rel), &row))
			row_damaged(reading.rel);
		while (w < n && strcmp(witness[w].name, row.name) != 0)
			w++;
		if (w == n)
			continue;
		size = row.size;
		if (lines)
			appendStringInfoString(lines, row.line);
	}
	reading_close(&reading);
	return size;
}

/*
 * mbus_cosignature_row reads a row of log_cosignature; false if it is damaged.
 */
bool
mbus_cosignature_row(HeapTuple tuple, TupleDesc desc,
					 MbusCosignature *cosignature)
{
	Datum		size;
	Datum		name;
	Datum		line;

	if (!mbus_sound(tuple, desc) ||
		!value_of(tuple, desc, MBUS_COSIGNED_SIZE, &size) ||
		!value_of(tuple, desc, MBUS_COSIGNED_NAME, &name) ||
		!value_of(tuple, desc, MBUS_COSIGNED_LINE, &line))
		return false;
	cosignature->size = DatumGetInt64(size);
	cosignature->name = TextDatumGetCString(name);
	cosignature->line = TextDatumGetCString(line);
	return true;
}

/*
 * mbus_log_state_seen reads the log's state; false if there is no log.
 */
bool
mbus_log_state_seen(Oid schema, Snapshot snapshot, MbusLogState *state)
{
	TupleDesc	desc;
	HeapTuple	tuple = row_only(schema, "log_state", snapshot, &desc);
	bool		isnull;
	Datum		pending;
	Datum		log_id;
	Datum		origin;
	Datum		prefix;

	if (tuple == NULL)
		return false;
	if (!value_of(tuple, desc, MBUS_STATE_LOG_ID, &log_id) ||
		!value_of(tuple, desc, MBUS_STATE_ORIGIN, &origin) ||
		!value_of(tuple, desc, MBUS_STATE_PREFIX, &prefix))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the state of the log has no name")));
	state->log_id = *DatumGetUUIDP(log_id);
	state->origin = TextDatumGetCString(origin);
	state->prefix = TextDatumGetCString(prefix);
#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	state->system_id = DatumGetInt64(READ(MBUS_STATE_SYSTEM_ID));
	state->timeline = DatumGetInt64(READ(MBUS_STATE_TIMELINE));
	state->database = DatumGetObjectId(READ(MBUS_STATE_DATABASE));
	state->size = DatumGetInt64(READ(MBUS_STATE_SIZE));
	state->facts_to = DatumGetInt64(READ(MBUS_STATE_FACTS_TO));
	pending = READ(MBUS_STATE_FACTS_PENDING);
	state->facts_pending = mbus_spans_read(pending, isnull);
	pending = READ(MBUS_STATE_ACTIONS_PENDING);
	state->actions_pending = mbus_spans_read(pending, isnull);
	if (isnull && state->facts_to > MBUS_ACTION_FIRST)
		mbus_spans_add(&state->actions_pending, MBUS_ACTION_FIRST,
					   state->facts_to);
#undef READ
	return true;
}

/*
 * mbus_log_key_read reads the private key of the log; false if it has none.
 */
bool
mbus_log_key_read(Oid schema, Snapshot snapshot, uint8 *seed)
{
	TupleDesc	desc;
	HeapTuple	tuple = row_only(schema, "log_key", snapshot, &desc);
	Datum		value;
	bytea	   *bytes;

	if (tuple == NULL)
		return false;
	bytes = value_of(tuple, desc, MBUS_SIGNER_SEED, &value) ?
		DatumGetByteaPP(value) : NULL;
	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != MBUS_SEED_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the key of the log has %d bytes",
						bytes ? (int) VARSIZE_ANY_EXHDR(bytes) : 0)));
	memcpy(seed, VARDATA_ANY(bytes), MBUS_SEED_BYTES);
	return true;
}

/*
 * mbus_log_origin_read returns the origin of the log, or NULL if there is no
 * log.
 */
char *
mbus_log_origin_read(Oid schema, Snapshot snapshot)
{
	MbusLogState state;

	return mbus_log_state_seen(schema, snapshot, &state) ? state.origin : NULL;
}

/* A copy of the one row of a table, or NULL; XX001 if it is damaged. */
static HeapTuple
row_only(Oid schema, const char *table, Snapshot snapshot, TupleDesc *desc)
{
	Relation	rel = table_open(mbus_relation(schema, table),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	HeapTuple	tuple = systable_getnext(scan);

	if (tuple && !mbus_sound(tuple, RelationGetDescr(rel)))
		row_damaged(rel);
	if (tuple)
		tuple = heap_copytuple(tuple);
	*desc = CreateTupleDescCopy(RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}
