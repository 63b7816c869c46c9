/*
 * tree.h
 *		The Merkle tree: hashes, roots and proofs of RFC 6962.
 */
#ifndef MBUS_TREE_H
#define MBUS_TREE_H

#include "postgres.h"

#define MBUS_HASH_BYTES		32
#define MBUS_TILE_BITS		8
#define MBUS_TILE_WIDTH	(1 << MBUS_TILE_BITS)
#define MBUS_TILE_LEVELS	7	/* 2^56 entries */
#define MBUS_PROOF_MAX		64	/* hashes in a proof */

typedef struct MbusHash
{
	uint8		bytes[MBUS_HASH_BYTES];
} MbusHash;

/*
 * Where hashes come from.  Hash n of level l is the root over the 256^l
 * entries from n * 256^l on; only such are asked for that are complete.
 */
typedef struct MbusTreeSource
{
	const MbusHash *(*hash) (void *arg, int level, int64 n);
	void	   *arg;
} MbusTreeSource;

extern void mbus_hash_leaf(const char *entry, size_t len, MbusHash *hash);
extern void mbus_hash_node(const MbusHash *left, const MbusHash *right,
						   MbusHash *hash);
extern void mbus_tree_root(const MbusTreeSource *source, int64 size,
						   MbusHash *root);
extern int	mbus_tree_inclusion(const MbusTreeSource *source, int64 index,
								int64 size, MbusHash *proof);
extern int	mbus_tree_consistency(const MbusTreeSource *source, int64 old_size,
								  int64 size, MbusHash *proof);

#endif							/* MBUS_TREE_H */
