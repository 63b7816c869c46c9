/*
 * log_task.h
 *		The worker logs.
 */
#ifndef MBUS_LOG_TASK_H
#define MBUS_LOG_TASK_H

#include "postgres.h"

#include "worker/task.h"

extern bool mbus_log_moved(MbusWork *work);
extern void mbus_log_run(MbusWork *work);
extern void mbus_log_prune_run(MbusWork *work);
extern void mbus_log_forget(MbusWork *work);
extern TimestampTz mbus_log_wake(MbusWork *work, TimestampTz next);
extern bool mbus_log_lets_go(MbusWork *work, int32 segment);
extern bool mbus_log_failed(MbusWork *work, MbusOutcome outcome);
extern bool mbus_log_dropped(MbusWork *work, int32 segment);

#endif							/* MBUS_LOG_TASK_H */
