/*
 * checkpoint.h
 *		Checkpoints of the log.
 */
#ifndef MBUS_LOG_CHECKPOINT_H
#define MBUS_LOG_CHECKPOINT_H

#include "postgres.h"

#include "log/log.h"

extern bool mbus_log_checkpoint_due(const MbusLog *log);
extern bool mbus_log_checkpoint(Oid schema, MbusLog *log,
								int64 *size, TimestampTz *at);

#endif							/* MBUS_LOG_CHECKPOINT_H */
