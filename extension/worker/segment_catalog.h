/*
 * segment_catalog.h
 *		What the catalog knows of segments.
 */
#ifndef MBUS_SEGMENT_CATALOG_H
#define MBUS_SEGMENT_CATALOG_H

#include "postgres.h"

#include "base/ids.h"
#include "worker/task.h"

/* How far a table of a segment is on its way out. */
typedef enum MbusLeafState
{
	MBUS_LEAF_GONE,
	MBUS_LEAF_UNFINISHED,		/* a restore is making it */
	MBUS_LEAF_ATTACHED,
	MBUS_LEAF_PENDING,
	MBUS_LEAF_DETACHED
} MbusLeafState;

/* Segment numbers that a query found. */
typedef struct MbusNumbers
{
	int			n;
	int32	   *number;			/* in the pass's memory context */
	MemoryContext context;
} MbusNumbers;

extern int64 mbus_highest_segment(void);
extern int64 mbus_named_segment(void);
extern void mbus_segment_depend(Oid leaf, Oid extension);
extern void mbus_segment_revoke(const char *name, Oid leaf);
extern void mbus_segments_query(MbusWork *work, MbusNumbers *found,
								const char *query);
extern MbusLeafState mbus_leaf_state(MbusWork *work, MbusFamily family,
									 int32 segment, Oid *leaf);

#endif							/* MBUS_SEGMENT_CATALOG_H */
