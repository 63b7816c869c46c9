/*
 * table.h
 *		The log's tables, read.
 */
#ifndef MBUS_LOG_TABLE_H
#define MBUS_LOG_TABLE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/hsearch.h"
#include "utils/snapshot.h"

#include "log/edge.h"
#include "log/note.h"
#include "log/tree.h"

/* Tiles that were read, under one snapshot. */
typedef struct MbusTiles
{
	Oid			schema;
	Snapshot	snapshot;
	HTAB	   *read;
} MbusTiles;

/* A checkpoint; palloc'd. */
typedef struct MbusCheckpoint
{
	int64		size;
	char	   *origin;
	MbusHash	root;
	char	   *signature;
} MbusCheckpoint;

extern void mbus_tiles_open(MbusTiles *tiles, Oid schema, Snapshot snapshot);
extern MbusTreeSource mbus_tiles_source(MbusTiles *tiles);
extern bool mbus_tiles_leaf(MbusTiles *tiles, int64 index, MbusHash *hash);
extern void mbus_edge_read(MbusEdge *edge, MbusTiles *tiles, int64 size);
extern int64 mbus_run_find(Oid schema, Snapshot snapshot, int32 segment,
						   int kind, int64 number);
extern bool mbus_checkpoint_newest(Oid schema, Snapshot snapshot,
								   MbusCheckpoint *checkpoint);
extern bool mbus_log_key_read(Oid schema, Snapshot snapshot, uint8 *seed);
extern char *mbus_log_origin_read(Oid schema, Snapshot snapshot);

#endif							/* MBUS_LOG_TABLE_H */
