/*
 * verify_tree.c
 *		The tree, verified: tiles and checkpoints.
 *
 * A full tile's root is the hash above it.  If not, either may have been
 * changed: both are doubted, and a checkpoint whose root is computed with one
 * of them is not accused.  A tile that is missing was pruned if no row that is
 * there has an entry in it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/columns.h"
#include "base/schema.h"
#include "log/edge.h"
#include "log/note.h"
#include "log/table.h"
#include "log/verify.h"
#include "segment/leaf_scan.h"

/* One tile that is being read. */
typedef struct TileWork
{
	MbusVerify *v;
	MbusTiles	tiles;
	int			level;
	int64		n;
	MbusHash   *hash;			/* room for a tile's; out: */
	int			count;
	bool		above_known;
	MbusHash	above;
} TileWork;

/* How a root comes out. */
typedef struct Judgement
{
	MbusVerify *v;
	MbusTiles	tiles;
	bool		missing;		/* a hash is not there, */
	bool		doubted;		/* or may be wrong */
	MbusHash	none;
} Judgement;

/* The reading of all checkpoints. */
typedef struct Checkpoints
{
	MbusVerify *v;
	bool		key_known;
	uint8		seed[MBUS_SEED_BYTES];
	int			nwitnesses;
	MbusWitness witness[MBUS_WITNESSES];
} Checkpoints;

/* The reading of one checkpoint, by its size. */
typedef struct CheckpointWork
{
	MbusVerify *v;
	int64		size;
	MbusCheckpoint *checkpoint;
	bool		found;
} CheckpointWork;

#define NEWEST	((int64) -1)	/* instead of a size */

static MbusTileState tile_state(TileWork *work);
static void tile_read(void *arg);
static bool tile_doubt(MbusVerify *v, int level, int64 n);
static bool tile_doubted(const MbusVerify *v, int level, int64 n);
static const MbusHash *judged_hash(void *arg, int level, int64 n);
static bool root_judge(MbusVerify *v, const MbusCheckpoint *checkpoint,
					   bool *doubted);
static void checkpoints_read(void *arg);
static void key_read(void *arg);
static void witnesses_read(void *arg);
static bool checkpoint_find(MbusVerify *v, int64 size,
							MbusCheckpoint *checkpoint);
static void checkpoint_read(void *arg);
static void edge_judge(Checkpoints *all);
static bool checkpoint_signed(const Checkpoints *all,
							  const MbusCheckpoint *checkpoint);
static void checkpoint_judge(Checkpoints *all,
							 const MbusCheckpoint *checkpoint);
static void cosignatures_judge(Checkpoints *all);
static void cosignature_judge(Checkpoints *all,
							  const MbusCosignature *cosignature,
							  int64 *lost);

/* ------------------------------------------------------------------------
 * Tiles
 * ------------------------------------------------------------------------
 */

/*
 * mbus_verify_tiles reads the part's tiles, in the context of the part.
 */
void
mbus_verify_tiles(MbusVerify *v)
{
	TileWork	work = {.v = v};

	mbus_tiles_open(&work.tiles, v->schema, v->snapshot);
	for (int i = 0; i < v->ntiles; i++)
	{
		work.n = v->first_tile + i;
		work.hash = v->hash + i * MBUS_TILE_WIDTH;
		v->tile[i] = tile_state(&work);
	}
}

/*
 * mbus_verify_upper verifies the tiles of the levels above, as far as they are
 * over the entries that are asked for.
 */
void
mbus_verify_upper(MbusVerify *v)
{
	MemoryContext caller = MemoryContextSwitchTo(v->part);

	for (int level = 1; level < MBUS_TILE_LEVELS; level++)
	{
		int			bits = MBUS_TILE_BITS * (level + 1);

		for (int64 n = v->from >> bits; n < v->to >> bits; n++)
		{
			TileWork	work = {.v = v,.level = level,.n = n};

			CHECK_FOR_INTERRUPTS();
			work.hash = palloc(MBUS_TILE_WIDTH * sizeof(MbusHash));
			mbus_tiles_open(&work.tiles, v->schema, v->snapshot);
			if (tile_state(&work) == MBUS_TILE_MISSING)
				mbus_verify_tile_fault(v, level, n);
			MemoryContextReset(v->part);
		}
	}
	MemoryContextSwitchTo(caller);
}

/* Reads a tile, and tells what is wrong with it. */
static MbusTileState
tile_state(TileWork *work)
{
	int			bits = MBUS_TILE_BITS * (work->level + 1);
	int64		full = work->v->state.size >> bits;
	MbusHash	root;

	work->count = -1;			/* it cannot be read */
	work->above_known = false;
	(void) mbus_verify_try(tile_read, work);
	if (work->n >= full)
	{
		int64		hashes = work->v->state.size >>
		(MBUS_TILE_BITS * work->level);

		if (work->count == hashes % MBUS_TILE_WIDTH)
			return MBUS_TILE_EDGE;
	}
	else if (work->count == 0)
		return MBUS_TILE_MISSING;
	else if (work->count == MBUS_TILE_WIDTH)
	{
		mbus_tile_root(work->hash, &root);
		if (work->above_known && memcmp(&root, &work->above,
										sizeof(root)) == 0)
			return MBUS_TILE_GOOD;
		if (!work->above_known)
		{
			/* not this one: that which should have the hash */
			mbus_verify_tile_fault(work->v, work->level + 1,
								   work->n >> MBUS_TILE_BITS);
			return MBUS_TILE_BAD;
		}
	}
	mbus_verify_tile_fault(work->v, work->level, work->n);
	return MBUS_TILE_BAD;
}

static void
tile_read(void *arg)
{
	TileWork   *work = arg;
	const MbusHash *above;

	work->count = mbus_tiles_read(&work->tiles, work->level, work->n,
								  work->hash);
	if (work->level + 1 == MBUS_TILE_LEVELS)
		return;
	above = mbus_tiles_hash(&work->tiles, work->level + 1, work->n);
	work->above_known = above != NULL;
	if (above)
		work->above = *above;
}

/*
 * mbus_verify_tile_fault tells of a tile, once.
 */
void
mbus_verify_tile_fault(MbusVerify *v, int level, int64 n)
{
	if (!tile_doubt(v, level, n))
		return;
	mbus_verify_fault(v, n << (MBUS_TILE_BITS * (level + 1)),
					  level == 0 ? "tile" : psprintf("tile %d", level), n, 0,
					  "tile");
}

/* Remembers a tile that is wrong, or the hash above it; false if it was. */
static bool
tile_doubt(MbusVerify *v, int level, int64 n)
{
	int64		key[2] = {level, n};
	bool		found;

	hash_search(v->doubted, key, HASH_ENTER, &found);
	return !found;
}

static bool
tile_doubted(const MbusVerify *v, int level, int64 n)
{
	int64		key[2] = {level, n};

	return hash_search(v->doubted, key, HASH_FIND, NULL) != NULL;
}

/* ------------------------------------------------------------------------
 * Checkpoints
 * ------------------------------------------------------------------------
 */

/*
 * mbus_verify_checkpoints verifies those of the entries that are asked for,
 * and what witnesses have signed; before, who is to blame at the edge.
 */
void
mbus_verify_checkpoints(MbusVerify *v)
{
	Checkpoints all = {.v = v};
	MemoryContext caller = MemoryContextSwitchTo(v->part);

	if (!mbus_verify_try(checkpoints_read, &all))
		mbus_verify_fault(v, -1, "checkpoint", -1, 0, "unreadable");
	explicit_bzero(all.seed, sizeof(all.seed));
	MemoryContextSwitchTo(caller);
	MemoryContextReset(v->part);
}

static void
checkpoints_read(void *arg)
{
	Checkpoints *all = arg;
	MbusVerify *v = all->v;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "message_bus checkpoint",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	Relation	rel;
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (!mbus_verify_try(key_read, all))
		mbus_verify_fault(v, -1, "log", -1, 0, "unreadable");
	if (!mbus_verify_try(witnesses_read, all))
		mbus_verify_fault(v, -1, "cosignature", -1, 0, "unreadable");
	edge_judge(all);
	rel = table_open(mbus_relation(v->schema, "log_checkpoint"),
					 AccessShareLock);
	mbus_leaf_scan_open(&rows, rel, MBUS_LOGGED_SIZE, 0, false);
	/* those that are over more than the log has are wrong, too */
	mbus_leaf_scan_int8(&rows, MBUS_LOGGED_SIZE, v->from,
						v->to == v->state.size ? PG_INT64_MAX : v->to);
	mbus_leaf_scan_begin(&rows, v->snapshot);
	MemoryContextSwitchTo(context);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		MbusCheckpoint checkpoint;

		if (mbus_checkpoint_row(tuple, RelationGetDescr(rel), &checkpoint))
			checkpoint_judge(all, &checkpoint);
		else
			mbus_verify_fault(v, -1, "checkpoint", -1, 0, "unreadable");
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	cosignatures_judge(all);
}

static void
key_read(void *arg)
{
	Checkpoints *all = arg;

	all->key_known = mbus_log_key_read(all->v->schema, all->v->snapshot,
									   all->seed);
}

static void
witnesses_read(void *arg)
{
	Checkpoints *all = arg;

	all->nwitnesses = mbus_witnesses_read(all->v->schema, all->v->snapshot,
										  all->witness);
}

/* Reads the checkpoint of a size, or the newest; false also if it is damaged. */
static bool
checkpoint_find(MbusVerify *v, int64 size, MbusCheckpoint *checkpoint)
{
	CheckpointWork work = {.v = v,.size = size,.checkpoint = checkpoint};

	return mbus_verify_try(checkpoint_read, &work) && work.found;
}

static void
checkpoint_read(void *arg)
{
	CheckpointWork *work = arg;
	MbusVerify *v = work->v;

	if (work->size == NEWEST)
		work->found = mbus_checkpoint_newest(v->schema, v->snapshot,
											 work->checkpoint);
	else
		work->found = mbus_checkpoint_of(v->schema, v->snapshot, work->size,
										 work->checkpoint);
}

/*
 * edge_judge tells whether rows at the edge were changed, or its tile: the
 * newest checkpoint that is over it and that the log has signed has the root
 * of the tile as it was.
 */
static void
edge_judge(Checkpoints *all)
{
	MbusVerify *v = all->v;
	int64		tile = v->state.size >> MBUS_TILE_BITS;
	MbusCheckpoint checkpoint;
	bool		doubted;

	if (v->nedge == 0)
		return;
	if (checkpoint_find(v, NEWEST, &checkpoint) &&
		checkpoint.size > tile << MBUS_TILE_BITS &&
		checkpoint.size <= v->state.size &&
		checkpoint_signed(all, &checkpoint) &&
		!root_judge(v, &checkpoint, &doubted) && !doubted)
	{
		mbus_verify_tile_fault(v, 0, tile);
		return;
	}
	for (int i = 0; i < v->nedge; i++)
		mbus_verify_fault(v, v->edge[i].index,
						  mbus_verify_kind(v->edge[i].kind),
						  v->edge[i].number, v->edge[i].segment, "changed");
}

/* Tells what is wrong with a checkpoint. */
static void
checkpoint_judge(Checkpoints *all, const MbusCheckpoint *checkpoint)
{
	MbusVerify *v = all->v;
	bool		doubted = false;

	if (checkpoint->size <= 0 || checkpoint->size > v->state.size ||
		!checkpoint_signed(all, checkpoint) ||
		(!root_judge(v, checkpoint, &doubted) && !doubted))
		mbus_verify_fault(v, -1, "checkpoint", checkpoint->size, 0,
						  "checkpoint");
}

/*
 * Whether the log has signed it; also true if that cannot be told, because it
 * had another key under that name.
 */
static bool
checkpoint_signed(const Checkpoints *all, const MbusCheckpoint *checkpoint)
{
	const char *text = mbus_note_text(checkpoint->origin, checkpoint->size,
									  &checkpoint->root);

	if (!all->key_known)
		return true;
	if (strcmp(mbus_note_sign(checkpoint->origin, text, all->seed),
			   checkpoint->signature) == 0)
		return true;
	return strcmp(checkpoint->origin, all->v->state.origin) != 0 &&
		!mbus_note_key_is(checkpoint->origin, checkpoint->signature,
						  all->seed);
}

/*
 * Whether the tree has a checkpoint's root, as far as that can be told:
 * *doubted, if a hash may be wrong that it is computed with.
 */
static bool
root_judge(MbusVerify *v, const MbusCheckpoint *checkpoint, bool *doubted)
{
	Judgement	judgement = {.v = v};
	MbusTreeSource source = {judged_hash, &judgement};
	MbusHash	root;

	mbus_tiles_open(&judgement.tiles, v->schema, v->snapshot);
	mbus_tree_root(&source, checkpoint->size, &root);
	*doubted = judgement.doubted || judgement.missing;
	return memcmp(&root, &checkpoint->root, sizeof(root)) == 0;
}

static const MbusHash *
judged_hash(void *arg, int level, int64 n)
{
	Judgement  *judgement = arg;
	const MbusHash *hash = mbus_tiles_hash(&judgement->tiles, level, n);

	if (hash == NULL)
		judgement->missing = true;
	if (tile_doubted(judgement->v, level, n >> MBUS_TILE_BITS) ||
		(level > 0 && tile_doubted(judgement->v, level - 1, n)))
		judgement->doubted = true;
	return hash ? hash : &judgement->none;
}

/*
 * cosignatures_judge verifies the lines of the witnesses that there are.  A
 * checkpoint that has the newest one of a witness is kept.
 */
static void
cosignatures_judge(Checkpoints *all)
{
	MbusVerify *v = all->v;
	int64		lost[MBUS_WITNESSES] = {0};
	Relation	rel = table_open(mbus_relation(v->schema, "log_cosignature"),
								 AccessShareLock);
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, rel, MBUS_COSIGNED_SIZE, MBUS_COSIGNED_NAME,
						false);
	mbus_leaf_scan_int8(&rows, MBUS_COSIGNED_SIZE, v->from,
						v->to == v->state.size ? PG_INT64_MAX : v->to);
	mbus_leaf_scan_begin(&rows, v->snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		MbusCosignature cosignature;

		if (mbus_cosignature_row(tuple, RelationGetDescr(rel), &cosignature))
			cosignature_judge(all, &cosignature, lost);
		else
			mbus_verify_fault(v, -1, "cosignature", -1, 0, "unreadable");
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	for (int w = 0; w < all->nwitnesses; w++)
	{
		if (lost[w] > 0)
			mbus_verify_fault(v, -1, "cosignature", lost[w], 0, "checkpoint");
	}
}

/*
 * Tells if a line is not that of a witness to the checkpoint; notes in "lost"
 * by witness the size if there is no such checkpoint, 0 if there is.
 */
static void
cosignature_judge(Checkpoints *all, const MbusCosignature *cosignature,
				  int64 *lost)
{
	MbusVerify *v = all->v;
	MbusCheckpoint checkpoint;
	int			w = 0;
	int64		time;

	while (w < all->nwitnesses && strcmp(all->witness[w].name, cosignature->name) != 0)
		w++;
	if (w == all->nwitnesses)
		return;
	lost[w] = cosignature->size;
	if (!checkpoint_find(v, cosignature->size, &checkpoint))
		return;
	lost[w] = 0;
	if (!mbus_witness_signed(&all->witness[w],
							 mbus_note_text(checkpoint.origin, cosignature->size,
											&checkpoint.root),
							 cosignature->line, &time))
		mbus_verify_fault(v, -1, "cosignature", cosignature->size, 0,
						  "checkpoint");
}
