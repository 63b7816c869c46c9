/*
 * door.c
 *		The HTTP door: requests, and who may make them.
 *
 * The gateway knows nothing of messages and reads no more of a request than
 * its head's syntax (head.c). Here is checked what needs no database: Host,
 * where the request comes from, how many there are. Everything else goes to
 * the database, which answers status, headers and bytes (download.c).
 *
 * One request of a connection is at work at a time. It counts as a download
 * until its last byte is written: MESSAGE_BUS_HTTP_DOWNLOADS of all (503), and
 * MESSAGE_BUS_HTTP_PER_CLIENT of one token or, without one, of one address, a
 * /64 of IPv6 (429). When the database has told whom a token is for, all of
 * that subject count, unless the log, and so the gateway, is told of none.
 *
 * A connection has an identity, so that connections take turns in the lanes,
 * and a session of its token, which is opened with the first request that
 * brings it and ended when the connection brings another one, or ends. What
 * comes without a token goes with session 0, and opens none.
 *
 * Who must not learn anything: a page in a browser, when all frames run as
 * MESSAGE_BUS_ROLE, because the browser would be let in for where it runs. Its
 * Origin must be listed; without one Sec-Fetch-Site must say that no other
 * site has asked.
 */
#include "http/door.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <arpa/inet.h>

#include "base/log.h"
#include "http/answer.h"
#include "http/exchange.h"
#include "net/access.h"
#include "net/loop.h"
#include "relay/lane.h"

/* How often time limits are looked at, while there are connections or not. */
#define SWEEP_MS	250
#define IDLE_MS		1000

size_t		gw_door_active;

static const GwConfig *config;
static LIST_HEAD(, GwExchange) exchanges = LIST_HEAD_INITIALIZER(exchanges);
static GwTimer *timer;
static bool draining;
static int64_t last_number;

static void *exchange_open(GwHttpConnection *connection, const char *address);
static void exchange_request(void *owner, const GwHead *head);
static void exchange_written(void *owner, size_t bytes);
static void exchange_gone(void *owner, GwHttpEnd end);
static void exchange_begin(GwExchange *exchange, const GwHead *head);
static void exchange_end(GwExchange *exchange);
static void exchange_log(const GwExchange *exchange);
static int	head_refused(const GwHead *head, const char **why);
static bool host_may(const GwHead *head);
static bool page_may(const GwHead *head);
static int	too_many(const GwExchange *exchange);
static bool same_client(const GwExchange *one, const GwExchange *other);
static bool same_network(const char *one, const char *other);
static bool take_token(GwExchange *exchange, const GwHead *head);
static void put_request(GwExchange *exchange, const GwHead *head);
static void put_string(GwBuffer *out, GwSpan bytes);
static void copy_span(char *to, size_t size, GwSpan from);
static void sweep(void *owner);

static const GwHttpEvents door_events = {exchange_open, exchange_request,
exchange_written, exchange_gone};

/* Headers that the database is told of. */
static const char *const wanted[] = {"range", "if-range", "if-match",
	"if-none-match", "if-modified-since", "if-unmodified-since",
"sec-fetch-dest", "origin", "access-control-request-method"};

#define WANTED (sizeof(wanted) / sizeof(wanted[0]))

/* gw_door_open opens the door, if there is to be one; false if it cannot. */
bool
gw_door_open(const GwConfig *settings)
{
	config = settings;
	if (config->http_port == 0)
		return true;
	timer = gw_timer_create(sweep, NULL);
	if (timer == NULL || !gw_http_listen(config, &door_events))
		return false;
	gw_timer_start(timer, IDLE_MS);
	return true;
}

/* gw_door_drain takes nothing new; downloads go on. */
void
gw_door_drain(void)
{
	draining = true;
	gw_http_stop();
}

/* gw_door_close cuts what is left when the time to drain is up. */
void
gw_door_close(void)
{
	GwExchange *exchange;
	GwExchange *next;

	for (exchange = LIST_FIRST(&exchanges); exchange != NULL; exchange = next)
	{
		next = LIST_NEXT(exchange, entry);
		gw_exchange_cut(exchange, GW_CUT_STOPPING, NULL);
	}
}

/*
 * gw_exchange_answer answers what the database does not: a problem (RFC 9457),
 * with one more line in its head, or NULL.
 */
void
gw_exchange_answer(GwExchange *exchange, int status, const char *detail,
				   const char *header)
{
	GwBuffer	body = {0};
	GwBuffer	head = {0};

	gw_http_problem(&body, status, detail);
	gw_http_head(&head, status, gw_unix_ms() / 1000);
	gw_exchange_origin(exchange, &head);
	gw_buffer_format(&head, "Content-Type: application/problem+json\r\n"
					 "Content-Length: %zu\r\nCache-Control: no-store\r\n"
					 "Vary: Origin\r\n"
					 "X-Content-Type-Options: nosniff\r\n%s%s\r\n",
					 body.length, header != NULL ? header : "",
					 exchange->closes ? "Connection: close\r\n" : "");
	exchange->status = status;
	gw_metric_status(status);
	gw_http_send(exchange->connection, head.data, head.length);
	if (!exchange->bare)
		gw_http_send(exchange->connection, body.data, body.length);
	gw_buffer_free(&body);
	gw_buffer_free(&head);
	gw_exchange_done(exchange);
}

/* gw_exchange_origin lets pages of a listed origin read the answer. */
void
gw_exchange_origin(const GwExchange *exchange, GwBuffer *head)
{
	if (exchange->origin[0] == '\0')
		return;
	gw_buffer_text(head, "Access-Control-Allow-Origin: ");
	gw_buffer_text(head, exchange->origin);
	gw_buffer_text(head, "\r\n");
}

/* gw_exchange_done notes that an answer is whole, if not yet written. */
void
gw_exchange_done(GwExchange *exchange)
{
	exchange->done = true;
	gw_http_done(exchange->connection, exchange->closes || draining);
}

/*
 * gw_exchange_cut closes a connection whose answer cannot be ended. The
 * exchange is gone then.
 */
void
gw_exchange_cut(GwExchange *exchange, GwCut reason, const char *detail)
{
	exchange->cut = reason;
	exchange->cut_detail = detail;
	gw_http_cut(exchange->connection);
}

/* gw_door_slow_ms returns how long a client may take for a piece. */
int64_t
gw_door_slow_ms(void)
{
	return config->send_timeout * 1000;
}

/* exchange_open makes what belongs to a connection; NULL if it cannot. */
static void *
exchange_open(GwHttpConnection *connection, const char *address)
{
	GwExchange *exchange = calloc(1, sizeof(GwExchange));
	GwBuffer	none = {0};
	bool		first = LIST_EMPTY(&exchanges);

	if (exchange != NULL)
		exchange->identity = gw_identity_create(&none);
	if (exchange == NULL || exchange->identity == NULL)
	{
		free(exchange);
		return NULL;
	}
	exchange->connection = connection;
	gw_text_copy(exchange->address, sizeof(exchange->address), address);
	gw_download_init(exchange);
	LIST_INSERT_HEAD(&exchanges, exchange, entry);
	gw_counters.http_connections++;
	/* The others have it run already: starting it again would put it off. */
	if (first)
		gw_timer_start(timer, SWEEP_MS);
	return exchange;
}

/* exchange_request looks at a request, and hands it on or refuses it. */
static void
exchange_request(void *owner, const GwHead *head)
{
	GwExchange *exchange = owner;
	const char *why = NULL;
	int			status;

	exchange_begin(exchange, head);
	status = head_refused(head, &why);
	if (status == 0 && !take_token(exchange, head))
	{
		status = 503;
		why = "out of memory";
	}
	else if (status == 0)
	{
		status = too_many(exchange);
		why = status == 429 ? "too many requests of this client at a time"
			" (MESSAGE_BUS_HTTP_PER_CLIENT)" : "too many requests at a time"
			" (MESSAGE_BUS_HTTP_DOWNLOADS), or the gateway is stopping";
	}
	if (status != 0)
	{
		exchange->closes = exchange->closes || status == 413 || status == 503;
		gw_exchange_answer(exchange, status, why,
						   status == 429 || status == 503 ?
						   "Retry-After: 1\r\n" : NULL);
		return;
	}
	put_request(exchange, head);
	gw_download_begin(exchange);
}

/* exchange_begin notes what a request is, also of one that is refused. */
static void
exchange_begin(GwExchange *exchange, const GwHead *head)
{
	const GwField *origin = gw_head_find(head, "origin");

	exchange->active = true;
	gw_door_active++;
	exchange->done = false;
	exchange->closes = head->closes;
	exchange->bare = gw_span_is(head->method, "HEAD");
	exchange->number = ++last_number;
	exchange->begun_ms = gw_now_ms();
	exchange->status = 0;
	exchange->written = 0;
	exchange->cut = GW_CUTS;
	copy_span(exchange->method, sizeof(exchange->method), head->method);
	copy_span(exchange->path, sizeof(exchange->path), head->path);
	exchange->origin[0] = '\0';
	if (origin != NULL && origin->value.length < sizeof(exchange->origin))
		copy_span(exchange->origin, sizeof(exchange->origin), origin->value);
	if (!gw_origin_may(config, exchange->origin))
		exchange->origin[0] = '\0';
}

/* exchange_written notes that a client took bytes. */
static void
exchange_written(void *owner, size_t bytes)
{
	GwExchange *exchange = owner;

	gw_counters.http_bytes_out += bytes;
	exchange->written += bytes;
	if (exchange->done && gw_http_unwritten(exchange->connection) == 0)
		exchange_end(exchange);
	else
		gw_download_written(exchange, bytes);
}

/* exchange_gone frees what belongs to a connection that no longer exists. */
static void
exchange_gone(void *owner, GwHttpEnd end)
{
	GwExchange *exchange = owner;
	bool		asked = exchange->asked != NULL && !exchange->asked->nobody;

	if (exchange->active && exchange->cut == GW_CUTS)
		exchange->cut = end == GW_HTTP_SLOW ? GW_CUT_SLOW :
			end == GW_HTTP_GONE ? GW_CUT_CLIENT : GW_CUT_FAULT;
	exchange_end(exchange);
	/* Else the session is ended when what was asked has ended. */
	if (!asked)
		gw_session_end(exchange->identity);
	gw_identity_release(exchange->identity);
	LIST_REMOVE(exchange, entry);
	free(exchange);
}

/* exchange_end counts and tells the end of a request, if there is one. */
static void
exchange_end(GwExchange *exchange)
{
	gw_download_end(exchange);
	if (!exchange->active)
		return;
	exchange->active = false;
	gw_door_active--;
	/* What has not begun is not cut. */
	if (exchange->status == 0)
		exchange->cut = GW_CUTS;
	if (exchange->cut != GW_CUTS)
		gw_metrics.cuts[exchange->cut]++;
	exchange_log(exchange);
}

/* exchange_log tells a request that has ended, if it failed or all are told. */
static void
exchange_log(const GwExchange *exchange)
{
	static GwLogFlood flood;
	bool		cut = exchange->cut != GW_CUTS;
	GwLogLine	line;

	if (cut || exchange->status >= 500)
		gw_log_begin_few(&line, exchange->cut == GW_CUT_CLIENT ? "info" :
						 "warning", cut ? "http_cut" : "http", &flood);
	else if (config->log_frames)
		gw_log_begin(&line, "info", "http");
	else
		return;
	gw_log_number(&line, "connection", exchange->identity->session);
	gw_log_text(&line, "address", exchange->address);
	gw_identity_log(exchange->identity, &line);
	gw_log_text(&line, "method", exchange->method);
	gw_log_text(&line, "path", exchange->path);
	gw_log_number(&line, "status", exchange->status);
	gw_log_number(&line, "bytes", (int64_t) exchange->written);
	gw_log_number(&line, "ms", gw_now_ms() - exchange->begun_ms);
	if (cut)
		gw_log_text(&line, "reason", gw_cut_names[exchange->cut]);
	if (cut && exchange->cut_detail != NULL)
		gw_log_text(&line, "detail", exchange->cut_detail);
	gw_log_end(&line);
}

/* head_refused returns the status that refuses a head as it is, or 0. */
static int
head_refused(const GwHead *head, const char **why)
{
	*why = head->why;
	if (head->fault != 0)
		return head->fault;
	*why = "no request has a body here";
	if (head->has_body)
		return 413;
	*why = "host not allowed (MESSAGE_BUS_HOSTS)";
	if (!host_may(head))
		return 403;
	*why = "pages of this origin may not ask (MESSAGE_BUS_ORIGINS)";
	return page_may(head) ? 0 : 403;
}

static bool
host_may(const GwHead *head)
{
	char		host[256];

	if (head->host.length >= sizeof(host))
		return false;
	copy_span(host, sizeof(host), head->host);
	return gw_host_may(config, config->http_host, host);
}

/* page_may tells whether who asks is no page that must not. */
static bool
page_may(const GwHead *head)
{
	const GwField *origin = gw_head_find(head, "origin");
	const GwField *site = gw_head_find(head, "sec-fetch-site");
	char		string[GW_ORIGIN_MAX];

	if (gw_config_authenticates(config))
		return true;
	if (origin != NULL)
	{
		copy_span(string, sizeof(string), origin->value);
		return origin->value.length < sizeof(string) &&
			gw_origin_may(config, string);
	}
	return site == NULL || gw_span_is(site->value, "same-origin") ||
		gw_span_is(site->value, "none");
}

/* too_many returns the status that refuses one request too many, or 0. */
static int
too_many(const GwExchange *exchange)
{
	const GwExchange *other;
	long		same = 0;

	if (draining || gw_door_active > (size_t) config->http_downloads)
		return 503;
	LIST_FOREACH(other, &exchanges, entry)
		if (other->active && same_client(exchange, other))
		same++;
	return same > config->http_per_client ? 429 : 0;
}

/*
 * gw_exchange_is_one_too_many tells, once it is known whom a token is for,
 * that he has too many with others of his tokens.
 */
bool
gw_exchange_is_one_too_many(const GwExchange *exchange)
{
	return exchange->identity->subject[0] != '\0' &&
		too_many(exchange) == 429;
}

/*
 * same_client tells whether two requests are of one subject, as far as the
 * database has told, of one token, or, without one, of one address.
 */
static bool
same_client(const GwExchange *one, const GwExchange *other)
{
	const GwBuffer *token = &one->identity->token;
	const GwBuffer *another = &other->identity->token;

	if (one->identity->subject[0] != '\0' &&
		strcmp(one->identity->subject, other->identity->subject) == 0 &&
		strcmp(one->identity->role, other->identity->role) == 0)
		return true;
	if (token->length != another->length)
		return false;
	return token->length > 0 ?
		memcmp(token->data, another->data, token->length) == 0 :
		same_network(one->address, other->address);
}

/* same_network compares addresses: in IPv6 a /64 is given to one host. */
static bool
same_network(const char *one, const char *other)
{
	unsigned char a[16];
	unsigned char b[16];

	if (inet_pton(AF_INET6, one, a) == 1 && inet_pton(AF_INET6, other, b) == 1)
		return memcmp(a, b, 8) == 0;
	return strcmp(one, other) == 0;
}

/*
 * take_token has the connection speak for who the request's token names: with
 * another token than before it is another session. It returns false if out of
 * memory.
 */
static bool
take_token(GwExchange *exchange, const GwHead *head)
{
	const GwField *field = gw_head_find(head, "authorization");
	const GwBuffer *old = &exchange->identity->token;
	GwIdentity *identity;
	GwBuffer	token = {0};

	if (!gw_config_authenticates(config))
		return true;
	if (field != NULL && field->value.length > 7 &&
		strncasecmp((const char *) field->value.data, "Bearer ", 7) == 0)
		gw_buffer_append(&token, field->value.data + 7,
						 field->value.length - 7);
	if (token.failed)
		return false;
	if (token.length == old->length &&
		(token.length == 0 ||
		 memcmp(token.data, old->data, token.length) == 0))
	{
		gw_buffer_wipe(&token);
		return true;
	}
	identity = gw_identity_create(&token);
	gw_buffer_wipe(&token);
	if (identity == NULL)
		return false;
	gw_session_end(exchange->identity);
	gw_identity_release(exchange->identity);
	exchange->identity = identity;
	return true;
}

/*
 * put_request writes what the database is asked: JSON, whose last member and
 * brace are added when it is sent.
 */
static void
put_request(GwExchange *exchange, const GwHead *head)
{
	GwBuffer   *json = &exchange->head;
	const char *comma = "";
	size_t		i;
	size_t		j;

	gw_buffer_format(json, "{\"n\":%lld,\"method\":",
					 (long long) exchange->number);
	put_string(json, head->method);
	gw_buffer_text(json, ",\"path\":");
	put_string(json, head->path);
	gw_buffer_text(json, ",\"query\":");
	put_string(json, head->query);
	gw_buffer_text(json, ",\"headers\":[");
	for (i = 0; i < head->count; i++)
		for (j = 0; j < WANTED; j++)
		{
			if (!gw_field_is(&head->fields[i], wanted[j]))
				continue;
			gw_buffer_format(json, "%s[\"%s\",", comma, wanted[j]);
			put_string(json, head->fields[i].value);
			gw_buffer_text(json, "]");
			comma = ",";
		}
	gw_buffer_text(json, "],\"max\":");
}

/* put_string appends bytes as a JSON string, each as a character. */
static void
put_string(GwBuffer *out, GwSpan bytes)
{
	size_t		i;

	gw_buffer_text(out, "\"");
	for (i = 0; i < bytes.length; i++)
	{
		unsigned char byte = bytes.data[i];

		if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '\\')
			gw_buffer_format(out, "\\u%04x", byte);
		else
			gw_buffer_append(out, &byte, 1);
	}
	gw_buffer_text(out, "\"");
}

/* copy_span copies what fits of a span, as text. */
static void
copy_span(char *to, size_t size, GwSpan from)
{
	size_t		length = from.length < size - 1 ? from.length : size - 1;

	if (length > 0)
		memcpy(to, from.data, length);
	to[length] = '\0';
}

/* sweep looks at what has a time limit. */
static void
sweep(void *owner)
{
	int64_t		now = gw_now_ms();
	GwExchange *exchange;
	GwExchange *next;

	(void) owner;
	gw_http_sweep();
	for (exchange = LIST_FIRST(&exchanges); exchange != NULL; exchange = next)
	{
		next = LIST_NEXT(exchange, entry);
		gw_download_sweep(exchange, now);
	}
	gw_timer_start(timer, gw_http_connections > 0 ? SWEEP_MS : IDLE_MS);
}
