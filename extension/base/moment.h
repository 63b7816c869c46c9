/*
 * moment.h
 *		A place in an order by time and then by id.
 *
 * Many messages may be due at one time: who reads them by their time in
 * several goes remembers a moment, and goes on there.
 */
#ifndef MBUS_MOMENT_H
#define MBUS_MOMENT_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/ids.h"

typedef struct MbusMoment
{
	TimestampTz at;
	int64		id;
} MbusMoment;

static inline MbusMoment
mbus_moment(TimestampTz at, int64 id)
{
	MbusMoment	moment = {at, id};

	return moment;
}

static inline int
mbus_moment_order(MbusMoment x, MbusMoment y)
{
	return x.at != y.at ? mbus_order(x.at, y.at) : mbus_order(x.id, y.id);
}

static inline MbusMoment
mbus_moment_min(MbusMoment x, MbusMoment y)
{
	return mbus_moment_order(y, x) < 0 ? y : x;
}

/*
 * mbus_moment_compare is the order of moments for qsort().
 */
static inline int
mbus_moment_compare(const void *x, const void *y)
{
	return mbus_moment_order(*(const MbusMoment *) x,
							 *(const MbusMoment *) y);
}

#endif							/* MBUS_MOMENT_H */
