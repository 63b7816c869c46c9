/*
 * prune.h
 *		What the log has of segments that are gone, removed.
 */
#ifndef MBUS_PRUNE_H
#define MBUS_PRUNE_H

#include "postgres.h"

extern void mbus_log_gone(int32 segment);
extern void mbus_log_thin(void);
extern bool mbus_log_prune(void);

#endif							/* MBUS_PRUNE_H */
