/*
 * action.h
 *		Actions that do not come to the log by the facts' numbers.
 */
#ifndef MBUS_LOG_ACTION_H
#define MBUS_LOG_ACTION_H

#include "postgres.h"

#include "log/collect.h"
#include "log/store.h"
#include "state/state.h"

extern bool mbus_log_actions(MbusDatabase *db, Oid schema,
							 const MbusLog *log,
							 const MbusLogState *state, MbusRows *rows);

#endif							/* MBUS_LOG_ACTION_H */
