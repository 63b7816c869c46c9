/*
 * ids.h
 *		Numbers of messages, segments and leases.
 *
 * Both are below 2^53, so that a JSON number holds them, and tell their node:
 * those of two nodes never meet.
 *
 *	id		ordinal << 29 | node << 24 | row
 *	lease	ordinal << 33 | node << 28 | n
 *
 * A segment's number is that of its ids without the row, ordinal << 5 | node.
 * One node opens every 32nd, and a database that has taken in what others have
 * written holds theirs between.  Numbers of one node grow, so that "above" means
 * later of it, and above all that a restore has brought.
 *
 * The 20 and 28 bits of a lease are one number with the node in its middle:
 * epoch << 17 | n, see worker/epoch.c.
 */
#ifndef MBUS_IDS_H
#define MBUS_IDS_H

#include "postgres.h"

#define MBUS_NODE_BITS		5
#define MBUS_NODES			(1 << MBUS_NODE_BITS)

#define MBUS_ROW_BITS		24
#define MBUS_ORDINAL_MAX	((1 << 24) - 1)
#define MBUS_SEGMENT_MAX	(MBUS_ORDINAL_MAX << MBUS_NODE_BITS | (MBUS_NODES - 1))
#define MBUS_ROWS_LIMIT		(1 << MBUS_ROW_BITS)
#define MbusOrdinals(n)		((n) << MBUS_NODE_BITS) /* as segment numbers */
#define MbusSegmentOf(id)	((int32) ((id) >> MBUS_ROW_BITS))
#define MbusFirstId(segment) (((int64) (segment)) << MBUS_ROW_BITS)

#define MBUS_LEASE_BITS		17
#define MBUS_LEASES_LIMIT	(1 << MBUS_LEASE_BITS)
#define MBUS_LEASE_NODE		28	/* where the node stands in it */
#define MBUS_EPOCH_BITS		(MBUS_LEASE_NODE - MBUS_LEASE_BITS) /* below the node */
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

/*
 * mbus_segment_above returns the lowest segment number that is a node's and
 * not below "least".  Its ordinal is at least 1.
 */
static inline int64
mbus_segment_above(int64 least, int node)
{
	int64		segment = Max(least, MBUS_NODES);

	segment += (node - segment) & (MBUS_NODES - 1);
	return segment;
}

/*
 * mbus_lease_make returns the number of a lease.
 */
static inline int64
mbus_lease_make(int64 epoch, int node, int32 n)
{
	int64		low = epoch & ((1 << MBUS_EPOCH_BITS) - 1);

	return ((epoch >> MBUS_EPOCH_BITS) << (MBUS_LEASE_NODE + MBUS_NODE_BITS)) |
		(int64) node << MBUS_LEASE_NODE | low << MBUS_LEASE_BITS | n;
}

/*
 * mbus_lease_epoch returns the epoch of a lease.
 */
static inline int64
mbus_lease_epoch(int64 lease)
{
	int64		high = lease >> (MBUS_LEASE_NODE + MBUS_NODE_BITS);
	int64		low = lease >> MBUS_LEASE_BITS;

	return high << MBUS_EPOCH_BITS | (low & ((1 << MBUS_EPOCH_BITS) - 1));
}

/*
 * mbus_epoch_passed returns the highest epoch of a node of which a lease is
 * not above the one given, which may be another node's.
 */
static inline int64
mbus_epoch_passed(int64 lease, int node)
{
	int64		epoch = mbus_lease_epoch(lease);
	int64		last = epoch | ((1 << MBUS_EPOCH_BITS) - 1);

	return mbus_lease_make(epoch + 1, node, 0) > lease ? epoch : last;
}

#endif							/* MBUS_IDS_H */
