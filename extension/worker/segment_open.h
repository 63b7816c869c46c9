/*
 * segment_open.h
 *		Numbers, opens and rolls segments.
 */
#ifndef MBUS_SEGMENT_OPEN_H
#define MBUS_SEGMENT_OPEN_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_segments_number(MbusWork *work);
extern void mbus_segments_open(MbusWork *work);
extern bool mbus_series_idle(MbusWork *work, int32 series_no, int32 segment);

#endif							/* MBUS_SEGMENT_OPEN_H */
