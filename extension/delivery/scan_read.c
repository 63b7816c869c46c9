/*
 * scan_read.c
 *		The reading part of a scan: from which index, in which order, and what
 *		is left out.
 *
 * Each source finds messages by its index, in the scan's snapshot, and hands
 * them to message_take(), which leaves out what has expired, was deleted or
 * purged, is not wanted, is not due yet, or has to wait for its key.  What
 * comes from a time index, or from ids given out before the server started,
 * is only a candidate: its id must not be busy, and the tables must say that
 * it is not done and waits for no retry (mbus_facts).
 *
 * A source stops when the batch is full, and says in the scan how far it got.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lwlock.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "channel/purged.h"
#include "delivery/pool.h"
#include "delivery/scan_due.h"
#include "delivery/scan_range.h"
#include "delivery/scan_take.h"
#include "delivery/scanning.h"
#include "facts/facts.h"
#include "message/stored.h"
#include "segment/leaf.h"
#include "state/range.h"

#define BLOCK_MIN	16			/* candidates looked up at a time */
#define BLOCK_MAX	1024
#define DUE_MAX		8192		/* delayed messages looked at at a time */
#define READ_MAX	200000		/* messages read over in one scan */

/* Why a message was left out. */
typedef enum Taken
{
	TAKEN,
	LEFT_OUT,					/* for good, or another source has it */
	NO_ROOM						/* the batch is full: read no further */
} Taken;

/* What of a message decides. */
typedef struct Look
{
	int64		id;
	int64		key_hash;
	int32		size;
	TimestampTz available_at;
	bool		live;
} Look;

/* A delayed message, or a due position: what comes before it is settled. */
typedef struct Due
{
	TimestampTz at;
	int64		id;
} Due;

typedef struct KeySeen
{
	int64		key_hash;		/* hash key */
	int			found;			/* index in scan->found */
} KeySeen;

static void look_at(MbusScan *scan, HeapTuple tuple, TupleDesc desc,
					bool events, Look *look);
static bool leaf_has_events(MbusScan *scan, int32 segment);
static Taken message_take(MbusScan *scan, const Look *look, HeapTuple tuple,
						  const MbusFacts *facts, uint32 entry, int attempt);
static bool key_blocked(MbusScan *scan, const Look *look);
static MbusFound *found_add(MbusScan *scan, const Look *look,
							HeapTuple tuple, uint32 entry, int attempt);
static HeapTuple message_by_id(MbusScan *scan, int64 id, Look *look);
static void waiting_take(MbusScan *scan, const MbusWaiting *waiting);
static bool range_read(MbusScan *scan, int64 from, int64 to, int64 *reached);
static bool leaf_read(MbusScan *scan, Relation leaf, int32 segment,
					  int64 from, int64 to, int64 *reached);
static int	block_size(int wanted);
static bool block_take(MbusScan *scan, HeapTuple *tuples, Look *looks, int n,
					   int64 *reached);
static int64 unfinished_end(MbusScan *scan, int64 id);
static bool in_unfinished(MbusScan *scan, int64 lo, int64 hi);
static bool in_skipped(MbusScan *scan, int64 id);
static bool is_busy(MbusScan *scan, int64 id);
static bool candidates_take(MbusScan *scan, int64 *ids, int n, int most,
							bool retries, TimestampTz from, TimestampTz to,
							int64 *left);
static int	retries_passed(MbusScan *scan, int64 *ids, int n);
static bool is_later(MbusScan *scan, const Look *look);
static Due *due_read(MbusScan *scan, int most, int *n, Due *reached);
static int	due_leaf(MbusScan *scan, Relation leaf, Due *due, int most,
					 TimestampTz *next);
static int	due_keys(MbusScan *scan, Relation leaf, Relation index,
					 StrategyNumber strategy, RegProcedure compare, Due *due,
					 int most, TimestampTz *next);
static void due_position(MbusScan *scan, const Due *due, int n, int64 left);
static int	due_compare(const void *a, const void *b);
static bool next_find(MbusScan *scan, const MbusWaiting *next);
static bool next_leaf(MbusScan *scan, Relation leaf, int32 segment,
					  const MbusWaiting *next);

/* ------------------------------------------------------------------------
 * One message
 * ------------------------------------------------------------------------
 */

static void
look_at(MbusScan *scan, HeapTuple tuple, TupleDesc desc, bool events,
		Look *look)
{
	bool		isnull;
	TimestampTz created_at;
	TimestampTz expires_at;
	Datum		value;

	look->id = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc, &isnull));
	created_at = DatumGetTimestampTz(heap_getattr(tuple, MBUS_COL_CREATED_AT,
												  desc, &isnull));
	expires_at = DatumGetTimestampTz(heap_getattr(tuple, MBUS_COL_EXPIRES_AT,
												  desc, &isnull));
	look->available_at = DatumGetTimestampTz(heap_getattr(tuple,
														  MBUS_COL_AVAILABLE_AT,
														  desc, &isnull));
	/* behind columns of variable length: not for nothing */
	look->size = scan->max_bytes == PG_INT64_MAX ? 0 :
		DatumGetInt32(heap_getattr(tuple, MBUS_COL_SIZE, desc, &isnull));
	if (look->available_at <= created_at)
		look->available_at = PG_INT64_MIN;	/* without a delay */
	look->key_hash = 0;
	if (scan->sub.ordered)
	{
		value = heap_getattr(tuple, MBUS_COL_KEY_HASH, desc, &isnull);
		look->key_hash = isnull ? 0 : DatumGetInt64(value);
	}
	look->live = expires_at > scan->now && look->id >= scan->sub.start_id &&
		created_at >= scan->sub.start_at &&
		!mbus_channel_purged(&scan->policy, look->id) &&
		!(events && mbus_message_deleted(scan->schema, look->id));
}

/* Whether something in the segment may have been deleted. */
static bool
leaf_has_events(MbusScan *scan, int32 segment)
{
	Relation	leaf = mbus_leaf_open(scan->schema, segment, MBUS_EVENT,
									  AccessShareLock);
	bool		some;

	if (leaf == NULL)
		return false;
	some = RelationGetNumberOfBlocks(leaf) > 0;
	table_close(leaf, AccessShareLock);
	return some;
}

/*
 * message_take puts a message into the batch, if it is to be had now.
 */
static Taken
message_take(MbusScan *scan, const Look *look, HeapTuple tuple,
			 const MbusFacts *facts, uint32 entry, int attempt)
{
	MbusFound  *found;

	if (!look->live || (facts && facts->done))
		return LEFT_OUT;
	if (facts && facts->failed && !scan->sub.ordered &&
		facts->retry_at > scan->now)
		return LEFT_OUT;		/* found by its time */
	if (scan->probe && entry == MBUS_NONE && facts && facts->failed &&
		facts->retry_at > scan->now)
	{
		scan->waits = Min(scan->waits, facts->retry_at);
		return LEFT_OUT;
	}
	if (scan->nfound >= scan->batch ||
		(entry == MBUS_NONE && scan->room <= 0))
	{
		scan->full = true;
		return NO_ROOM;
	}
	if (scan->bytes + look->size > scan->max_bytes && scan->nfound > 0)
	{
		scan->full = true;
		return NO_ROOM;
	}
	if (entry == MBUS_NONE && look->key_hash != 0 && key_blocked(scan, look))
		return LEFT_OUT;
	found = found_add(scan, look, tuple, entry,
					  facts && facts->failed ? facts->attempt : attempt);
	if (facts && facts->failed && facts->retry_at > scan->now)
		found->retry_at = facts->retry_at;	/* ordered: waits in memory */
	else
		scan->bytes += look->size;
	return TAKEN;
}

/*
 * key_blocked tells whether another message of the key is out, and then
 * notes that this one was passed over; in one step, so that it is not
 * forgotten if that one is done meanwhile.
 */
static bool
key_blocked(MbusScan *scan, const Look *look)
{
	KeySeen    *seen;
	bool		have;
	uint32		other;
	int64		passed;

	if (scan->probe)
	{
		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		other = mbus_key_find(scan->slot, look->key_hash);
		LWLockRelease(mbus_delivery_lock());
		return other != MBUS_NONE;
	}
	/* only we, the scanner, give a key an entry, or change "passed" so */
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	other = mbus_key_find(scan->slot, look->key_hash);
	passed = other == MBUS_NONE ? 0 : mbus_entry(other)->passed;
	LWLockRelease(mbus_delivery_lock());
	if (other != MBUS_NONE && (passed == 0 || look->id < passed))
	{
		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		other = mbus_key_find(scan->slot, look->key_hash);
		if (other != MBUS_NONE)
		{
			MbusEntry  *e = mbus_entry(other);

			if (e->passed == 0 || look->id < e->passed)
				e->passed = look->id;
		}
		LWLockRelease(mbus_delivery_lock());
	}
	if (other != MBUS_NONE)
		return true;

	if (scan->keys == NULL)
	{
		HASHCTL		ctl;

		MemSet(&ctl, 0, sizeof(ctl));
		ctl.keysize = sizeof(int64);
		ctl.entrysize = sizeof(KeySeen);
		ctl.hcxt = CurrentMemoryContext;
		scan->keys = hash_create("message_bus keys", 64, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	seen = hash_search(scan->keys, &look->key_hash, HASH_ENTER, &have);
	if (have)
	{
		MbusFound  *found = &scan->found[seen->found];

		if (found->passed == 0 || look->id < found->passed)
			found->passed = look->id;
		return true;
	}
	seen->found = scan->nfound;
	return false;
}

static MbusFound *
found_add(MbusScan *scan, const Look *look, HeapTuple tuple, uint32 entry,
		  int attempt)
{
	MbusFound  *found;

	if (scan->nfound >= scan->maxfound)
	{
		scan->maxfound = scan->maxfound == 0 ?
			Min(Max(scan->batch, 1), 128) : scan->maxfound * 2;
		if (scan->found == NULL)
			scan->found = palloc(scan->maxfound * sizeof(MbusFound));
		else
			scan->found = repalloc(scan->found,
								   scan->maxfound * sizeof(MbusFound));
	}
	found = &scan->found[scan->nfound++];
	MemSet(found, 0, sizeof(*found));
	found->id = look->id;
	found->key_hash = look->key_hash;
	found->entry = entry;
	found->attempt = attempt;
	found->tuple = scan->probe ? NULL : heap_copytuple(tuple);
	if (entry == MBUS_NONE)
		scan->room--;
	return found;
}

/* A message by its id, or NULL. */
static HeapTuple
message_by_id(MbusScan *scan, int64 id, Look *look)
{
	Relation	leaf = mbus_leaf_open(scan->schema, MbusSegmentOf(id),
									  MBUS_MESSAGE, AccessShareLock);
	Relation	index;
	SysScanDesc desc;
	ScanKeyData key;
	HeapTuple	tuple;

	if (leaf == NULL)
		return NULL;
	index = mbus_leaf_index(leaf, MBUS_COL_ID, 0, false);
	ScanKeyInit(&key, MBUS_COL_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	desc = systable_beginscan_ordered(leaf, index, scan->snapshot, 1, &key);
	tuple = systable_getnext_ordered(desc, ForwardScanDirection);
	if (HeapTupleIsValid(tuple))
	{
		tuple = heap_copytuple(tuple);
		look_at(scan, tuple, RelationGetDescr(leaf), true, look);
	}
	systable_endscan_ordered(desc);
	index_close(index, AccessShareLock);
	/* its payload may be in the TOAST table: a found one stays locked */
	table_close(leaf, HeapTupleIsValid(tuple) ? NoLock : AccessShareLock);
	return tuple;
}

/* ------------------------------------------------------------------------
 * What waits in memory
 * ------------------------------------------------------------------------
 */

/*
 * mbus_scan_ready takes what claims that were rolled back gave back, and of
 * an ordered subscription what is to be tried again now.
 */
void
mbus_scan_ready(MbusScan *scan)
{
	for (int i = 0; i < scan->nready; i++)
		waiting_take(scan, &scan->ready[i]);
	for (int i = 0; i < scan->nretries; i++)
		waiting_take(scan, &scan->retries[i]);
}

static void
waiting_take(MbusScan *scan, const MbusWaiting *waiting)
{
	Look		look;
	HeapTuple	tuple;

	if (scan->full || scan->nfound >= scan->batch)
		return;
	tuple = message_by_id(scan, waiting->id, &look);
	if (tuple == NULL || !look.live)
	{
		scan->gone[scan->ngone++] = waiting->entry;
		return;
	}
	look.key_hash = waiting->key_hash;
	(void) message_take(scan, &look, tuple, NULL, waiting->entry,
						waiting->attempt);
}

/*
 * mbus_scan_nexts looks for the next messages of keys that have become free.
 */
void
mbus_scan_nexts(MbusScan *scan)
{
	for (int i = 0; i < scan->nnexts && !scan->full; i++)
	{
		if (scan->nfound >= scan->batch)
			return;
		if (!next_find(scan, &scan->nexts[i]) && !scan->full)
			scan->gone[scan->ngone++] = scan->nexts[i].entry;
	}
}

/* Searches the segments from that of the first message passed over on. */
static bool
next_find(MbusScan *scan, const MbusWaiting *next)
{
	for (int i = 0; i < scan->nleaves; i++)
	{
		Relation	leaf;
		bool		found;

		if (scan->leaves[i].segment < MbusSegmentOf(next->id) ||
			MbusFirstId(scan->leaves[i].segment) > scan->sub.cursor)
			continue;
		leaf = mbus_leaf_open(scan->schema, scan->leaves[i].segment,
							  MBUS_MESSAGE, AccessShareLock);
		if (leaf == NULL)
			continue;
		found = next_leaf(scan, leaf, scan->leaves[i].segment, next);
		table_close(leaf, found ? NoLock : AccessShareLock);
		if (found || scan->full)
			return found;
	}
	return false;
}

static bool
next_leaf(MbusScan *scan, Relation leaf, int32 segment,
		  const MbusWaiting *next)
{
	Relation	index = mbus_leaf_index(leaf, MBUS_COL_CHANNEL_ID,
										MBUS_COL_KEY_HASH, true);
	bool		events = leaf_has_events(scan, segment);
	ScanKeyData key[4];
	SysScanDesc desc;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&key[0], MBUS_COL_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(scan->channel_id));
	ScanKeyInit(&key[1], MBUS_COL_KEY_HASH, BTEqualStrategyNumber,
				F_INT8EQ, Int64GetDatum(next->key_hash));
	ScanKeyInit(&key[2], MBUS_COL_ID, BTGreaterEqualStrategyNumber,
				F_INT8GE, Int64GetDatum(next->id));
	ScanKeyInit(&key[3], MBUS_COL_ID, BTLessEqualStrategyNumber,
				F_INT8LE, Int64GetDatum(scan->sub.cursor));
	desc = systable_beginscan_ordered(leaf, index, scan->snapshot, 4, key);
	while (!found && !scan->full &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(desc,
															 ForwardScanDirection)))
	{
		MbusFacts	facts = {0};
		Look		look;

		CHECK_FOR_INTERRUPTS();
		look_at(scan, tuple, RelationGetDescr(leaf), events, &look);
		if (!look.live || is_later(scan, &look) ||
			in_unfinished(scan, look.id, look.id + 1) ||
			in_skipped(scan, look.id) || is_busy(scan, look.id))
			continue;
		facts.id = look.id;
		mbus_facts(scan->schema, scan->sub.subscription_id,
				   scan->sub.since_lease, &facts, 1, scan->snapshot);
		if (message_take(scan, &look, tuple, &facts, next->entry, 1) == TAKEN)
		{
			/* there may be more behind it */
			scan->found[scan->nfound - 1].passed = look.id + 1;
			found = true;
		}
	}
	systable_endscan_ordered(desc);
	index_close(index, AccessShareLock);
	return found;
}

/* ------------------------------------------------------------------------
 * Ranges of ids
 * ------------------------------------------------------------------------
 */

/*
 * mbus_scan_skipped reads the skipped ranges whose publish has ended.
 */
void
mbus_scan_skipped(MbusScan *scan)
{
	for (int i = 0; i < scan->nskipped && !scan->full; i++)
	{
		MbusRange  *range = &scan->skipped[i];
		int64		reached = range->lo;

		if (in_unfinished(scan, range->lo, range->hi))
			continue;
		(void) range_read(scan, range->lo, range->hi, &reached);
		range->lo = reached;
	}
}

/*
 * mbus_scan_fresh reads on from the cursor, leaving out unfinished ranges.
 */
void
mbus_scan_fresh(MbusScan *scan)
{
	int64		reached = scan->cursor + 1;

	if (scan->full || reached >= scan->limit)
		return;
	(void) range_read(scan, reached, scan->limit, &reached);
	scan->cursor = reached - 1;
}

/*
 * range_read takes messages with ids in [from, to) and sets *reached behind
 * the last one that is settled: taken, left out, or unfinished.  False if the
 * batch is full before the end.
 */
static bool
range_read(MbusScan *scan, int64 from, int64 to, int64 *reached)
{
	for (int i = 0; i < scan->nleaves; i++)
	{
		int32		segment = scan->leaves[i].segment;
		Relation	leaf;
		bool		all;
		int			before;

		if (segment < MbusSegmentOf(from) || MbusFirstId(segment) >= to)
			continue;
		leaf = mbus_leaf_open(scan->schema, segment, MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			continue;
		before = scan->nfound;
		all = leaf_read(scan, leaf, segment, from, to, reached);
		/* payloads of what was found may be in the TOAST table */
		table_close(leaf, scan->nfound > before ? NoLock : AccessShareLock);
		if (!all)
			return false;
	}
	*reached = to;
	return true;
}

static bool
leaf_read(MbusScan *scan, Relation leaf, int32 segment, int64 from, int64 to,
		  int64 *reached)
{
	Relation	index = mbus_leaf_index(leaf, MBUS_COL_CHANNEL_ID,
										MBUS_COL_ID, false);
	bool		events = leaf_has_events(scan, segment);
	int			block = block_size(scan->batch - scan->nfound);
	HeapTuple  *tuples = NULL;
	Look	   *looks = NULL;
	int			room = 0;
	int			n = 0;
	bool		all = true;
	ScanKeyData key[3];
	SysScanDesc desc;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], MBUS_COL_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(scan->channel_id));
	ScanKeyInit(&key[1], MBUS_COL_ID, BTGreaterEqualStrategyNumber,
				F_INT8GE, Int64GetDatum(from));
	ScanKeyInit(&key[2], MBUS_COL_ID, BTLessStrategyNumber, F_INT8LT,
				Int64GetDatum(to));
	desc = systable_beginscan_ordered(leaf, index, scan->snapshot, 3, key);
	while (all &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(desc,
															 ForwardScanDirection)))
	{
		Look		look;

		CHECK_FOR_INTERRUPTS();
		look_at(scan, tuple, RelationGetDescr(leaf), events, &look);
		if (++scan->nread > READ_MAX && !scan->probe)
		{
			/* record how far it came; the claim goes on from there */
			if (n > 0)
				all = block_take(scan, tuples, looks, n, reached);
			n = 0;
			if (all)
			{
				*reached = look.id;
				scan->full = true;
				all = false;
			}
			continue;
		}
		if (!look.live || is_later(scan, &look) ||
			unfinished_end(scan, look.id) != 0)
			continue;
		if (look.id >= scan->sub.check_below)
		{
			if (n > 0)
				all = block_take(scan, tuples, looks, n, reached);
			n = 0;
			if (all && message_take(scan, &look, tuple, NULL, MBUS_NONE,
									1) == NO_ROOM)
			{
				*reached = look.id;
				all = false;
			}
			else if (all && scan->nfound >= scan->batch)
			{
				*reached = look.id + 1;
				scan->full = true;
				all = false;
			}
			continue;
		}
		if (tuples == NULL)
		{
			tuples = palloc(block * sizeof(HeapTuple));
			looks = palloc(block * sizeof(Look));
			room = block;
		}
		else if (n == room)
		{
			room = block;
			tuples = repalloc(tuples, room * sizeof(HeapTuple));
			looks = repalloc(looks, room * sizeof(Look));
		}
		tuples[n] = heap_copytuple(tuple);
		looks[n++] = look;
		if (n == block)
		{
			int			before = scan->nfound;

			all = block_take(scan, tuples, looks, n, reached);
			n = 0;
			/* few of these may be left to take: then read more at a time */
			block = scan->nfound > before ?
				block_size(2 * (scan->batch - scan->nfound)) :
				block_size(2 * block);
		}
	}
	if (all && n > 0)
		all = block_take(scan, tuples, looks, n, reached);
	if (tuples)
	{
		pfree(tuples);
		pfree(looks);
	}
	systable_endscan_ordered(desc);
	index_close(index, AccessShareLock);
	return all;
}

static int
block_size(int wanted)
{
	return Min(Max(wanted, BLOCK_MIN), BLOCK_MAX);
}

/*
 * block_take takes candidates of before the server's start, as many as the
 * batch has room for.
 */
static bool
block_take(MbusScan *scan, HeapTuple *tuples, Look *looks, int n,
		   int64 *reached)
{
	MbusFacts  *facts = palloc0(n * sizeof(MbusFacts));
	bool		all = true;

	for (int i = 0; i < n; i++)
		facts[i].id = looks[i].id;
	mbus_facts(scan->schema, scan->sub.subscription_id,
			   scan->sub.since_lease, facts, n, scan->snapshot);
	for (int i = 0; i < n && all; i++)
	{
		/* failed ones of an unordered subscription are found by their time */
		if (is_busy(scan, looks[i].id) ||
			(facts[i].failed && !scan->sub.ordered))
			continue;
		if (message_take(scan, &looks[i], tuples[i], &facts[i], MBUS_NONE,
						 1) == NO_ROOM)
		{
			*reached = looks[i].id;
			all = false;
		}
	}
	if (all && scan->nfound >= scan->batch)
	{
		*reached = looks[n - 1].id + 1;
		scan->full = true;
		all = false;
	}
	for (int i = 0; i < n; i++)
		heap_freetuple(tuples[i]);
	pfree(facts);
	return all;
}

/* The end of the unfinished range that an id is in; 0 if there is none. */
static int64
unfinished_end(MbusScan *scan, int64 id)
{
	for (int i = 0; i < scan->nunfinished; i++)
	{
		if (id >= scan->unfinished[i].lo && id < scan->unfinished[i].hi)
			return scan->unfinished[i].hi;
	}
	return 0;
}

static bool
in_unfinished(MbusScan *scan, int64 lo, int64 hi)
{
	for (int i = 0; i < scan->nunfinished; i++)
	{
		if (lo < scan->unfinished[i].hi && hi > scan->unfinished[i].lo)
			return true;
	}
	return false;
}

static bool
in_skipped(MbusScan *scan, int64 id)
{
	for (int i = 0; i < scan->nskipped; i++)
	{
		if (id >= scan->skipped[i].lo && id < scan->skipped[i].hi)
			return true;
	}
	return false;
}

static bool
is_busy(MbusScan *scan, int64 id)
{
	return bsearch(&id, scan->busy, scan->nbusy, sizeof(int64),
				   mbus_int64_compare) != NULL;
}

/* ------------------------------------------------------------------------
 * Times
 * ------------------------------------------------------------------------
 */

/*
 * mbus_scan_retries takes messages that failed and are to be tried again now.
 * The ordered subscription's are in memory.
 */
void
mbus_scan_retries(MbusScan *scan, int most)
{
	TimestampTz from = scan->sub.retry_at;
	int			before = scan->nfound;

	if (!scan->read_retries || scan->full)
		return;
	for (;;)
	{
		int64	   *ids;
		TimestampTz reached;
		TimestampTz next;
		int64		left;
		bool		all;
		int			n;

		CHECK_FOR_INTERRUPTS();
		n = mbus_facts_retries(scan->schema, scan->sub.subscription_id,
							   scan->sub.since_lease, from, scan->now,
							   most + 16, scan->snapshot, &ids, &reached,
							   &next);
		n = retries_passed(scan, ids, n);
		qsort(ids, n, sizeof(int64), mbus_int64_compare);
		all = candidates_take(scan, ids, n, most - (scan->nfound - before), true,
							  from == scan->sub.retry_at ? PG_INT64_MIN : from,
							  reached, &left);
		pfree(ids);
		if (!all)
		{
			/* some have to wait for the next claim, which begins here again */
			scan->retry_at = from;
			scan->next_retry = PG_INT64_MIN;
			return;
		}
		if (reached >= scan->now)
		{
			scan->retry_at = scan->now;
			scan->next_retry = next;
			return;
		}
		from = reached + 1;
	}
}

/*
 * retries_passed keeps the ids that the cursor has passed.  One above it, of a
 * dead letter that was redriven after a seek, comes when the cursor gets
 * there; unless it is of before the server's start: then the other source
 * leaves it to this one.
 */
static int
retries_passed(MbusScan *scan, int64 *ids, int n)
{
	int			kept = 0;

	for (int i = 0; i < n; i++)
	{
		if (ids[i] <= scan->sub.cursor || ids[i] < scan->sub.check_below)
			ids[kept++] = ids[i];
	}
	return kept;
}

/*
 * mbus_scan_due takes delayed messages whose time has come.
 */
void
mbus_scan_due(MbusScan *scan, int most)
{
	int			before = scan->nfound;
	int			want = most + 16;

	if (!scan->read_due)
		return;
	if (scan->full || scan->nfound >= scan->batch)
	{
		scan->read_due = false;
		return;
	}
	for (;;)
	{
		Due			reached;
		bool		all;
		int64		left = 0;
		Due		   *due;
		int64	   *ids;
		int			nread;
		int			n = 0;

		CHECK_FOR_INTERRUPTS();
		due = due_read(scan, want, &nread, &reached);
		ids = palloc(Max(nread, 1) * sizeof(int64));
		for (int i = 0; i < nread; i++)
		{
			/* the cursor of now: the last scan of four reads fresh ones first */
			if (due[i].id <= scan->cursor &&
				!in_unfinished(scan, due[i].id, due[i].id + 1) &&
				!in_skipped(scan, due[i].id))
			{
				due[n] = due[i];
				ids[n++] = due[i].id;
			}
		}
		qsort(ids, n, sizeof(int64), mbus_int64_compare);
		all = candidates_take(scan, ids, n, most - (scan->nfound - before),
							  false, PG_INT64_MIN, scan->now, &left);
		if (all)
		{
			scan->due_at = reached.at;
			scan->due_id = reached.id;
		}
		else
		{
			due_position(scan, due, n, left);
			scan->next_due = PG_INT64_MIN;
		}
		pfree(due);
		pfree(ids);
		if (!all || reached.at > scan->now)
			return;
		want = Min(2 * want, DUE_MAX);
	}
}

/*
 * due_position moves the due position to the first message that there was no
 * room for: taken were those with an id below "left".
 */
static void
due_position(MbusScan *scan, const Due *due, int n, int64 left)
{
	for (int i = 0; i < n; i++)
	{
		if (due[i].id >= left)
		{
			scan->due_at = due[i].at;
			scan->due_id = due[i].id;
			return;
		}
	}
}

/*
 * is_later tells whether a message is left to a later due scan, by its time:
 * never one without a delay, wherever the due position is.
 */
static bool
is_later(MbusScan *scan, const Look *look)
{
	if (look->available_at == PG_INT64_MIN)
		return false;
	return look->available_at > scan->due_at ||
		(look->available_at == scan->due_at && look->id >= scan->due_id);
}

/*
 * candidates_take takes those of some messages, by ascending id, that are not
 * busy, done or waiting; false if there was no room for all: none from *left
 * on was taken.  One whose latest failure is not to be retried from "from" to
 * "to" was found by an older failure, and is found again by that.
 */
static bool
candidates_take(MbusScan *scan, int64 *ids, int n, int most, bool retries,
				TimestampTz from, TimestampTz to, int64 *left)
{
	MbusFacts  *facts = palloc0(Max(n, 1) * sizeof(MbusFacts));
	int			nfacts = 0;
	int			before = scan->nfound;
	bool		all = true;

	for (int i = 0; i < n; i++)
	{
		if (!is_busy(scan, ids[i]))
			facts[nfacts++].id = ids[i];
	}
	mbus_facts(scan->schema, scan->sub.subscription_id,
			   scan->sub.since_lease, facts, nfacts, scan->snapshot);
	for (int i = 0; i < nfacts && all; i++)
	{
		HeapTuple	tuple;
		Look		look;

		if (facts[i].done || (retries && (!facts[i].failed ||
										  facts[i].retry_at < from ||
										  facts[i].retry_at > to)) ||
			(!retries && facts[i].failed && !scan->sub.ordered))
			continue;
		tuple = message_by_id(scan, facts[i].id, &look);
		if (tuple == NULL)
			continue;
		if (!look.live)
		{
			heap_freetuple(tuple);
			continue;
		}
		all = scan->nfound - before < most &&
			message_take(scan, &look, tuple, &facts[i], MBUS_NONE,
						 1) != NO_ROOM;
		if (!all)
			*left = facts[i].id;
		heap_freetuple(tuple);	/* found_add has copied it */
	}
	pfree(facts);
	return all;
}

/*
 * due_read returns the earliest delayed messages from the due position to
 * now, by time and id, and the due position behind them.
 */
static Due *
due_read(MbusScan *scan, int most, int *n, Due *reached)
{
	int			max = most;
	Due		   *due = palloc(max * sizeof(Due));

	*n = 0;
	reached->at = scan->now + 1;
	reached->id = 0;
	scan->next_due = PG_INT64_MAX;
	for (int i = 0; i < scan->nleaves; i++)
	{
		Relation	leaf;
		TimestampTz next = PG_INT64_MAX;
		int			got;

		leaf = mbus_leaf_open(scan->schema, scan->leaves[i].segment,
							  MBUS_MESSAGE, AccessShareLock);
		if (leaf == NULL)
			continue;
		if (*n + most > max)
		{
			max = Max(2 * max, *n + most);
			due = repalloc(due, max * sizeof(Due));
		}
		got = due_leaf(scan, leaf, due + *n, most, &next);
		/* a leaf with more: nothing behind its last one is known */
		if (got == most && due_compare(&due[*n + got - 1], reached) < 0)
		{
			reached->at = due[*n + got - 1].at;
			reached->id = due[*n + got - 1].id + 1;
		}
		*n += got;
		scan->next_due = Min(scan->next_due, next);
		table_close(leaf, AccessShareLock);
	}
	qsort(due, *n, sizeof(Due), due_compare);
	while (*n > 0 && due_compare(&due[*n - 1], reached) >= 0)
		(*n)--;
	return due;
}

/*
 * Reads a leaf from the due position on; returns how many are due.
 */
static int
due_leaf(MbusScan *scan, Relation leaf, Due *due, int most, TimestampTz *next)
{
	Relation	index = mbus_leaf_index(leaf, MBUS_COL_CHANNEL_ID,
										MBUS_COL_AVAILABLE_AT, true);
	int			n;

	n = due_keys(scan, leaf, index, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
				 due, most, next);
	n += due_keys(scan, leaf, index, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
				  due + n, most - n, next);
	index_close(index, AccessShareLock);
	return n;
}

/* Reads what has the position's time, from its id on, or what is later. */
static int
due_keys(MbusScan *scan, Relation leaf, Relation index,
		 StrategyNumber strategy, RegProcedure compare, Due *due, int most,
		 TimestampTz *next)
{
	ScanKeyData key[3];
	SysScanDesc desc;
	HeapTuple	tuple;
	int			n = 0;

	ScanKeyInit(&key[0], MBUS_COL_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(scan->channel_id));
	ScanKeyInit(&key[1], MBUS_COL_AVAILABLE_AT, strategy, compare,
				TimestampTzGetDatum(scan->due_at));
	ScanKeyInit(&key[2], MBUS_COL_ID, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(scan->due_id));
	if (most == 0)
		return 0;
	desc = systable_beginscan_ordered(leaf, index, scan->snapshot,
									  strategy == BTEqualStrategyNumber ? 3 : 2,
									  key);
	while (n < most &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(desc,
															 ForwardScanDirection)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		due[n].at = DatumGetTimestampTz(heap_getattr(tuple,
													 MBUS_COL_AVAILABLE_AT,
													 RelationGetDescr(leaf),
													 &isnull));
		due[n].id = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID,
											   RelationGetDescr(leaf),
											   &isnull));
		if (due[n].at > scan->now)
		{
			*next = Min(*next, due[n].at);
			break;
		}
		n++;
	}
	systable_endscan_ordered(desc);
	return n;
}

static int
due_compare(const void *a, const void *b)
{
	const Due  *x = a;
	const Due  *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}
