/*
 * table.h
 *		The log's tables, read.
 */
#ifndef MBUS_LOG_TABLE_H
#define MBUS_LOG_TABLE_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"
#include "utils/hsearch.h"
#include "utils/snapshot.h"

#include "log/edge.h"
#include "log/note.h"
#include "log/store.h"
#include "log/tree.h"

/* Tiles that were read, under one snapshot. */
typedef struct MbusTiles
{
	Oid			schema;
	Snapshot	snapshot;
	HTAB	   *read;
	void	   *last;			/* of these, that was asked for */
} MbusTiles;

/* A checkpoint; palloc'd. */
typedef struct MbusCheckpoint
{
	int64		size;
	char	   *origin;
	MbusHash	root;
	char	   *signature;
} MbusCheckpoint;

/* A witness' line under a checkpoint; palloc'd. */
typedef struct MbusCosignature
{
	int64		size;
	char	   *name;
	char	   *line;
} MbusCosignature;

extern void mbus_tiles_open(MbusTiles *tiles, Oid schema, Snapshot snapshot);
extern MbusTreeSource mbus_tiles_source(MbusTiles *tiles);
extern bool mbus_tiles_leaf(MbusTiles *tiles, int64 index, MbusHash *hash);
extern const MbusHash *mbus_tiles_hash(MbusTiles *tiles, int level, int64 n);
extern int	mbus_tiles_read(MbusTiles *tiles, int level, int64 n,
							MbusHash *hashes);
extern void mbus_edge_read(MbusEdge *edge, MbusTiles *tiles, int64 size);
extern int64 mbus_run_find(Oid schema, Snapshot snapshot, int32 segment,
						   int kind, int64 number, int most);
extern bool mbus_checkpoint_newest(Oid schema, Snapshot snapshot,
								   MbusCheckpoint *checkpoint);
extern bool mbus_checkpoint_of(Oid schema, Snapshot snapshot, int64 size,
							   MbusCheckpoint *checkpoint);
extern bool mbus_checkpoint_row(HeapTuple tuple, TupleDesc desc,
								MbusCheckpoint *checkpoint);
extern bool mbus_cosignature_row(HeapTuple tuple, TupleDesc desc,
								 MbusCosignature *cosignature);
extern int	mbus_witnesses_read(Oid schema, Snapshot snapshot,
								MbusWitness *witness);
extern char *mbus_cosignatures_read(Oid schema, Snapshot snapshot, int64 size);
extern int64 mbus_cosigned_newest(Oid schema, Snapshot snapshot);
extern bool mbus_log_state_seen(Oid schema, Snapshot snapshot,
								MbusLogState *state);
extern bool mbus_log_key_read(Oid schema, Snapshot snapshot, uint8 *seed);
extern char *mbus_log_origin_read(Oid schema, Snapshot snapshot);

#endif							/* MBUS_LOG_TABLE_H */
