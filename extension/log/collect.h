/*
 * collect.h
 *		Rows that are to be logged, found and hashed.
 */
#ifndef MBUS_COLLECT_H
#define MBUS_COLLECT_H

#include "postgres.h"

#include "log/log.h"
#include "log/spans.h"
#include "log/store.h"

/* Numbers that are gone through, and how far that is. */
typedef struct MbusCursor
{
	int64		to;				/* below it all are logged or pending */
	MbusSpans	pending;
	MbusSpans	logged;			/* rows that are not to be logged again */
	MbusSpans	done;			/* out: what is not to be looked for any more */
} MbusCursor;

/* Rows of a slice; collect.c tells how it ends. */
typedef struct MbusRows
{
	MbusLogged *row;
	int			n;
	int			room;
	int			most;			/* that the slice may have */
	uint64		end_us;			/* of its time, by the clock of instr_time */
	bool		late;			/* that was passed */
	uint32		looked;			/* rows that were read */
	MbusLogReading *reading;	/* kept up to date */
} MbusRows;

extern void mbus_rows_begin(MbusRows *rows, MbusLog *log);
extern bool mbus_collect(Oid schema, const int32 *segments, int nsegments,
						 int kind_from, int kind_to, MbusCursor *cursor,
						 int64 limit, const MbusSpans *unfinished,
						 MbusRows *rows);

#endif							/* MBUS_COLLECT_H */
