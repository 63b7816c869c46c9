/*
 * segment_retire.h
 *		Drops segments.
 */
#ifndef MBUS_SEGMENT_RETIRE_H
#define MBUS_SEGMENT_RETIRE_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_retire_init(MbusWork *work);
extern int	mbus_segments_retire(MbusWork *work);

#endif							/* MBUS_SEGMENT_RETIRE_H */
