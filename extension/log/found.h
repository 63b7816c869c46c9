/*
 * found.h
 *		A row that the log has an entry of, for who may see it.
 */
#ifndef MBUS_FOUND_H
#define MBUS_FOUND_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/snapshot.h"

#include "log/entry.h"
#include "log/table.h"

/* Its entry, made again; in the current memory context. */
typedef struct MbusFound
{
	int32		segment;		/* 0: none */
	int			kind;
	int64		number;
	int64		index;			/* of the entry; below 0: not logged yet */
	MbusTiles	tiles;			/* that were read; unless it is not logged */
	MbusEntry	entry;			/* with openings, where these may be seen */
} MbusFound;

extern bool mbus_found(FunctionCallInfo fcinfo, Oid schema, Snapshot snapshot,
					   MbusFound *found);

#endif							/* MBUS_FOUND_H */
