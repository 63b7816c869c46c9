/*
 * ring.c
 *		A ring of bytes in shared memory, for records of any size.
 *
 * Both functions are straight-line code, for callers that hold the lock which
 * protects the ring.  Whether there is room is for the caller to know.
 */
#include "postgres.h"

#include "state/ring.h"

/*
 * mbus_ring_put copies a record to the head of a ring, which has room for it.
 */
void
mbus_ring_put(MbusRing *ring, char *bytes, size_t capacity,
			  const void *record, size_t size)
{
	size_t		from = ring->head % capacity;
	size_t		first = Min(size, capacity - from);

	Assert(ring->head - ring->tail + size <= capacity);
	memcpy(bytes + from, record, first);
	memcpy(bytes, (const char *) record + first, size - first);
	ring->head += size;
}

/*
 * mbus_ring_copy copies all that is in a ring, and returns how much that is.
 */
size_t
mbus_ring_copy(const MbusRing *ring, const char *bytes, size_t capacity,
			   char *to)
{
	size_t		size = (size_t) (ring->head - ring->tail);
	size_t		from = ring->tail % capacity;
	size_t		first = Min(size, capacity - from);

	memcpy(to, bytes + from, first);
	memcpy(to + first, bytes, size - first);
	return size;
}
