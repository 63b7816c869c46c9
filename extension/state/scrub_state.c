/*
 * scrub_state.c
 *		Which messages may be in quarantine, and which are to be looked at.
 *
 * The filter.  Every delivery asks whether its message is in quarantine, and
 * hardly any is.  A bit of the filter is set for each that is: whoever finds
 * it clear need not look into the table.  Bits are set before the row is
 * inserted, so a filter says yes too often, never too seldom; it is all set
 * from the start until the worker has read the table (message/quarantine.c).
 * No lock: a reader that finds a bit clear came before the row's commit.
 *
 * The wanted.  Who reads a message and finds it damaged, or fails in reading
 * it, leaves its id here, and the worker looks at it in its next pass.  There
 * is room for few: what finds none is found again when it is read again, or
 * by the scrubber.  No lock either, because an error may be on its way.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "state/scrub_state.h"

static uint32 filter_bit(int64 id);

/*
 * mbus_quarantine_may tells whether a message may be in quarantine.
 */
bool
mbus_quarantine_may(MbusDatabase *db, int64 id)
{
	uint32		bit = filter_bit(id);

	return (pg_atomic_read_u64(&db->scrub.filter[bit / 64]) >>
			(bit % 64) & 1) != 0;
}

/*
 * mbus_quarantine_mark says that one will be.
 */
void
mbus_quarantine_mark(MbusDatabase *db, int64 id)
{
	uint32		bit = filter_bit(id);

	pg_atomic_fetch_or_u64(&db->scrub.filter[bit / 64],
						   UINT64CONST(1) << (bit % 64));
}

/* The bit of a message. */
static uint32
filter_bit(int64 id)
{
	return hash_bytes_uint32((uint32) id ^ (uint32) (id >> 32)) %
		(MBUS_QUARANTINE_WORDS * 64);
}

/*
 * mbus_quarantine_unknown says that any message may be in quarantine.
 */
void
mbus_quarantine_unknown(MbusDatabase *db)
{
	for (int i = 0; i < MBUS_QUARANTINE_WORDS; i++)
		pg_atomic_write_u64(&db->scrub.filter[i], PG_UINT64_MAX);
}

/*
 * mbus_quarantine_known says that none may be but these.  The caller keeps
 * everybody else from adding some.
 */
void
mbus_quarantine_known(MbusDatabase *db, const int64 *ids, int n)
{
	uint64		word[MBUS_QUARANTINE_WORDS] = {0};

	for (int i = 0; i < n; i++)
	{
		uint32		bit = filter_bit(ids[i]);

		word[bit / 64] |= UINT64CONST(1) << (bit % 64);
	}
	for (int i = 0; i < MBUS_QUARANTINE_WORDS; i++)
		pg_atomic_write_u64(&db->scrub.filter[i], word[i]);
	pg_atomic_write_u32(&db->scrub.quarantined, n);
}

/*
 * mbus_scrub_want has the worker look at a message soon.  It cannot fail.
 */
void
mbus_scrub_want(int64 id)
{
	MbusDatabase *db = mbus_database_or_null();

	for (int i = 0; db && i < MBUS_SCRUB_WANTED; i++)
	{
		uint64		unused = 0;

		if (pg_atomic_compare_exchange_u64(&db->scrub.wanted[i], &unused,
										   (uint64) id) ||
			unused == (uint64) id)
			return;
	}
}

/*
 * mbus_scrub_wanted copies the wanted, MBUS_SCRUB_WANTED at most, and returns
 * how many there are.
 */
int
mbus_scrub_wanted(MbusDatabase *db, int64 *ids)
{
	int			n = 0;

	for (int i = 0; i < MBUS_SCRUB_WANTED; i++)
	{
		int64		id = (int64) pg_atomic_read_u64(&db->scrub.wanted[i]);

		if (id != 0)
			ids[n++] = id;
	}
	return n;
}

/*
 * mbus_scrub_seen takes one from the wanted.
 */
void
mbus_scrub_seen(MbusDatabase *db, int64 id)
{
	for (int i = 0; i < MBUS_SCRUB_WANTED; i++)
	{
		uint64		wanted = (uint64) id;

		(void) pg_atomic_compare_exchange_u64(&db->scrub.wanted[i], &wanted,
											  0);
	}
}
