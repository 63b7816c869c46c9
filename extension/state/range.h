/*
 * range.h
 *		Ids of a publish that has not ended.
 */
#ifndef MBUS_RANGE_H
#define MBUS_RANGE_H

#include "postgres.h"

/* Ids reserved by a transaction that has not ended. */
typedef struct MbusRange
{
	int32		channel_id;
	bool		delayed;		/* a message in it may have a delay */
	int64		lo;				/* first id */
	int64		hi;				/* behind the last id */
} MbusRange;

#endif							/* MBUS_RANGE_H */
