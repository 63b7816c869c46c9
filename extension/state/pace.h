/*
 * pace.h
 *		How seldom segments are opened.
 */
#ifndef MBUS_PACE_H
#define MBUS_PACE_H

#include "postgres.h"

#include "state/state.h"

/* what is opened or closed out of turn, see pace.c */
#define MBUS_PACE_BURST		100

/* open at a time without one having to wait for longer than the interval */
#define MBUS_PACE_SERIES	8

extern bool mbus_series_young(const MbusDatabase *db, int32 series_no);
extern bool mbus_pace_take(MbusDatabase *db);

#endif							/* MBUS_PACE_H */
