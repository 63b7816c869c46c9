/*
 * range.h
 *		The field Range of RFC 9110.
 */
#ifndef MBUS_RANGE_FIELD_H
#define MBUS_RANGE_FIELD_H

#include "postgres.h"

typedef enum MbusRangeKind
{
	MBUS_RANGE_IGNORED,			/* the whole is wanted */
	MBUS_RANGE_ONE,
	MBUS_RANGE_OUTSIDE			/* 416 */
} MbusRangeKind;

extern MbusRangeKind mbus_http_range(const char *value, int64 size,
									 int64 *from, int64 *to);

#endif							/* MBUS_RANGE_FIELD_H */
