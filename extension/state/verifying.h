/*
 * verifying.h
 *		Who verifies the log, and how far.
 */
#ifndef MBUS_VERIFYING_H
#define MBUS_VERIFYING_H

#include "postgres.h"

extern void mbus_verifying_init(void);
extern int	mbus_verifying_begin(int64 from, int64 to);
extern void mbus_verifying_at(int slot, int64 at, int64 faults);
extern void mbus_verifying_end(int slot);

#endif							/* MBUS_VERIFYING_H */
