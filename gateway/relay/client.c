/*
 * client.c
 *		WebSocket connections: their states, their messages in and out.
 *
 * A connection's state is the list it is on, and client_move alone moves it:
 * OPEN, then CLOSING, then gone. gw_disconnect is the only exit that the
 * gateway itself takes; gw_client_gone is what the loop calls when the
 * socket no longer exists, for whatever reason. What is in flight refers to
 * a connection's identity only (identity.c), so that a connection may vanish
 * at any time. Whole messages go to whoever is named by GwClientEvents.
 *
 * Every queue is bounded. In: one message of WS_MAX_MSG_BYTES is put
 * together at a time; a connection with MESSAGE_BUS_MAX_IN_FLIGHT unanswered
 * frames is not read from until one is answered, so that a slow database is
 * felt by the sender's TCP; the frames of all together are bounded in bytes,
 * and over that limit a frame is refused with an error that names it. Out: a
 * connection whose replies pile up is neither read from nor served
 * (gw_client_is_held) until it has read half of them, and is closed with
 * 1013 if it does not read at all.
 *
 * A client that was not heard for MESSAGE_BUS_PING_SECS is pinged, and closed
 * if it is not heard for as long again. Bytes of a message count as heard, so
 * that a slow upload, which holds up the answer to a ping, is not cut off.
 *
 * A connection whose token has expired is told so once, and closed with 1008
 * if no fresh one comes in time.
 */
#include "relay/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/utf8.h"
#include "net/loop.h"

/* How long a close may take once there are no replies to write. */
#define CLOSE_MS		5000

/*
 * A message that was refused is read to its end, or until nothing comes for
 * LINGER_MS, before the socket is closed: closing a socket with unread input
 * resets it, and the client would lose the answer.
 */
#define LINGER_MS		500
#define LINGER_MAX_MS	30000

/* How much of a message that is too large is looked through for its id. */
#define PREFIX_MAX		65536

/* What one connection may have refused, beside its frames, in bytes. */
#define REFUSALS_MAX	((size_t) 1024 * 1024)

static const GwConfig *config;
static const GwClientEvents *events;
static LIST_HEAD(, GwClient) lists[GW_CLIENT_STATES];
static size_t client_count;
static size_t buffered;			/* bytes of unanswered and unfinished frames */
static size_t unwritten;		/* bytes of replies that are queued */
static size_t unwritten_replies;
static bool draining;

static void *client_open(GwSocket *socket, GwBuffer *token);
static void client_gone(void *owner);
static void client_receive(void *owner, const unsigned char *bytes,
						   size_t length, size_t more, bool binary,
						   bool final);
static void client_pong(void *owner);
static void client_next(void *owner, GwOutput * output);
static bool client_written(void *owner, size_t length);
static void client_move(GwClient *client, GwClientState state);
static void client_sweep_open(GwClient *client, int64_t now);
static void client_sweep_closing(GwClient *client, int64_t now);
static void client_check_heard(GwClient *client, int64_t now);
static void client_check_expiry(GwClient *client, int64_t now);
static void client_end_linger(GwClient *client);
static bool client_check_text(GwClient *client, bool final);
static bool client_gather(GwClient *client, const unsigned char *bytes,
						  size_t length, size_t more, bool binary);
static void client_append(GwClient *client, const unsigned char *bytes,
						  size_t length);
static void client_refuse(GwClient *client, GwRefusal reason,
						  const GwError *error);
static void client_forget_message(GwClient *client);
static void client_take_message(GwClient *client);
static void client_mute(GwClient *client, const char *reason);
static void client_drop_replies(GwClient *client);
static void client_flow(GwClient *client);
static void log_open(const GwClient *client);
static void log_client(const char *level, const char *event,
					   const GwClient *client, const char *detail);

const		GwSocketEvents gw_client_events = {client_open, client_receive,
client_pong, client_next, client_written, client_gone, gw_clients_count};

void
gw_clients_init(const GwConfig *settings, const GwClientEvents * owner)
{
	config = settings;
	events = owner;
}

size_t
gw_clients_count(void)
{
	return client_count;
}

/* gw_clients_buffered returns the bytes of frames that are held. */
size_t
gw_clients_buffered(void)
{
	return buffered;
}

/* gw_clients_unwritten returns the bytes of replies that are queued. */
size_t
gw_clients_unwritten(void)
{
	return unwritten;
}

size_t
gw_clients_unwritten_replies(void)
{
	return unwritten_replies;
}

/* gw_clients_release gives back bytes of a frame that was answered. */
void
gw_clients_release(size_t bytes)
{
	buffered -= bytes;
}

/*
 * gw_clients_sweep, once a second, ends connections that do not read, do not
 * finish a message, or do not finish closing.
 */
void
gw_clients_sweep(void)
{
	int64_t		now = gw_now_ms();
	GwClient   *client;
	GwClient   *next;

	for (client = LIST_FIRST(&lists[GW_CLIENT_OPEN]); client != NULL;
		 client = next)
	{
		next = LIST_NEXT(client, entry);
		client_sweep_open(client, now);
	}
	LIST_FOREACH(client, &lists[GW_CLIENT_CLOSING], entry)
		client_sweep_closing(client, now);
}

/*
 * gw_clients_drain closes every connection that has nothing left to come.
 * From its first call on no frame is taken any more.
 */
void
gw_clients_drain(void)
{
	GwClient   *client;
	GwClient   *next;

	draining = true;
	for (client = LIST_FIRST(&lists[GW_CLIENT_OPEN]); client != NULL;
		 client = next)
	{
		next = LIST_NEXT(client, entry);
		if (client->in_flight == 0 && STAILQ_EMPTY(&client->replies))
			gw_disconnect(client, GW_CLOSE_GOING_AWAY,
						  "the gateway is stopping");
	}
}

/* gw_client_answered notes that a frame of the client has been answered. */
void
gw_client_answered(GwClient *client)
{
	client->in_flight--;
	client_flow(client);
}

/*
 * gw_client_queue queues one frame to write. A client that cannot take it
 * is disconnected.
 */
void
gw_client_queue(GwClient *client, bool binary, const unsigned char *bytes,
				size_t length)
{
	size_t		limit = 2 * (size_t) config->max_message + REFUSALS_MAX;
	GwReply    *reply;

	if (client->mute)
	{
		gw_counters.replies_undelivered++;
		return;
	}
	if (client->reply_bytes + length > limit)
	{
		client_mute(client, "too many unread replies");
		return;
	}
	reply = malloc(sizeof(GwReply) + GW_WRITE_ROOM + length);
	if (reply == NULL)
	{
		client_mute(client, "out of memory");
		return;
	}
	reply->length = length;
	reply->sent = 0;
	reply->binary = binary;
	if (length > 0)
		memcpy(reply->bytes + GW_WRITE_ROOM, bytes, length);
	if (STAILQ_EMPTY(&client->replies))
		client->progress_ms = gw_now_ms();
	STAILQ_INSERT_TAIL(&client->replies, reply, entry);
	client->reply_bytes += length;
	unwritten += length;
	unwritten_replies++;
	client_flow(client);
	gw_socket_write_soon(client->socket);
}

/* gw_client_answer queues the gateway's own answer to a frame. */
void
gw_client_answer(GwClient *client, const GwBuffer *ids, const GwError *error)
{
	GwBuffer	string = {0};

	gw_answer_frame(&string, ids, error);
	if (string.failed)
		client_mute(client, "out of memory");
	else
		gw_client_queue(client, false, string.data, string.length);
	gw_buffer_free(&string);
}

/* gw_client_is_held tells that no more frames of it should be relayed. */
bool
gw_client_is_held(const GwClient *client)
{
	return client->held;
}

/*
 * gw_disconnect ends a connection: no more frames are taken, queued replies
 * are written, then it is closed with this code and reason (at most 123
 * bytes, a literal).
 */
void
gw_disconnect(GwClient *client, int code, const char *reason)
{
	if (client->state == GW_CLIENT_CLOSING)
		return;
	client->close_code = code;
	client->close_reason = reason;
	client->closing_ms = gw_now_ms();
	client_forget_message(client);
	if (client->intake == GW_INTAKE_GATHER)
		client->intake = GW_INTAKE_DISCARD;
	client_move(client, GW_CLIENT_CLOSING);
	client_flow(client);
	gw_socket_write_soon(client->socket);
}

/*
 * client_open makes a client for a socket, whose token it takes over. It
 * returns NULL if out of memory.
 */
static void *
client_open(GwSocket *socket, GwBuffer *token)
{
	GwClient   *client = calloc(1, sizeof(GwClient));

	if (client != NULL)
		client->identity = gw_identity_create(token);
	if (client == NULL || client->identity == NULL)
	{
		free(client);
		return NULL;
	}
	client->identity->client = client;
	client->socket = socket;
	client->opened_ms = client->heard_ms = gw_now_ms();
	STAILQ_INIT(&client->replies);
	LIST_INSERT_HEAD(&lists[GW_CLIENT_OPEN], client, entry);
	client_count++;
	gw_counters.connections++;
	log_open(client);
	return client;
}

/*
 * client_receive takes bytes of a message; `more` bytes of the same
 * WebSocket frame are still to come, and `final` says that these are the
 * message's last.
 */
static void
client_receive(void *owner, const unsigned char *bytes, size_t length,
			   size_t more, bool binary, bool final)
{
	GwClient   *client = owner;

	client->received_ms = gw_now_ms();
	gw_counters.bytes_in += length;
	if (client->state != GW_CLIENT_OPEN)
	{
		if (final && client->intake == GW_INTAKE_DISCARD)
			client_end_linger(client);
		return;
	}
	if (client->intake == GW_INTAKE_IDLE)
	{
		client->intake = GW_INTAKE_GATHER;
		client->characters = 0;
	}
	if (client->intake == GW_INTAKE_GATHER &&
		!client_gather(client, bytes, length, more, binary))
	{
		client_forget_message(client);
		client->intake = GW_INTAKE_DISCARD;
	}
	if (client->intake == GW_INTAKE_GATHER && !client_check_text(client, final))
		return;
	if (!final)
		return;
	client->frames_in++;
	gw_counters.frames_in++;
	if (client->intake == GW_INTAKE_GATHER)
	{
		client->intake = GW_INTAKE_IDLE;
		client_take_message(client);
	}
	client->intake = GW_INTAKE_IDLE;
}

static void
client_pong(void *owner)
{
	GwClient   *client = owner;

	client->heard_ms = gw_now_ms();
}

/* client_next tells what a client's socket is to write. */
static void
client_next(void *owner, GwOutput * output)
{
	GwClient   *client = owner;
	GwReply    *reply = STAILQ_FIRST(&client->replies);

	if (client->want_ping && (reply == NULL || reply->sent == 0))
	{
		client->want_ping = false;
		output->kind = GW_OUTPUT_PING;
	}
	else if (reply != NULL)
	{
		output->kind = GW_OUTPUT_PIECE;
		output->bytes = reply->bytes + GW_WRITE_ROOM + reply->sent;
		output->length = reply->length - reply->sent;
		output->begins = reply->sent == 0;
		output->binary = reply->binary;
	}
	else if (client->state == GW_CLIENT_CLOSING &&
			 (client->intake != GW_INTAKE_DISCARD || client->mute))
	{
		output->kind = GW_OUTPUT_CLOSE;
		output->code = client->close_code;
		output->reason = client->close_reason;
	}
}

/* client_written notes that bytes of the oldest reply went out. */
static bool
client_written(void *owner, size_t length)
{
	GwClient   *client = owner;
	GwReply    *reply = STAILQ_FIRST(&client->replies);

	reply->sent += length;
	client->reply_bytes -= length;
	unwritten -= length;
	client->progress_ms = gw_now_ms();
	gw_counters.bytes_out += length;
	if (reply->sent == reply->length)
	{
		STAILQ_REMOVE_HEAD(&client->replies, entry);
		free(reply);
		unwritten_replies--;
		client->frames_out++;
		gw_counters.frames_out++;
	}
	client_flow(client);
	return !STAILQ_EMPTY(&client->replies) ||
		client->state == GW_CLIENT_CLOSING;
}

/* client_gone frees a client whose socket no longer exists. */
static void
client_gone(void *owner)
{
	GwClient   *client = owner;
	GwLogLine	line;

	LIST_REMOVE(client, entry);
	client_count--;
	if (client->intake == GW_INTAKE_GATHER &&
		client->state == GW_CLIENT_OPEN)
	{
		gw_counters.frames_cut_off++;
		log_client("warning", "cut_off", client,
				   "the socket closed in the middle of a message");
	}
	gw_log_begin(&line, "info", "close");
	gw_log_number(&line, "connection", client->identity->session);
	gw_log_number(&line, "ms", gw_now_ms() - client->opened_ms);
	gw_log_number(&line, "frames_in", (int64_t) client->frames_in);
	gw_log_number(&line, "frames_out", (int64_t) client->frames_out);
	gw_log_number(&line, "in_flight", (int64_t) client->in_flight);
	gw_log_number(&line, "unwritten", (int64_t) client->reply_bytes);
	if (client->close_code != 0)
	{
		gw_log_number(&line, "code", client->close_code);
		gw_log_text(&line, "reason", client->close_reason);
	}
	gw_log_end(&line);
	client_drop_replies(client);
	client_forget_message(client);
	client->identity->client = NULL;
	events->end(client->identity);
	gw_identity_release(client->identity);
	free(client);
}

/* client_sweep_open disconnects a client whose time for something is over. */
static void
client_sweep_open(GwClient *client, int64_t now)
{
	int64_t		active = client->received_ms > client->progress_ms ?
	client->received_ms : client->progress_ms;

	if (active < client->opened_ms)
		active = client->opened_ms;
	if (!STAILQ_EMPTY(&client->replies) &&
		now - client->progress_ms > config->send_timeout * 1000)
		client_mute(client, "replies are not being read");
	else if (client->intake != GW_INTAKE_IDLE && !client->paused &&
			 now - client->received_ms > config->tool_timeout * 1000)
		gw_disconnect(client, GW_CLOSE_POLICY, "message not finished in time");
	else if (client->identity->expires_ms != 0)
		client_check_expiry(client, now);
	if (config->idle_timeout > 0 && client->in_flight == 0 &&
		STAILQ_EMPTY(&client->replies) && client->intake == GW_INTAKE_IDLE &&
		now - active >= config->idle_timeout * 1000)
		gw_disconnect(client, GW_CLOSE_GOING_AWAY, "idle for too long");
	if (client->state == GW_CLIENT_OPEN && config->ping_secs > 0)
		client_check_heard(client, now);
}

/*
 * client_check_heard pings a client that was not heard for long, and
 * disconnects one that does not answer.
 */
static void
client_check_heard(GwClient *client, int64_t now)
{
	int64_t		silence = config->ping_secs * 1000;

	if (client->heard_ms < client->received_ms)
		client->heard_ms = client->received_ms;

	/*
	 * What is not read from is not heard, and what reads a long reply answers
	 * no ping before its end: the time to send is its limit.
	 */
	if (client->paused || !STAILQ_EMPTY(&client->replies))
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

/* client_sweep_closing ends a client that does not finish closing. */
static void
client_sweep_closing(GwClient *client, int64_t now)
{
	bool		discards = client->intake == GW_INTAKE_DISCARD;

	if (!STAILQ_EMPTY(&client->replies) ?
		now - client->progress_ms > config->send_timeout * 1000 :
		now - client->closing_ms > (discards ? LINGER_MAX_MS : CLOSE_MS))
		gw_socket_kill(client->socket);
	else if (STAILQ_EMPTY(&client->replies) && discards &&
			 now - client->received_ms > LINGER_MS)
		client_end_linger(client);
}

/*
 * client_check_expiry tells a client that its token has expired, and closes
 * it when it has had its time to bring a fresh one.
 */
static void
client_check_expiry(GwClient *client, int64_t now)
{
	static const char notice[] =
	"{\"jsonrpc\":\"2.0\",\"method\":\"session_expired\"}";
	GwIdentity *identity = client->identity;

	if (gw_unix_ms() < identity->expires_ms)
		return;
	if (identity->expired_ms == 0)
	{
		identity->expired_ms = now;
		log_client("info", "session_expired", client, NULL);
		gw_client_queue(client, false, (const unsigned char *) notice,
						sizeof(notice) - 1);
	}
	else if (now - identity->expired_ms > config->expiry_grace * 1000)
		gw_disconnect(client, GW_CLOSE_POLICY, "session has expired");
}

/* client_end_linger lets a closing client close. */
static void
client_end_linger(GwClient *client)
{
	client->intake = GW_INTAKE_IDLE;
	client->closing_ms = gw_now_ms();
	gw_socket_write_soon(client->socket);
}

/* client_move is the only function that changes a client's state. */
static void
client_move(GwClient *client, GwClientState state)
{
	LIST_REMOVE(client, entry);
	client->state = state;
	LIST_INSERT_HEAD(&lists[state], client, entry);
}

/*
 * client_gather appends to the message being put together. It returns false
 * if the message was refused and answered.
 */
static bool
client_gather(GwClient *client, const unsigned char *bytes, size_t length,
			  size_t more, bool binary)
{
	GwBuffer   *message = &client->incoming;
	unsigned char opcode = binary ? GW_OPCODE_BINARY : GW_OPCODE_TEXT;
	size_t		limit = (size_t) config->max_message;
	size_t		held = message->length > 0 ? message->length - 1 : 0;
	char		detail[96];
	GwError		error = {0};

	if (message->length == 0)
	{
		size_t		whole = length + (more < limit ? more : 0) + 1;

		if (gw_buffer_reserve(message, whole <= limit + 1 ? whole : 1))
			client_append(client, &opcode, 1);
	}
	if (more > limit || length > limit || held + length + more > limit)
	{
		/* Look for the id in what there is, then say no. */
		size_t		room = held < PREFIX_MAX ? PREFIX_MAX - held : 0;

		client_append(client, bytes, length < room ? length : room);
		(void) snprintf(detail, sizeof(detail),
						"The limit is %ld bytes (WS_MAX_MSG_BYTES).",
						config->max_message);
		error.code = GW_ERROR_TOO_LARGE;
		error.message = "message too large";
		error.detail = detail;
		client_refuse(client, GW_REFUSED_TOO_LARGE, &error);
		gw_disconnect(client, GW_CLOSE_TOO_LARGE, "message too large");
		return false;
	}
	client_append(client, bytes, length);
	if (!message->failed &&
		buffered <= (size_t) config->max_buffered_mb * GW_MIB)
		return true;
	(void) snprintf(detail, sizeof(detail), "The limit is %ld MiB for all"
					" connections (MESSAGE_BUS_MAX_BUFFERED_MB).",
					config->max_buffered_mb);
	error.code = GW_ERROR_TOO_MANY;
	error.message = "too many frames in flight";
	error.detail = detail;
	error.hint = "Try again later.";
	client_refuse(client, GW_REFUSED_BUFFERED, &error);
	return false;
}

/*
 * client_check_text disconnects a client at the first byte of a text that no
 * UTF-8 can begin with, and returns false then. `final` says that no byte of
 * the message is still to come.
 */
static bool
client_check_text(GwClient *client, bool final)
{
	const GwBuffer *message = &client->incoming;
	const unsigned char *at;
	size_t		left;

	if (message->length == 0 || message->data[0] != GW_OPCODE_TEXT)
		return true;
	at = message->data + 1 + client->characters;
	left = message->length - 1 - client->characters;
	client->characters += gw_utf8_prefix(at, left);
	at = message->data + 1 + client->characters;
	left = message->length - 1 - client->characters;
	if (left == 0 || (!final && gw_utf8_may_go_on(at, left)))
		return true;
	gw_metric_refused(GW_REFUSED_NOT_UTF8);
	log_client("warning", "refused", client, "text is not UTF-8");
	client->intake = GW_INTAKE_IDLE;
	gw_disconnect(client, GW_CLOSE_NOT_UTF8, "text is not UTF-8");
	return false;
}

/* client_append appends to the message and counts what it holds. */
static void
client_append(GwClient *client, const unsigned char *bytes, size_t length)
{
	size_t		before = client->incoming.length;

	gw_buffer_append(&client->incoming, bytes, length);
	buffered += client->incoming.length - before;
}

/* client_refuse answers a message that is not whole, by the id if known. */
static void
client_refuse(GwClient *client, GwRefusal reason, const GwError *error)
{
	GwBuffer   *message = &client->incoming;
	GwFrame		frame = {.kind = GW_FRAME_MALFORMED};
	GwBuffer	ids = {0};

	gw_metric_refused(reason);
	log_client("warning", "refused", client, error->message);
	if (!message->failed && message->length > 1)
		frame = gw_frame_read(gw_frame_header(message->data[0],
											  message->data + 1,
											  message->length - 1));
	frame.kind = GW_FRAME_REQUEST;
	gw_ids_add(&ids, &frame);
	gw_client_answer(client, &ids, error);
	gw_buffer_free(&ids);
}

/* client_forget_message frees the message being put together. */
static void
client_forget_message(GwClient *client)
{
	buffered -= client->incoming.length;
	/* It may be an authenticate. */
	gw_buffer_wipe(&client->incoming);
}

/* client_take_message hands a whole message on as a request, or refuses it. */
static void
client_take_message(GwClient *client)
{
	GwRequest  *request;
	GwError		error = {GW_ERROR_TOO_MANY, "the gateway is stopping", NULL,
	NULL, NULL};

	request = gw_request_create(client->identity, &client->incoming,
								gw_now_ms());
	if (request == NULL)
	{
		client_forget_message(client);
		gw_disconnect(client, GW_CLOSE_TRY_LATER, "out of memory");
		return;
	}
	if (!draining)
	{
		client->in_flight++;
		events->message(request);
		client_flow(client);
		return;
	}
	gw_metric_refused(GW_REFUSED_DRAINING);
	log_client("warning", "refused", client, error.message);
	gw_client_answer(client, &request->ids, &error);
	gw_clients_release(request->length);
	gw_request_free(request);
}

/*
 * client_mute gives up on a client's replies and disconnects it. None is
 * queued after that: the oldest may have been cut off in its middle.
 */
static void
client_mute(GwClient *client, const char *reason)
{
	client_drop_replies(client);
	client->mute = true;
	gw_disconnect(client, GW_CLOSE_TRY_LATER, reason);
}

static void
client_drop_replies(GwClient *client)
{
	GwReply    *reply;

	while ((reply = STAILQ_FIRST(&client->replies)) != NULL)
	{
		STAILQ_REMOVE_HEAD(&client->replies, entry);
		gw_counters.replies_undelivered++;
		unwritten_replies--;
		free(reply);
	}
	unwritten -= client->reply_bytes;
	client->reply_bytes = 0;
}

/*
 * client_flow stops reading from a client that does not read, or has enough
 * in flight, and resumes. What is closing is read, to see its end.
 */
static void
client_flow(GwClient *client)
{
	size_t		high = (size_t) config->max_message;
	bool		pause;

	if (client->reply_bytes > high)
		client->held = true;
	else if (client->reply_bytes <= high / 2)
		client->held = false;
	pause = client->state == GW_CLIENT_OPEN &&
		(client->held || client->in_flight >= (size_t) config->max_in_flight);
	if (pause == client->paused)
		return;
	client->paused = pause;
	/* The time while it was not read from is not the client's. */
	client->received_ms = gw_now_ms();
	gw_socket_pause(client->socket, pause);
}

static void
log_open(const GwClient *client)
{
	GwLogLine	line;

	gw_log_begin(&line, "info", "open");
	gw_log_number(&line, "connection", client->identity->session);
	gw_log_text(&line, "address", gw_socket_address(client->socket));
	gw_log_end(&line);
}

static void
log_client(const char *level, const char *event, const GwClient *client,
		   const char *detail)
{
	GwLogLine	line;

	gw_log_begin(&line, level, event);
	gw_log_number(&line, "connection", client->identity->session);
	if (detail != NULL)
		gw_log_text(&line, "detail", detail);
	gw_log_end(&line);
}
