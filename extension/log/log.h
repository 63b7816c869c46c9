/*
 * log.h
 *		What the worker remembers of the log.
 */
#ifndef MBUS_LOG_H
#define MBUS_LOG_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "log/edge.h"

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

	/* the newest checkpoint */
	bool		checkpoint_known;
	int64		checkpoint_size;
	TimestampTz checkpoint_at;
} MbusLog;

#endif							/* MBUS_LOG_H */
