/*
 * fact_numbers.c
 *		What memory knows of the numbers of facts, for administrators.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"

#include "base/schema.h"
#include "state/fact_number.h"
#include "state/state.h"

static Datum ranges_array(const MbusFactsSeen *seen);
static Datum touched_array(const MbusFactsSeen *seen);

/*
 * mbus_fact_numbers (SQL: message_bus.fact_numbers(since)) returns the next
 * number, the unfinished ranges, and the segments touched since a number (NULL:
 * any may be); no number where the worker has begun no epoch.
 */
PG_FUNCTION_INFO_V1(mbus_fact_numbers);
Datum
mbus_fact_numbers(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[3];
	bool		isnull[3] = {false, false, false};
	MbusFactsSeen seen;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	mbus_facts_look(mbus_database(), mbus_schema(), PG_GETARG_INT64(0), &seen);
	values[0] = Int64GetDatum(seen.next);
	isnull[0] = seen.next == 0;
	values[1] = ranges_array(&seen);
	isnull[2] = seen.ntouched < 0;
	values[2] = isnull[2] ? (Datum) 0 : touched_array(&seen);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* The ranges as an array of lo and hi in turn. */
static Datum
ranges_array(const MbusFactsSeen *seen)
{
	Datum	   *ends = palloc((2 * seen->nranges + 1) * sizeof(Datum));

	for (int i = 0; i < seen->nranges; i++)
	{
		ends[2 * i] = Int64GetDatum(seen->range[i].lo);
		ends[2 * i + 1] = Int64GetDatum(seen->range[i].hi);
	}
	return PointerGetDatum(construct_array(ends, 2 * seen->nranges, INT8OID,
										   sizeof(int64), FLOAT8PASSBYVAL,
										   TYPALIGN_DOUBLE));
}

static Datum
touched_array(const MbusFactsSeen *seen)
{
	Datum	   *numbers = palloc((seen->ntouched + 1) * sizeof(Datum));

	for (int i = 0; i < seen->ntouched; i++)
		numbers[i] = Int32GetDatum(seen->touched[i]);
	return PointerGetDatum(construct_array(numbers, seen->ntouched, INT4OID,
										   sizeof(int32), true,
										   TYPALIGN_INT));
}
