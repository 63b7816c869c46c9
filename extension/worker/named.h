/*
 * named.h
 *		What is published stays above the ids that rows name.
 */
#ifndef MBUS_NAMED_H
#define MBUS_NAMED_H

#include "postgres.h"

#include "state/state.h"
#include "worker/task.h"

extern void mbus_named_look(MbusWork *work);
extern void mbus_roll_below(MbusDatabase *db, int64 number);

#endif							/* MBUS_NAMED_H */
