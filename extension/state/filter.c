/*
 * filter.c
 *		Sets of channels of a fixed size.
 *
 * Each backend has one, for the channels of its overflow (own_ranges.c).  It
 * never leaves out a channel, and of 1,000 or 20,000 channels in it takes one
 * in 20 million or one in 200 others for one of them: a Bloom filter of
 * FILTER_BITS with FILTER_HASHES bits a channel.
 *
 * Under the state lock, as the backend's ranges.  A filter that was never
 * written takes address space and no memory.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/proc.h"

#include "state/filter.h"
#include "state/part.h"
#include "state/state.h"
#include "state/state_internal.h"

#define FILTER_BITS		(1 << 18)
#define FILTER_HASHES	4

typedef struct Filter
{
	uint64		word[FILTER_BITS / 64];
} Filter;

static Filter *filters;			/* by backend */

static Size filter_size(void);
static void filter_startup(void *memory, bool found, int tranche);
static uint32 filter_bit(uint64 hash, int n);

/*
 * mbus_filter_init adds the filters to shared memory; from _PG_init.
 */
void
mbus_filter_init(void)
{
	static const MbusStatePart part = {"message_bus filters", filter_size,
	filter_startup};

	mbus_state_part(&part);
}

static Size
filter_size(void)
{
	return mul_size(MaxBackends + NUM_AUXILIARY_PROCS, sizeof(Filter));
}

/* Nothing is written: the first to be added empties the set. */
static void
filter_startup(void *memory, bool found, int tranche)
{
	filters = memory;
}

/*
 * mbus_filter_add adds a channel to a backend's set; "first" empties it
 * before.  Caller holds the state lock exclusively.
 */
void
mbus_filter_add(const MbusBackend *backend, int32 channel_id, bool first)
{
	Filter	   *filter = &filters[backend - mbus_shared->backend];
	uint64		hash = hash_bytes_uint32_extended((uint32) channel_id, 0);

	if (first)
		memset(filter, 0, sizeof(*filter));
	for (int i = 0; i < FILTER_HASHES; i++)
	{
		uint32		bit = filter_bit(hash, i);

		filter->word[bit / 64] |= UINT64CONST(1) << (bit % 64);
	}
}

/*
 * mbus_filter_has tells whether a channel is in a backend's set, which is not
 * empty, or may be.  Caller holds the state lock.
 */
bool
mbus_filter_has(const MbusBackend *backend, int32 channel_id)
{
	const Filter *filter = &filters[backend - mbus_shared->backend];
	uint64		hash = hash_bytes_uint32_extended((uint32) channel_id, 0);

	for (int i = 0; i < FILTER_HASHES; i++)
	{
		uint32		bit = filter_bit(hash, i);

		if ((filter->word[bit / 64] & (UINT64CONST(1) << (bit % 64))) == 0)
			return false;
	}
	return true;
}

/* The n-th bit of a hash: two halves make as many as one likes. */
static uint32
filter_bit(uint64 hash, int n)
{
	uint32		one = (uint32) hash;
	uint32		other = (uint32) (hash >> 32) | 1;

	return (one + n * other) % FILTER_BITS;
}
