/*
 * ids.h
 *		Numbers of messages, segments and leases.
 *
 * A message's id is segment << 28 | row, a lease's number epoch << 22 | n.
 * Both are below 2^53, so that a JSON number holds them.
 */
#ifndef MBUS_IDS_H
#define MBUS_IDS_H

#include "postgres.h"

#define MBUS_ROW_BITS		28
#define MBUS_SEGMENT_MAX	((1 << 25) - 1)
#define MBUS_ROWS_LIMIT		(1 << MBUS_ROW_BITS)
#define MbusSegmentOf(id)	((int32) ((id) >> MBUS_ROW_BITS))
#define MbusFirstId(segment) (((int64) (segment)) << MBUS_ROW_BITS)

#define MBUS_LEASE_BITS		22
#define MBUS_LEASES_LIMIT	(1 << MBUS_LEASE_BITS)
#define MBUS_EPOCH_MAX		(PG_INT32_MAX - 1)

/* a fact's number is epoch << 32 | n */
#define MBUS_FACT_BITS		32
#define MbusFactEpoch(no)	((no) >> MBUS_FACT_BITS)

#define MBUS_NONE			UINT32_MAX	/* no index */
#define MBUS_MAX_DATABASES	32

/* The tables that are cut into segments, each beside the others. */
typedef enum MbusFamily
{
	MBUS_MESSAGE,
	MBUS_EVENT,
	MBUS_ACK,
	MBUS_FAILURE,
	MBUS_FAMILIES
} MbusFamily;

extern int	mbus_int64_compare(const void *a, const void *b);

/*
 * mbus_order says how two numbers or times stand to each other, for functions
 * that qsort() and bsearch() call.
 */
static inline int
mbus_order(int64 x, int64 y)
{
	return x < y ? -1 : x > y;
}

#endif							/* MBUS_IDS_H */
