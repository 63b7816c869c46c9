/*
 * segment_close.h
 *		Closes segments.
 */
#ifndef MBUS_SEGMENT_CLOSE_H
#define MBUS_SEGMENT_CLOSE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "worker/task.h"

extern void mbus_series_close_orphan(MbusWork *work, int32 series_no);
extern void mbus_series_close(MbusWork *work, int32 series);
extern void mbus_segment_closed(MbusWork *work, int32 segment,
								TimestampTz expires_at);
extern void mbus_segments_close_expired(MbusWork *work);
extern void mbus_segments_close_lost(MbusWork *work);

#endif							/* MBUS_SEGMENT_CLOSE_H */
