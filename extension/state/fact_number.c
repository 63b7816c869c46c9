/*
 * fact_number.c
 *		Numbers of facts.
 *
 * Each row of an ack, a failure, an event or an action has a number, epoch << 32 | n; the
 * epoch is that of leases, so numbers only grow, across restarts and restores,
 * and none is given out twice.  Who reads facts by number must learn of rows
 * that become visible late, and of none that has not.  So a number is taken
 * and registered as unfinished in one step under the state lock, before its
 * row is inserted, and the callback that ends publishes ends it: at COMMIT when
 * the rows are visible to every new snapshot, at ABORT when that is done.
 *
 * A reader looks first (mbus_facts_look) and THEN takes its snapshot.  It gets
 * the next number F, the unfinished ranges V below it, and the segments that
 * facts were written to since a number.  Under that snapshot a number below F
 * and not in V is settled: its row is there, or never will be (rolled back,
 * unused, or written to a segment that has gone).
 *
 * Chunks.  A transaction takes 1 number, then 2, 4 and so on up to
 * MBUS_FACT_CHUNK_BITS at a time; all of a chunk is unfinished until the
 * transaction ends, also what is not used, and the numbers of savepoints that
 * were rolled back.  From the rest of its last chunk it takes without the
 * lock, unless the segment is another than the last one.  It may take
 * MBUS_FACT_CHUNKS chunks, some 13 million numbers.
 *
 * Touched segments.  With the step a segment is entered with the number.  The
 * table has room for those that were touched last; of one that had to make
 * room nothing is known but "forgotten", the highest number it was entered
 * with.  Numbers of a chunk that are taken without the lock are above the one
 * that its segment is entered with; the chunk is unfinished meanwhile, and who
 * asks for what was touched since the lowest unfinished number finds the
 * segment.  Segment 0 is what has none: actions (action/action.c).
 *
 * Locks: the state lock, exclusive to take and shared to look.  A backend
 * ends its ranges without it, since only their number goes to zero: a reader
 * who still sees them takes them for unfinished, one who does not takes its
 * snapshot after they were visible.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "base/settings.h"
#include "state/fact_number.h"
#include "state/state.h"
#include "state/state_internal.h"

#define RANGES_GUESS	32

/* What is left of this transaction's last chunk. */
typedef struct Rest
{
	int64		next;
	int64		end;
	int32		segment;		/* that was entered last */
} Rest;

static Rest rest;

static int64 number_try(MbusDatabase *db, Oid schema, int32 segment,
						bool *spent);
static int64 number_take(MbusDatabase *db, MbusBackend *me, int32 segment,
						 bool *spent);
static bool chunk_take(MbusDatabase *db, MbusBackend *me, bool *spent);
static void segment_touch(MbusFactNumbers *facts, int32 segment, int64 no);
static bool ranges_copy(MbusDatabase *db, MbusFactsSeen *seen, int room);
static void touched_copy(const MbusFactNumbers *facts, int64 since,
						 MbusFactsSeen *seen);
static int	range_compare(const void *a, const void *b);

/* ------------------------------------------------------------------------
 * Taking
 * ------------------------------------------------------------------------
 */

/*
 * mbus_fact_number returns a number for a row that is about to be inserted
 * into a table of this segment, and registers it until the transaction ends.
 * Waits for a worker that has not numbered yet; errors with 55000 if that
 * takes too long, and with 54000 if the transaction has used up its chunks.
 */
int64
mbus_fact_number(MbusDatabase *db, Oid schema, int32 segment)
{
	TimestampTz started = 0;

	for (;;)
	{
		bool		spent = false;
		int64		no = number_try(db, schema, segment, &spent);

		if (spent)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too many acknowledgements, failures and deletions in one transaction"),
					 errdetail("It has used up %d chunks of numbers for them.",
							   MBUS_FACT_CHUNKS)));
		if (no != 0)
		{
			if (started != 0)
				ConditionVariableCancelSleep();
			return no;
		}
		if (started == 0)
			ConditionVariablePrepareToSleep(&db->changed);
		mbus_worker_wait(db, &started, NULL);
	}
}

/*
 * mbus_fact_number_now does not wait: it returns 0 where no number is to be had
 * now, or no more for this transaction.
 */
int64
mbus_fact_number_now(MbusDatabase *db, Oid schema, int32 segment)
{
	bool		spent = false;

	return number_try(db, schema, segment, &spent);
}

/*
 * number_try takes a number, of the rest of the last chunk without the lock;
 * 0 if there is none, *spent if this transaction may have no more.
 */
static int64
number_try(MbusDatabase *db, Oid schema, int32 segment, bool *spent)
{
	MbusBackend *me = &mbus_shared->backend[MbusMyProcno()];
	int64		no = 0;

	if (rest.next < rest.end && rest.segment == segment &&
		me->database == db->database && me->schema == schema)
		return rest.next++;
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (db->facts.next != 0 && db->schema == schema)
	{
		mbus_backend_enter(db, schema);
		no = number_take(db, me, segment, spent);
	}
	LWLockRelease(&db->lock);
	return no;
}

/*
 * number_take takes one and enters its segment; 0 if there is none, *spent if
 * this transaction may have no more.  Under the state lock.
 */
static int64
number_take(MbusDatabase *db, MbusBackend *me, int32 segment, bool *spent)
{
	int64		no;

	if (rest.next >= rest.end && !chunk_take(db, me, spent))
		return 0;
	no = rest.next++;
	rest.segment = segment;
	segment_touch(&db->facts, segment, no);
	return no;
}

/* Registers the next chunk; false if there is none.  Under the state lock. */
static bool
chunk_take(MbusDatabase *db, MbusBackend *me, bool *spent)
{
	uint32		n = pg_atomic_read_u32(&me->nfacts);
	int64		first = db->facts.next;
	int64		end = first + Min(INT64CONST(1) << Min(n, MBUS_FACT_CHUNK_BITS),
								  mbus_facts_per_chunk);

	*spent = n >= MBUS_FACT_CHUNKS;
	/* the epoch has no more: the worker is to begin another one */
	if (*spent || MbusFactEpoch(end) != MbusFactEpoch(first))
		return false;
	me->fact[n].lo = first;
	me->fact[n].hi = end;
	pg_atomic_write_u32(&me->nfacts, n + 1);
	db->facts.next = end;
	rest.next = first;
	rest.end = end;
	return true;
}

/*
 * segment_touch enters a segment; one of those with the same hash that was
 * touched longest ago makes room.  Under the state lock.
 */
static void
segment_touch(MbusFactNumbers *facts, int32 segment, int64 no)
{
	MbusTouched *set = facts->touched[murmurhash32((uint32) segment) %
									  MBUS_TOUCHED_SETS];
	MbusTouched *place = &set[0];

	for (int i = 0; i < MBUS_TOUCHED_WAYS; i++)
	{
		if (set[i].segment == segment)
		{
			set[i].no = Max(set[i].no, no);
			return;
		}
		if (set[i].no < place->no)
			place = &set[i];
	}
	facts->forgotten = Max(facts->forgotten, place->no);
	place->segment = segment;
	place->no = no;
}

/*
 * mbus_fact_numbers_end ends this transaction's, in its callback.  Nothing in
 * it can fail.
 */
void
mbus_fact_numbers_end(MbusBackend *me)
{
	memset(&rest, 0, sizeof(rest));
	if (pg_atomic_read_u32(&me->nfacts) == 0)
		return;
	/* what made the rows visible comes before */
	pg_memory_barrier();
	pg_atomic_write_u32(&me->nfacts, 0);
}

/* ------------------------------------------------------------------------
 * Beginning
 * ------------------------------------------------------------------------
 */

/*
 * mbus_fact_numbers_begin goes on with the numbers of an epoch, which is
 * durable.  Of what was touched before memory was there nothing is known.
 */
void
mbus_fact_numbers_begin(MbusDatabase *db, int64 epoch)
{
	MbusFactNumbers *facts = &db->facts;
	int64		first = epoch << MBUS_FACT_BITS;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	if (facts->next == 0)
		facts->forgotten = first - 1;
	facts->next = Max(facts->next, first);
	LWLockRelease(&db->lock);
}

/*
 * mbus_fact_numbers_low tells whether three quarters of an epoch's numbers
 * are used up.
 */
bool
mbus_fact_numbers_low(MbusDatabase *db)
{
	int64		n;

	LWLockAcquire(&db->lock, LW_SHARED);
	n = db->facts.next & ((INT64CONST(1) << MBUS_FACT_BITS) - 1);
	LWLockRelease(&db->lock);
	return n >= (INT64CONST(1) << MBUS_FACT_BITS) / 4 * 3;
}

/* ------------------------------------------------------------------------
 * Looking
 * ------------------------------------------------------------------------
 */

/*
 * mbus_facts_look says what is known of the numbers, in one step, and which
 * segments were touched by the number "since" or a higher one.  Take the
 * snapshot AFTER this call.  The arrays are the caller's, in the current
 * memory context.
 */
void
mbus_facts_look(MbusDatabase *db, Oid schema, int64 since,
				MbusFactsSeen *seen)
{
	int			room = RANGES_GUESS;
	bool		enough = false;

	seen->touched = palloc(MBUS_TOUCHED_SETS * MBUS_TOUCHED_WAYS *
						   sizeof(int32));
	while (!enough)
	{
		seen->next = 0;
		seen->nranges = 0;
		seen->ntouched = -1;
		seen->range = palloc(room * sizeof(MbusFactRange));
		LWLockAcquire(&db->lock, LW_SHARED);
		enough = true;
		if (db->schema == schema && db->facts.next != 0)
		{
			seen->next = db->facts.next;
			enough = ranges_copy(db, seen, room);
			touched_copy(&db->facts, since, seen);
		}
		LWLockRelease(&db->lock);
		if (!enough)
		{
			pfree(seen->range);
			room = seen->nranges + RANGES_GUESS;
		}
	}
	qsort(seen->range, seen->nranges, sizeof(MbusFactRange), range_compare);
}

/*
 * Copies the unfinished ranges, and counts them; false if there is not room
 * for all.  Under the state lock.
 */
static bool
ranges_copy(MbusDatabase *db, MbusFactsSeen *seen, int room)
{
	for (int i = 0; i < mbus_shared->nbackends; i++)
	{
		MbusBackend *b = &mbus_shared->backend[i];
		uint32		n;

		if (b->database != db->database || b->schema != db->schema)
			continue;
		n = pg_atomic_read_u32(&b->nfacts);
		for (uint32 k = 0; k < n; k++)
		{
			if (seen->nranges < room)
				seen->range[seen->nranges] = b->fact[k];
			seen->nranges++;
		}
	}
	return seen->nranges <= room;
}

/* Copies the segments touched since a number.  Under the state lock. */
static void
touched_copy(const MbusFactNumbers *facts, int64 since, MbusFactsSeen *seen)
{
	if (since <= facts->forgotten)
		return;
	seen->ntouched = 0;
	for (int i = 0; i < MBUS_TOUCHED_SETS * MBUS_TOUCHED_WAYS; i++)
	{
		const MbusTouched *touched =
		&facts->touched[i / MBUS_TOUCHED_WAYS][i % MBUS_TOUCHED_WAYS];

		if (touched->no >= since && touched->no != 0)
			seen->touched[seen->ntouched++] = touched->segment;
	}
}

/* By ascending number. */
static int
range_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusFactRange *) a)->lo,
					  ((const MbusFactRange *) b)->lo);
}
