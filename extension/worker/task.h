/*
 * task.h
 *		The background worker of a database and its launcher.
 */
#ifndef MBUS_WORKER_H
#define MBUS_WORKER_H

#include "postgres.h"

#include "storage/lock.h"

#include "state/state.h"

/* Transactions that a retirement waits for, at most this many are kept. */
#define MBUS_BLOCKERS_MAX	64

#define MBUS_LET_GO_EVERY_MS	500

/* Tasks of a kind are put off after one failed; each has its own backoff. */
typedef enum MbusTaskKind
{
	MBUS_TASK_FIND,
	MBUS_TASK_NUMBER,
	MBUS_TASK_OPEN,
	MBUS_TASK_CLOSE,
	MBUS_TASK_RETIRE,
	MBUS_TASK_STORE,
	MBUS_TASK_EPOCH,
	MBUS_TASK_LOAD,
	MBUS_TASK_EXPIRE,
	MBUS_TASK_CHECKPOINT,
	MBUS_TASK_ACKED,
	MBUS_TASK_KINDS
} MbusTaskKind;

typedef enum MbusOutcome
{
	MBUS_DONE,
	MBUS_BLOCKED,				/* somebody's lock or publish is in the way,
								 * or a segment that is to be opened first */
	MBUS_FAILED					/* logged and counted */
} MbusOutcome;

/* The worker's own memory; no other process sees it. */
typedef struct MbusWork
{
	MbusDatabase *db;
	void		(*serve) (struct MbusWork *work);	/* what others wait for,
													 * done between two long
													 * tasks */

	/* the extension as found in this pass; InvalidOid: there is none */
	Oid			extension;
	Oid			schema;
	Oid			owner;			/* of the parent tables */
	Oid			parent[MBUS_FAMILIES];

	/* backoff */
	bool		failed[MBUS_TASK_KINDS];	/* since mbus_tasks_begin */
	int			failures[MBUS_TASK_KINDS];	/* groups in a row */
	TimestampTz retry_at[MBUS_TASK_KINDS];

	/* when a series was last seen to grow, and to what */
	int32		seen_segment[MBUS_MAX_SERIES + 1];
	int32		seen_row[MBUS_MAX_SERIES + 1];
	TimestampTz grew_at[MBUS_MAX_SERIES + 1];

	/* what the commit of a drop tells; see segment_retire.c */
	uint64		ticket;			/* of expire(), served in this pass; 0: none */
	bool		dropping;		/* the transaction drops a segment */
	bool		last_drop;		/* with it the ticket is served */

	/* who was in the way of a retirement when it was last tried */
	VirtualTransactionId blocker[MBUS_BLOCKERS_MAX];
	int			nblockers;
	TransactionId pending_xmin; /* snapshots up to it may see what is
								 * detach-pending; Invalid: not known */
	TimestampTz blocked_said;	/* when the log was last told of it */

	/* deliveries; see delivery_work.c */
	bool		load;			/* subscriptions are to be loaded unasked */
	bool		epoch_is_new;	/* numbering has made it: no lease of before
								 * can be as high */
	uint64		older_checked;	/* see delivery_load.c */
	int32		highest_checked;	/* segment: those up to it were restored
									 * or are ours */
	bool		expiry_stuck;	/* a lease that has ended could not be seen to */
	TimestampTz numbered_at;	/* or this worker started later */
	TimestampTz loaded_at;
	TimestampTz looked_at;		/* for checkpoints that are due */
	TimestampTz acked_at;		/* looked for segments that are acked */

	TimestampTz let_go_checked;
	TimestampTz full_pass_at;
	TimestampTz pruned_at;
} MbusWork;

/* How far a table of a segment is on its way out. */
typedef enum MbusLeafState
{
	MBUS_LEAF_GONE,
	MBUS_LEAF_UNFINISHED,		/* a restore is making it */
	MBUS_LEAF_ATTACHED,
	MBUS_LEAF_PENDING,
	MBUS_LEAF_DETACHED
} MbusLeafState;

/* Segment numbers that a query found. */
typedef struct MbusNumbers
{
	int			n;
	int32	   *number;			/* in the pass's memory context */
	MemoryContext context;
} MbusNumbers;

/* What is outstanding in a segment or a whole subscription. */
typedef struct MbusPending
{
	int64		id;
	int64		lease;			/* 0: not claimed, or not committed */
	int16		attempt;
} MbusPending;

/* A subscription's part of shared memory, copied in one step. */
typedef struct MbusPosition
{
	int32		subscription_id;
	bool		ordered;
	int64		since_lease;
	int64		cursor;
	int64		passed;			/* lowest id an entry has let wait; INT64_MAX */
	TimestampTz due_at;
	TimestampTz retry_at;
	int			npending;		/* by ascending id */
	int			maxpending;
	MbusPending *pending;
	int			nskips;			/* of pairs [lo, hi) */
	int			maxskips;
	int64	   *skips;
} MbusPosition;

/* A task; returns MBUS_DONE or MBUS_BLOCKED, or errors. */
typedef MbusOutcome (*MbusTask) (MbusWork *work, void *arg);

/* reset.c */
extern void mbus_database_reset(MbusDatabase *db, Oid schema);

/* launcher.c */
extern void mbus_launcher_init(void);
extern PGDLLEXPORT void mbus_launcher_main(Datum main_arg);

/* worker.c */
extern PGDLLEXPORT void mbus_worker_main(Datum main_arg);

/* worker_task.c */
extern bool mbus_tasks_begin(MbusWork *work, MbusTaskKind kind, bool force);
extern void mbus_tasks_end(MbusWork *work, MbusTaskKind kind);
extern MbusOutcome mbus_task_run(MbusWork *work, MbusTaskKind kind,
								 MbusTask task, void *arg,
								 const char *what,...) pg_attribute_printf(5, 6);
extern void mbus_task_let_go(MbusWork *work);
extern void mbus_task_begin(void);
extern void mbus_task_commit(void);
extern void mbus_task_hold_extension(MbusWork *work);
extern void mbus_task_become_owner(MbusWork *work);
extern void mbus_task_lock_timeout(int ms);
extern void mbus_sql(const char *fmt,...) pg_attribute_printf(1, 2);
extern int64 mbus_sql_int64(bool *isnull, const char *fmt,...) pg_attribute_printf(2, 3);

/* segment_open.c */
extern void mbus_segments_number(MbusWork *work);
extern void mbus_segments_open(MbusWork *work);
extern int64 mbus_highest_segment(void);
extern void mbus_series_close(MbusWork *work, int32 series);
extern void mbus_segment_depend(Oid leaf, Oid extension);

/* delivery_work.c */
extern void mbus_deliveries_serve(MbusWork *work);
extern TimestampTz mbus_deliveries_wake(MbusWork *work, TimestampTz wake);
extern bool mbus_epoch_raise(MbusWork *work, int64 least);
extern void mbus_epoch_begin(MbusDatabase *db, int64 epoch);

/* delivery_load.c */
extern void mbus_subscriptions_load(MbusWork *work);

/* delivery_rebuild.c */
extern bool mbus_subscriptions_rebuild(MbusWork *work, const int32 *ids,
									   int n, bool *full);

/* delivery_checkpoint.c */
extern void mbus_checkpoints_write(MbusWork *work);
extern bool mbus_position_copy(MbusWork *work, uint32 slot,
							   int32 subscription_id,
							   MbusPosition *position);

/* segment_acked.c */
extern void mbus_segments_acked(MbusWork *work);

/* segment_close.c */
extern void mbus_segment_closed(MbusWork *work, int32 segment,
								TimestampTz expires_at);
extern void mbus_segments_close_expired(MbusWork *work);
extern void mbus_segments_close_lost(MbusWork *work);
extern void mbus_segments_query(MbusWork *work, MbusNumbers *found,
								const char *query);

/* segment_retire.c */
extern void mbus_retire_init(MbusWork *work);
extern int	mbus_segments_retire(MbusWork *work);
extern MbusLeafState mbus_leaf_state(MbusWork *work, MbusFamily family,
									 int32 segment, Oid *leaf);

#endif							/* MBUS_WORKER_H */
