/*
 * series.h
 *		Series of segments.
 */
#ifndef MBUS_SERIES_H
#define MBUS_SERIES_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern int32 mbus_series_for_ttl(int64 ttl_us);
extern int32 mbus_own_series(void);
extern int64 mbus_series_window_us(int32 series);
extern int64 mbus_ttl_check(const Interval *interval);

#endif							/* MBUS_SERIES_H */
