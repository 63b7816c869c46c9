/*
 * extent.h
 *		What of a body is there.
 */
#ifndef MBUS_EXTENT_H
#define MBUS_EXTENT_H

#include "postgres.h"

#include "utils/snapshot.h"

#include "body/body.h"
#include "body/part.h"

/* How far a walk through the parts has come. */
typedef struct MbusWalk
{
	const MbusBody *body;
	Snapshot	snapshot;
	int32		next;			/* part to look for */
	int			n;				/* parts that were read, */
	int			i;				/* and of these the next */
	MbusPart   *parts;
} MbusWalk;

extern void mbus_walk_begin(MbusWalk *walk, const MbusBody *body, int32 from,
							Snapshot snapshot);
extern const MbusPart *mbus_walk_next(MbusWalk *walk);
extern void mbus_walk_end(MbusWalk *walk);
extern bool mbus_extent_last(const MbusBody *body, Snapshot snapshot,
							 MbusPart *part);
extern int64 mbus_extent_whole(const MbusBody *body, int32 from,
							   Snapshot snapshot);
extern int32 mbus_extent_known(const MbusBody *body, Snapshot snapshot);

#endif							/* MBUS_EXTENT_H */
