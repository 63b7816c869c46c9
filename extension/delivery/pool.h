/*
 * pool.h
 *		Shared memory of deliveries: subscriptions, leases, entries.
 *
 * The protocol is in delivery/README.md.  All of this is protected by the
 * delivery lock (mbus_delivery_lock), but for what a scanner alone writes; see
 * pool.c.
 */
#ifndef MBUS_POOL_H
#define MBUS_POOL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

/* What is outstanding: one message of one subscription. */
typedef enum MbusEntryState
{
	MBUS_ENTRY_FREE,
	MBUS_ENTRY_READY,			/* goes out with the next claim */
	MBUS_ENTRY_RETRY,			/* ordered only: waits for "deadline" */
	MBUS_ENTRY_NEXT,			/* ordered only: its key's next is wanted */
	MBUS_ENTRY_HELD,			/* claimed by a transaction not ended */
	MBUS_ENTRY_LEASED			/* claimed */
} MbusEntryState;

typedef enum MbusPin
{
	MBUS_PIN_NONE,
	MBUS_PIN_ACK,
	MBUS_PIN_NACK
} MbusPin;

typedef struct MbusEntry
{
	int64		id;
	TimestampTz deadline;		/* of the lease; RETRY: when it is due */
	int64		key_hash;		/* ordered with a key only, else 0 */
	int64		passed;			/* lowest id passed over for it; 0: none */
	uint32		next;			/* in the list it is on */
	uint32		key_next;		/* in its key's bucket */
	uint32		key_slot;		/* whose key it is */
	uint32		lease;			/* HELD, LEASED: index */
	int32		owner;			/* procno of the transaction that holds or has
								 * pinned it; -1: none */
	int16		attempt;		/* HELD, LEASED: this one; else the next */
	uint8		state;			/* MbusEntryState */
	uint8		pin;			/* MbusPin */
	bool		committing;		/* its owner has passed PRE_COMMIT, or the
								 * frame it is of has ended */
	bool		voided;			/* its owner frees it, nothing else */
	bool		corrupt;		/* LEASED: the worker gives it up */
} MbusEntry;

typedef struct MbusLease
{
	int64		number;			/* 0: free */
	uint32		hash_next;
	uint32		next;			/* in the subscription's list */
	uint32		prev;
	uint32		sub;			/* slot; MBUS_NONE: voided */
	uint32		first;			/* entry; by ascending id */
	int32		n;				/* entries it has now */
	TimestampTz claimed_at;
	TimestampTz deadline;		/* not above any entry's */
	int32		owner;			/* procno until the claim commits, else -1 */
	int32		pid;
	Oid			role;
	int64		session;
} MbusLease;

/* A range of ids that was unfinished when the cursor passed it. */
typedef struct MbusSkip
{
	int64		lo;
	int64		hi;				/* behind the last */
	uint32		next;
} MbusSkip;

typedef struct MbusSub
{
	ConditionVariable changed;	/* loaded, or the scanner has gone */
	uint32		generation;		/* rises with each use, seek and drop */
	Oid			database;		/* InvalidOid: free */
	Oid			schema;
	int32		subscription_id;
	int32		channel_id;
	bool		ordered;
	bool		loaded;
	bool		dropped;		/* gone when its last entry is */
	int32		scanner;		/* procno; -1: nobody */
	bool		seeking;		/* the scanner is a seek */

	/* from the subscription's row; written by load and seek */
	int64		start_id;		/* ids below are not wanted */
	TimestampTz start_at;		/* nor what was created before; 0: all is */
	int64		since_lease;	/* facts under leases below do not count */
	TimestampTz created_at;		/* tells it from another with its number */

	/* where it is; written by the scanner, by load and seek */
	int64		cursor;
	int64		check_below;	/* ids below were given out before the start */
	bool		reloaded;		/* and the scan at work must not move it */
	TimestampTz due_at;			/* due position: all before, by time */
	int64		due_id;			/* and id, has been looked at */
	TimestampTz next_due;		/* nothing delayed is due before */
	uint64		delays_seen;	/* mbus_delays() then */

	/* also written by callbacks */
	TimestampTz retry_at;		/* retry position */
	TimestampTz next_retry;		/* nothing is to be retried before */
	TimestampTz retry_from;		/* where the scan at work has found it; a
								 * checkpoint takes the lowest of these */
	TimestampTz retry_floor;	/* what open redrives may have inserted */
	int32		redrives;		/* how many are open */

	uint32		ready;			/* READY entries, by ascending id */
	int32		nready;
	uint32		nexts;			/* NEXT entries, in no order */
	uint32		retry;			/* RETRY entries, in no order */
	int32		nretry;
	uint32		leases;
	int32		nentries;		/* all it has */
	int32		nleased;		/* HELD and LEASED */
	uint32		skipped;		/* by ascending id */
	int32		nskipped;
	TimestampTz earliest;		/* no deadline is before */
	bool		corrupt;		/* has entries that are */
	uint32		turn;			/* claims of one message, counted */

	/* for checkpoints and views, since load */
	bool		changed_since;	/* the checkpoint */
	int64		acks;			/* messages, since the checkpoint */
	int64		delivered;
	int64		redelivered;
	int64		acked;
	int64		nacked;
	int64		expired;
	int64		dead;
} MbusSub;

/* memory; whoever looks at what these return takes the delivery lock */
extern void mbus_delivery_init(void);
extern LWLock *mbus_delivery_lock(void);
extern int	mbus_sub_slots(void);
extern MbusSub *mbus_sub(uint32 slot);
extern MbusEntry *mbus_entry(uint32 entry);
extern MbusLease *mbus_lease(uint32 lease);
extern MbusSkip *mbus_skip(uint32 skip);

/* lists; under the delivery lock */
extern uint32 mbus_entries_take(int n, int *taken);
extern void mbus_entries_free(uint32 first);
extern void mbus_entry_add(uint32 slot, uint32 entry, int64 id, int attempt,
						   int64 key_hash);
extern void mbus_entry_gone(uint32 slot, uint32 entry);
extern bool mbus_entry_done(uint32 slot, uint32 entry);
extern void mbus_entry_failed(uint32 slot, uint32 entry, TimestampTz at);
extern void mbus_entry_retry(uint32 slot, uint32 entry, TimestampTz at);
extern void mbus_ready_merge(uint32 slot, uint32 chain);
extern uint32 mbus_key_find(uint32 slot, int64 key_hash);
extern uint32 mbus_skips_take(int n, int *taken);
extern void mbus_skips_free(uint32 first);

#endif							/* MBUS_POOL_H */
