/*
 * sweep.c
 *		What has a time limit of a client.
 *
 * A client that was not heard for MESSAGE_BUS_PING_SECS is pinged, and closed
 * if it is not heard for as long again. Bytes of a message count as heard, so
 * that a slow upload, which holds up the answer to a ping, is not cut off.
 *
 * Who holds room for a piece of a large body that others find none of has
 * MESSAGE_BUS_SEND_TIMEOUT_SECS for all of it, not ten times that; for an
 * append also no longer than SILENT_MS between bytes.
 *
 * A connection whose token has expired is told so once, and closed with 1008
 * if no fresh one comes in time.
 */
#include "relay/sweep.h"

#include "net/loop.h"
#include "relay/client.h"

/* How long a close may take once there are no replies to write. */
#define CLOSE_MS		5000

/*
 * A message that was refused is read to its end, or until nothing comes for
 * LINGER_MS, before the socket is closed: closing a socket with unread input
 * resets it, and the client would lose the answer.
 */
#define LINGER_MS		500
#define LINGER_MAX_MS	30000

/* Who sends nothing of an append for so long gives its room to others. */
#define SILENT_MS		10000

/*
 * For one reply, or one message, a client has so often the time in which a byte
 * of it must move.
 */
#define TIMES			10

static const GwConfig *config;

static void sweep_open(GwClient *client, int64_t now);
static bool append_takes_too_long(const GwClient *client, int64_t now);
static bool reads_too_slowly(const GwClient *client, int64_t now);
static void check_heard(GwClient *client, int64_t now);
static void sweep_closing(GwClient *client, int64_t now);
static void check_expiry(GwClient *client, int64_t now);

/*
 * gw_clients_sweep, once a second, ends connections that do not read, do not
 * finish a message, or do not finish closing.
 */
void
gw_clients_sweep(const GwConfig *settings)
{
	int64_t		now = gw_now_ms();
	GwClient   *client;
	GwClient   *next;

	config = settings;
	gw_identities_tell_left_out(now);
	for (client = LIST_FIRST(&gw_clients[GW_CLIENT_OPEN]); client != NULL;
		 client = next)
	{
		next = LIST_NEXT(client, entry);
		gw_identity_tell_left_out(client->identity, now);
		sweep_open(client, now);
	}
	LIST_FOREACH(client, &gw_clients[GW_CLIENT_CLOSING], entry)
		sweep_closing(client, now);
}

/* sweep_open disconnects a client whose time for something is over. */
static void
sweep_open(GwClient *client, int64_t now)
{
	int64_t		active = client->received_ms > client->replies.progress_ms ?
	client->received_ms : client->replies.progress_ms;

	if (active < client->opened_ms)
		active = client->opened_ms;
	if (reads_too_slowly(client, now))
		gw_client_mute(client, "replies are not being read");
	else if (client->intake != GW_INTAKE_IDLE && !client->paused &&
			 (now - client->received_ms > config->tool_timeout * 1000 ||
			  now - client->begun_ms > TIMES * config->tool_timeout * 1000))
		gw_disconnect(client, GW_CLOSE_POLICY, "message not finished in time");
	else if (append_takes_too_long(client, now))
		gw_disconnect(client, GW_CLOSE_POLICY,
					  "append not finished in time, and others wait");
	else if (client->identity->expires_ms != 0)
		check_expiry(client, now);
	if (config->idle_timeout > 0 && client->in_flight == 0 &&
		gw_replies_are_none(&client->replies) && client->intake == GW_INTAKE_IDLE &&
		now - active >= config->idle_timeout * 1000)
		gw_disconnect(client, GW_CLOSE_GOING_AWAY, "idle for too long");
	if (client->state == GW_CLIENT_OPEN && config->ping_secs > 0)
		check_heard(client, now);
}

/*
 * reads_too_slowly tells that a client has taken no byte of its replies for
 * MESSAGE_BUS_SEND_TIMEOUT_SECS, or has begun to take one, of whatever size,
 * and not ended in TIMES that: a byte now and then would keep it for
 * hours. A piece of a large body that others wait for has no TIMES.
 */
static bool
reads_too_slowly(const GwClient *client, int64_t now)
{
	const GwReplies *replies = &client->replies;
	int64_t		limit = config->send_timeout * 1000;

	if (gw_replies_are_none(replies))
		return false;
	return now - replies->progress_ms > limit ||
		now - replies->begun_ms >
		(STAILQ_FIRST(&replies->list)->hold.bytes > 0 &&
		 gw_pool_is_short(GW_POOL_DOWN) ? limit : TIMES * limit);
}

/*
 * append_takes_too_long tells that a client holds room for an append that
 * others wait for, and could go on with it: it has had its time for all of it,
 * or sends nothing. It could if it is read from, and if it is not because it
 * does not read its own replies.
 */
static bool
append_takes_too_long(const GwClient *client, int64_t now)
{
	return client->appends.hold.bytes > 0 &&
		(!client->paused || client->held) &&
		(now - client->begun_ms > config->send_timeout * 1000 ||
		 now - client->received_ms > SILENT_MS) &&
		gw_pool_is_short(GW_POOL_UP);
}

/*
 * check_heard pings a client that was not heard for long, and
 * disconnects one that does not answer.
 */
static void
check_heard(GwClient *client, int64_t now)
{
	int64_t		silence = config->ping_secs * 1000;

	if (client->heard_ms < client->received_ms)
		client->heard_ms = client->received_ms;

	/*
	 * What is not read from is not heard, and what reads a long reply answers
	 * no ping before its end: the time to send is its limit.
	 */
	if (client->paused || !gw_replies_are_none(&client->replies))
		client->heard_ms = now;
	if (client->heard_ms >= client->pinged_ms)
		client->pinged_ms = 0;
	if (client->pinged_ms != 0 && now - client->pinged_ms >= silence)
		gw_disconnect(client, GW_CLOSE_GOING_AWAY, "no answer to a ping");
	else if (client->pinged_ms == 0 && now - client->heard_ms >= silence)
	{
		client->pinged_ms = now;
		client->want_ping = true;
		gw_socket_write_soon(client->socket);
	}
}

/* sweep_closing ends a client that does not finish closing. */
static void
sweep_closing(GwClient *client, int64_t now)
{
	bool		discards = client->intake == GW_INTAKE_DISCARD;

	if (!gw_replies_are_none(&client->replies) ?
		reads_too_slowly(client, now) :
		now - client->closing_ms > (discards ? LINGER_MAX_MS : CLOSE_MS))
		gw_socket_kill(client->socket);
	else if (gw_replies_are_none(&client->replies) && discards &&
			 now - client->received_ms > LINGER_MS)
		gw_client_end_linger(client);
}

/*
 * check_expiry tells a client that its token has expired, and closes
 * it when it has had its time to bring a fresh one.
 */
static void
check_expiry(GwClient *client, int64_t now)
{
	static const char notice[] =
	"{\"jsonrpc\":\"2.0\",\"method\":\"session_expired\"}";
	GwIdentity *identity = client->identity;

	if (gw_unix_ms() < identity->expires_ms)
		return;
	if (identity->expired_ms == 0)
	{
		identity->expired_ms = now;
		gw_client_log("info", "session_expired", client, NULL);
		gw_client_queue(client, false, (const unsigned char *) notice,
						sizeof(notice) - 1, NULL, false);
	}
	else if (now - identity->expired_ms > config->expiry_grace * 1000)
		gw_disconnect(client, GW_CLOSE_POLICY, "session has expired");
}
