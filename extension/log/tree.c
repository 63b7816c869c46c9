/*
 * tree.c
 *		The Merkle tree: hashes, roots and proofs of RFC 6962.
 *
 * The hash of an entry is SHA-256(0x00 || entry), that of a node
 * SHA-256(0x01 || left || right).  A tree of n entries that is no power of
 * two has the largest complete tree that is smaller on its left (2.1).  So
 * all nodes but those at the right edge are complete, and never change.
 *
 * Nothing here knows where hashes are kept: a source gives those of each
 * eighth level, which is what tiles hold (tile.c), and what lies between is
 * computed.  No memory is allocated, and no lock taken.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "base/sha256.h"
#include "log/tree.h"

static void range_root(const MbusTreeSource *source, int64 lo, int64 n,
					   MbusHash *root);
static void node_read(const MbusTreeSource *source, int height, int64 n,
					  MbusHash *node);
static int64 left_part(int64 n);

/*
 * mbus_hash_leaf computes the hash of an entry.
 */
void
mbus_hash_leaf(const char *entry, size_t len, MbusHash *hash)
{
	mbus_sha256_pair("\0", 1, entry, len, hash->bytes);
}

/*
 * mbus_hash_node computes the hash over two nodes; it may be one of them.
 */
void
mbus_hash_node(const MbusHash *left, const MbusHash *right, MbusHash *hash)
{
	uint8		both[1 + 2 * MBUS_HASH_BYTES];

	both[0] = 1;
	memcpy(both + 1, left->bytes, MBUS_HASH_BYTES);
	memcpy(both + 1 + MBUS_HASH_BYTES, right->bytes, MBUS_HASH_BYTES);
	mbus_sha256(both, sizeof(both), hash->bytes);
}

/*
 * mbus_tree_root computes the root of the first entries, which are some.
 */
void
mbus_tree_root(const MbusTreeSource *source, int64 size, MbusHash *root)
{
	range_root(source, 0, size, root);
}

/*
 * mbus_tree_inclusion writes the audit path of an entry in the tree of the
 * first entries (2.1.1), from the entry upwards, and returns how many hashes
 * it has.  There is room for MBUS_PROOF_MAX.
 */
int
mbus_tree_inclusion(const MbusTreeSource *source, int64 index, int64 size,
					MbusHash *proof)
{
	int64		lo = 0;
	int64		n = size;
	int			depth = 0;

	/* from the root downwards, and then turned round */
	while (n > 1)
	{
		int64		left = left_part(n);

		if (index - lo < left)
		{
			range_root(source, lo + left, n - left, &proof[depth++]);
			n = left;
		}
		else
		{
			range_root(source, lo, left, &proof[depth++]);
			lo += left;
			n -= left;
		}
	}
	for (int i = 0; i < depth / 2; i++)
	{
		MbusHash	other = proof[i];

		proof[i] = proof[depth - 1 - i];
		proof[depth - 1 - i] = other;
	}
	return depth;
}

/*
 * mbus_tree_consistency writes the proof that the first old_size entries are
 * the beginning of the first size (2.1.2), and returns how many hashes it has:
 * none if they are as many, or old_size is 0.
 */
int
mbus_tree_consistency(const MbusTreeSource *source, int64 old_size, int64 size,
					  MbusHash *proof)
{
	int64		lo = 0;
	int64		m = old_size;
	int64		n = size;
	int			depth = 0;

	if (old_size == 0 || old_size == size)
		return 0;
	while (m != n)
	{
		int64		left = left_part(n);

		if (m <= left)
		{
			range_root(source, lo + left, n - left, &proof[depth++]);
			n = left;
		}
		else
		{
			range_root(source, lo, left, &proof[depth++]);
			lo += left;
			m -= left;
			n -= left;
		}
	}

	/*
	 * the old tree is a node of the new one unless its left edge is: then its
	 * root is known
	 */
	if (lo != 0)
		range_root(source, lo, n, &proof[depth++]);
	for (int i = 0; i < depth / 2; i++)
	{
		MbusHash	other = proof[i];

		proof[i] = proof[depth - 1 - i];
		proof[depth - 1 - i] = other;
	}
	return depth;
}

/*
 * range_root computes the root over n entries from lo on.  Where it is called
 * lo is a multiple of the largest power of two that is not above n.
 */
static void
range_root(const MbusTreeSource *source, int64 lo, int64 n, MbusHash *root)
{
	MbusHash	right;
	int64		left = left_part(n);

	if ((n & (n - 1)) == 0)
	{
		int			height = pg_leftmost_one_pos64((uint64) n);

		node_read(source, height, lo >> height, root);
		return;
	}
	range_root(source, lo, left, root);
	range_root(source, lo + left, n - left, &right);
	mbus_hash_node(root, &right, root);
}

/*
 * node_read computes node n of a height: from two below it, or it is kept.
 */
static void
node_read(const MbusTreeSource *source, int height, int64 n, MbusHash *node)
{
	MbusHash	right;

	if (height % MBUS_TILE_BITS == 0)
	{
		*node = *source->hash(source->arg, height / MBUS_TILE_BITS, n);
		return;
	}
	node_read(source, height - 1, 2 * n, node);
	node_read(source, height - 1, 2 * n + 1, &right);
	mbus_hash_node(node, &right, node);
}

/* The largest power of two that is smaller than n; n is above 1, or it is 0. */
static int64
left_part(int64 n)
{
	return n > 1 ?
		INT64CONST(1) << pg_leftmost_one_pos64((uint64) (n - 1)) : 0;
}
