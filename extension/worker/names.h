/*
 * names.h
 *		Which numbers of segments are named, or used, already.
 */
#ifndef MBUS_NAMES_H
#define MBUS_NAMES_H

#include "postgres.h"

#include "worker/task.h"

extern void mbus_names_init(void);
extern uint64 mbus_names_changes(MbusWork *work);
extern int64 mbus_names_highest(MbusWork *work);
extern bool mbus_names_free(MbusWork *work, int64 least, int64 number);
extern void mbus_names_made(MbusWork *work, Oid leaf);
extern bool mbus_names_ours(MbusWork *work);
extern void mbus_names_looked(void);

#endif							/* MBUS_NAMES_H */
