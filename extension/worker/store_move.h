/*
 * store_move.h
 *		Moves bodies out of stores that are kept for a few of them.
 */
#ifndef MBUS_STORE_MOVE_H
#define MBUS_STORE_MOVE_H

#include "worker/task.h"

extern void mbus_stores_move(MbusWork *work);

#endif							/* MBUS_STORE_MOVE_H */
