/*
 * own_series.h
 *		Series of channels that have one to themselves.
 */
#ifndef MBUS_OWN_SERIES_H
#define MBUS_OWN_SERIES_H

#include "postgres.h"

extern void mbus_own_series_lock(Oid schema);
extern int32 mbus_own_series_choose(Oid schema);

#endif							/* MBUS_OWN_SERIES_H */
