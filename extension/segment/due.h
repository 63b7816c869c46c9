/*
 * due.h
 *		What of all segments is due, by its time.
 */
#ifndef MBUS_DUE_H
#define MBUS_DUE_H

#include "postgres.h"

#include "access/attnum.h"
#include "datatype/timestamp.h"
#include "utils/snapshot.h"

#include "base/ids.h"
#include "base/moment.h"
#include "segment/segment_set.h"

/*
 * A family whose leaves have a partial index on an owner, a time and an id,
 * and which rows of it are wanted.
 */
typedef struct MbusDue
{
	MbusFamily	family;
	AttrNumber	owner_column;
	AttrNumber	time_column;
	AttrNumber	id_column;
	AttrNumber	lease_column;	/* 0: there is none */
	int32		owner;
	int64		since_lease;	/* rows of leases below are not wanted */
	MbusMoment	from;			/* the first */
	TimestampTz to;				/* the last; PG_INT64_MAX: all */
	int			most;			/* about so many, the earliest */
	Snapshot	snapshot;
	const MbusSegmentSet *among;	/* where they may be; NULL: anywhere */
	MbusSegmentSet *later;		/* out: which have any from "to" on, or that
								 * were not read; NULL: that is not asked */
} MbusDue;

/*
 * An owner of rows that are looked for in all leaves: mbus_due_where().
 */
typedef struct MbusDueOwner
{
	int32		owner;
	int64		since_lease;	/* rows of leases below do not count */
	TimestampTz from;			/* nor those of before */
	int32		upto;			/* nor those of segments above */
	bool		lowest;			/* "low" is wanted */

	/* out: may be too many segments, and too low */
	int64		low;			/* lowest id; 0: there is none */
	int			nsegments;
	int32	   *segment;		/* where they are, ascending */
} MbusDueOwner;

extern void mbus_due_delayed(MbusDue *due, int32 channel_id,
							 Snapshot snapshot);
extern void mbus_due_where(Oid schema, const MbusDue *due,
						   MbusDueOwner *owners, int n);
extern int	mbus_due_read(Oid schema, const MbusDue *due, MbusMoment **found,
						  MbusMoment *reached, TimestampTz *next);

#endif							/* MBUS_DUE_H */
