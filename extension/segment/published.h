/*
 * published.h
 *		What of a channel is published.
 */
#ifndef MBUS_PUBLISHED_H
#define MBUS_PUBLISHED_H

#include "postgres.h"

#include "state/range.h"
#include "state/state.h"

extern int64 mbus_unfinished_wait(MbusDatabase *db, Oid schema,
								  int32 channel_id, MbusRange **ranges,
								  int *nranges);

#endif							/* MBUS_PUBLISHED_H */
