/*
 * ring.h
 *		A ring of bytes in shared memory, for records of any size.
 */
#ifndef MBUS_RING_H
#define MBUS_RING_H

#include "postgres.h"

/* [tail, head) is in it, counted in bytes since ever. */
typedef struct MbusRing
{
	uint64		head;
	uint64		tail;
} MbusRing;

extern void mbus_ring_put(MbusRing *ring, char *bytes, size_t capacity,
						  const void *record, size_t size);
extern size_t mbus_ring_copy(const MbusRing *ring, const char *bytes,
							 size_t capacity, char *to);

#endif							/* MBUS_RING_H */
