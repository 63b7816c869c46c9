/*
 * ticket.h
 *		What lets a download go on.
 */
#ifndef MBUS_TICKET_H
#define MBUS_TICKET_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"

/* How one has come to read a message. */
typedef enum MbusAskedBy
{
	MBUS_BY_NOBODY,				/* it is not known yet */
	MBUS_BY_TOKEN,
	MBUS_BY_CAPABILITY,
	MBUS_BY_ANONYMOUS,
	MBUS_BY_ROLE				/* message_bus.relay_role */
} MbusAskedBy;

/* Who reads which message. */
typedef struct MbusTicket
{
	int64		id;
	int64		from;			/* bytes that were asked for: from here ... */
	int64		to;				/* ... to before here */
	MbusAskedBy by;
	bool		own;			/* see MbusCapability */
	Oid			role;
	bool		may_bypass;		/* row security: the token has named the role */
	TimestampTz since;			/* when the request came */
	const char *subject;		/* NULL: none */
} MbusTicket;

extern void mbus_ticket_append(StringInfo out, const MbusTicket *ticket);
extern bool mbus_ticket_read(const char *text, MbusTicket *ticket);

#endif							/* MBUS_TICKET_H */
