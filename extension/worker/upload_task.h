/*
 * upload_task.h
 *		The worker removes rows of uploads that ended a while ago.
 */
#ifndef MBUS_UPLOAD_TASK_H
#define MBUS_UPLOAD_TASK_H

#include "worker/task.h"

extern void mbus_uploads_look(MbusWork *work);

#endif							/* MBUS_UPLOAD_TASK_H */
