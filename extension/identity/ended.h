/*
 * ended.h
 *		Sessions that were ended before their time.
 */
#ifndef MBUS_ENDED_H
#define MBUS_ENDED_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern void mbus_ended_init(void);
extern bool mbus_too_old(TimestampTz since, int skew);
extern bool mbus_ended(Oid role, const char *subject, TimestampTz since);

#endif							/* MBUS_ENDED_H */
