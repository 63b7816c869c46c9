/*
 * brought.h
 *		A log that a restore has brought.
 */
#ifndef MBUS_BROUGHT_H
#define MBUS_BROUGHT_H

#include "postgres.h"

#include "log/log.h"
#include "log/store.h"

extern bool mbus_brought_some(Oid schema, MbusLog *log);
extern bool mbus_brought_whole(Oid schema, MbusLog *log,
							   const MbusLogState *state);
extern void mbus_brought_clear(void);
extern void mbus_brought_own(bool own);

#endif							/* MBUS_BROUGHT_H */
