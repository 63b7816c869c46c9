/*
 * door.h
 *		The HTTP door: what is asked for, and the answer.
 */
#ifndef MBUS_DOOR_H
#define MBUS_DOOR_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/elog.h"

#include "door/precondition.h"
#include "door/request.h"
#include "door/ticket.h"

#define MBUS_DOOR_REQUEST	'H'
#define MBUS_DOOR_PIECE		'P'

typedef enum MbusHttpMethod
{
	MBUS_HTTP_GET,
	MBUS_HTTP_HEAD,
	MBUS_HTTP_OPTIONS,
	MBUS_HTTP_OTHER
} MbusHttpMethod;

/* A frame on its way; made of zeros, in the memory of the frame. */
typedef struct MbusDoor
{
	char		kind;			/* MBUS_DOOR_REQUEST or MBUS_DOOR_PIECE */
	int64		n;				/* 0: could not be read; one more than it is */
	int64		max;			/* bytes of the message in the answer */

	/* of a request */
	MbusHttpMethod method;
	MbusTarget	target;
	MbusConditions conditions;
	const char *range;
	const char *fetch_dest;
	const char *origin;
	const char *wanted_method;	/* of a preflight */
	bool		repeated;		/* a field that may be there once */
	int64		expiry;			/* of a capability */

	/* of a piece */
	char	   *ticket_text;
	int64		from;

	MbusTicket	ticket;			/* who asks, and for what */
	int			settled;		/* a status, whoever asks; 0: none */
} MbusDoor;

extern bool mbus_door_is(const char *bytes, int len);

/* frame.c */
extern void mbus_door_read(const char *bytes, int len, MbusDoor *door);
extern void mbus_door_head(StringInfo out, const MbusDoor *door, int status,
						   const char *headers);
extern void mbus_door_body(StringInfo out, const MbusDoor *door, int64 from,
						   int64 to, const char *bytes, int64 size);
extern void mbus_door_piece(StringInfo out, const MbusDoor *door,
							const char *bytes, int64 size);
extern void mbus_door_gone(StringInfo out, const MbusDoor *door,
						   const char *reason);
extern void mbus_door_later(StringInfo out, const MbusDoor *door,
							const char *sqlstate);

/* asker.c */
extern Oid	mbus_door_enter(MbusDoor *door, int64 session, Oid role);

/* door.c */
extern void mbus_door_answer(MbusDoor *door, StringInfo out);
extern void mbus_door_failed(const MbusDoor *door, const ErrorData *edata,
							 StringInfo out);

#endif							/* MBUS_DOOR_H */
