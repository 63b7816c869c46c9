/*
 * tally.c
 *		What happened in each channel, and how long it took: counted at commit.
 *
 * A transaction adds up what it has done in memory of its own, by channel and
 * subtransaction: what is rolled back is not counted.  Its callback adds the
 * sums to shared memory when it has committed.  That takes no lock, allocates
 * nothing and cannot fail: all there are atomics.
 *
 * Memory of the transaction.  The entries of a subtransaction are the last
 * ones of each list.  When it commits they become its parent's, and one with
 * those of the parent that are of the same channel, where these are near; a
 * list that gets long is sorted and made short again.  So it has an entry for
 * each channel, about, and one of latencies for each open subtransaction.
 *
 * Channels.  A channel has a slot in a table of message_bus.max_channel_metrics
 * of all databases: one of SET_SLOTS places that its number gives, the first
 * that was free when it was first counted.  A database may have as many as
 * message_bus.database_share allows.  Where there is no place it is counted in
 * "other", as are those that were dropped: sums over all never go back.  A
 * place is given back when its channel is dropped, after what the transaction
 * itself has counted; who has found it just before may still add to it, and the
 * sum is then another channel's.  Who commits just after the drop takes a place
 * for a channel that is gone: the worker gives those back
 * (worker/tally_task.c).
 *
 * Latencies are of the database, in buckets (mbus_latency_bound).
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "base/ids.h"
#include "base/settings.h"
#include "state/part.h"
#include "state/tally.h"

#define SET_SLOTS	8			/* places that one channel may have */
#define NEAR		8			/* entries that are compared */
#define SHORT		64			/* lists that are not sorted */

/* A channel's counters in shared memory; no lock. */
typedef struct Slot
{
	pg_atomic_uint64 key;		/* database and channel; 0: free */
	pg_atomic_uint64 n[MBUS_TALLIES];
} Slot;

/* What this transaction has done in a channel. */
typedef struct Pending
{
	SubTransactionId subid;
	int32		channel_id;
	MbusTallies sum;
} Pending;

/* How long it took. */
typedef struct Taken
{
	SubTransactionId subid;
	struct
	{
		uint32		bucket[MBUS_LATENCY_BUCKETS];
		uint64		us;
	}			of[MBUS_LATENCIES];
} Taken;

static Slot *slots = NULL;

/* of this transaction, in TopTransactionContext */
static Pending *pending = NULL;
static int	npending = 0;
static int	maxpending = 0;
static int	compact_at = SHORT;
static Taken *taken = NULL;
static int	ntaken = 0;
static int	maxtaken = 0;

/* bounds of the buckets in ms; the last has none */
static const double bounds[MBUS_LATENCY_BUCKETS] = {
	0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000,
	60000, 300000, 1800000, 3600000, INFINITY
};

static Size tally_size(void);
static void tally_startup(void *memory, bool found, int tranche);
static Pending *pending_get(int32 channel_id);
static Pending *pending_near(int from, SubTransactionId subid,
							 int32 channel_id);
static void pending_compact(void);
static int	pending_order(const void *a, const void *b);
static Taken *taken_get(void);
static int	bucket_of(int64 us);
static void tally_xact(XactEvent event, void *arg);
static void tally_subxact(SubXactEvent event, SubTransactionId mine,
						  SubTransactionId parent, void *arg);
static void pending_give(SubTransactionId mine, SubTransactionId parent);
static void taken_give(SubTransactionId mine, SubTransactionId parent);
static void taken_add(Taken *to, const Taken *from);
static void sums_commit(void);
static void taken_commit(MbusDatabase *db);
static pg_atomic_uint64 *counters_of(MbusDatabase *db, int32 channel_id);
static uint64 slot_key(MbusDatabase *db, int32 channel_id);
static Slot *slot_set(uint64 key);
static Slot *slot_find(uint64 key);
static Slot *slot_take(MbusDatabase *db, uint64 key);
static void slot_give(MbusDatabase *db, Slot *slot, uint64 key);

/*
 * mbus_tally_init asks for the memory and registers the callbacks; from
 * _PG_init while the server preloads libraries.
 */
void
mbus_tally_init(void)
{
	static const MbusStatePart part = {
		"message_bus tallies", tally_size, tally_startup
	};

	mbus_state_part(&part);
	RegisterXactCallback(tally_xact, NULL);
	RegisterSubXactCallback(tally_subxact, NULL);
}

static Size
tally_size(void)
{
	return mul_size(mbus_max_channel_metrics, sizeof(Slot));
}

static void
tally_startup(void *memory, bool found, int tranche)
{
	slots = memory;
	for (int i = 0; !found && i < mbus_max_channel_metrics; i++)
	{
		pg_atomic_init_u64(&slots[i].key, 0);
		for (int t = 0; t < MBUS_TALLIES; t++)
			pg_atomic_init_u64(&slots[i].n[t], 0);
	}
}

/* ------------------------------------------------------------------------
 * This transaction
 * ------------------------------------------------------------------------
 */

/*
 * mbus_tally counts something of a channel, when the transaction commits.
 */
void
mbus_tally(int32 channel_id, MbusTally tally, uint64 n)
{
	if (slots != NULL && n > 0)
		pending_get(channel_id)->sum.n[tally] += n;
}

/* The entry of this subtransaction for a channel. */
static Pending *
pending_get(int32 channel_id)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Pending    *entry = pending_near(npending, subid, channel_id);

	if (entry)
		return entry;
	if (npending >= compact_at)
		pending_compact();
	if (npending >= maxpending)
	{
		int			max = Max(4, maxpending * 2);

		if (pending == NULL)
			pending = MemoryContextAlloc(TopTransactionContext,
										 max * sizeof(Pending));
		else
			pending = repalloc_huge(pending, max * sizeof(Pending));
		maxpending = max;
	}
	entry = &pending[npending++];
	MemSet(entry, 0, sizeof(*entry));
	entry->subid = subid;
	entry->channel_id = channel_id;
	return entry;
}

/* One of the entries before "from", if it is near; or NULL. */
static Pending *
pending_near(int from, SubTransactionId subid, int32 channel_id)
{
	for (int i = from - 1; i >= Max(from - NEAR, 0); i--)
	{
		if (pending[i].subid != subid)
			return NULL;
		if (pending[i].channel_id == channel_id)
			return &pending[i];
	}
	return NULL;
}

/* Makes one of all entries of a subtransaction and channel. */
static void
pending_compact(void)
{
	int			n = 0;

	qsort(pending, npending, sizeof(Pending), pending_order);
	for (int i = 1; i < npending; i++)
	{
		if (pending_order(&pending[i], &pending[n]) != 0)
			pending[++n] = pending[i];
		else
			for (int t = 0; t < MBUS_TALLIES; t++)
				pending[n].sum.n[t] += pending[i].sum.n[t];
	}
	npending = Min(npending, n + 1);
	compact_at = Max(SHORT, npending * 2);
}

/* Children have higher numbers than their parents. */
static int
pending_order(const void *a, const void *b)
{
	const Pending *x = a;
	const Pending *y = b;

	return x->subid != y->subid ? mbus_order(x->subid, y->subid) :
		mbus_order(x->channel_id, y->channel_id);
}

/*
 * mbus_latency counts that n things took so long, when the transaction
 * commits.
 */
void
mbus_latency(MbusLatency latency, int64 us, uint32 n)
{
	Taken	   *entry;

	if (slots == NULL || n == 0)
		return;
	us = Max(us, 0);
	entry = taken_get();
	entry->of[latency].bucket[bucket_of(us)] += n;
	entry->of[latency].us += (uint64) us * n;
}

/* The entry of this subtransaction. */
static Taken *
taken_get(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();

	if (ntaken > 0 && taken[ntaken - 1].subid == subid)
		return &taken[ntaken - 1];
	if (ntaken >= maxtaken)
	{
		int			max = Max(2, maxtaken * 2);

		if (taken == NULL)
			taken = MemoryContextAlloc(TopTransactionContext,
									   max * sizeof(Taken));
		else
			taken = repalloc_huge(taken, max * sizeof(Taken));
		maxtaken = max;
	}
	MemSet(&taken[ntaken], 0, sizeof(Taken));
	taken[ntaken].subid = subid;
	return &taken[ntaken++];
}

/* The bucket of a time. */
static int
bucket_of(int64 us)
{
	int			i = 0;

	while (us > bounds[i] * 1000)
		i++;
	return i;
}

/*
 * mbus_latency_bound returns the upper bound of a bucket, in seconds.
 */
double
mbus_latency_bound(int bucket)
{
	return bounds[bucket] / 1000;
}

/* Ends the lists; it cannot fail. */
static void
tally_xact(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT &&
		event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && (npending > 0 || ntaken > 0))
		sums_commit();
	pending = NULL;
	taken = NULL;
	npending = maxpending = ntaken = maxtaken = 0;
	compact_at = SHORT;
}

/* What a subtransaction has done is its parent's, or never was. */
static void
tally_subxact(SubXactEvent event, SubTransactionId mine,
			  SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		pending_give(mine, parent);
		taken_give(mine, parent);
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (npending > 0 && pending[npending - 1].subid == mine)
			npending--;
		while (ntaken > 0 && taken[ntaken - 1].subid == mine)
			ntaken--;
	}
}

/* Gives the last entries to the parent, and adds them to its own if near. */
static void
pending_give(SubTransactionId mine, SubTransactionId parent)
{
	int			first = npending;
	int			n;

	while (first > 0 && pending[first - 1].subid == mine)
		first--;
	n = first;
	for (int i = first; i < npending; i++)
	{
		Pending    *to = pending_near(n, parent, pending[i].channel_id);

		if (to)
		{
			for (int t = 0; t < MBUS_TALLIES; t++)
				to->sum.n[t] += pending[i].sum.n[t];
			continue;
		}
		pending[n] = pending[i];
		pending[n++].subid = parent;
	}
	npending = n;
}

static void
taken_give(SubTransactionId mine, SubTransactionId parent)
{
	if (ntaken == 0 || taken[ntaken - 1].subid != mine)
		return;
	if (ntaken > 1 && taken[ntaken - 2].subid == parent)
	{
		taken_add(&taken[ntaken - 2], &taken[ntaken - 1]);
		ntaken--;
	}
	else
		taken[ntaken - 1].subid = parent;
}

static void
taken_add(Taken *to, const Taken *from)
{
	for (int l = 0; l < MBUS_LATENCIES; l++)
	{
		for (int i = 0; i < MBUS_LATENCY_BUCKETS; i++)
			to->of[l].bucket[i] += from->of[l].bucket[i];
		to->of[l].us += from->of[l].us;
	}
}

/* ------------------------------------------------------------------------
 * Shared memory
 * ------------------------------------------------------------------------
 */

/* Adds all up in shared memory. */
static void
sums_commit(void)
{
	MbusDatabase *db = mbus_database_or_null();

	if (db == NULL)
		return;
	for (int i = 0; i < npending; i++)
	{
		pg_atomic_uint64 *counters = counters_of(db, pending[i].channel_id);

		for (int t = 0; t < MBUS_TALLIES; t++)
		{
			if (pending[i].sum.n[t] != 0)
				pg_atomic_fetch_add_u64(&counters[t],
										(int64) pending[i].sum.n[t]);
		}
	}
	taken_commit(db);
}

static void
taken_commit(MbusDatabase *db)
{
	for (int k = 0; k < ntaken; k++)
	{
		for (int l = 0; l < MBUS_LATENCIES; l++)
		{
			MbusSpread *to = &db->latency[l];
			uint64		n = 0;

			for (int i = 0; i < MBUS_LATENCY_BUCKETS; i++)
			{
				uint32		more = taken[k].of[l].bucket[i];

				n += more;
				if (more != 0)
					pg_atomic_fetch_add_u64(&to->bucket[i], more);
			}
			if (n != 0)
				pg_atomic_fetch_add_u64(&to->us, (int64) taken[k].of[l].us);
		}
	}
}

/* Where a channel is counted: its slot, or "other". */
static pg_atomic_uint64 *
counters_of(MbusDatabase *db, int32 channel_id)
{
	static Slot *last = NULL;
	uint64		key = slot_key(db, channel_id);

	if (last == NULL || pg_atomic_read_u64(&last->key) != key)
		last = slot_find(key);
	if (last == NULL)
		last = slot_take(db, key);
	if (last != NULL)
		return last->n;
	pg_atomic_write_u32(&db->tally_full, 1);
	return db->other;
}

static uint64
slot_key(MbusDatabase *db, int32 channel_id)
{
	return (uint64) db->database << 32 | (uint32) channel_id;
}

/* The first of the places that a channel may have. */
static Slot *
slot_set(uint64 key)
{
	uint32		sets = mbus_max_channel_metrics / SET_SLOTS;
	uint32		hash = hash_combine(hash_bytes_uint32((uint32) key),
									hash_bytes_uint32((uint32) (key >> 32)));

	return &slots[hash % sets * SET_SLOTS];
}

/* The slot of a channel, or NULL. */
static Slot *
slot_find(uint64 key)
{
	Slot	   *set = slot_set(key);

	for (int i = 0; i < SET_SLOTS; i++)
	{
		if (pg_atomic_read_u64(&set[i].key) == key)
			return &set[i];
	}
	return NULL;
}

/* A new slot for a channel, or the one that another has just made; or NULL. */
static Slot *
slot_take(MbusDatabase *db, uint64 key)
{
	Slot	   *set = slot_set(key);
	int64		share = (int64) mbus_max_channel_metrics *
	mbus_database_share / 100;

	if (pg_atomic_read_u32(&db->tallied) >= share)
		return NULL;
	for (int i = 0; i < SET_SLOTS; i++)
	{
		uint64		unused = 0;

		if (pg_atomic_compare_exchange_u64(&set[i].key, &unused, key))
		{
			pg_atomic_fetch_add_u32(&db->tallied, 1);
			return &set[i];
		}
		if (unused == key)
			return &set[i];
	}
	return NULL;
}

/*
 * slot_give counts what a slot has in "other", and gives it back; of two who
 * do so one.
 */
static void
slot_give(MbusDatabase *db, Slot *slot, uint64 key)
{
	for (int t = 0; t < MBUS_TALLIES; t++)
		pg_atomic_fetch_add_u64(&db->other[t],
								(int64) pg_atomic_exchange_u64(&slot->n[t], 0));
	if (pg_atomic_compare_exchange_u64(&slot->key, &key, 0))
		pg_atomic_fetch_sub_u32(&db->tallied, 1);
}

/*
 * mbus_tallies_read returns what was counted of a channel, 0: of all others
 * together; false where that is not known: it may be among the others.
 */
bool
mbus_tallies_read(MbusDatabase *db, int32 channel_id, MbusTallies *tallies)
{
	Slot	   *slot = channel_id == 0 ? NULL :
	slot_find(slot_key(db, channel_id));
	pg_atomic_uint64 *counters = slot ? slot->n : db->other;

	if (channel_id != 0 && slot == NULL)
	{
		MemSet(tallies, 0, sizeof(*tallies));
		return pg_atomic_read_u32(&db->tally_full) == 0;
	}
	for (int t = 0; t < MBUS_TALLIES; t++)
		tallies->n[t] = pg_atomic_read_u64(&counters[t]);
	return true;
}

/*
 * mbus_tally_dropped gives a channel's slot back.  It cannot fail.
 */
void
mbus_tally_dropped(MbusDatabase *db, int32 channel_id)
{
	uint64		key = slot_key(db, channel_id);
	Slot	   *slot = slots ? slot_find(key) : NULL;

	if (slot)
		slot_give(db, slot, key);
}

/*
 * mbus_tallied returns the channels of a database that have a slot, "max" at
 * most, from the place *at on, which it moves: to -1 behind the last.
 */
int
mbus_tallied(MbusDatabase *db, int32 *channel_ids, int max, int *at)
{
	int			n = 0;

	for (; slots && *at < mbus_max_channel_metrics && n < max; (*at)++)
	{
		uint64		key = pg_atomic_read_u64(&slots[*at].key);

		if (key != 0 && (Oid) (key >> 32) == db->database)
			channel_ids[n++] = (int32) key;
	}
	if (slots == NULL || *at >= mbus_max_channel_metrics)
		*at = -1;
	return n;
}

/*
 * mbus_tallies_forget gives back all slots of a database: its extension is
 * another one.
 */
void
mbus_tallies_forget(MbusDatabase *db)
{
	for (int i = 0; slots && i < mbus_max_channel_metrics; i++)
	{
		uint64		key = pg_atomic_read_u64(&slots[i].key);

		if (key != 0 && (Oid) (key >> 32) == db->database)
			slot_give(db, &slots[i], key);
	}
}
