/*
 * channel_slot.c
 *		What is known of channels that were published to lately.
 *
 * The slots live in a hash of all databases.  channel_lock protects the hash
 * and is taken after the state lock (MbusDatabase.lock); what is in a slot is
 * protected by the state lock of its database.
 *
 * A slot is made by the first publish to the channel, and purged, when the
 * table is full, once all that the channel holds lies below what is open.  A
 * channel without a slot is therefore one whose messages all lie below.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/hsearch.h"

#include "base/ids.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/state_internal.h"

static void channel_slots_purge(MbusDatabase *db);

/*
 * mbus_channel_slot_find returns the slot of a channel, or NULL.  Caller holds
 * the database's lock, which is what protects the slot that is returned: the
 * purge of another database never touches it.  Cannot fail.
 */
MbusChannelSlot *
mbus_channel_slot_find(MbusDatabase *db, int32 channel_id)
{
	MbusChannelKey key;
	MbusChannelSlot *slot;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;

	LWLockAcquire(&mbus_shared->channel_lock, LW_SHARED);
	slot = hash_search(mbus_channels, &key, HASH_FIND, NULL);
	LWLockRelease(&mbus_shared->channel_lock);
	return slot;
}

/*
 * mbus_channel_slot finds or makes the slot of a channel; NULL if the table is
 * full of slots that are needed.  Caller holds the database's lock
 * exclusively.
 */
MbusChannelSlot *
mbus_channel_slot(MbusDatabase *db, int32 channel_id)
{
	MbusChannelSlot *slot = mbus_channel_slot_find(db, channel_id);
	MbusChannelKey key;

	if (slot)
		return slot;

	MemSet(&key, 0, sizeof(key));
	key.database = db->database;
	key.channel_id = channel_id;

	LWLockAcquire(&mbus_shared->channel_lock, LW_EXCLUSIVE);
	if (hash_get_num_entries(mbus_channels) >= MBUS_CHANNEL_SLOTS)
		channel_slots_purge(db);
	if (hash_get_num_entries(mbus_channels) < MBUS_CHANNEL_SLOTS)
		slot = hash_search(mbus_channels, &key, HASH_ENTER_NULL, NULL);
	if (slot)
	{
		/*
		 * All that the channel holds lies below what it may still get, so
		 * that a purged slot can start anew from there.
		 */
		slot->last_id = MbusFirstId(mbus_lowest_segment(db, 0)) - 1;
		slot->delays = db->delays.purged;
	}
	LWLockRelease(&mbus_shared->channel_lock);
	return slot;
}

/*
 * channel_slots_purge drops the slots of this database whose channels hold
 * nothing in or above the lowest segment that ids may still come from: one
 * reserved later is above all of theirs anyway.  Caller holds both locks exclusively.
 */
static void
channel_slots_purge(MbusDatabase *db)
{
	HASH_SEQ_STATUS scan;
	MbusChannelSlot *slot;
	int32		lowest = mbus_lowest_segment(db, 0);

	/* no channel may come back to a number that it had */
	db->delays.purged = ++db->delays.last;
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database &&
			MbusSegmentOf(slot->last_id) < lowest)
			(void) hash_search(mbus_channels, &slot->key, HASH_REMOVE, NULL);
	}
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
	db->delays.purged = ++db->delays.last;
	hash_seq_init(&scan, mbus_channels);
	while ((slot = hash_seq_search(&scan)) != NULL)
	{
		if (slot->key.database == db->database)
			(void) hash_search(mbus_channels, &slot->key, HASH_REMOVE, NULL);
	}
	LWLockRelease(&mbus_shared->channel_lock);
	LWLockRelease(&db->lock);
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
