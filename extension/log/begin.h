/*
 * begin.h
 *		The log begins, and goes on under another name.
 */
#ifndef MBUS_LOG_BEGIN_H
#define MBUS_LOG_BEGIN_H

#include "postgres.h"

#include "log/log.h"
#include "log/store.h"

extern uint64 mbus_log_here_hash(void);
extern bool mbus_log_open(Oid schema, MbusLog *log, MbusLogState *state,
						  int64 facts_to, const MbusSpans *facts_pending);
extern void mbus_log_edge_ready(Oid schema, MbusLog *log,
								const MbusLogState *state);
extern void mbus_log_action(Oid schema, MbusLog *log, MbusLogState *state,
							const char *kind, int32 segment,
							const char *continues, const char *reason);

#endif							/* MBUS_LOG_BEGIN_H */
