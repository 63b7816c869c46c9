/*
 * ahead.h
 *		How far the table of a series' open segment has empty pages ahead.
 */
#ifndef MBUS_AHEAD_H
#define MBUS_AHEAD_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/block.h"

#include "state/state.h"

extern void mbus_ahead_used(MbusDatabase *db, int32 series,
							BlockNumber block);
extern void mbus_ahead_forget(MbusDatabase *db, int32 series);

#endif							/* MBUS_AHEAD_H */
