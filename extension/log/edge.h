/*
 * edge.h
 *		The right edge of the tree, where it grows.
 */
#ifndef MBUS_EDGE_H
#define MBUS_EDGE_H

#include "postgres.h"

#include "log/tree.h"

/* A tile's hashes, or some of them, that are to be written. */
typedef struct MbusTilePart
{
	int			level;
	int64		n;				/* of the tile */
	int			from;			/* first hash in it */
	int			count;
	bool		replaces;		/* the parts that are there */
	const MbusHash *hash;
} MbusTilePart;

typedef void (*MbusTileWriter) (void *arg, const MbusTilePart *part);

/* What is not in a whole tile yet. */
typedef struct MbusEdge
{
	bool		read;			/* from the tables */
	int64		size;			/* entries */
	int			count[MBUS_TILE_LEVELS];	/* hashes in the last tile */
	int			stored[MBUS_TILE_LEVELS];	/* of them, in the tables */
	MbusHash	hash[MBUS_TILE_LEVELS][MBUS_TILE_WIDTH];
} MbusEdge;

extern void mbus_edge_append(MbusEdge *edge, const MbusHash *leaf,
							 MbusTileWriter writer, void *arg);
extern void mbus_edge_flush(MbusEdge *edge, MbusTileWriter writer, void *arg);
extern void mbus_tile_root(const MbusHash *hashes, MbusHash *root);
extern void mbus_edge_root(const MbusEdge *edge, MbusHash *root);

#endif							/* MBUS_EDGE_H */
