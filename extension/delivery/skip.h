/*
 * skip.h
 *		Nodes for the ranges of ids that a subscription has skipped.
 */
#ifndef MBUS_SKIP_H
#define MBUS_SKIP_H

#include "postgres.h"

#include "delivery/pool.h"

extern MbusSkip *mbus_skip(uint32 skip);
extern uint32 mbus_skips_take(uint32 slot, int n, int *taken);
extern void mbus_skips_free(uint32 slot, uint32 first);
extern void mbus_skips_forget(MbusSub *sub);

#endif							/* MBUS_SKIP_H */
