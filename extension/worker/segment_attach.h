/*
 * segment_attach.h
 *		Attaches the tables of segments to their parents.
 */
#ifndef MBUS_SEGMENT_ATTACH_H
#define MBUS_SEGMENT_ATTACH_H

#include "postgres.h"

#include "worker/task.h"

extern bool mbus_parents_lock(MbusWork *work);
extern void mbus_leaves_attach(int32 segment);
extern void mbus_leaf_attach(MbusFamily family, int32 segment);
extern void mbus_leaves_set_aside(MbusWork *work, int32 segment);
extern void mbus_segments_attach(MbusWork *work);

#endif							/* MBUS_SEGMENT_ATTACH_H */
