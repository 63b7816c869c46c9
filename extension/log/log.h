/*
 * log.h
 *		What the worker remembers of the log.
 */
#ifndef MBUS_LOG_H
#define MBUS_LOG_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "log/edge.h"

#define MBUS_UNREAD_ROWS	16

/* What is being read, for who has to know where an error was; 0: nothing. */
typedef struct MbusLogReading
{
	bool		at;				/* the rest says where */
	int32		segment;		/* 0: actions */
	int			kind;
	int64		number;			/* 0: no row yet */
} MbusLogReading;

/* A segment with rows that cannot be read; unread.c. */
typedef struct MbusUnread
{
	int32		segment;
	bool		whole;			/* it is not known which, or they are many */
	int			n;
	int			kind[MBUS_UNREAD_ROWS];
	int64		number[MBUS_UNREAD_ROWS];	/* ascending */
	int			failures;
	TimestampTz retry_at;
	bool		tried;			/* in the pass that runs */
	char		error[256];
} MbusUnread;

/* All zero when it begins; nothing of it is needed but to save reading. */
typedef struct MbusLog
{
	MbusEdge	edge;
	bool		origin_known;	/* whose log it is was looked at */
	uint64		logged;			/* what a look saw after which all was logged */
	int64		since;			/* lowest number that is not logged; 0: not
								 * known */
	int64		everywhere_to;	/* facts below this number may be in any
								 * segment */

	bool		facts_done;		/* the last pass had room for all facts */

	/* segments that are put off */
	MbusLogReading reading;
	MbusUnread *unread;
	int			nunread;
	int			unread_room;

	/*
	 * the epoch that facts must be above, which the worker is to begin; 0:
	 * none
	 */
	int64		epoch;
	bool		facts_first;	/* in the next slice */

	/* a log that a restore brings; 0: none, or it is not whole */
	bool		hiding;			/* segments are hidden: a restore is at work */
	TimestampTz brought_at;
	TimestampTz brought_said;
	TimestampTz whole_at;

	/* the newest checkpoint */
	bool		checkpoint_known;
	int64		checkpoint_size;
	TimestampTz checkpoint_at;
} MbusLog;

#endif							/* MBUS_LOG_H */
