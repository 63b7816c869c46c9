/*
 * argument.c
 *		Arguments of SQL functions, and whether one may write.
 *
 * Checks that functions of several rooms have in common.  Each raises the
 * error that the caller of the SQL function sees.
 */
#include "postgres.h"

#include "common/int.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "base/argument.h"
#include "base/limits.h"

/*
 * mbus_interval_us returns an interval in microseconds, a month being 30
 * days; PG_INT64_MAX or PG_INT64_MIN where that does not fit.
 */
int64
mbus_interval_us(const Interval *interval)
{
	int64		days = (int64) interval->month * 30 + interval->day;
	int64		us;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, interval->time, &us))
		return days > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	return us;
}

/*
 * mbus_write_check errors with 25006 in a read-only transaction, on a standby
 * or in a parallel worker.
 */
void
mbus_write_check(const char *what)
{
	PreventCommandDuringRecovery(what);
	PreventCommandIfReadOnly(what);
	PreventCommandIfParallelMode(what);
}

/*
 * mbus_required errors with 22004 if an argument is null.
 */
void
mbus_required(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * mbus_required_text returns a text argument; 22004 if it is null.
 */
text *
mbus_required_text(FunctionCallInfo fcinfo, int argno, const char *name)
{
	mbus_required(fcinfo, argno, name);
	return PG_GETARG_TEXT_PP(argno);
}

/*
 * mbus_array_argument returns an array of one dimension, NULL if the argument
 * is null; 2202E if it has more.
 */
ArrayType *
mbus_array_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	ArrayType  *array;

	if (PG_ARGISNULL(argno))
		return NULL;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("%s must be an array of one dimension", name)));
	return array;
}

/*
 * mbus_name_check errors with 42602 unless the name of a channel or
 * subscription ("kind") is 1 to 255 bytes without control characters.
 */
void
mbus_name_check(const char *kind, const char *name)
{
	size_t		len = strlen(name);

	if (len < 1 || len > MBUS_CHANNEL_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("%s name of %zu bytes", kind, len),
				 errdetail("A %s name has from 1 to %d bytes.",
						   kind, MBUS_CHANNEL_NAME_MAX)));
	for (const unsigned char *p = (const unsigned char *) name; *p; p++)
	{
		/* C0, DEL, and C1 as UTF-8 has it: C2 80 to C2 9F */
		if (*p < 0x20 || *p == 0x7f ||
			(*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("%s name has a control character", kind),
					 errdetail("It is at byte %d.",
							   (int) (p - (const unsigned char *) name) + 1)));
	}
}
