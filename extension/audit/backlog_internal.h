/*
 * backlog_internal.h
 *		What the files share that count how far a subscription is behind.
 */
#ifndef MBUS_BACKLOG_INTERNAL_H
#define MBUS_BACKLOG_INTERNAL_H

#include "postgres.h"

#include "access/htup.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "audit/backlog.h"
#include "channel/channel.h"
#include "segment/channel_scan.h"

#define CANDIDATES		1000	/* looked up at one time */

/* What is read of a message. */
typedef struct Row
{
	int64		id;
	TimestampTz created_at;
	TimestampTz expires_at;
	TimestampTz available_at;
} Row;

/* A message that counts unless the tables say that it is done. */
typedef struct Candidate
{
	int64		id;
	TimestampTz created_at;
	bool		failed;			/* found by a failure */
	bool		counted;		/* already, as something else */
} Candidate;

/* Ids by ascending order. */
typedef struct Ids
{
	int			n;
	int			room;
	int64	   *id;
} Ids;

/* A key of which messages may have been passed over, from an id on. */
typedef struct KeyPassed
{
	int64		key_hash;
	int64		from;
} KeyPassed;

typedef struct Count
{
	Oid			schema;
	const MbusSubCopy *copy;
	const MbusSub *sub;			/* copy's */
	MbusPolicy	policy;
	Snapshot	snapshot;
	TimestampTz now;
	MbusBacklog *backlog;
	bool		bounded;		/* the rest is estimated when ... */
	int			left;			/* ... so many more have been looked at */
	Ids			busy;			/* messages that have an entry */
	Ids			failed;			/* that wait in the table */
	int			nkeys;
	KeyPassed  *key;			/* ordered: by key */
	int			ncandidates;
	Candidate	candidate[CANDIDATES];

	/* the leaf that is being read */
	int32		segment;
	Relation	leaf;
	bool		deleted_read;
	int64		deleted_from;	/* what is deleted from here ... */
	int64		deleted_to;		/* ... to here, */
	Ids			deleted;		/* is this; the rest is looked up */
} Count;

/* backlog.c */
extern bool mbus_backlog_row_read(Count *count, HeapTuple tuple, Row *row);
extern bool mbus_backlog_spend(Count *count);
extern void mbus_backlog_oldest(Count *count, int64 id,
								TimestampTz created_at);
extern bool mbus_backlog_late(const Count *count, const Row *row);
extern bool mbus_backlog_skipped(const Count *count, int64 id);

/* backlog_estimate.c */
extern void mbus_backlog_estimate_range(Count *count, MbusChannelScan *rows,
										int64 lo, int64 hi);
extern void mbus_backlog_estimate_delayed(Count *count, TimestampTz from,
										  int64 after);
extern void mbus_backlog_estimate_key(Count *count, const KeyPassed *key,
									  int64 from, double weight);

/* backlog_set.c */
extern bool mbus_backlog_deleted(Count *count, int64 id);
extern void mbus_ids_add(Ids *ids, int64 id);
extern int	mbus_ids_find(const Ids *ids, int64 id);
extern bool mbus_ids_have(const Ids *ids, int64 id);

#endif							/* MBUS_BACKLOG_INTERNAL_H */
