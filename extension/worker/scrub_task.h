/*
 * scrub_task.h
 *		The worker reads stored messages again.
 */
#ifndef MBUS_SCRUB_TASK_H
#define MBUS_SCRUB_TASK_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_scrub_run(MbusWork *work);
extern void mbus_scrub_forget(MbusWork *work);

#endif							/* MBUS_SCRUB_TASK_H */
