/*
 * unfinished.h
 *		What of a database's publishes has not ended.
 */
#ifndef MBUS_UNFINISHED_H
#define MBUS_UNFINISHED_H

#include "postgres.h"

#include "state/range.h"
#include "state/state.h"

/* What is known of a database's segments at one moment. */
typedef struct MbusSegmentsSeen
{
	bool		ready;			/* the worker has numbered */
	int			nopen;			/* segments; into no other any id is given out */
	int32		open[MBUS_MAX_SERIES];
	int64		limit[MBUS_MAX_SERIES]; /* of each: all ids below are reserved */
	int			nranges;		/* unfinished, of all channels; by ascending
								 * id, */
	MbusRange  *range;			/* apart from each other */
} MbusSegmentsSeen;

extern int64 mbus_published_limit(MbusDatabase *db, Oid schema,
								  int32 channel_id);
extern int64 mbus_unfinished_copy(MbusDatabase *db, Oid schema,
								  int32 channel_id,
								  MbusRange **ranges, int *nranges);
extern void mbus_segments_look(MbusDatabase *db, Oid schema,
							   MbusSegmentsSeen *seen);
extern bool mbus_unfinished_elsewhere(MbusDatabase *db, int32 channel_id,
									  int32 segment);
extern bool mbus_reserved_above(MbusDatabase *db, int32 channel_id,
								int32 segment);
extern int	mbus_segments_without(MbusDatabase *db, Oid schema,
								  int32 channel_id, int32 *segments);
extern void mbus_series_mark(MbusSeries *series, int32 channel_id);
extern bool mbus_segment_unfinished(MbusDatabase *db, int32 segment);
extern bool mbus_segment_listed(MbusDatabase *db, int32 segment);
extern bool mbus_segment_hidden(MbusDatabase *db, int32 segment);
extern bool mbus_segments_show(MbusDatabase *db, int32 highest);
extern int	mbus_unfinished_ranges(MbusDatabase *db);

#endif							/* MBUS_UNFINISHED_H */
