/*
 * intake.c
 *		Who may have how many bytes of frames in the gateway.
 *
 * What counts is frames that are not answered yet, and what has come of a
 * message that is not finished.
 *
 *	all connections			MESSAGE_BUS_MAX_BUFFERED_MB; what comes over that
 *							is refused
 *	all without a token		a quarter of that, so that strangers take nothing
 *							from others; what comes over that is refused, but
 *							not who has only so much that a token fits into it,
 *							or 64 KiB if he has brought one: he may be none
 *	one connection			a quarter of all, of one without a token a
 *							sixteenth, but one largest message in any case: who
 *							has as much unanswered is not read from
 *	one of which the		64 KiB: it is not read from until the database has
 *	database has not told	said that its token is good, or that it needs none
 *	who it is
 *
 * With MESSAGE_BUS_ROLE nobody is a stranger.
 *
 * A message of one without a token has MESSAGE_BUS_ANON_MAX_BYTES at most: what
 * is as large as WS_MAX_MSG_BYTES keeps the loop, and a lane, for a while.
 */
#include "relay/intake.h"

#include <stdio.h>

#define GREETING_MAX	((size_t) 64 * 1024)

/* A frame with a token, of whoever. */
#define TOKEN_MAX		((size_t) 20 * 1024)

/* The parts of the whole: that of strangers, of a client, of a stranger. */
#define STRANGERS_PART	4
#define CLIENT_PART		4
#define STRANGER_PART	16

GwIntakeTotals gw_intake_totals;

static const GwConfig *config;

static size_t part_of_all(size_t part);

void
gw_intake_init(const GwConfig *settings)
{
	config = settings;
}

/* gw_intake_begin says that nobody knows yet who a connection is. */
void
gw_intake_begin(GwIdentity *identity)
{
	identity->stranger = identity->unknown = gw_config_authenticates(config);
}

void
gw_intake_add(GwIdentity *identity, size_t bytes)
{
	identity->buffered += bytes;
	gw_intake_totals.bytes += bytes;
	if (identity->stranger)
		gw_intake_totals.strangers += bytes;
}

void
gw_intake_remove(GwIdentity *identity, size_t bytes)
{
	identity->buffered -= bytes;
	gw_intake_totals.bytes -= bytes;
	if (identity->stranger)
		gw_intake_totals.strangers -= bytes;
}

/*
 * gw_intake_meet notes that the database has told who a connection is: no
 * stranger any more, if it was by a token.
 */
void
gw_intake_meet(GwIdentity *identity)
{
	if (identity->role[0] == '\0')
		return;
	identity->unknown = false;
	if (!identity->stranger || identity->token.length == 0)
		return;
	identity->stranger = false;
	gw_intake_totals.strangers -= identity->buffered;
}

/*
 * gw_intake_limit returns how large a message of a connection may be, and
 * whether that is because it has no token.
 */
size_t
gw_intake_limit(const GwIdentity *identity, bool *anonymous)
{
	*anonymous = identity->stranger && identity->token.length == 0 &&
		config->anon_max < config->max_message;
	return (size_t) (*anonymous ? config->anon_max : config->max_message);
}

/* gw_intake_is_full tells that no more is taken of a connection, and why. */
bool
gw_intake_is_full(const GwIdentity *identity, char *why, size_t size)
{
	size_t		unbounded = identity->unknown && identity->token.length > 0 ?
	GREETING_MAX : TOKEN_MAX;

	if (gw_intake_totals.bytes > part_of_all(1))
		(void) snprintf(why, size, "The limit is %ld MiB for all connections"
						" (MESSAGE_BUS_MAX_BUFFERED_MB).",
						config->max_buffered_mb);
	else if (identity->stranger && identity->buffered > unbounded &&
			 gw_intake_totals.strangers > part_of_all(STRANGERS_PART))
		(void) snprintf(why, size, "The limit is %zu bytes for all connections"
						" without a token (a quarter of"
						" MESSAGE_BUS_MAX_BUFFERED_MB).",
						part_of_all(STRANGERS_PART));
	else
		return false;
	return true;
}

/* gw_intake_has_share tells that a connection has its share unanswered. */
bool
gw_intake_has_share(const GwIdentity *identity)
{
	return identity->buffered >=
		part_of_all(identity->stranger ? STRANGER_PART : CLIENT_PART);
}

/*
 * gw_intake_must_greet tells that a connection has sent as much as it may
 * before the database has told who it is.
 */
bool
gw_intake_must_greet(const GwIdentity *identity)
{
	return identity->unknown && identity->buffered > GREETING_MAX;
}

/* part_of_all returns a part of all bytes, but room for one message. */
static size_t
part_of_all(size_t part)
{
	size_t		bytes = (size_t) config->max_buffered_mb * GW_MIB / part;

	return bytes > (size_t) config->max_message ? bytes :
		(size_t) config->max_message;
}
