/*
 * scrub_state.h
 *		Which messages may be in quarantine, and which are to be looked at.
 */
#ifndef MBUS_SCRUB_STATE_H
#define MBUS_SCRUB_STATE_H

#include "postgres.h"

#include "state/state.h"

extern bool mbus_quarantine_may(MbusDatabase *db, int64 id);
extern void mbus_quarantine_mark(MbusDatabase *db, int64 id);
extern void mbus_scrub_want(int64 id);

/* the database's worker only */
extern void mbus_quarantine_unknown(MbusDatabase *db);
extern void mbus_quarantine_known(MbusDatabase *db, const int64 *ids, int n);
extern int	mbus_scrub_wanted(MbusDatabase *db, int64 *ids);
extern void mbus_scrub_seen(MbusDatabase *db, int64 id);

#endif							/* MBUS_SCRUB_STATE_H */
