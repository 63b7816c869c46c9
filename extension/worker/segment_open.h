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

#endif							/* MBUS_SEGMENT_OPEN_H */
