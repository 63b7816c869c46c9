/*
 * restore.h
 *		What a restore brings while the worker runs, and how far segments are
 *		numbered.
 */
#ifndef MBUS_RESTORE_H
#define MBUS_RESTORE_H

#include "postgres.h"

#include "state/state.h"
#include "worker/task.h"

extern void mbus_numbering_raise(MbusDatabase *db, int64 next);
extern void mbus_numbering_store(MbusDatabase *db);
extern void mbus_restore_look(MbusWork *work);
extern void mbus_restore_asked(MbusWork *work);
extern bool mbus_restore_hide(MbusWork *work);

#endif							/* MBUS_RESTORE_H */
