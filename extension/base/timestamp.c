/*
 * timestamp.c
 *		Times as JSON: RFC 3339, in UTC, with microseconds.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "base/timestamp.h"

/*
 * mbus_append_timestamp appends RFC 3339 in UTC with microseconds.
 */
void
mbus_append_timestamp(StringInfo out, TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		microseconds;

	if (TIMESTAMP_IS_NOBEGIN(at))
		appendStringInfoString(out, "\"-infinity\"");
	else if (TIMESTAMP_IS_NOEND(at))
		appendStringInfoString(out, "\"infinity\"");
	else if (timestamp2tm(at, NULL, &tm, &microseconds, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	else
		appendStringInfo(out, "\"%04d-%02d-%02dT%02d:%02d:%02d.%06dZ\"",
						 tm.tm_year, tm.tm_mon, tm.tm_mday,
						 tm.tm_hour, tm.tm_min, tm.tm_sec,
						 (int) microseconds);
}
