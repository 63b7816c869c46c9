/*
 * backlog.h
 *		How far a subscription is behind.
 */
#ifndef MBUS_BACKLOG_H
#define MBUS_BACKLOG_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "delivery/pool.h"

/* An outstanding message, with what its lease says; see delivery/pool.h. */
typedef struct MbusOut
{
	MbusEntry	entry;
	int64		lease;			/* HELD, LEASED: number, as the following */
	TimestampTz claimed_at;
	int32		pid;
	Oid			role;
	int64		session;		/* 0: none */
} MbusOut;

/* A subscription as shared memory had it at one moment. */
typedef struct MbusSubCopy
{
	MbusSub		sub;
	int			nout;
	MbusOut    *out;			/* by ascending id */
	int			nskips;
	MbusSkip   *skip;			/* by ascending id */
} MbusSubCopy;

/* What it still has to get, or has out. */
typedef struct MbusBacklog
{
	int64		messages;
	int64		retrying;		/* of these: failed, and not out again */
	int64		oldest_id;		/* 0: there is none */
	TimestampTz oldest_at;
	bool		estimated;		/* not all of it was looked at */
} MbusBacklog;

/* delivery_view.c */
extern bool mbus_sub_read_any(int32 subscription_id, MbusSubCopy *copy);

/* backlog.c */
extern void mbus_backlog(Oid schema, const MbusSubCopy *copy, bool exact,
						 MbusBacklog *backlog);

#endif							/* MBUS_BACKLOG_H */
