/*
 * precondition.h
 *		Conditional requests of RFC 9110.
 */
#ifndef MBUS_PRECONDITION_H
#define MBUS_PRECONDITION_H

#include "postgres.h"

/* The fields of a request that are conditions; NULL: not there. */
typedef struct MbusConditions
{
	const char *if_match;
	const char *if_none_match;
	const char *if_modified_since;
	const char *if_unmodified_since;
	const char *if_range;
} MbusConditions;

/* What they are compared with. */
typedef struct MbusValidators
{
	const char *etag;			/* a strong one, with its quotes */
	int64		modified;		/* seconds since 1970 */
	int64		now;
} MbusValidators;

extern int	mbus_precondition(const MbusConditions *conditions,
							  const MbusValidators *validators);
extern bool mbus_if_range(const MbusConditions *conditions,
						  const MbusValidators *validators);

#endif							/* MBUS_PRECONDITION_H */
