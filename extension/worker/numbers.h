/*
 * numbers.h
 *		Whose numbers a database gives out, and how many it has left.
 */
#ifndef MBUS_NUMBERS_H
#define MBUS_NUMBERS_H

#include "postgres.h"

#include "state/state.h"
#include "worker/task.h"

/* What is used of a database's numbers, in percent. */
typedef struct MbusNumbersUsed
{
	double		segments;
	double		stores;			/* of large bodies */
	double		epochs;
	char		warning[128];	/* "" : all is well */
} MbusNumbersUsed;

extern void mbus_node_check(MbusWork *work);
extern void mbus_node_record(void);
extern void mbus_numbers_warn(MbusWork *work);
extern void mbus_numbers_used(MbusDatabase *db, MbusNumbersUsed *used);
extern void mbus_numbering_raise(MbusDatabase *db, int64 next);
extern void mbus_numbering_store(MbusDatabase *db);

#endif							/* MBUS_NUMBERS_H */
