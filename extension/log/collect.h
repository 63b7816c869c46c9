/*
 * collect.h
 *		Rows that are to be logged, found and hashed.
 */
#ifndef MBUS_COLLECT_H
#define MBUS_COLLECT_H

#include "postgres.h"

#include "log/spans.h"
#include "log/store.h"

/* Numbers that are gone through, and how far that is. */
typedef struct MbusCursor
{
	int64		to;				/* below it all are logged or pending */
	MbusSpans	pending;
} MbusCursor;

/* Rows of a slice. */
typedef struct MbusRows
{
	MbusLogged *row;
	int			n;
	int			room;
	int			most;			/* that the slice may have */
} MbusRows;

extern bool mbus_collect(Oid schema, const int32 *segments, int nsegments,
						 int kind_from, int kind_to, MbusCursor *cursor,
						 int64 limit, const MbusSpans *unfinished,
						 MbusRows *rows);

#endif							/* MBUS_COLLECT_H */
