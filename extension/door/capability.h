/*
 * capability.h
 *		A permission to read one message, carried in its URL.
 */
#ifndef MBUS_CAPABILITY_H
#define MBUS_CAPABILITY_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

/* What one says. */
typedef struct MbusCapability
{
	int64		id;				/* of the message; not in its text */
	int64		expiry;			/* seconds since 1970 */
	Oid			role;			/* that gave it */
	bool		own;			/* it saw the message, though not all of the
								 * channel's; not in its text */
} MbusCapability;

extern void mbus_capability_append(StringInfo out,
								   const MbusCapability *capability);
extern bool mbus_capability_read(const char *text, int64 id,
								 MbusCapability *capability);

#endif							/* MBUS_CAPABILITY_H */
