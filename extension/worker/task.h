/*
 * task.h
 *		One task of the worker, and what tasks share.
 */
#ifndef MBUS_TASK_H
#define MBUS_TASK_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "storage/lock.h"

#include "base/ids.h"
#include "log/log.h"
#include "message/large.h"
#include "state/state.h"

/* Transactions that the retirement of a table waits for, and such tables: at
 * most this many are kept. */
#define MBUS_BLOCKERS_MAX	64
#define MBUS_WAYS_MAX		64

/* So many restored segments that err keep back no other. */
#define MBUS_UNSETTLED		16

/* For how long a task waits for a lock while nobody is served. */
#define MBUS_LOCK_WAIT_MS	50

/* How often a worker looks whether somebody wants its database. */
#define MBUS_LET_GO_EVERY_MS	500

/* Tasks of a kind are put off after one failed; each has its own backoff. */
typedef enum MbusTaskKind
{
	MBUS_TASK_FIND,
	MBUS_TASK_NUMBER,
	MBUS_TASK_OPEN,
	MBUS_TASK_CLOSE,
	MBUS_TASK_BODY_OPEN,
	MBUS_TASK_BODY_CLOSE,
	MBUS_TASK_READS,
	MBUS_TASK_RETIRE,
	MBUS_TASK_BODY_DROP,
	MBUS_TASK_BODY_SETTLE,
	MBUS_TASK_BODY_MOVE,
	MBUS_TASK_STORE,
	MBUS_TASK_EPOCH,
	MBUS_TASK_LOAD,
	MBUS_TASK_EXPIRE,
	MBUS_TASK_CHECKPOINT,
	MBUS_TASK_LOG,
	MBUS_TASK_PRUNE,
	MBUS_TASK_ACKED,
	MBUS_TASK_ENTER,
	MBUS_TASK_RESTORE,
	MBUS_TASK_NAMES,
	MBUS_TASK_SETTLE,
	MBUS_TASK_ATTACH,
	MBUS_TASK_AHEAD,
	MBUS_TASK_RESCUE,
	MBUS_TASK_ROLES,
	MBUS_TASK_SCRUB,
	MBUS_TASK_KINDS
} MbusTaskKind;

typedef enum MbusOutcome
{
	MBUS_DONE,
	MBUS_BLOCKED,				/* somebody's lock or publish is in the way,
								 * or a segment that is to be opened first */
	MBUS_FAILED					/* logged and counted */
} MbusOutcome;

/* When a kind of task is tried again; task.c. */
typedef struct MbusBackoff
{
	bool		failed;			/* since mbus_tasks_begin */
	bool		locked;			/* the same, by somebody's lock */
	TimestampTz locked_said;	/* when the log was last told of that */
	int			failures;		/* groups in a row */
	TimestampTz retry_at;
} MbusBackoff;

/* The pass that runs, and the last full one; worker.c. */
typedef struct MbusPass
{
	uint64		ticket;			/* of expire(), served in it; 0: none */
	TimestampTz full_at;
} MbusPass;

/* When a series was last seen to grow, and to what; segment_open.c. */
typedef struct MbusGrowth
{
	int32		segment;
	int32		row;
	TimestampTz at;
} MbusGrowth;

/* Who had a table locked when it was first looked at; segment_retire.c. */
typedef struct MbusInWay
{
	Oid			relid;			/* InvalidOid: unused */
	int			n;
	VirtualTransactionId blocker[MBUS_BLOCKERS_MAX];
} MbusInWay;

/* Segments that are dropped; segment_retire.c. */
typedef struct MbusRetirement
{
	/* what the commit of a drop tells */
	bool		dropping;		/* the transaction drops a segment */
	bool		last_drop;		/* with it the pass's ticket is served */

	uint32		drops;			/* tried */

	/* in this pass */
	int			settle_ms;		/* left for waiting */
	bool		pending[MBUS_FAMILIES]; /* one of the family is pending */

	MbusInWay	way[MBUS_WAYS_MAX]; /* before a table is detached */
	MbusInWay	finalizing[MBUS_FAMILIES];	/* of the table that is pending:
											 * who has its parent locked */
	TimestampTz blocked_said;	/* when the log was last told of it */
	TimestampTz log_said;		/* the same, that one is not logged */
} MbusRetirement;

/* The segment whose transaction ids are entered; era_enter.c. */
typedef struct MbusEntering
{
	int32		segment;		/* 0: none */
	Oid			leaf;			/* its table */
	Oid			era;			/* that they are entered into */
	bool		delayed;		/* it has messages with a delay */
	int64		reached;		/* first id that was not looked at */
	uint32		fills;			/* MbusNumbering.fills when it was begun */
	bool		more;			/* the last pass left some to do */
	TimestampTz looked_at;		/* for segments to enter */
	bool		retired;		/* a segment went: an era may be over */
	TimestampTz cleaned_at;
} MbusEntering;

/* Subscriptions that are loaded; load.c. */
typedef struct MbusLoad
{
	bool		unasked;		/* to be done though nobody asks */
	bool		epoch_is_new;	/* numbering has made it: no lease of before
								 * can be as high */
	uint64		older_checked;
	TimestampTz looked_at;
} MbusLoad;

/* A restored segment that could not be taken in. */
typedef struct MbusUnsettled
{
	int32		segment;		/* 0: this place is free */
	int			failures;
	TimestampTz retry_at;
} MbusUnsettled;

/* What a restore has brought; restore.c. */
typedef struct MbusRestore
{
	bool		looked;			/* once, at least */
	int64		unattached;		/* what was set aside at the last look */
	int			pending;		/* segments that are hidden */
	uint64		known;			/* a hash of these */
	TimestampTz changed_at;		/* when that last changed */
	uint64		names;			/* of rows that publishers are above */
	bool		crowded;		/* some have no room, and show; logged */
	bool		behind;			/* some have no room, and wait; logged */
	int32		settled_to;		/* the last one that was tried */
	MbusUnsettled unsettled[MBUS_UNSETTLED];	/* put off after an error */
} MbusRestore;

/* The reserve of space on the disk; disk_reserve.c. */
typedef struct MbusDiskWork
{
	bool		looked;			/* since the worker has found the extension */
	bool		full;			/* as others are told */
	bool		lacking;		/* a task has failed for want of space, */
	bool		wanted;			/* and would have given some back */
	bool		removed;		/* there is none, and none is wanted */
	bool		said;			/* that there can be none */
	TimestampTz released_at;
} MbusDiskWork;

/* The scrubber; scrub_task.c. */
typedef struct MbusScrubWork
{
	bool		loaded;			/* its place */
	bool		filtered;		/* the filter of the quarantine is as new */
	TimestampTz filtered_at;	/* it was made so */
	bool		more;			/* of what may be read is left */
	int64		budget;			/* bytes that may be read; below 0: debts */
	TimestampTz budget_at;
	TimestampTz stored_at;		/* the place */
	int			blocked;		/* tries in a row */
	int64		doubted;		/* where the disk erred, see MbusScrub */
	MbusBodyLook look;			/* at a body, of the cycle's next message, */
	MbusBodyLook wanted;		/* ... and of one that is wanted */
	int			said;			/* damaged messages, since said_at */
	TimestampTz said_at;
} MbusScrubWork;

/* Stores of large bodies; store_open.c, store_look.c, store_drop.c. */
typedef struct MbusStoreWork
{
	bool		looked;			/* at what a restore has brought, once */
	int64		known;			/* rows of body_store, of which that is known */
	int			unsettled;		/* tables that a restore has not finished */
	uint32		unsettled_hash; /* of these */
	bool		unsettled_said; /* that they are left as they are */
	int32		dropped_to;		/* the last store that was looked at */
	bool		round;			/* all are to be looked at: ... */
	bool		round_over;		/* ... it has begun at the lowest again, ... */
	int32		round_from;		/* ... and ends with this one */
	uint32		drops;			/* tried */
	int32		moved_to;		/* the last one of which bodies might move */
	TimestampTz move_at;		/* not before */
} MbusStoreWork;

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

	MbusBackoff backoff[MBUS_TASK_KINDS];
	MbusPass	pass;
	TimestampTz numbered_at;	/* or this worker started later */
	MbusGrowth	growth[MBUS_MAX_SERIES + 1];
	MbusRetirement retire;
	MbusEntering entering;
	MbusLoad	load;
	MbusRestore restore;
	MbusDiskWork disk;
	int			failed_code;	/* SQLSTATE of the last error */
	MbusScrubWork scrub;
	MbusStoreWork stores;
	MbusLog    *log;			/* how far it is, see log/pass.h */
	bool		log_more;		/* the last pass has left some to do */
	bool		log_prune;		/* there may be something to prune */
	bool		expiry_stuck;	/* a lease that has ended could not be seen to */

	/* when these were last done */
	TimestampTz checkpoints_looked_at;	/* for those that are due */
	TimestampTz acked_looked_at;	/* for segments that are acked */
	TimestampTz log_looked_at;
	TimestampTz log_pruned_at;
	TimestampTz let_go_looked_at;
	TimestampTz errors_pruned_at;
	TimestampTz tallies_looked_at;	/* all of them, for channels that are gone */
	int			tallies_at;		/* place where the next look begins */
	TimestampTz numbers_warned_at;
	TimestampTz uploads_looked_at;	/* for those that ended a while ago */
} MbusWork;

/* A task; returns MBUS_DONE or MBUS_BLOCKED, or errors. */
typedef MbusOutcome (*MbusTask) (MbusWork *work, void *arg);

extern bool mbus_tasks_begin(MbusWork *work, MbusTaskKind kind, bool force);
extern void mbus_tasks_end(MbusWork *work, MbusTaskKind kind);
extern MbusOutcome mbus_task_run(MbusWork *work, MbusTaskKind kind,
								 MbusTask task, void *arg, const char *what,
								 ...) pg_attribute_printf(5, 6);
extern void mbus_task_begin(void);
extern void mbus_task_commit(void);
extern void mbus_task_hold_extension(MbusWork *work);
extern void mbus_task_become_owner(MbusWork *work);
extern void mbus_task_lock_timeout(int ms);
extern void mbus_task_number_check(int64 number, int highest,
								   const char *what);
extern void mbus_sql(const char *fmt,...) pg_attribute_printf(1, 2);
extern int64 mbus_sql_int64(bool *isnull, const char *fmt,
							...) pg_attribute_printf(2, 3);
extern void mbus_task_let_go(MbusWork *work);

#endif							/* MBUS_TASK_H */
