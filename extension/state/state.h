/*
 * state.h
 *		Shared memory of the bus: one MbusDatabase for each database that has
 *		a worker, and the registry of unfinished publishes.
 *
 * Everything here is volatile and can be rebuilt from the tables.  Each struct
 * says which lock protects it and who writes it; the order of the locks is in
 * extension/README.md.
 */
#ifndef MBUS_STATE_H
#define MBUS_STATE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "base/compat.h"
#include "base/ids.h"
#include "state/ring.h"

#define MBUS_MAX_SERIES		64	/* the TTL buckets come first */
#define MBUS_RANGES_PER_BACKEND 256
#define MBUS_SERIES_BITS	4096	/* that tell which channels are in a
									 * segment */
#define MBUS_READ_BYTES		(128 * 1024)	/* of reads that are not recorded
											 * yet */
#define MBUS_FAULT_BYTES	(192 * 1024)	/* of failures that are not stored
											 * yet */
#define MBUS_FAULT_TEXT		512 /* of a message or detail, with its end */
#define MBUS_FAULT_NAME		256 /* of what it is about, likewise */
#define MBUS_FAULT_ROLES	32	/* that are told apart, when many fail; ... */
#define MBUS_FAULT_SUBJECTS 96	/* ... of them, subjects; ... */
#define MBUS_FAULT_SESSIONS 64	/* ... and sessions */
#define MBUS_FAULT_SHARES \
	(MBUS_FAULT_ROLES + MBUS_FAULT_SUBJECTS + MBUS_FAULT_SESSIONS)
#define MBUS_CHANNEL_SLOTS	131072
#define MBUS_CHANNEL_SHARE	1024	/* of them, sure for each database */
#define MBUS_DEFAULTS_WANTED 16
#define MBUS_SUBS_WANTED	64
#define MBUS_RESTORING		4096	/* segments that a restore is filling, by
									 * their numbers */
#define MBUS_FACT_CHUNKS	32	/* a transaction may take */
#define MBUS_FACT_CHUNK_BITS 20 /* of the largest */
#define MBUS_TOUCHED_SETS	64
#define MBUS_QUARANTINE_WORDS 16	/* of a filter of messages */
#define MBUS_SCRUB_WANTED	16
#define MBUS_TOUCHED_WAYS	4
#define MBUS_READY_STORES	8	/* own ones made ahead, at most */

/* Counters shown by the view metrics; names in audit/metrics.c. */
typedef enum MbusCounter
{
	MBUS_C_PUBLISHED,
	MBUS_C_PUBLISHED_BYTES,
	MBUS_C_DUPLICATES,
	MBUS_C_IDS_RESERVED,
	MBUS_C_IDS_RETURNED,
	MBUS_C_READ,
	MBUS_C_READ_BYTES,
	MBUS_C_DELETED,
	MBUS_C_ERRORS,
	MBUS_C_CHECKSUM_FAILURES,
	MBUS_C_FAULTS_LOST,
	MBUS_C_FRAMES,
	MBUS_C_SEGMENTS_OPENED,
	MBUS_C_SEGMENTS_RETIRED,
	MBUS_C_SEGMENT_WAITS,
	MBUS_C_WORKER_PASSES,
	MBUS_C_WORKER_ERRORS,
	MBUS_C_CLAIMED,
	MBUS_C_REDELIVERED,
	MBUS_C_ACKED,
	MBUS_C_NACKED,
	MBUS_C_LEASES_EXPIRED,
	MBUS_C_DEAD_LETTERED,
	MBUS_C_NOT_MOVED,
	MBUS_C_REDRIVEN,
	MBUS_C_WAITS,
	MBUS_C_CORRUPT_SKIPPED,
	MBUS_C_SCRUBBED,
	MBUS_C_SCRUBBED_BYTES,
	MBUS_C_QUARANTINED,
	MBUS_C_QUARANTINE_LEFT,
	MBUS_COUNTERS
} MbusCounter;

/* What is counted of each channel, at commit; see tally.c. */
typedef enum MbusTally
{
	MBUS_T_PUBLISHED,
	MBUS_T_PUBLISHED_BYTES,
	MBUS_T_DELIVERED,
	MBUS_T_DELIVERED_BYTES,
	MBUS_T_ACKED,
	MBUS_T_NACKED,
	MBUS_T_LAPSED,				/* lease, session or server ended */
	MBUS_T_DEAD,
	MBUS_TALLIES
} MbusTally;

/* What is measured, likewise. */
typedef enum MbusLatency
{
	MBUS_L_PUBLISH,				/* a call that publishes */
	MBUS_L_CLAIM,				/* from when a message could be had to its
								 * first claim */
	MBUS_L_ACK,					/* from the claim to the ack */
	MBUS_LATENCIES
} MbusLatency;

#define MBUS_LATENCY_BUCKETS 20

/*
 * What is known of segments' numbers: the state lock.  Only the worker writes
 * it, if it is not said; it is all zero until it has numbered.  "known" and
 * "hiding" repeat what leaf.c reads without the lock.
 */
typedef struct MbusNumbering
{
	bool		ready;			/* it has; publishing may start */
	bool		refused;		/* it never will: message_bus.node is another
								 * than that of the database, "node" */
	int32		node;
	int32		next_segment;	/* lowest number that was never used */
	int32		opening;		/* segment that is being made; 0: none */
	int32		nrestoring;
	int32		restoring[MBUS_RESTORING];	/* hidden, ascending */
	int32		crowd_lo;		/* what had no room there, and is hidden too: */
	int32		crowd_hi;		/* none but these are from lo to below hi */
	int32		gap;			/* the lowest that is waited for by who wants
								 * no gaps; 0: none is */
	int32		roll_below;		/* publishers go to a segment of at least this
								 * number; whoever fills tables writes it, too
								 * (segment/fill.c) */
	uint32		looks_wanted;	/* for what is restored; the last ticket, */
	uint32		looks_done;		/* and the last that has been served */

	pg_atomic_uint32 known;		/* next_segment; 0 if not ready */
	pg_atomic_uint32 hiding;	/* nrestoring; written before "known" */
	pg_atomic_uint32 fills;		/* others have written to segments so often */
	pg_atomic_uint64 filled_at; /* and last at this time; 0: never */
	pg_atomic_uint64 bodies_filled_at;	/* likewise, tables of bodies */
} MbusNumbering;

/*
 * A series of segments, with at most one of them open for publishing: the
 * state lock.  The worker opens and closes, publishers reserve and want.
 */
typedef struct MbusSeries
{
	int32		open_segment;	/* 0: none is open */
	bool		own;			/* the series is one channel's own */
	Oid			leaf[MBUS_FAMILIES];	/* tables of the open segment */
	int32		next_row;		/* first row number not reserved; goes back
								 * when some are returned */
	int32		max_rows;		/* row numbers this segment has */
	int64		bytes;			/* payload bytes reserved in it */
	TimestampTz opened_at;
	TimestampTz max_expires_at; /* latest expiry reserved in it; 0: nothing
								 * ever was */
	int32		wanted;			/* publishers wait for an open segment
								 * numbered at least this; 0: nobody */
	uint64		channels[MBUS_SERIES_BITS / 64];	/* a bit of each that has
													 * reserved in it */
} MbusSeries;

/*
 * Empty pages ahead in the table of a series' open segment, see ahead.c: no
 * lock.  Publishers write "used" and "asked", the worker all.
 */
typedef struct MbusAhead
{
	pg_atomic_uint32 used;		/* highest page that was written */
	pg_atomic_uint32 limit;		/* pages of the table, when it was last
								 * extended; 0: it was not */
	pg_atomic_uint32 low;		/* from this page on more are asked for */
	pg_atomic_uint32 asked;		/* 1: more are wanted */
	uint32		pages;			/* so many at a time; the worker only */
	TimestampTz at;				/* last extended; the worker only */
} MbusAhead;

/*
 * How many segments may still be opened out of turn, see pace.c: the state
 * lock.  Who opens or closes one so writes it.
 */
typedef struct MbusPace
{
	int32		left;
	TimestampTz since;			/* one more is due from here on; 0: not begun */
} MbusPace;

/*
 * The slots of the database's channels: the state lock.
 */
typedef struct MbusChannels
{
	int32		nslots;
	int64		floor;			/* no id of a channel that had a slot and has
								 * none is above it */
} MbusChannels;

/* A segment that facts were written to, and the number that entered it. */
typedef struct MbusTouched
{
	int32		segment;
	int64		no;				/* 0: this place is free */
} MbusTouched;

/*
 * Numbers of facts, see fact_number.c: the state lock.  The worker begins an
 * epoch, who writes facts takes numbers and enters segments.
 */
typedef struct MbusFactNumbers
{
	int64		next;			/* lowest not given out; 0: no epoch yet */
	int64		forgotten;		/* no segment that is not in the table was
								 * touched by a higher number */
	MbusTouched touched[MBUS_TOUCHED_SETS][MBUS_TOUCHED_WAYS];
} MbusFactNumbers;

/*
 * Calls of expire(): the state lock.  Who calls it takes a ticket, the worker
 * writes the rest.  A call is served when done >= its ticket.
 */
typedef struct MbusExpireCall
{
	uint64		requested;		/* last ticket */
	uint64		done;
	int32		retired;		/* segments dropped, counted since start */
	int32		blocked;		/* segments that had to wait, in last pass */
} MbusExpireCall;

/* One recorded failure; the worker stores them in message_bus.error. */
typedef struct MbusFault
{
	TimestampTz at;
	int			size;			/* of all of it, aligned */
	int			sqlerrcode;
	int64		message_id;		/* 0: not about a stored message */
	int64		session;		/* gateway's socket, 0: none */
	int			pid;
	Oid			role;			/* who called; the worker looks up the name */

	/*
	 * One behind the other, each with its end: function, message, transaction
	 * id, channel, subject, detail; empty: none.
	 */
	char		texts[FLEXIBLE_ARRAY_MEMBER];
} MbusFault;

#define MBUS_FAULT_MAX \
	MAXALIGN(sizeof(MbusFault) + NAMEDATALEN + 2 * MBUS_FAULT_TEXT + \
			 3 * MBUS_FAULT_NAME)

/*
 * How often a session, a role, or a subject of a role has failed in a second.
 */
typedef struct MbusFaultShare
{
	int64		session;		/* whose it is: of a session, ... */
	Oid			role;			/* ... or of a role, ... */
	char		subject[MBUS_FAULT_NAME];	/* ... or of its subject; none of
											 * them: of all others */
	int64		second;
	int32		count;
	int32		left_out;		/* of these, not in the ring */
	Oid			caller;			/* who failed last, ... */
	int			pid;			/* ... and where */
} MbusFaultShare;

/*
 * Failures not yet stored: the state lock.  Who failed adds at the head, the
 * worker moves the tail, and tells what was left out.
 */
typedef struct MbusFaultRing
{
	MbusRing	ring;
	MbusFaultShare share[MBUS_FAULT_SHARES];	/* of roles, of subjects, of
												 * sessions */
	bool		left_out;		/* by a share, and perhaps not yet told */
	char		bytes[MBUS_FAULT_BYTES];
} MbusFaultRing;

/*
 * Reads not yet recorded, see read_ring.c: the state lock.  Readers add at the
 * head, the worker moves the tail.
 */
typedef struct MbusReads
{
	MbusRing	ring;
	Size		reserved;		/* bytes that open transactions may need */
	char		bytes[MBUS_READ_BYTES];
} MbusReads;

/* What the worker tells of itself: the state lock.  Only it writes this. */
typedef struct MbusWorkerStatus
{
	int			pid;			/* 0: none runs */
	int			procno;			/* whose latch to set; -1: none */
	TimestampTz started_at;
	TimestampTz last_pass_at;
	int64		last_pass_us;	/* how long it took */
	TimestampTz last_error_at;
	char		last_error[256];
} MbusWorkerStatus;

/*
 * What backends that deliver and the worker tell each other: the delivery
 * lock.  Backends take lease numbers and ask; the worker writes the rest.
 */
typedef struct MbusDeliveryCall
{
	int32		lease_epoch;	/* of leases given out; 0: none yet */
	int32		lease_next;		/* next n in it */
	int32		highest_epoch;	/* ever; outlives DROP EXTENSION */

	uint64		loads_wanted;	/* a request is served when done >= its number */
	uint64		loads_done;
	int32		sub_wanted[MBUS_SUBS_WANTED];	/* subscriptions that somebody
												 * needs loaded */
	int32		nsub_wanted;
	int32		default_wanted[MBUS_DEFAULTS_WANTED];	/* channels whose
														 * subscription
														 * "default" is to be
														 * made */
	int32		ndefault_wanted;
	bool		subs_full;		/* the last load lacked a free slot */

	TimestampTz expiry_wake;	/* the worker looks for leases that have ended
								 * by then at the latest */
} MbusDeliveryCall;

/*
 * Whether there is room on the disk, see disk.c: the state lock.  The worker
 * writes it, who fails for want of space sets "told".  "full" repeats what
 * publishers read without the lock.
 */
typedef struct MbusDisk
{
	TimestampTz full_since;		/* 0: it is not full */
	bool		told;
	pg_atomic_uint32 full;
} MbusDisk;

/* Where the scrubber is: the state lock.  Only the worker writes this. */
typedef struct MbusScrubStatus
{
	int64		cycle;			/* 0: none has begun */
	TimestampTz started_at;
	TimestampTz ended_at;		/* 0: it goes on */
	int64		next_id;		/* ids below have been looked at */
	int64		messages;		/* in this cycle */
	int64		bytes;
	int64		bad;
	int64		unread;			/* segments that could not be read */
} MbusScrubStatus;

/* The scrubber and the quarantine, see scrub_state.c: no lock for the rest. */
typedef struct MbusScrubState
{
	MbusScrubStatus status;
	pg_atomic_uint64 filter[MBUS_QUARANTINE_WORDS];
	pg_atomic_uint64 wanted[MBUS_SCRUB_WANTED]; /* ids; 0: unused */
	pg_atomic_uint32 quarantined;	/* rows of the table, about */
} MbusScrubState;

/* How long something took, since the server's start: no lock. */
typedef struct MbusSpread
{
	pg_atomic_uint64 bucket[MBUS_LATENCY_BUCKETS];
	pg_atomic_uint64 us;		/* all together */
} MbusSpread;

/*
 * The store of a series that takes bodies, see store.c: the state lock.  The
 * worker opens and closes, who writes bodies reserves and wants.
 */
typedef struct MbusOpenStore
{
	int32		store_no;		/* 0: none is open */
	Oid			relid;
	int32		next_n;			/* lowest number of a body not given out */
	int64		bytes;			/* reserved in it */
	TimestampTz opened_at;
	TimestampTz closes_at;
	TimestampTz wanted_until;	/* when the last of what was reserved expires */
	TimestampTz max_expires_at; /* of the messages that it keeps, up to ... */
	TimestampTz promised;		/* ... what its row says: until then it is
								 * kept after a crash */
	TimestampTz wanted;			/* somebody waits for one, or for the next,
								 * for a body that expires then; 0: nobody */
} MbusOpenStore;

/* A store for one body that nobody has taken yet. */
typedef struct MbusReadyStore
{
	int32		store_no;
	int32		n;				/* of its body */
	Oid			relid;
} MbusReadyStore;

/*
 * Stores of large bodies, see store.c: the state lock.  The worker makes them,
 * who writes bodies takes them.
 */
typedef struct MbusStores
{
	int32		next_store;		/* lowest number never used; 0: not numbered
								 * yet */
	MbusOpenStore open[MBUS_MAX_SERIES + 1];	/* by series */
	int32		nready;
	MbusReadyStore ready[MBUS_READY_STORES];
	bool		own_wanted;		/* somebody waits for one */
	TimestampTz own_at;			/* one was last asked for */
	int32		own;			/* such stores there are, as the worker last
								 * knew */
	TimestampTz settled_at;		/* when a restore last brought one; the
								 * worker's alone */
} MbusStores;

/*
 * What is shared of one database; worker/reset.c begins it anew.  A process
 * reads without a lock only what it alone writes (which the worker does) and
 * the oid of its own database.
 */
typedef struct MbusDatabase
{
	LWLock		lock;			/* the state lock */
	Oid			database;		/* InvalidOid: slot is free; slot_lock */
	Oid			schema;			/* the schema message_bus; InvalidOid: the
								 * worker found no extension; state lock,
								 * written by the worker */
	MbusNumbering numbering;
	MbusSeries	series[MBUS_MAX_SERIES + 1];	/* 1-based */
	MbusAhead	ahead[MBUS_MAX_SERIES + 1]; /* by series */
	MbusPace	pace;
	MbusChannels channels;
	MbusFactNumbers facts;
	MbusExpireCall expire;
	MbusFaultRing faults;
	MbusReads	reads;
	MbusWorkerStatus worker;
	MbusDeliveryCall delivery;	/* the delivery lock */
	MbusDisk	disk;
	MbusScrubState scrub;
	MbusStores	stores;
	pg_atomic_uint32 store_look;	/* 1: some may be of no use any more; no
									 * lock */

	/*
	 * By series: no id below it is given out again.  Readers raise it,
	 * holding the state lock shared.
	 */
	pg_atomic_uint64 told[MBUS_MAX_SERIES + 1];

	ConditionVariable changed;	/* the worker opened, failed or passed */
	pg_atomic_uint64 counter[MBUS_COUNTERS];

	/* tally.c: no lock */
	MbusSpread	latency[MBUS_LATENCIES];
	pg_atomic_uint64 other[MBUS_TALLIES];	/* channels without a slot */
	pg_atomic_uint32 tallied;	/* slots */
	pg_atomic_uint32 tally_full;	/* 1: there was none for a channel */
} MbusDatabase;

extern bool mbus_preloaded(void);
extern void mbus_state_init(void);

/* any backend of a listed database */
extern void mbus_roll_below(MbusDatabase *db, int64 number);
extern void mbus_preload_check(void);
extern MbusDatabase *mbus_database(void);
extern MbusDatabase *mbus_database_or_null(void);
extern void mbus_wake_worker(MbusDatabase *db);
extern void mbus_worker_wait(MbusDatabase *db, TimestampTz *started,
							 const char *what);
extern void mbus_node_checked(MbusDatabase *db);
pg_noreturn extern void mbus_node_refuse(int32 node);
extern void mbus_count(MbusCounter counter, uint64 n);

/* epochs of leases that any database has begun */
extern void mbus_epoch_seen(uint32 epoch);
extern uint32 mbus_epoch_highest(void);
extern TimestampTz mbus_state_made_at(void);

/* the database's worker only */
extern MbusDatabase *mbus_database_attach(Oid database);
extern void mbus_databases_forget(List *existing,
								  void (*reset) (MbusDatabase *db, Oid schema));

#endif							/* MBUS_STATE_H */
