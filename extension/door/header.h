/*
 * header.h
 *		Fields of answers over HTTP.
 */
#ifndef MBUS_HEADER_H
#define MBUS_HEADER_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "door/ticket.h"
#include "message/stored.h"

#define MBUS_ETAG_BYTES 64		/* with its quotes and end */

extern void mbus_header(StringInfo out, const char *name, const char *value);
extern void mbus_headers_common(StringInfo out, MbusAskedBy by);
extern void mbus_headers_problem(StringInfo out, int status, MbusAskedBy by);
extern void mbus_headers_preflight(StringInfo out);
extern void mbus_headers_validators(StringInfo out, const MbusStored *message,
									MbusAskedBy by, int64 expiry);
extern void mbus_headers_message(StringInfo out, const MbusStored *message);
extern void mbus_etag(const MbusStored *message, char *etag);

#endif							/* MBUS_HEADER_H */
