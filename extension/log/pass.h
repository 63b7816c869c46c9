/*
 * pass.h
 *		The worker's passes, which log what has been committed.
 */
#ifndef MBUS_LOG_PASS_H
#define MBUS_LOG_PASS_H

#include "postgres.h"

#include "log/log.h"
#include "state/fact_number.h"
#include "state/state.h"
#include "state/unfinished.h"

/* What memory knew at one moment, before the snapshot; and a pass after it. */
typedef struct MbusLogLook
{
	MbusSegmentsSeen segments;
	MbusFactsSeen facts;
	uint64		hash;			/* of all that */

	int32		only;			/* messages of this segment alone; 0: of all */

	/* out, to be believed when the pass has committed */
	bool		more;			/* it has not logged all */
	bool		facts_done;		/* but all facts */
	bool		waits;			/* a log is brought, and not whole */
	int64		since;
} MbusLogLook;

extern bool mbus_log_look(MbusDatabase *db, Oid schema, const MbusLog *log,
						  MbusLogLook *look);
extern void mbus_log_pass(MbusDatabase *db, Oid schema, MbusLog *log,
						  MbusLogLook *look);
extern void mbus_log_passed(MbusLog *log, const MbusLogLook *look);
extern bool mbus_log_waits(Oid schema, const MbusLog *log, int32 segment);
extern bool mbus_log_has(int32 segment);
extern bool mbus_log_drop(Oid schema, MbusLog *log, int32 segment);
extern void mbus_log_drop_unlogged(int32 segment);

#endif							/* MBUS_LOG_PASS_H */
