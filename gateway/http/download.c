/*
 * download.c
 *		What the HTTP door asks the database, and the bytes that come back.
 *
 * First the head of the request goes (control frame 'H'), and what comes back
 * is status, headers, the first bytes and a ticket. With that the rest is
 * asked for, piece by piece ('P'), each by the ticket that came with the one
 * before: no transaction stays open between them, and a piece may be read on
 * any connection. A download holds no more than one piece in flight and what
 * its client has not taken.
 *
 * Flow: the next piece is asked for once no more than 128 KiB are unwritten
 * (GW_HTTP_DRAINED), and if the pool has room for it (relay/pool.c). Who has
 * drained his socket soon after the last piece came gets larger ones, each
 * asked for while the one before is written, so that database and network
 * work at the same time; who is slow gets smaller ones. Nobody gets more than
 * an eighth of what is free in the pool: so many who do not read do not take
 * it all. So a download holds twice PIECE_MAX at most. Its bytes are given
 * back to the pool as they are written.
 *
 * What is not answered, or answered with an error that may pass, is asked for
 * again until AGAIN_MAX_MS have gone by since it was sent, or ALL_MAX_MS with
 * the time in a queue behind others: then a head is answered 504, and a
 * download ends short of its length, which every client notices. A head that
 * cannot be sent at all is answered 503 at once.
 */
#include <stdlib.h>
#include <string.h>

#include "http/answer.h"
#include "http/exchange.h"
#include "net/loop.h"
#include "relay/lane.h"
#include "relay/relay.h"

#define PIECE_LEAST		((size_t) 64 * 1024)
#define PIECE_USUAL		((size_t) 256 * 1024)
#define PIECE_MAX		((size_t) 512 * 1024)

/* Who drains a piece so soon, or so late, is fast or slow. */
#define FAST_MS			200
#define SLOW_MS			2000

/* Nobody has more than this part of the pool's room in one piece. */
#define ROOM_PART		8

/* How long, and how often, something is asked for again. */
#define AGAIN_MS		250
#define AGAIN_MAX_MS	10000
#define ALL_MAX_MS		60000

static bool holds_up(const GwExchange *exchange, int64_t now);
static void download_pump(void *owner);
static void download_ask(GwExchange *exchange);
static size_t take_room(GwExchange *exchange, size_t wanted);
static void put_question(GwExchange *exchange, GwBuffer *bytes);
static size_t piece_size(const GwExchange *exchange);
static bool is_drained(const GwExchange *exchange);
static void download_answer(void *owner, GwSpan frame);
static void take_head(GwExchange *exchange, const GwHttpReply *reply);
static void refuse_head(GwExchange *exchange, int status, const char *detail);
static void send_head(GwExchange *exchange, const GwHttpReply *reply,
					  const GwBuffer *lines);
static void take_piece(GwExchange *exchange, const GwHttpReply *reply);
static void take_bytes(GwExchange *exchange, const GwHttpReply *reply);
static void download_asked(void *owner, const GwError *error);
static void download_again(GwExchange *exchange);
static void download_fail(GwExchange *exchange, const char *detail);
static GwCut cut_reason(GwSpan gone);
static void give_back(GwExchange *exchange, size_t bytes);

static const GwAskEvents ask_events = {download_answer, download_asked};

/* gw_download_init prepares what a connection needs for downloads. */
void
gw_download_init(GwExchange *exchange)
{
	exchange->room.fire = download_pump;
	exchange->room.owner = exchange;
}

/* gw_download_begin asks for what a request wants. */
void
gw_download_begin(GwExchange *exchange)
{
	exchange->at = exchange->to = 0;
	exchange->pace = GW_PACE_USUAL;
	download_ask(exchange);
	if (exchange->asked != NULL)
		return;
	gw_download_end(exchange);
	gw_exchange_answer(exchange, 503, "the database is away",
					   "Retry-After: 1\r\n");
}

/* gw_download_written gives room back, and asks for more if it is time. */
void
gw_download_written(GwExchange *exchange, size_t bytes)
{
	size_t		come = exchange->held - exchange->asked_bytes;
	int64_t		took = gw_now_ms() - exchange->came_ms;

	give_back(exchange, bytes < come ? bytes : come);
	if (exchange->came_ms != 0 && is_drained(exchange))
	{
		exchange->came_ms = 0;
		exchange->pace = took < FAST_MS ? GW_PACE_FAST :
			took > SLOW_MS ? GW_PACE_SLOW : GW_PACE_USUAL;
	}
	download_pump(exchange);
}

/* gw_download_sweep asks again what was not answered, or gives it up. */
void
gw_download_sweep(GwExchange *exchange, int64_t now)
{
	if (!exchange->active)
		return;
	if (holds_up(exchange, now))
	{
		gw_exchange_cut(exchange, GW_CUT_SLOW, "others find no room");
		return;
	}
	if (exchange->asked_ms == 0)
		return;
	if (exchange->asked != NULL && exchange->asked->queued)
		exchange->queued_ms = now;
	if (now - exchange->asked_ms > ALL_MAX_MS)
		download_fail(exchange, "no answer of the database in 60 s");
	else if (now - exchange->asked_ms > AGAIN_MAX_MS &&
			 now - exchange->queued_ms > AGAIN_MAX_MS)
		download_fail(exchange, "no answer of the database in 10 s");
	else if (exchange->again_ms != 0 && now >= exchange->again_ms)
		download_ask(exchange);
}

/*
 * holds_up tells that a client has not taken its last piece in the time that
 * it has for a byte, while others find no room for theirs.
 */
static bool
holds_up(const GwExchange *exchange, int64_t now)
{
	return exchange->came_ms != 0 && exchange->held > 0 &&
		now - exchange->came_ms > gw_door_slow_ms() &&
		gw_pool_is_short(GW_POOL_DOWN);
}

/* gw_download_end lets go of what a request has, wherever it is. */
void
gw_download_end(GwExchange *exchange)
{
	if (exchange->asked != NULL)
		gw_relay_withdraw(exchange->asked);
	exchange->asked = NULL;
	exchange->asked_ms = exchange->again_ms = exchange->came_ms = 0;
	exchange->asked_bytes = 0;
	give_back(exchange, exchange->held);
	gw_pool_leave(GW_POOL_DOWN, &exchange->room);
	gw_buffer_wipe(&exchange->head);
	gw_buffer_wipe(&exchange->ticket);
}

/* download_pump asks for the next piece, if it is time for it. */
static void
download_pump(void *owner)
{
	GwExchange *exchange = owner;
	size_t		ahead = exchange->pace == GW_PACE_FAST ? PIECE_MAX :
	GW_HTTP_DRAINED;

	if (exchange->active && exchange->status != 0 && !exchange->done &&
		exchange->asked_ms == 0 &&
		gw_http_unwritten(exchange->connection) <= ahead)
		download_ask(exchange);
}

/* is_drained tells that little is left to be written. */
static bool
is_drained(const GwExchange *exchange)
{
	return gw_http_unwritten(exchange->connection) <= GW_HTTP_DRAINED;
}

/*
 * download_ask sends what is to be asked next, if there is room in the pool
 * for its answer; without room for a piece it waits. If it cannot be sent it
 * is tried again; of a head the caller decides.
 */
static void
download_ask(GwExchange *exchange)
{
	int64_t		now = gw_now_ms();
	GwBuffer	bytes = {0};
	GwRequest  *request = NULL;
	GwError		error;

	exchange->again_ms = 0;
	exchange->asked_bytes = take_room(exchange, piece_size(exchange));
	if (exchange->asked_bytes == 0 && exchange->status != 0)
	{
		exchange->asked_ms = 0;
		gw_pool_wait(GW_POOL_DOWN, &exchange->room);
		return;
	}
	exchange->answered = false;
	if (exchange->asked_ms == 0)
		exchange->asked_ms = now;
	put_question(exchange, &bytes);
	if (!bytes.failed)
		request = gw_request_ask(exchange->identity, exchange->status == 0 ?
								 GW_CONTROL_HTTP : GW_CONTROL_PIECE, &bytes,
								 &ask_events, exchange);
	gw_buffer_wipe(&bytes);
	if (request != NULL)
	{
		request->nobody = exchange->status != 0 ||
			exchange->identity->token.length == 0;
		request->reply = exchange->asked_bytes;
		if (gw_relay_ask(request, &error))
		{
			exchange->asked = request;
			return;
		}
	}
	download_again(exchange);
}

/* take_room takes bytes of the pool; 0 if there is too little. */
static size_t
take_room(GwExchange *exchange, size_t wanted)
{
	size_t		share = gw_pool_room(GW_POOL_DOWN) / ROOM_PART;

	if (wanted == 0)
		return 0;
	if (share < PIECE_LEAST)
		share = PIECE_LEAST;
	if (wanted > share)
		wanted = share;
	if (!gw_pool_take(GW_POOL_DOWN, wanted))
		return 0;
	exchange->held += wanted;
	return wanted;
}

/* put_question appends what the database is asked. */
static void
put_question(GwExchange *exchange, GwBuffer *bytes)
{
	if (exchange->status == 0)
	{
		gw_buffer_append(bytes, exchange->head.data, exchange->head.length);
		bytes->failed = bytes->failed || exchange->head.failed;
		gw_buffer_format(bytes, "%zu}", exchange->asked_bytes);
		return;
	}
	bytes->failed = exchange->ticket.failed;
	gw_buffer_format(bytes, "{\"n\":%lld,\"ticket\":\"",
					 (long long) exchange->number);
	gw_buffer_append(bytes, exchange->ticket.data, exchange->ticket.length);
	gw_buffer_format(bytes, "\",\"from\":%lld,\"max\":%zu}",
					 (long long) exchange->at, exchange->asked_bytes);
}

/* piece_size tells how much to ask for. */
static size_t
piece_size(const GwExchange *exchange)
{
	static const size_t sizes[] = {PIECE_LEAST, PIECE_USUAL, PIECE_MAX};
	size_t		size = sizes[exchange->pace];

	if (exchange->status == 0)
		return exchange->bare ? 0 : size;
	return (int64_t) size < exchange->to - exchange->at ? size :
		(size_t) (exchange->to - exchange->at);
}

/* download_answer takes an answer, of which the transaction has committed. */
static void
download_answer(void *owner, GwSpan frame)
{
	GwExchange *exchange = owner;
	GwHttpReply reply;

	if (!gw_http_reply_read(frame, &reply) ||
		reply.number != exchange->number ||
		(reply.status == 0 && reply.error.length == 0) ==
		(exchange->status == 0))
		return;
	if (reply.error.length > 0)
		return;
	exchange->answered = true;
	exchange->came_ms = gw_now_ms();
	if (reply.status != 0)
		take_head(exchange, &reply);
	else
		take_piece(exchange, &reply);
}

/* take_head begins an answer. */
static void
take_head(GwExchange *exchange, const GwHttpReply *reply)
{
	GwBuffer	lines = {0};

	gw_buffer_wipe(&exchange->head);
	exchange->at = reply->from;
	exchange->to = exchange->bare ? reply->from : reply->to;
	if (gw_exchange_is_one_too_many(exchange))
		refuse_head(exchange, 429, "too many requests of this client at a time"
					" (MESSAGE_BUS_HTTP_PER_CLIENT)");
	else if (!gw_http_reply_headers(reply, &lines) ||
			 (exchange->to > exchange->at + (int64_t) reply->bytes.length &&
			  reply->ticket.length == 0))
		refuse_head(exchange, 500, "the answer is not fit to be sent");
	else
		send_head(exchange, reply, &lines);
	gw_buffer_free(&lines);
}

/* refuse_head answers in place of the database, and keeps no room. */
static void
refuse_head(GwExchange *exchange, int status, const char *detail)
{
	give_back(exchange, exchange->held);
	exchange->asked_bytes = 0;
	gw_exchange_answer(exchange, status, detail,
					   status == 429 ? "Retry-After: 1\r\n" : NULL);
}

/* send_head writes the head of an answer, and its first bytes. */
static void
send_head(GwExchange *exchange, const GwHttpReply *reply,
		  const GwBuffer *lines)
{
	GwBuffer	head = {0};

	gw_http_head(&head, reply->status, gw_unix_ms() / 1000);
	gw_buffer_append(&head, lines->data, lines->length);
	if (!reply->shared)
		gw_exchange_origin(exchange, &head);
	if (reply->status != 204 && reply->status != 304)
		gw_buffer_format(&head, "Content-Length: %lld\r\n",
						 (long long) (reply->to - reply->from));
	gw_buffer_text(&head, exchange->closes ? "Connection: close\r\n\r\n" :
				   "\r\n");
	exchange->status = reply->status;
	gw_metric_status(reply->status);
	gw_http_send(exchange->connection, head.data, head.length);
	gw_buffer_free(&head);
	take_bytes(exchange, reply);
}

/* take_piece goes on with an answer, or ends it where no more is to come. */
static void
take_piece(GwExchange *exchange, const GwHttpReply *reply)
{
	if (reply->gone.length > 0)
		gw_exchange_cut(exchange, cut_reason(reply->gone), NULL);
	else if (reply->from != exchange->at ||
			 (int64_t) reply->bytes.length > exchange->to - exchange->at)
		gw_exchange_cut(exchange, GW_CUT_FAULT, "a piece does not fit");
	else
		take_bytes(exchange, reply);
}

/* take_bytes writes what came, and keeps the ticket for the rest. */
static void
take_bytes(GwExchange *exchange, const GwHttpReply *reply)
{
	size_t		length = exchange->bare ? 0 : reply->bytes.length;

	gw_http_send(exchange->connection, reply->bytes.data, length);
	exchange->at += (int64_t) length;
	if (length < exchange->asked_bytes)
		give_back(exchange, exchange->asked_bytes - length);
	exchange->asked_bytes = 0;
	exchange->ticket.length = 0;
	gw_buffer_append(&exchange->ticket, reply->ticket.data,
					 reply->ticket.length);
	if (exchange->at >= exchange->to)
		gw_exchange_done(exchange);
	else if (exchange->ticket.length == 0)
		gw_exchange_cut(exchange, GW_CUT_FAULT, "no ticket for the rest");
}

/*
 * download_asked is told that what was asked has ended: with an answer, or
 * without.
 */
static void
download_asked(void *owner, const GwError *error)
{
	GwExchange *exchange = owner;

	(void) error;
	exchange->asked = NULL;
	if (exchange->answered)
	{
		exchange->asked_ms = 0;
		download_pump(exchange);
	}
	else if (exchange->status == 0 && exchange->identity->refused)
	{
		gw_download_end(exchange);
		gw_exchange_answer(exchange, 401, "the token is not valid",
						   "WWW-Authenticate: Bearer"
						   " error=\"invalid_token\"\r\n");
	}
	else
		download_again(exchange);
}

/* download_again has something asked again, a little later. */
static void
download_again(GwExchange *exchange)
{
	give_back(exchange, exchange->asked_bytes);
	exchange->asked_bytes = 0;
	exchange->again_ms = gw_now_ms() + AGAIN_MS;
}

/* download_fail gives up what was not answered. */
static void
download_fail(GwExchange *exchange, const char *detail)
{
	if (exchange->status != 0)
	{
		gw_exchange_cut(exchange, GW_CUT_UNANSWERED, detail);
		return;
	}
	gw_download_end(exchange);
	gw_exchange_answer(exchange, 504, detail, "Retry-After: 1\r\n");
}

/* cut_reason returns why nothing more comes, as it is counted. */
static GwCut
cut_reason(GwSpan gone)
{
	int			i;

	for (i = GW_CUT_EXPIRED; i <= GW_CUT_CORRUPT; i++)
		if (gw_span_is(gone, gw_cut_names[i]))
			return (GwCut) i;
	return GW_CUT_FAULT;
}

/* give_back returns bytes to the pool. */
static void
give_back(GwExchange *exchange, size_t bytes)
{
	if (bytes > exchange->held)
		bytes = exchange->held;
	exchange->held -= bytes;
	gw_pool_give(GW_POOL_DOWN, bytes);
}
