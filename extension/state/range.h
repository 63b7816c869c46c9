/*
 * range.h
 *		Ids of a publish that has not ended.
 */
#ifndef MBUS_RANGE_H
#define MBUS_RANGE_H

#include "postgres.h"

/*
 * Ids reserved by a transaction that has not ended.  Those of the range's
 * channel in it are that transaction's, unless it is loose.
 */
typedef struct MbusRange
{
	int32		channel_id;
	bool		delayed;		/* a message in it may have a delay */
	bool		loose;			/* messages of others may lie in it */
	int64		lo;				/* first id */
	int64		hi;				/* behind the last id */
} MbusRange;

#endif							/* MBUS_RANGE_H */
