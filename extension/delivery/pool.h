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

#include "base/moment.h"
#include "segment/segment_set.h"

#define MBUS_WAITS		2048	/* bits of a filter of keys */
#define MBUS_WAIT_SEGMENTS 16	/* followed one by one */

/* What is outstanding: one message of one subscription. */
typedef enum MbusEntryState
{
	MBUS_ENTRY_FREE,
	MBUS_ENTRY_READY,			/* goes out with the next claim */
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

typedef enum MbusPartyKind
{
	MBUS_PARTY_CHANNEL,
	MBUS_PARTY_HOLDER,
	MBUS_PARTY_SOCKET,			/* a session of a gateway */
	MBUS_PARTY_CLAIMS			/* of SQL, that names a subject */
}			MbusPartyKind;

/* No padding: it is hashed. */
typedef struct MbusPartyKey
{
	uint64		number;			/* channel; hash of a subject, 0: none;
								 * session */
	Oid			database;
	Oid			role;			/* of a channel: the schema */
	uint32		above;			/* of a session: its holder; else MBUS_NONE */
	uint32		kind;			/* MbusPartyKind */
} MbusPartyKey;

typedef struct MbusEntry
{
	int64		id;
	TimestampTz deadline;		/* of the lease */
	TimestampTz expires_at;		/* of the message; 0: not known */
	int64		key_hash;		/* ordered with a key only, else 0 */
	int64		passed;			/* lowest id passed over for it; 0: none */
	uint32		next;			/* in the list it is on */
	uint32		slot;			/* whose it is, or to be set aside for */
	uint32		id_next;		/* in its id's bucket */
	uint32		key_next;		/* in its key's bucket */
	uint32		lease;			/* HELD, LEASED: index */
	uint32		party;			/* who has claimed it, or set it aside;
								 * MBUS_NONE: nobody */
	int32		owner;			/* procno of the transaction that holds or has
								 * pinned it; -1: none */
	int16		attempt;		/* HELD, LEASED: this one; else the next */
	uint8		state;			/* MbusEntryState */
	uint8		pin;			/* MbusPin */
	bool		committing;		/* its owner has passed PRE_COMMIT, or the
								 * frame it is of has ended */
	bool		voided;			/* its owner frees it, nothing else */
	bool		corrupt;		/* HELD, LEASED: the worker gives it up */
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
	TimestampTz deadline;		/* not above any entry's; see deadline.c */
	Oid			database;
	uint32		above;			/* in the order of deadlines */
	uint32		earlier;
	uint32		later;
	int32		owner;			/* procno until the claim commits, else -1 */
	int32		pid;
	Oid			role;			/* who has claimed: holder.c */
	uint64		subject;		/* a hash of the claims'; 0: none */
	int64		session;
	bool		kept;			/* does not end with its session */
	bool		lost;			/* its session has ended ... */
	uint16		close_code;		/* ... with that; 0: not known */
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
	int32		share;			/* of the pools, that it counts in: quota.c */
	int32		charged;		/* entries: set aside, its own, void ones */
	uint32		party;			/* its channel: party.c; kept until the slot
								 * is used again */
	Oid			database;		/* InvalidOid: free */
	Oid			schema;
	int32		subscription_id;
	int32		channel_id;
	bool		ordered;
	bool		loaded;
	bool		dropped;		/* gone when its scanner is */
	int32		scanner;		/* procno; -1: nobody */
	bool		seeking;		/* the scanner is a seek */

	/* from the subscription's row; written by load and seek */
	int64		start_id;		/* ids below are not wanted */
	TimestampTz start_at;		/* nor what was created before; 0: all is */
	int64		since_lease;	/* facts under leases below do not count */
	TimestampTz created_at;		/* tells it from another with its number */

	/* where it is; written by the scanner, by load and seek */
	int64		cursor;
	int64		check_below;	/* ids below were given out before the start,
								 * or moved by rescue.c */
	int64		expired_low;	/* no message with a lower id at or below the
								 * cursor was passed because it had expired */
	bool		reloaded;		/* and the scan at work must not move it */
	MbusMoment	due_position;	/* all before has been looked at */
	TimestampTz next_due;		/* nothing delayed is due before */
	MbusSegmentSet due_in;		/* where those behind the position are that
								 * the cursor has passed */

	/* also written by callbacks */
	MbusMoment	retry_position; /* all before has been looked at */
	TimestampTz next_retry;		/* nothing is to be retried before */
	MbusMoment	retry_from;		/* where the scan at work has found it; a
								 * checkpoint takes the lowest of these */
	MbusSegmentSet retry_in;	/* where those behind the position are; what
								 * the scan at work has found it has taken */
	TimestampTz retry_floor;	/* what open redrives may have inserted */
	int32		redrives;		/* how many are open */
	uint32		redriven;		/* how many have committed */
	TimestampTz redriven_at;	/* when the last of these began */

	/* ordered: keys of which one may wait for a retry, by their hash */
	uint64		waits[MBUS_WAITS / 64];
	int64		wait_low;		/* none with a key has a lower id; 0: none is */
	int64		wait_passed;	/* lowest id passed over for one of a higher
								 * id; 0: none was */
	int32		wait_segment[MBUS_WAIT_SEGMENTS];	/* where they are; 0:
													 * unused */
	bool		wait_more;		/* in any other segment too */
	int32		wait_upto;		/* then: of the segments up to this one */
	int32		wait_leaves;	/* so many were there */

	uint32		ready;			/* READY entries, by ascending id */
	int32		nready;
	uint32		nexts;			/* NEXT entries, in no order */
	uint32		leases;
	int32		nentries;		/* all it has */
	int32		nleased;		/* HELD and LEASED */
	uint32		skipped;		/* by ascending id */
	int32		nskipped;
	int32		skip_nodes;		/* of the list, and set aside */
	int64		quiet_from;		/* from here to the cursor a scan has seen no
								 * message */
	uint32		turn;			/* claims of one message, counted */
	TimestampTz used_at;		/* loaded, or scanned last */

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
extern int	mbus_parties(void);

/* lists; under the delivery lock */
extern uint32 mbus_entries_take(uint32 slot, uint32 party, int n, int *taken);
extern void mbus_entry_charge(uint32 entry, uint32 party);
extern void mbus_entries_free(uint32 first);
extern void mbus_entry_add(uint32 slot, uint32 entry, int64 id, int attempt,
						   int64 key_hash);
extern void mbus_entry_gone(uint32 slot, uint32 entry);
extern bool mbus_entry_done(uint32 slot, uint32 entry);
extern void mbus_entry_failed(uint32 slot, uint32 entry, TimestampTz at);
extern void mbus_entry_identify(uint32 slot, uint32 entry, int64 id);
extern uint32 mbus_entry_find(uint32 slot, int64 id);
extern void mbus_retry_pull(MbusSub *sub, TimestampTz at, int64 id);
extern void mbus_retries_pull(MbusSub *sub, TimestampTz at);
extern void mbus_ready_merge(uint32 slot, uint32 chain);
extern bool mbus_key_may_wait(uint32 slot, int64 key_hash);
extern void mbus_keys_wait(uint32 slot, int64 wait_low);
extern void mbus_keys_wait_in(uint32 slot, int32 segment);
extern void mbus_keys_passed(uint32 slot, int64 id);
extern void mbus_keys_clear(uint32 slot);
extern uint32 mbus_key_find(uint32 slot, int64 key_hash);

#endif							/* MBUS_POOL_H */
