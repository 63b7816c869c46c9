/*
 * table.c
 *		The log's tables, read.
 *
 * They are read by their indexes, with the caller's snapshot and without
 * asking for rights: who may see what is settled before (show.c).  Each is
 * locked AccessShare while it is read.
 *
 * A tile is one row of 256 hashes or, at the right edge, parts, one behind the
 * other; the transaction that fills it replaces them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/columns.h"
#include "base/schema.h"
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
static Tile *tile_find(MbusTiles *tiles, int level, int64 n);
static void tile_read(MbusTiles *tiles, Tile *tile);
static int64 run_index(const Reading *reading, HeapTuple tuple, int64 number);
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
	tiles->read = hash_create("message_bus tiles", 64, &info,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static const MbusHash *
tiles_hash(void *arg, int level, int64 n)
{
	Tile	   *tile = tile_find(arg, level, n >> MBUS_TILE_BITS);
	int			place = (int) (n % MBUS_TILE_WIDTH);

	if (place >= tile->count)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log lacks hash " INT64_FORMAT " of level %d",
						n, level)));
	return &tile->hash[place];
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
	Tile	   *tile = hash_search(tiles->read, &key, HASH_ENTER, &found);

	if (!found)
	{
		tile->count = 0;
		tile_read(tiles, tile);
	}
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
		bool		isnull;
		int32		from = DatumGetInt32(column(&reading, tuple,
												MBUS_TILE_FROM_HASH, &isnull));
		bytea	   *hashes = DatumGetByteaPP(column(&reading, tuple,
													MBUS_TILE_HASHES, &isnull));
		int			n = VARSIZE_ANY_EXHDR(hashes) / MBUS_HASH_BYTES;

		if (from != tile->count || from + n > MBUS_TILE_WIDTH)
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
 * none.
 */
int64
mbus_run_find(Oid schema, Snapshot snapshot, int32 segment, int kind,
			  int64 number)
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
	while (index < 0 &&
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
	int64		first = DatumGetInt64(column(reading, tuple,
											 MBUS_RUN_FIRST_INDEX, &isnull));
	int64		offset = number - DatumGetInt64(column(reading, tuple,
													   MBUS_RUN_LO, &isnull));
	int32		n = DatumGetInt32(column(reading, tuple, MBUS_RUN_N, &isnull));
	Datum		runs = column(reading, tuple, MBUS_RUN_RUNS, &isnull);
	ArrayType  *array;
	const int32 *run;

	if (isnull)
		return offset < n ? first + offset : -1;
	array = DatumGetArrayTypeP(runs);
	run = (const int32 *) ARR_DATA_PTR(array);
	n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
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
	Reading		reading;
	HeapTuple	tuple;

	reading_open(&reading, schema, "log_checkpoint", "log_checkpoint_pkey");
	mbus_leaf_scan_begin(&reading.rows, snapshot);
	tuple = systable_getnext_ordered(reading.rows.rows, BackwardScanDirection);
	if (tuple)
	{
		bool		isnull;
		bytea	   *root = DatumGetByteaPP(column(&reading, tuple,
												  MBUS_LOGGED_ROOT, &isnull));

		checkpoint->size = DatumGetInt64(column(&reading, tuple,
												MBUS_LOGGED_SIZE, &isnull));
		checkpoint->origin =
			TextDatumGetCString(column(&reading, tuple, MBUS_LOGGED_ORIGIN,
									   &isnull));
		checkpoint->signature =
			TextDatumGetCString(column(&reading, tuple, MBUS_LOGGED_SIGNATURE,
									   &isnull));
		memcpy(checkpoint->root.bytes, VARDATA_ANY(root),
			   Min(VARSIZE_ANY_EXHDR(root), MBUS_HASH_BYTES));
	}
	reading_close(&reading);
	return tuple != NULL;
}

/*
 * mbus_log_key_read reads the private key of the log; false if it has none.
 */
bool
mbus_log_key_read(Oid schema, Snapshot snapshot, uint8 *seed)
{
	TupleDesc	desc;
	HeapTuple	tuple = row_only(schema, "log_key", snapshot, &desc);
	bool		isnull;
	bytea	   *value;

	if (tuple == NULL)
		return false;
	value = DatumGetByteaPP(heap_getattr(tuple, MBUS_SIGNER_SEED, desc, &isnull));
	if (VARSIZE_ANY_EXHDR(value) != MBUS_SEED_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the key of the log has %d bytes",
						(int) VARSIZE_ANY_EXHDR(value))));
	memcpy(seed, VARDATA_ANY(value), MBUS_SEED_BYTES);
	return true;
}

/*
 * mbus_log_origin_read returns the origin of the log, or NULL if there is no
 * log.
 */
char *
mbus_log_origin_read(Oid schema, Snapshot snapshot)
{
	TupleDesc	desc;
	HeapTuple	tuple = row_only(schema, "log_state", snapshot, &desc);
	bool		isnull;

	return tuple ?
		TextDatumGetCString(heap_getattr(tuple, MBUS_STATE_ORIGIN, desc, &isnull)) :
		NULL;
}

/* A copy of the one row of a table, or NULL. */
static HeapTuple
row_only(Oid schema, const char *table, Snapshot snapshot, TupleDesc *desc)
{
	Relation	rel = table_open(mbus_relation(schema, table),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0,
										  NULL);
	HeapTuple	tuple = systable_getnext(scan);

	if (tuple)
		tuple = heap_copytuple(tuple);
	*desc = CreateTupleDescCopy(RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}
