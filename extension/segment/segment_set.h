/*
 * segment_set.h
 *		Sets of segments, of a fixed size.
 */
#ifndef MBUS_SEGMENT_SET_H
#define MBUS_SEGMENT_SET_H

#include "postgres.h"

#define MBUS_SET_RANGES		8

/*
 * Ranges of segments, ascending, with a gap between each two.  It may have
 * more than was added: where ranges would be too many one grows to the next.  All zero: none.
 */
typedef struct MbusSegmentSet
{
	int32		n;
	struct
	{
		int32		lo;
		int32		hi;			/* inclusive */
	}			range[MBUS_SET_RANGES];
} MbusSegmentSet;

extern void mbus_set_none(MbusSegmentSet *set);
extern void mbus_set_all(MbusSegmentSet *set);
extern void mbus_set_add(MbusSegmentSet *set, int32 lo, int32 hi);
extern void mbus_set_join(MbusSegmentSet *set, const MbusSegmentSet *other);
extern bool mbus_set_has(const MbusSegmentSet *set, int32 segment);

#endif							/* MBUS_SEGMENT_SET_H */
