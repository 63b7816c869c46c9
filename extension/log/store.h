/*
 * store.h
 *		The log's tables, written by the worker.
 */
#ifndef MBUS_LOG_STORE_H
#define MBUS_LOG_STORE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "log/edge.h"
#include "log/spans.h"

/* The row of message_bus.log_state; palloc'd. */
typedef struct MbusLogState
{
	pg_uuid_t	log_id;
	char	   *origin;
	char	   *prefix;
	int64		system_id;
	int64		timeline;
	Oid			database;
	int64		size;
	int64		facts_to;
	MbusSpans	facts_pending;
	MbusSpans	actions_pending;	/* of before the log; of one that is seen */
	pg_uuid_t	bus;
	pg_uuid_t	here;			/* bus that reads it */
} MbusLogState;

/* A row of message_bus.segment, as far as the log goes; palloc'd. */
typedef struct MbusLogSegment
{
	int32		segment;
	bool		ours;			/* the rest is of this log */
	int64		to;
	MbusSpans	pending;
	MbusSpans	facts;			/* that are still to be looked for */
	bool		again;			/* some of these the log may have: runs tell */
	char	   *fault;			/* why some of it cannot be read; NULL: all
								 * can */
	bool		changed;
} MbusLogSegment;

/* A row that goes into the log. */
typedef struct MbusLogged
{
	int32		segment;
	int			kind;
	int64		number;
	MbusHash	hash;
} MbusLogged;

extern bool mbus_log_state_read(MbusLogState *state, bool lock);
extern void mbus_log_state_insert(const MbusLogState *state);
extern void mbus_log_state_update(const MbusLogState *state);
extern int	mbus_log_segments_read(const MbusLogState *state, int32 only,
								   MbusLogSegment **segments);
extern bool mbus_log_segment_known(int32 segment);
extern MbusSpans mbus_log_logged(int32 segment, bool facts);
extern void mbus_log_segment_update(const MbusLogState *state,
									const MbusLogSegment *segment);
extern void mbus_log_append(MbusEdge *edge, const MbusLogged *rows, int n);
extern void mbus_log_execute(const char *sql, int nargs, const Oid *types,
							 Datum *values);

#endif							/* MBUS_LOG_STORE_H */
