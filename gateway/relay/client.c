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
 * Every queue is bounded. In: one message of WS_MAX_MSG_BYTES is put together
 * at a time; a connection with MESSAGE_BUS_MAX_IN_FLIGHT unanswered frames is
 * not read from until one is answered, so that a slow database is felt by the
 * sender's TCP; how many bytes of frames it, and all together, may have is
 * told in intake.c. Out: a connection whose replies pile up is neither read
 * from nor served (held) until it has read half of them, and is closed with
 * 1013 if it does not read at all, or takes too long for one reply. Nothing is
 * sent to the database whose replies, beside those that wait and those that
 * are on their way, it could not take (gw_client_has_room). Those of all
 * together are bounded by MESSAGE_BUS_MAX_UNREAD_MB: from half of it on, who
 * has any unread gets no more; over it, who has many and has not read for
 * longest is closed with 1013.
 *
 * Leases that a reply tells are its client's as soon as a byte of it has been
 * written: it may be the reply that its client cannot take, and must not come
 * for ever. Those of replies that were not begun, also of ones that come when
 * the socket has gone, are kept in "unwritten" of the identity, and given back
 * when the session is closed.
 */
#include "relay/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/utf8.h"
#include "net/loop.h"
#include "relay/intake.h"

/* How much of a message that is too large is looked through for its id. */
#define PREFIX_MAX		65536

/* What one connection may have refused, beside its frames, in bytes. */
#define REFUSALS_MAX	((size_t) 1024 * 1024)

/* Bytes of replies that may wait to be written to all clients. */
#define UNREAD_MAX		((size_t) config->max_unread_mb * GW_MIB)

/* What a close frame can have as its code: RFC 6455, section 7.4. */
#define CODE_LEAST		1000
#define CODE_MOST		4999

static const GwConfig *config;
static const GwClientEvents *events;
static bool draining;

GwClientList gw_clients[GW_CLIENT_STATES];
GwClientTotals gw_client_totals;

static void *client_open(GwSocket *socket, GwBuffer *token, uint32_t limit);
static void client_gone(void *owner);
static void client_receive(void *owner, const unsigned char *bytes,
						   size_t length, size_t more, bool binary,
						   bool final);
static void client_pong(void *owner);
static void client_next(void *owner, GwOutput *output);
static bool client_written(void *owner, size_t length);
static void client_closed(void *owner, int code, const char *reason,
						  size_t length);
static bool mute_one(void);
static void client_move(GwClient *client, GwClientState state);
static bool client_check_text(GwClient *client, bool final);
static bool client_gather(GwClient *client, const unsigned char *bytes,
						  size_t length, size_t more, bool binary);
static void client_room(void *owner);
static bool client_greet(GwClient *client);
static void client_append(GwClient *client, const unsigned char *bytes,
						  size_t length);
static void client_refuse(GwClient *client, GwRefusal reason,
						  const GwError *error);
static void client_forget_message(GwClient *client);
static void client_take_message(GwClient *client);
static void client_drop_replies(GwClient *client);

const GwSocketEvents gw_client_events = {client_open, client_receive,
	client_pong, client_next, client_written, client_closed, client_gone,
&gw_client_totals.count};

void
gw_clients_init(const GwConfig *settings, const GwClientEvents *owner)
{
	config = settings;
	events = owner;
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
	for (client = LIST_FIRST(&gw_clients[GW_CLIENT_OPEN]); client != NULL;
		 client = next)
	{
		next = LIST_NEXT(client, entry);
		if (client->in_flight == 0 && gw_replies_are_none(&client->replies))
			gw_disconnect(client, GW_CLOSE_GOING_AWAY,
						  "the gateway is stopping");
	}
}

/* gw_client_answered notes that a frame of the client has been answered. */
void
gw_client_answered(GwClient *client)
{
	client->in_flight--;
	gw_client_flow(client);
}

/*
 * gw_client_has_room tells whether a client can take one more reply, of at
 * most that many bytes, beside what it has not read and what is on its way:
 * so no client that reads is ever given up.
 */
bool
gw_client_has_room(const GwClient *client, size_t reply)
{
	const GwReplies *replies = &client->replies;

	return !client->held &&
		(replies->bytes == 0 || gw_reply_totals.bytes <= UNREAD_MAX / 2) &&
		replies->bytes + replies->expected + reply <=
		2 * (size_t) config->max_message;
}

/*
 * gw_client_queue queues one frame to write, which may be a piece of a large
 * body (bulk), and what it tells of leases (or NULL). A client that cannot take it is disconnected, and so is whoever
 * makes the replies of all too many.
 */
void
gw_client_queue(GwClient *client, bool binary, const unsigned char *bytes,
				size_t length, const GwBuffer *leases, bool bulk)
{
	size_t		limit = 2 * (size_t) config->max_message + REFUSALS_MAX;
	bool		fits = client->replies.bytes + length <= limit;

	if (client->mute || !fits ||
		!gw_replies_add(&client->replies, binary, bytes, length, leases, bulk))
	{
		if (leases != NULL)
			gw_buffer_append(&client->identity->unwritten, leases->data,
							 leases->length);
		gw_counters.replies_undelivered++;
		if (!client->mute)
			gw_client_mute(client, fits ? "out of memory" :
						   "too many unread replies");
		return;
	}
	gw_client_flow(client);
	gw_socket_write_soon(client->socket);
	while (gw_reply_totals.bytes > UNREAD_MAX && mute_one())
		;
}

/*
 * mute_one gives up on a client so that there is room for the replies of
 * others: of those that have at least half as many bytes unread as the one
 * that has most, the one that has not read for longest.
 */
static bool
mute_one(void)
{
	GwClient   *client;
	GwClient   *victim = NULL;
	size_t		most = 0;
	int			state;

	for (state = 0; state < GW_CLIENT_STATES; state++)
		LIST_FOREACH(client, &gw_clients[state], entry)
			if (client->replies.bytes > most)
			most = client->replies.bytes;
	for (state = 0; most > 0 && state < GW_CLIENT_STATES; state++)
		LIST_FOREACH(client, &gw_clients[state], entry)
			if (client->replies.bytes >= most / 2 &&
				!gw_replies_are_none(&client->replies) &&
				(victim == NULL || client->replies.progress_ms <
				 victim->replies.progress_ms))
			victim = client;
	if (victim == NULL)
		return false;
	if (victim->state == GW_CLIENT_CLOSING)
		gw_socket_kill(victim->socket);
	gw_client_mute(victim, "too many unread replies of all clients");
	return true;
}

/* gw_client_answer queues the gateway's own answer to a frame. */
void
gw_client_answer(GwClient *client, const GwBuffer *ids, const GwError *error)
{
	GwBuffer	string = {0};
	uint32_t	limit = client->identity->limit;

	gw_answer_frame(&string, ids, error,
					limit != 0 ? limit : (size_t) config->client_max);
	if (string.failed)
		gw_client_mute(client, "out of memory");
	else
		gw_client_queue(client, false, string.data, string.length, NULL,
						false);
	gw_buffer_free(&string);
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
	if (client->close_code == 0)
	{
		client->close_code = code;
		client->end = GW_END_GATEWAY;
	}
	client->close_reason = reason;
	client->closing_ms = gw_now_ms();
	client_forget_message(client);
	if (client->intake == GW_INTAKE_GATHER)
		client->intake = GW_INTAKE_DISCARD;
	client_move(client, GW_CLIENT_CLOSING);
	gw_client_flow(client);
	gw_socket_write_soon(client->socket);
}

/*
 * client_open makes a client for a socket, whose token it takes over. It
 * returns NULL if out of memory.
 */
static void *
client_open(GwSocket *socket, GwBuffer *token, uint32_t limit)
{
	GwClient   *client = calloc(1, sizeof(GwClient));
	GwLogLine	line;

	if (client != NULL)
		client->identity = gw_identity_create(token);
	if (client == NULL || client->identity == NULL)
	{
		free(client);
		return NULL;
	}
	client->identity->client = client;
	client->identity->limit = limit;
	client->socket = socket;
	client->opened_ms = client->heard_ms = gw_now_ms();
	gw_replies_init(&client->replies);
	gw_appends_init(&client->appends, client_room, client);
	LIST_INSERT_HEAD(&gw_clients[GW_CLIENT_OPEN], client, entry);
	gw_intake_begin(client->identity);
	gw_client_totals.count++;
	gw_counters.connections++;
	gw_log_begin(&line, "info", "open");
	gw_log_number(&line, "connection", client->identity->session);
	gw_log_text(&line, "address", gw_socket_address(socket));
	gw_log_end(&line);
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
	bool		whole;

	/* Empty fragments do not keep a message alive. */
	if (length > 0 || final)
		client->received_ms = gw_now_ms();
	gw_counters.bytes_in += length;
	if (client->state != GW_CLIENT_OPEN)
	{
		if (final && client->intake == GW_INTAKE_DISCARD)
			gw_client_end_linger(client);
		return;
	}
	if (client->intake == GW_INTAKE_IDLE)
	{
		client->intake = GW_INTAKE_GATHER;
		client->begun_ms = gw_now_ms();
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
	whole = client->intake == GW_INTAKE_GATHER;
	client->intake = GW_INTAKE_IDLE;
	if (whole)
		client_take_message(client);
}

static void
client_pong(void *owner)
{
	GwClient   *client = owner;

	client->heard_ms = gw_now_ms();
}

/* client_next tells what a client's socket is to write. */
static void
client_next(void *owner, GwOutput *output)
{
	GwClient   *client = owner;
	GwReply    *reply = STAILQ_FIRST(&client->replies.list);

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

/*
 * client_written notes that bytes of the oldest reply were written. With the
 * first of them its leases are its client's.
 */
static bool
client_written(void *owner, size_t length)
{
	GwClient   *client = owner;
	GwReply    *reply = STAILQ_FIRST(&client->replies.list);

	if (reply->sent == 0 && reply->leases > 0)
		gw_identity_note_written(client->identity, gw_reply_leases(reply),
								 reply->leases);
	gw_counters.bytes_out += length;
	if (gw_replies_written(&client->replies, length))
	{
		client->frames_out++;
		gw_counters.frames_out++;
	}
	gw_client_flow(client);
	return !gw_replies_are_none(&client->replies) ||
		client->state == GW_CLIENT_CLOSING;
}

/* client_closed notes what a client's close frame says. */
static void
client_closed(void *owner, int code, const char *reason, size_t length)
{
	GwClient   *client = owner;

	/* It may be the answer to ours. */
	if (client->close_code != 0)
		return;
	/* The library hands on a number that is no code. */
	client->close_code = code >= CODE_LEAST && code <= CODE_MOST ? code :
		GW_CLOSE_PROTOCOL;
	client->end = GW_END_CLIENT;
	if (length >= sizeof(client->peer_reason))
		length = sizeof(client->peer_reason) - 1;
	if (length > 0 && gw_utf8_valid((const unsigned char *) reason, length))
		memcpy(client->peer_reason, reason, length);
	client->close_reason = client->peer_reason;
}

/* client_gone frees a client whose socket no longer exists. */
static void
client_gone(void *owner)
{
	GwClient   *client = owner;

	LIST_REMOVE(client, entry);
	gw_client_totals.count--;
	if (client->intake == GW_INTAKE_GATHER &&
		client->state == GW_CLIENT_OPEN)
	{
		gw_counters.frames_cut_off++;
		gw_client_log("warning", "cut_off", client,
					  "the socket closed in the middle of a message");
	}
	if (client->close_code == 0)
	{
		client->close_code = GW_CLOSE_ABNORMAL;
		client->end = GW_END_NETWORK;
	}
	gw_metric_close(client->end, client->close_code);
	gw_client_log_close(client);
	client_drop_replies(client);
	client_forget_message(client);
	client->identity->close_code = client->close_code;
	client->identity->client = NULL;
	events->end(client->identity);
	gw_identity_release(client->identity);
	free(client);
}

/* gw_client_end_linger lets a closing client close. */
void
gw_client_end_linger(GwClient *client)
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
	LIST_INSERT_HEAD(&gw_clients[state], client, entry);
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
	bool		anonymous;
	size_t		limit = gw_intake_limit(client->identity, &anonymous);
	size_t		held = message->length > 0 ? message->length - 1 : 0;
	char		detail[GW_DETAIL_MAX];
	const GwError large = {GW_ERROR_TOO_LARGE, "message too large", NULL,
	detail, NULL};
	const GwError many = {GW_ERROR_TOO_MANY, "too many frames in flight", NULL,
	detail, "Try again later."};

	if (message->length == 0)
	{
		/* no memory on the word of who is not known */
		size_t		whole = client->identity->unknown ? 1 :
		length + (more < limit ? more : 0) + 1;

		if (gw_buffer_reserve(message, whole <= limit + 1 ? whole : 1))
			client_append(client, &opcode, 1);
	}
	if (more > limit || length > limit || held + length + more > limit)
	{
		/* Look for the id in what there is, then say no. */
		size_t		room = held < PREFIX_MAX ? PREFIX_MAX - held : 0;

		client_append(client, bytes, length < room ? length : room);
		(void) snprintf(detail, sizeof(detail),
						"The limit is %zu bytes (%s).", limit,
						anonymous ? "MESSAGE_BUS_ANON_MAX_BYTES" :
						"WS_MAX_MSG_BYTES");
		client_refuse(client, GW_REFUSED_TOO_LARGE, &large);
		events->over_limit(client->identity, message);
		gw_disconnect(client, GW_CLOSE_TOO_LARGE, "message too large");
		return false;
	}
	client_append(client, bytes, length);
	if (message->failed)
		(void) snprintf(detail, sizeof(detail), "The gateway is out of memory.");
	if (message->failed ||
		gw_intake_is_full(client->identity, detail, sizeof(detail)))
	{
		client_refuse(client, GW_REFUSED_BUFFERED, &many);
		return false;
	}
	if (!client->identity->stranger &&
		!gw_appends_gather(&client->appends, message, more))
		gw_client_flow(client);
	if (gw_append_fits(&client->appends, held + length + more, detail))
		return client_greet(client);
	client_refuse(client, GW_REFUSED_TOO_LARGE, &large);
	return false;
}

/* client_room, when there is room again, goes on with a client's append. */
static void
client_room(void *owner)
{
	GwClient   *client = owner;

	(void) gw_appends_gather(&client->appends, &client->incoming, SIZE_MAX);
	gw_client_flow(client);
}

/*
 * client_greet has the database tell who a client is that has sent as much as
 * it may before, if no frame of it does that. It returns false if the message
 * was refused because the database is away.
 */
static bool
client_greet(GwClient *client)
{
	GwError		error;

	if (!gw_intake_must_greet(client->identity))
		return true;
	/* claims may wait for long */
	if (client->identity->pending == client->identity->claiming &&
		!client->identity->greeted &&
		!events->greet(client->identity, &error))
	{
		client_refuse(client, GW_REFUSED_BUFFERED, &error);
		return false;
	}
	gw_client_flow(client);
	return true;
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
	gw_client_log("warning", "refused", client, "text is not UTF-8");
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
	gw_intake_add(client->identity, client->incoming.length - before);
}

/* client_refuse answers a message that is not whole, by the id if known. */
static void
client_refuse(GwClient *client, GwRefusal reason, const GwError *error)
{
	GwBuffer   *message = &client->incoming;
	GwFrame		frame = {.kind = GW_FRAME_MALFORMED};
	GwBuffer	ids = {0};

	gw_metric_refused(reason);
	gw_client_log_refused(client, error->message);
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
	gw_intake_remove(client->identity, client->incoming.length);
	gw_appends_forget(&client->appends);
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
	gw_intake_add(client->identity, request->ids.length);
	gw_appends_take(&client->appends, request);
	if (!draining)
	{
		client->in_flight++;
		events->message(request);
		gw_client_flow(client);
		return;
	}
	gw_metric_refused(GW_REFUSED_DRAINING);
	gw_client_log_refused(client, error.message);
	gw_client_answer(client, &request->ids, &error);
	gw_intake_remove(client->identity, request->length + request->ids.length);
	gw_piece_end(&client->appends, &client->replies, request);
	gw_request_free(request);
}

/*
 * gw_client_mute gives up on a client's replies and disconnects it. None is
 * queued after that: the oldest may have been cut off in its middle.
 */
void
gw_client_mute(GwClient *client, const char *reason)
{
	client_drop_replies(client);
	client->mute = true;
	gw_disconnect(client, GW_CLOSE_TRY_LATER, reason);
}

static void
client_drop_replies(GwClient *client)
{
	gw_counters.replies_undelivered +=
		gw_replies_drop(&client->replies, &client->identity->unwritten);
}

/*
 * gw_client_flow stops reading from a client that does not read, or has enough
 * in flight, and resumes. What is closing is read, to see its end.
 */
void
gw_client_flow(GwClient *client)
{
	size_t		high = (size_t) config->max_message;
	bool		pause;

	client->held = client->replies.bytes > (client->held ? high / 2 : high);
	pause = client->state == GW_CLIENT_OPEN &&
		(client->held || client->in_flight >= (size_t) config->max_in_flight ||
		 (client->in_flight > 0 && gw_intake_has_share(client->identity)) ||
		 gw_appends_are_many(&client->appends) ||
		 ((client->in_flight > 0 || client->identity->greeted) &&
		  gw_intake_must_greet(client->identity)));
	if (pause == client->paused)
		return;
	client->paused = pause;
	/* The time while it was not read from is not the client's. */
	client->received_ms = gw_now_ms();
	if (pause)
		client->paused_ms = client->received_ms;
	else
		client->begun_ms += client->received_ms - client->paused_ms;
	gw_socket_pause(client->socket, pause);
}
