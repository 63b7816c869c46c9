/*
 * asker.c
 *		Who asks for a message over HTTP.
 *
 * The first of these that there is: the session of a token; where all frames
 * run as one role, that; a capability of the URL; the anonymous role.
 *
 * A capability and a ticket were made for who could see the message then.  At
 * each use the role must exist, and may consume the message's channel (which
 * door.c looks at, as that role).  A capability's role need be no role that
 * frames may run as: nothing is run but the reading of that one message.  A
 * ticket's must be, and not have been ended since the request, which is a day
 * ago at most: neither a token's keys nor its age are looked at again.
 *
 * What is refused here is 28000 or "no data found": problem.c makes 401 and
 * 404 of them.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "mb/pg_wchar.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/settings.h"
#include "door/capability.h"
#include "door/door.h"
#include "identity/ended.h"
#include "identity/session.h"

/* A download has no more time: its token may be good no longer. */
#define TICKET_LIFE		(INT64CONST(24) * 3600 * USECS_PER_SEC)

static Oid	enter_capability(MbusDoor *door);
static Oid	enter_anonymous(void);
static Oid	enter_ticket(MbusDoor *door);
static void speak_for(const char *subject);
static int	settled_status(const MbusDoor *door);
static bool is_text(const char *value);
static bool is_unwanted(const char *dest);
pg_noreturn static void not_there(void);

/*
 * mbus_door_enter finds out whom a frame runs as, and returns that role;
 * InvalidOid if the answer is the same whoever asks.  "role": that of all
 * frames, or InvalidOid.  28000, or P0002 for a capability that is not good.
 */
Oid
mbus_door_enter(MbusDoor *door, int64 session, Oid role)
{
	MbusTicket *ticket = &door->ticket;
	bool		linked = door->target.cap && session == 0 &&
	door->target.kind == MBUS_TARGET_MESSAGE;

	if (door->kind == MBUS_DOOR_PIECE)
		return enter_ticket(door);
	ticket->by = linked ? MBUS_BY_CAPABILITY :
		OidIsValid(role) ? MBUS_BY_ROLE :
		session != 0 ? MBUS_BY_TOKEN : MBUS_BY_ANONYMOUS;
	ticket->since = GetCurrentTimestamp();
	door->settled = settled_status(door);
	if (door->settled != 0)
		return InvalidOid;

	switch (ticket->by)
	{
		case MBUS_BY_CAPABILITY:
			role = enter_capability(door);
			break;
		case MBUS_BY_TOKEN:
			role = mbus_session_enter(session);
			break;
		case MBUS_BY_ANONYMOUS:
			role = enter_anonymous();
			break;
		default:
			break;
	}
	ticket->role = role;
	ticket->may_bypass = mbus_role_fault(role, false) == MBUS_ROLE_BYPASSES;
	ticket->subject = mbus_caller.verified ? mbus_caller.subject : NULL;
	return role;
}

/* That of a capability; its subject is nobody. */
static Oid
enter_capability(MbusDoor *door)
{
	MbusCapability capability;

	if (!mbus_capability_read(door->target.cap, door->target.id, &capability) ||
		!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(capability.role)))
		not_there();
	door->expiry = capability.expiry;
	door->ticket.own = capability.own;
	speak_for(NULL);
	return capability.role;
}

/* The role of who has no token. */
static Oid
enter_anonymous(void)
{
	MbusTokenRules rules;
	MbusIdentity identity;

	mbus_session_rules(&rules);
	mbus_session_verify("", 0, &rules, &identity);
	speak_for(NULL);
	return identity.role;
}

/* Who has asked for what a ticket is for, if he still may. */
static Oid
enter_ticket(MbusDoor *door)
{
	MbusTicket *ticket = &door->ticket;
	bool		sound;

	if (!mbus_ticket_read(door->ticket_text, ticket) ||
		GetCurrentTimestamp() - ticket->since > TICKET_LIFE)
		not_there();
	if (ticket->by == MBUS_BY_CAPABILITY)
		sound = SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(ticket->role));
	else
		sound = mbus_role_fault(ticket->role, ticket->may_bypass) ==
			MBUS_ROLE_SOUND &&
			!mbus_ended(ticket->role, ticket->subject, ticket->since);
	if (!sound)
		not_there();
	if (ticket->by != MBUS_BY_ROLE)
		speak_for(ticket->subject);
	return ticket->role;
}

/* Until the frame ends; see mbus_session_leave(). */
static void
speak_for(const char *subject)
{
	mbus_caller.verified = true;
	mbus_caller.subject = subject;
}

/* The status of a request that nobody gets a message for; 0: there is none. */
static int
settled_status(const MbusDoor *door)
{
	if (door->method == MBUS_HTTP_OPTIONS && door->origin &&
		door->wanted_method)
		return 204;
	if (door->method != MBUS_HTTP_GET && door->method != MBUS_HTTP_HEAD)
		return 405;
	if (door->target.kind == MBUS_TARGET_BAD || door->repeated ||
		!is_text(door->target.channel) ||
		!is_text(door->target.transaction_id))
		return 400;
	if (door->target.kind == MBUS_TARGET_NONE)
		return 404;
	if (door->fetch_dest && is_unwanted(door->fetch_dest))
		return 403;
	return 0;
}

/* What was escaped may be no UTF-8. */
static bool
is_text(const char *value)
{
	return value == NULL || pg_verifymbstr(value, (int) strlen(value), true);
}

/* What a browser would run, or show as part of another page. */
static bool
is_unwanted(const char *dest)
{
	static const char *const unwanted[] = {
		"audioworklet", "embed", "fencedframe", "frame", "iframe", "manifest", "object",
		"paintworklet", "script", "serviceworker", "sharedworker", "style",
		"worker", "xslt"
	};

	for (int i = 0; i < lengthof(unwanted); i++)
	{
		if (strcmp(dest, unwanted[i]) == 0)
			return true;
	}
	return false;
}

static void
not_there(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_NO_DATA_FOUND),
			 errmsg("message not found"),
			 errdetail("The link or ticket is not valid, or not any more.")));
}
