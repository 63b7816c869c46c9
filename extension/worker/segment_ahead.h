/*
 * segment_ahead.h
 *		Extends the tables of open segments before publishers need the pages.
 */
#ifndef MBUS_SEGMENT_AHEAD_H
#define MBUS_SEGMENT_AHEAD_H

#include "worker/task.h"

extern void mbus_segments_ahead(MbusWork *work);

#endif							/* MBUS_SEGMENT_AHEAD_H */
