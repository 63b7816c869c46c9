/*
 * scrub_view.c
 *		Where the scrubber is, for the view scrub_status.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"

#include "base/ids.h"
#include "base/settings.h"
#include "state/fault.h"
#include "state/state.h"

#define COLUMNS	12

/*
 * scrub_status_row() returns what the worker has told last; no row where it
 * has not begun.
 */
MBUS_FUNCTION(scrub_status_row)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusDatabase *db = mbus_database_or_null();
	MbusScrubStatus status;
	Datum		values[COLUMNS];
	bool		isnull[COLUMNS] = {false};
	int			i = 0;

	InitMaterializedSRF(fcinfo, 0);
	if (db == NULL)
		return (Datum) 0;
	LWLockAcquire(&db->lock, LW_SHARED);
	status = db->scrub.status;
	LWLockRelease(&db->lock);
	if (status.cycle == 0)
		return (Datum) 0;
	values[i++] = Int64GetDatum(status.cycle);
	values[i++] = CStringGetTextDatum(status.ended_at != 0 ? "paused" :
									  mbus_scrub_rate == 0 ? "off" : "running");
	values[i++] = TimestampTzGetDatum(status.started_at);
	isnull[i] = status.ended_at == 0;
	values[i++] = TimestampTzGetDatum(status.ended_at);
	values[i++] = TimestampTzGetDatum(status.started_at +
									  mbus_scrub_interval * USECS_PER_SEC);
	isnull[i] = status.ended_at != 0;
	values[i++] = Int32GetDatum(MbusSegmentOf(status.next_id));
	isnull[i] = status.ended_at != 0;
	values[i++] = Int64GetDatum(status.next_id);
	values[i++] = Int64GetDatum(status.messages);
	values[i++] = Int64GetDatum(status.bytes);
	values[i++] = Int64GetDatum(status.bad);
	values[i++] = Int64GetDatum(status.unread);
	values[i++] = Int64GetDatum((int64) mbus_scrub_rate * 1024);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
	return (Datum) 0;
}
