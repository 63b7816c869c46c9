/*
 * edge.c
 *		The right edge of the tree, where it grows.
 *
 * The edge has the last tile of each level, which is not full.  A hash that
 * fills a tile has it written whole, and its root goes to the level above; the
 * tile is empty again.  What a level has beyond what is written goes out as a
 * part when the pass ends (mbus_edge_flush).
 *
 * The edge is the memory of one process.  It is read from the tables again
 * whenever its size is not theirs (tile.c): after a rollback, too.
 */
#include "postgres.h"

#include "log/edge.h"

static void level_append(MbusEdge *edge, int level, const MbusHash *hash,
						 MbusTileWriter writer, void *arg);
static int64 tile_number(const MbusEdge *edge, int level);

/*
 * mbus_edge_append adds an entry's hash, and writes the tiles that are full.
 */
void
mbus_edge_append(MbusEdge *edge, const MbusHash *leaf, MbusTileWriter writer,
				 void *arg)
{
	level_append(edge, 0, leaf, writer, arg);
	edge->size++;
}

/* Adds a hash to a level, and to those above when tiles are full. */
static void
level_append(MbusEdge *edge, int level, const MbusHash *hash,
			 MbusTileWriter writer, void *arg)
{
	MbusTilePart part = {0};
	MbusHash	root;

	Assert(edge->count[level] < MBUS_TILE_WIDTH);
	edge->hash[level][edge->count[level]++] = *hash;
	if (edge->count[level] < MBUS_TILE_WIDTH)
		return;
	part.level = level;
	part.n = tile_number(edge, level);
	part.count = MBUS_TILE_WIDTH;
	part.replaces = edge->stored[level] > 0;
	part.hash = edge->hash[level];
	writer(arg, &part);
	mbus_tile_root(edge->hash[level], &root);
	edge->count[level] = 0;
	edge->stored[level] = 0;
	if (level + 1 < MBUS_TILE_LEVELS)
		level_append(edge, level + 1, &root, writer, arg);
}

/*
 * mbus_tile_root computes the root over the hashes of a full tile.
 */
void
mbus_tile_root(const MbusHash *hashes, MbusHash *root)
{
	MbusHash	node[MBUS_TILE_WIDTH / 2];
	int			n = MBUS_TILE_WIDTH / 2;

	for (int i = 0; i < n; i++)
		mbus_hash_node(&hashes[2 * i], &hashes[2 * i + 1], &node[i]);
	for (; n > 1; n /= 2)
	{
		for (int i = 0; i < n / 2; i++)
			mbus_hash_node(&node[2 * i], &node[2 * i + 1], &node[i]);
	}
	*root = node[0];
}

/* The last tile of a level; the entry that is being added is not counted. */
static int64
tile_number(const MbusEdge *edge, int level)
{
	return edge->size >> (MBUS_TILE_BITS * (level + 1));
}

/*
 * mbus_edge_flush writes what is not written yet.
 */
void
mbus_edge_flush(MbusEdge *edge, MbusTileWriter writer, void *arg)
{
	for (int level = 0; level < MBUS_TILE_LEVELS; level++)
	{
		MbusTilePart part = {0};

		if (edge->count[level] == edge->stored[level])
			continue;
		part.level = level;
		part.n = tile_number(edge, level);
		part.from = edge->stored[level];
		part.count = edge->count[level] - edge->stored[level];
		part.hash = &edge->hash[level][part.from];
		writer(arg, &part);
		edge->stored[level] = edge->count[level];
	}
}

static const MbusHash *
edge_hash(void *arg, int level, int64 n)
{
	const MbusEdge *edge = arg;

	/* all that is complete and not at the edge is below one that is */
	Assert(n >> MBUS_TILE_BITS == tile_number(edge, level));
	return &edge->hash[level][n % MBUS_TILE_WIDTH];
}

/*
 * mbus_edge_root computes the root of all entries, which are some.
 */
void
mbus_edge_root(const MbusEdge *edge, MbusHash *root)
{
	MbusTreeSource source = {edge_hash, unconstify(MbusEdge *, edge)};

	mbus_tree_root(&source, edge->size, root);
}
