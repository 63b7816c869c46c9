/*
 * era_enter.h
 *		Enters the transaction ids of closed segments.
 */
#ifndef MBUS_ERA_ENTER_H
#define MBUS_ERA_ENTER_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_segments_enter(MbusWork *work);

#endif							/* MBUS_ERA_ENTER_H */
