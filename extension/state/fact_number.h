/*
 * fact_number.h
 *		Numbers of facts.
 */
#ifndef MBUS_FACT_NUMBER_H
#define MBUS_FACT_NUMBER_H

#include "postgres.h"

#include "state/range.h"
#include "state/state.h"

/* What is known of the numbers at one moment. */
typedef struct MbusFactsSeen
{
	int64		next;			/* lowest that was not given out; 0: not known */
	int			nranges;
	MbusFactRange *range;		/* of transactions that have not ended; by
								 * ascending number, none twice */
	int			ntouched;		/* -1: any segment may be */
	int32	   *touched;
} MbusFactsSeen;

extern int64 mbus_fact_number(MbusDatabase *db, Oid schema, int32 segment);
extern int64 mbus_fact_number_now(MbusDatabase *db, Oid schema, int32 segment);
extern void mbus_fact_numbers_begin(MbusDatabase *db, int64 epoch);
extern bool mbus_fact_numbers_low(MbusDatabase *db);
extern void mbus_facts_look(MbusDatabase *db, Oid schema, int64 since,
							MbusFactsSeen *seen);

#endif							/* MBUS_FACT_NUMBER_H */
