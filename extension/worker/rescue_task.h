/*
 * rescue_task.h
 *		Messages become dead letters before they expire.
 */
#ifndef MBUS_RESCUE_TASK_H
#define MBUS_RESCUE_TASK_H

#include "worker/task.h"

extern void mbus_expiring_move(MbusWork *work);
extern bool mbus_expired_move(MbusWork *work);

#endif							/* MBUS_RESCUE_TASK_H */
