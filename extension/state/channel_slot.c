/*
 * channel_slot.c
 *		What is known of channels that were published to lately.
 *
 * The slots live in a hash of all databases.  channel_lock protects the hash
 * and is taken after the state lock (MbusDatabase.lock); what is in a slot is
 * protected by the state lock of its database.
 *
 * A slot is made by the first publish to the channel and goes with the channel
 * when that is dropped.  It is no more than a memory of the channel's newest
 * id: where there is none, mbus_channel_settled() stands for it, which is not
 * below any id of such a channel, and a slot that is made anew begins there.
 * So ids of a channel only grow, and readers and publishers of a channel
 * without a slot mean the same id.
 *
 * How many: MBUS_CHANNEL_SHARE are sure for each database, what is beyond
 * these shares is for who comes first.  A database that gets no more evicts an
 * eighth of its own, those whose newest ids are lowest; the highest of these is
 * its floor.  The floor is then most often below all that is open.  Where it is
 * in a segment above the one that is open for a channel without a slot, that
 * series rolls, once, and is then the one with the highest ids.
 */
#include "postgres.h"

#include "access/xact.h"
#include "nodes/pg_list.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "base/ids.h"
#include "state/channel_slot.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/state_internal.h"
#include "state/tally.h"

#define EVICT_SAMPLES	256
#define EVICT_PART		8		/* one in so many slots is evicted */
#define SLOTS_BEYOND \
	(MBUS_CHANNEL_SLOTS - MBUS_MAX_DATABASES * MBUS_CHANNEL_SHARE)

/* A channel that this transaction has dropped. */
typedef struct Dropped
{
	int32		channel_id;
	SubTransactionId subid;
} Dropped;

static List *dropped = NIL;		/* in TopTransactionContext */

static MbusChannelSlot *slot_search(MbusDatabase *db, int32 channel_id,
									HASHACTION action);
static bool slots_left(const MbusDatabase *db);
static void slots_evict(MbusDatabase *db);
static int64 evict_bound(MbusDatabase *db);
static void slot_remove(MbusDatabase *db, int32 channel_id);
static void drop_xact_callback(XactEvent event, void *arg);
static void drop_subxact_callback(SubXactEvent event, SubTransactionId mine,
								  SubTransactionId parent, void *arg);

/*
 * mbus_channel_slot_find returns the slot of a channel, or NULL.  Caller holds
 * the database's lock, which is what protects the slot that is returned:
 * another database never touches it.  Cannot fail.
 */
MbusChannelSlot *
mbus_channel_slot_find(MbusDatabase *db, int32 channel_id)
{
	MbusChannelSlot *slot;

	LWLockAcquire(&mbus_shared->channel_lock, LW_SHARED);
	slot = slot_search(db, channel_id, HASH_FIND);
	LWLockRelease(&mbus_shared->channel_lock);
	return slot;
}

/*
 * mbus_channel_slot finds or makes the slot of a channel.  Caller holds the
 * database's lock exclusively.  Slots that it found before may be gone.
 */
MbusChannelSlot *
mbus_channel_slot(MbusDatabase *db, int32 channel_id)
{
	MbusChannelSlot *slot = mbus_channel_slot_find(db, channel_id);

	if (slot)
		return slot;

	LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
	if (!slots_left(db))
		slots_evict(db);
	slot = slot_search(db, channel_id, HASH_ENTER_NULL);
	if (slot)
	{
		if (++db->channels.nslots > MBUS_CHANNEL_SHARE)
			mbus_shared->channels_beyond++;
		slot->series = 0;
		slot->last_id = mbus_channel_settled(db);
	}
	LWLockRelease(&mbus_shared->channel_lock);
	return slot;
}

/*
 * mbus_channel_last returns the newest id that was reserved of a channel with
 * a slot, or one above it that was given back: what is reserved from now on is
 * above.  Caller holds the database's lock.
 */
int64
mbus_channel_last(MbusDatabase *db, const MbusChannelSlot *slot)
{
	const MbusSeries *series = &db->series[slot->series];

	if (series->open_segment != MbusSegmentOf(slot->last_id))
		return slot->last_id;
	return Min(slot->last_id,
			   MbusFirstId(series->open_segment) + series->next_row - 1);
}

/*
 * mbus_channel_settled returns the same of all channels without a slot: what
 * they hold from before the server's start is below all that they may still
 * get.  Caller holds the database's lock.
 */
int64
mbus_channel_settled(MbusDatabase *db)
{
	int64		floor = db->channels.floor;
	int32		lowest = mbus_lowest_segment(db, MbusSegmentOf(floor + 1));

	return Max(MbusFirstId(lowest) - 1, floor);
}

/* Looks in the hash; caller holds channel_lock. */
static MbusChannelSlot *
slot_search(MbusDatabase *db, int32 channel_id, HASHACTION action)
{
	MbusChannelKey key;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;
	return hash_search(mbus_channels, &key, action, NULL);
}

/* Tells whether the database may have one more slot; under channel_lock. */
static bool
slots_left(const MbusDatabase *db)
{
	return db->channels.nslots < MBUS_CHANNEL_SHARE ||
		mbus_shared->channels_beyond < SLOTS_BEYOND;
}

/*
 * slots_evict lets go of those slots of this database whose channels were not
 * published to for longest.  Caller holds both locks exclusively.
 */
static void
slots_evict(MbusDatabase *db)
{
	int64		bound = evict_bound(db);
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;

	db->channels.floor = Max(db->channels.floor, bound);
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database &&
			mbus_channel_last(db, slot) <= bound)
			slot_remove(db, slot->key.channel_id);
	}
}

/*
 * evict_bound returns the newest id up to which slots are evicted: that of one
 * of them, found by a sample.
 */
static int64
evict_bound(MbusDatabase *db)
{
	int32		stride = Max(1, db->channels.nslots / EVICT_SAMPLES);
	int64		sample[EVICT_SAMPLES];
	int			nsamples = 0;
	int32		seen = 0;
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;

	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database && seen++ % stride == 0 &&
			nsamples < EVICT_SAMPLES)
			sample[nsamples++] = mbus_channel_last(db, slot);
	}
	qsort(sample, nsamples, sizeof(int64), mbus_int64_compare);
	return sample[nsamples / EVICT_PART];
}

/* Removes a channel's slot, if it has one; under both locks. */
static void
slot_remove(MbusDatabase *db, int32 channel_id)
{
	if (slot_search(db, channel_id, HASH_REMOVE) == NULL)
		return;
	if (db->channels.nslots-- > MBUS_CHANNEL_SHARE)
		mbus_shared->channels_beyond--;
}

/*
 * mbus_registry_forget drops all slots of a database whose extension is new.
 * Takes the state lock and channel_lock.
 */
void
mbus_registry_forget(MbusDatabase *db)
{
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
	db->channels.floor = 0;
	for (int s = 0; s <= MBUS_MAX_SERIES; s++)
		pg_atomic_write_u64(&db->told[s], 0);
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database)
			slot_remove(db, slot->key.channel_id);
	}
	LWLockRelease(&mbus_shared->channel_lock);
	LWLockRelease(&db->lock);
	mbus_tallies_forget(db);
}

/*
 * mbus_lowest_segment returns the lowest segment, "from" or above, from which
 * ids may still be reserved: one that is open, is being made, or will be.
 * Caller holds the database's lock.
 */
int32
mbus_lowest_segment(MbusDatabase *db, int32 from)
{
	int32		lowest = db->numbering.next_segment;

	if (db->numbering.opening != 0)
		lowest = Min(lowest, db->numbering.opening);
	for (int s = 1; s <= MBUS_MAX_SERIES; s++)
	{
		int32		open = db->series[s].open_segment;

		if (open != 0 && open >= from)
			lowest = Min(lowest, open);
	}
	return lowest;
}

/* ------------------------------------------------------------------------
 * Channels that are dropped
 * ------------------------------------------------------------------------
 */

/*
 * mbus_channel_slot_init registers the callbacks; from _PG_init while the
 * server preloads libraries.
 */
void
mbus_channel_slot_init(void)
{
	RegisterXactCallback(drop_xact_callback, NULL);
	RegisterSubXactCallback(drop_subxact_callback, NULL);
}

/*
 * mbus_channel_dropped lets go of a channel's slot, and of the one it is
 * counted in, when this transaction has committed.
 */
void
mbus_channel_dropped(int32 channel_id)
{
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);
	Dropped    *drop = palloc(sizeof(Dropped));

	drop->channel_id = channel_id;
	drop->subid = GetCurrentSubTransactionId();
	dropped = lappend(dropped, drop);
	MemoryContextSwitchTo(caller);
}

/* Neither of the two can fail. */
static void
drop_xact_callback(XactEvent event, void *arg)
{
	MbusDatabase *db = dropped == NIL ? NULL : mbus_database_or_null();
	ListCell   *cell;

	if (event == XACT_EVENT_COMMIT && db)
	{
		LWLockAcquire(&db->lock, LW_EXCLUSIVE);
		LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
		foreach(cell, dropped)
			slot_remove(db, ((Dropped *) lfirst(cell))->channel_id);
		LWLockRelease(&mbus_shared->channel_lock);
		LWLockRelease(&db->lock);
		foreach(cell, dropped)
			mbus_tally_dropped(db, ((Dropped *) lfirst(cell))->channel_id);
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		dropped = NIL;
}

static void
drop_subxact_callback(SubXactEvent event, SubTransactionId mine,
					  SubTransactionId parent, void *arg)
{
	ListCell   *cell;

	foreach(cell, dropped)
	{
		Dropped    *drop = lfirst(cell);

		if (drop->subid != mine)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			drop->subid = parent;
		else if (event == SUBXACT_EVENT_ABORT_SUB)
			dropped = foreach_delete_current(dropped, cell);
	}
}
