/*
 * restore.h
 *		What a restore brings while the worker runs.
 */
#ifndef MBUS_RESTORE_H
#define MBUS_RESTORE_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_restore_look(MbusWork *work);
extern void mbus_restore_asked(MbusWork *work);
extern bool mbus_restore_hide(MbusWork *work);

#endif							/* MBUS_RESTORE_H */
