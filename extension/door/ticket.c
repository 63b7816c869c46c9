/*
 * ticket.c
 *		What lets a download go on.
 *
 *	<key>.<id>.<from>.<to>.<by>.<own>.<role oid>.<bypass>.<since>.<until>.
 *	<subject>.<64 hex>
 *
 * A gateway gets one with each piece of a message and gives it back for the
 * next, on whatever connection; it is for the bytes that were asked for.  The last part is the MAC of all before it, by
 * the key of capabilities: so a ticket outlives a restart of the server, and a
 * rotation of the key cuts the downloads that are under way.  The subject is in
 * hex behind an x, where there is one.  It says who may read; that he still
 * may is looked at with each piece (asker.c).
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "door/key.h"
#include "door/ticket.h"

#define LABEL			"mbus-ticket/1"
#define TICKET_HOURS	1
#define TICKET_MAX		1024	/* bytes */

static bool said_read(char *said, MbusTicket *ticket);

/*
 * mbus_ticket_append appends a ticket, good for an hour from now.
 */
void
mbus_ticket_append(StringInfo out, const MbusTicket *ticket)
{
	char		hex[MBUS_MAC_HEX + 1];
	StringInfoData said;

	initStringInfo(&said);
	appendStringInfo(&said,
					 INT64_FORMAT "." INT64_FORMAT "." INT64_FORMAT "." INT64_FORMAT ".%d.%d.%u.%d." INT64_FORMAT "." INT64_FORMAT ".",
					 mbus_body_key_number(), ticket->id, ticket->from,
					 ticket->to, (int) ticket->by, ticket->own ? 1 : 0,
					 ticket->role, ticket->may_bypass ? 1 : 0, ticket->since,
					 GetCurrentTimestamp() + TICKET_HOURS * USECS_PER_HOUR);
	if (ticket->subject)
	{
		int			len = (int) strlen(ticket->subject);

		appendStringInfoChar(&said, 'x');
		enlargeStringInfo(&said, 2 * len);
		said.len += (int) hex_encode(ticket->subject, len,
									 said.data + said.len);
		said.data[said.len] = '\0';
	}
	mbus_body_mac(LABEL, said.data, hex);
	appendStringInfo(out, "%s.%s", said.data, hex);
	pfree(said.data);
}

/*
 * mbus_ticket_read reads a ticket; false if it is none of the current key's,
 * or has expired.
 */
bool
mbus_ticket_read(const char *text, MbusTicket *ticket)
{
	char	   *said;
	char	   *hex;

	memset(ticket, 0, sizeof(*ticket));
	if (strlen(text) > TICKET_MAX)
		return false;
	said = pstrdup(text);
	hex = strrchr(said, '.');
	if (hex == NULL)
		return false;
	*hex++ = '\0';
	return mbus_body_mac_is(LABEL, said, hex) && said_read(said, ticket);
}

/* Reads what has been found to be written by mbus_ticket_append(). */
static bool
said_read(char *said, MbusTicket *ticket)
{
	long long	id;
	long long	from;
	long long	to;
	long long	since;
	long long	until;
	int			by;
	int			own;
	int			may_bypass;
	int			at = 0;

	if (sscanf(said, "%*d.%lld.%lld.%lld.%d.%d.%u.%d.%lld.%lld.%n", &id, &from,
			   &to, &by, &own, &ticket->role, &may_bypass, &since, &until,
			   &at) < 9 || at == 0)
		return false;
	ticket->id = id;
	ticket->from = from;
	ticket->to = to;
	ticket->own = own != 0;
	ticket->by = (MbusAskedBy) by;
	ticket->may_bypass = may_bypass != 0;
	ticket->since = since;
	if (said[at] == 'x')
	{
		int			len = (int) strlen(said + at + 1);
		char	   *subject = palloc(len / 2 + 1);

		subject[hex_decode(said + at + 1, len, subject)] = '\0';
		ticket->subject = subject;
	}
	return until > GetCurrentTimestamp();
}
