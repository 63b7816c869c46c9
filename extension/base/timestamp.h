/*
 * timestamp.h
 *		Times as JSON.
 */
#ifndef MBUS_TIMESTAMP_H
#define MBUS_TIMESTAMP_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

extern void mbus_append_timestamp(StringInfo out, TimestampTz at);

#endif							/* MBUS_TIMESTAMP_H */
