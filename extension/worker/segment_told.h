/*
 * segment_told.h
 *		What goes with a segment that some subscription was not done with.
 */
#ifndef MBUS_SEGMENT_TOLD_H
#define MBUS_SEGMENT_TOLD_H

#include "postgres.h"

#include "worker/task.h"

extern bool mbus_segment_settle(MbusWork *work, int32 segment);
extern MbusOutcome mbus_segment_count(MbusWork *work, int32 segment);

#endif							/* MBUS_SEGMENT_TOLD_H */
