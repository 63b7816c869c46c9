/*
 * clock.h
 *		The time that everything on the bus goes by.
 */
#ifndef MBUS_CLOCK_H
#define MBUS_CLOCK_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern void mbus_clock_init(void);
extern TimestampTz mbus_now(void);
extern void mbus_clock_look(void);
extern int64 mbus_clock_ahead(void);
extern void mbus_clock_believe(void);

#endif							/* MBUS_CLOCK_H */
