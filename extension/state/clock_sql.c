/*
 * clock_sql.c
 *		The bus's time in SQL.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "state/clock.h"
#include "state/fault.h"

/*
 * clock() returns the bus's time, for the views.
 */
MBUS_FUNCTION(clock)
{
	return TimestampTzGetDatum(mbus_now());
}

/*
 * clock_off() returns by how much the server's clock is ahead of the bus's
 * (behind, if negative), NULL if that is less than message_bus.clock_jump.
 */
MBUS_FUNCTION(clock_off)
{
	Interval   *off = palloc0(sizeof(Interval));

	off->time = mbus_clock_ahead();
	if (llabs(off->time) <= mbus_clock_jump * USECS_PER_SEC)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(off);
}

/*
 * clock_accept() believes a clock that has jumped forward.
 */
MBUS_FUNCTION(clock_accept)
{
	mbus_clock_believe();
	return TimestampTzGetDatum(mbus_now());
}
