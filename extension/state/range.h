/*
 * range.h
 *		Ids and numbers of facts of a transaction that has not ended.
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
	bool		loose;			/* messages of others may lie in it */
	int64		lo;				/* first id */
	int64		hi;				/* behind the last id */
} MbusRange;

/* Numbers of facts of a transaction that has not ended. */
typedef struct MbusFactRange
{
	int64		lo;				/* first number */
	int64		hi;				/* behind the last */
} MbusFactRange;

#endif							/* MBUS_RANGE_H */
