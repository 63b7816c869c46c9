/*
 * scan_key.c
 *		Keys of an ordered subscription, as a scan meets them.
 *
 * A message with a key can be had if its key has no entry, nor one that this
 * scan has found, and no other message of the key waits in the tables for a
 * retry.  The tables are asked only if the filter in the slot
 * says that there may be one, once for each key, and with a snapshot of their
 * own, taken after the look at memory: a failure whose entry has just gone is
 * in it.  What a retry time has been looked at waits no more (from the retry
 * position of the scan's beginning on): it was taken, or passed over for
 * another one of its key, or is no more.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/snapmgr.h"

#include "base/ids.h"
#include "delivery/pool.h"
#include "delivery/scan_key.h"
#include "delivery/scanning.h"
#include "facts/facts.h"

typedef struct KeySeen
{
	int64		key_hash;		/* hash key */
	int			found;			/* index in scan->found; -1: none */
	int64		waits;			/* lowest id that waits; 0: none, or not known */
} KeySeen;

static KeySeen *key_seen(MbusScan *scan, int64 key_hash, bool *have);
static bool entry_pass(MbusScan *scan, int64 key_hash, int64 id,
					   bool *may_wait);
static bool key_may_wait(MbusScan *scan, int64 key_hash);
static int64 key_waits(MbusScan *scan, int64 key_hash);

/*
 * mbus_scan_key_blocked tells whether a message has to wait for another one
 * of its key.  One that has "failed" itself does so only for one with a lower
 * id: two that wait would wait for each other.
 */
bool
mbus_scan_key_blocked(MbusScan *scan, int64 key_hash, int64 id, bool failed)
{
	KeySeen    *seen;
	bool		have;
	bool		may_wait;

	if (mbus_scan_key_pass(scan, key_hash, id, &may_wait))
		return true;
	if (!may_wait)
		return false;
	seen = key_seen(scan, key_hash, &have);
	if (!have)
		seen->waits = key_waits(scan, key_hash);
	if (seen->waits == 0 || (failed && seen->waits >= id))
		return false;
	if (seen->waits > id && !scan->probe)
	{
		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		mbus_keys_passed(scan->slot, id);
		LWLockRelease(mbus_delivery_lock());
	}
	return true;
}

/*
 * mbus_scan_key_behind returns from where on messages may have been passed
 * over for one of their key that waited.
 */
int64
mbus_scan_key_behind(MbusScan *scan, int64 id)
{
	int64		passed;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	passed = mbus_sub(scan->slot)->wait_passed;
	LWLockRelease(mbus_delivery_lock());
	return passed == 0 ? id + 1 : Min(id + 1, passed);
}

/*
 * mbus_scan_key_pass tells whether a key has an entry, or one that this scan
 * has found, and then notes that a message was passed over for it, or is to be
 * looked for from there on.  In one step, so that it is not forgotten if that
 * one is done meanwhile.
 */
bool
mbus_scan_key_pass(MbusScan *scan, int64 key_hash, int64 id, bool *may_wait)
{
	KeySeen    *seen;

	if (entry_pass(scan, key_hash, id, may_wait))
		return true;
	if (scan->keys == NULL)
		return false;
	seen = hash_search(scan->keys, &key_hash, HASH_FIND, NULL);
	if (seen == NULL || seen->found < 0)
		return false;
	if (scan->found[seen->found].passed == 0 ||
		id < scan->found[seen->found].passed)
		scan->found[seen->found].passed = id;
	return true;
}

/* Does so with the key's entry in memory. */
static bool
entry_pass(MbusScan *scan, int64 key_hash, int64 id, bool *may_wait)
{
	uint32		other;
	int64		passed;

	/* only we, the scanner, give a key an entry, or change "passed" so */
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	other = mbus_key_find(scan->slot, key_hash);
	passed = other == MBUS_NONE ? 0 : mbus_entry(other)->passed;
	*may_wait = key_may_wait(scan, key_hash);
	LWLockRelease(mbus_delivery_lock());
	if (other == MBUS_NONE || scan->probe || (passed != 0 && id >= passed))
		return other != MBUS_NONE;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	other = mbus_key_find(scan->slot, key_hash);
	if (other != MBUS_NONE)
	{
		MbusEntry  *e = mbus_entry(other);

		if (e->passed == 0 || id < e->passed)
			e->passed = id;
	}
	*may_wait = key_may_wait(scan, key_hash);
	LWLockRelease(mbus_delivery_lock());
	return other != MBUS_NONE;
}

/*
 * key_may_wait tells whether a message of the key may wait for a retry, and
 * notes in which segments: those of the scan's beginning, and of what has
 * failed since.  Caller holds the lock, under which what has failed is not in
 * memory any more and its segment is told.
 */
static bool
key_may_wait(MbusScan *scan, int64 key_hash)
{
	if (!mbus_key_may_wait(scan->slot, key_hash))
		return false;
	scan->wait_in = mbus_sub(scan->slot)->retry_in;
	mbus_set_join(&scan->wait_in, &scan->sub.retry_in);
	return true;
}

/*
 * mbus_scan_key_taken notes that what is found next is of the key.
 */
void
mbus_scan_key_taken(MbusScan *scan, int64 key_hash)
{
	bool		have;

	key_seen(scan, key_hash, &have)->found = scan->nfound;
}

/*
 * key_seen returns what this scan knows of a key; *have is false if it is
 * new.  The table lives in the scan's memory context.
 */
static KeySeen *
key_seen(MbusScan *scan, int64 key_hash, bool *have)
{
	KeySeen    *seen;

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
	seen = hash_search(scan->keys, &key_hash, HASH_ENTER, have);
	if (!*have)
	{
		seen->found = -1;
		seen->waits = 0;
	}
	return seen;
}

/* Asks the tables, as they are now. */
static int64
key_waits(MbusScan *scan, int64 key_hash)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		id;

	/* as in mbus_scan: not what this transaction has written */
	snapshot->curcid = FirstCommandId;
	id = mbus_facts_key_waits(scan->schema, scan->sub.subscription_id,
							  scan->sub.since_lease, key_hash,
							  scan->sub.retry_position, &scan->wait_in,
							  snapshot);
	UnregisterSnapshot(snapshot);
	return id;
}
