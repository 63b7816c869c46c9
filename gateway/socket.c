/*
 * socket.c
 *		The event loop: WebSockets, HTTP, watched descriptors, timers. The
 *		only file that sees libwebsockets.
 *
 * One thread runs the loop; main.c calls gw_loop_turn, which waits and then
 * handles everything that is ready. What libwebsockets asks for:
 *
 *	- One lws_write for each writeable callback. A reply is written in pieces
 *	  of WRITE_MAX bytes, each a WebSocket fragment, so that a large one does
 *	  not hold up the loop or need a second copy.
 *	- It closes descriptors that it adopted, so a watch is given a dup().
 *	- It forgets a wish to write that is made in the writeable callback of an
 *	  adopted descriptor, so wishes are kept and made again before each turn.
 *	- An adopted descriptor may be let go from anywhere, so that is done by
 *	  its own timeout, never at once.
 *
 * A plain port of libwebsockets would also answer "Upgrade: h2c" and open
 * its HTTP/2 parser. Only an upgrade to "websocket" is let through, and the
 * header is read again for that: the argument of the callback may point to
 * freed memory when libwebsockets has already refused the upgrade.
 *
 * Browsers let any page connect to a loopback port, but they always send
 * Origin: a handshake with an Origin that is not listed is refused.
 */
#include "socket.h"

#include <libwebsockets.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "http.h"
#include "log.h"

#define PROTOCOL	"message-bus"
#define WRITE_MAX	((size_t) 128 * 1024)
#define READ_MAX	16384
#define HEADERS_MAX	8192

#define HTTP_UPGRADE_REQUIRED 426

/* Sockets beyond the WebSocket connections: HTTP, handshakes, watches. */
#define SPARE		64

#define KILL_REASON	PENDING_TIMEOUT_USER_REASON_BASE

struct GwWatch
{
	GwWatch    *next;
	GwWatch    *previous;
	struct lws *wsi;
	GwWatchReady ready;
	void	   *owner;
	struct stat identity;		/* of what is watched */
	bool		want_write;
};

struct GwTimer
{
	lws_sorted_usec_list_t sul;
	GwTimerFire fire;
	void	   *owner;
};

static const GwConfig *config;
static struct lws_context *context;
static struct lws_vhost *vhost;
static GwWatch *watches;
static long sockets;			/* of every kind, those of HTTP too */
static bool refusing;			/* no handshake is accepted any more */

static int	loop_callback(struct lws *wsi, enum lws_callback_reasons reason,
						  void *user, void *in, size_t len);
static int	http_callback(struct lws *wsi, enum lws_callback_reasons reason,
						  const char *path);
static int	file_callback(struct lws *wsi, enum lws_callback_reasons reason);
static int	handshake_check(struct lws *wsi);
static const char *handshake_fault(struct lws *wsi);
static int	version_refuse(struct lws *wsi);
static int	handshake_refuse(struct lws *wsi, unsigned int status,
							 const char *body);
static bool list_has(const char *at, const char *item);
static bool key_is_presented(struct lws *wsi);
static int	websocket_open(struct lws *wsi);
static int	websocket_write(struct lws *wsi, GwClient *client);
static int	http_begin(struct lws *wsi, const char *path);
static int	http_write(struct lws *wsi);
static void log_library(int level, const char *string);
static void timer_fired(lws_sorted_usec_list_t *sul);

static const struct lws_protocols protocols[] = {
	{PROTOCOL, loop_callback, 0, READ_MAX, 0, NULL, 0},
	{NULL, NULL, 0, 0, 0, NULL, 0}
};

/* gw_loop_open listens; false if it cannot, which is logged. */
bool
gw_loop_open(const GwConfig *settings)
{
	struct lws_context_creation_info info;
	const char *host = settings->host;

	config = settings;
	lws_set_log_level(LLL_ERR | LLL_WARN, log_library);
	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	memset(&info, 0, sizeof(info));
	info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
		LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND;
	if (strchr(host, ':') == NULL)
		info.options |= LWS_SERVER_OPTION_DISABLE_IPV6;
	info.pt_serv_buf_size = READ_MAX;
	info.max_http_header_data = HEADERS_MAX;
	info.max_http_header_pool = (unsigned short)
		(settings->max_connections < 60000 ?
		 settings->max_connections + SPARE : 60000);
	context = lws_create_context(&info);
	if (context == NULL)
	{
		gw_log_event("error", "start", "could not create the event loop");
		return false;
	}
	info.port = (int) settings->port;
	info.iface = host;
	info.protocols = protocols;
	info.vhost_name = PROTOCOL;
	info.server_string = "message-bus-gateway";
	info.timeout_secs = (unsigned int) settings->http_timeout;
	info.timeout_secs_ah_idle = (unsigned int) settings->http_timeout;
	info.keepalive_timeout = (int) settings->http_timeout;
	vhost = lws_create_vhost(context, &info);
	if (vhost == NULL || gw_loop_port() <= 0)
	{
		GwLogLine	line;

		gw_log_begin(&line, "error", "start");
		gw_log_text(&line, "detail", "could not listen");
		gw_log_text(&line, "host", settings->host);
		gw_log_number(&line, "port", settings->port);
		gw_log_end(&line);
		return false;
	}
	return true;
}

/* gw_loop_port returns the port that is listened on. */
int
gw_loop_port(void)
{
	return lws_get_vhost_listen_port(vhost);
}

/* gw_loop_turn waits and handles what is ready; false if the loop failed. */
bool
gw_loop_turn(void)
{
	GwWatch    *watch;

	for (watch = watches; watch != NULL; watch = watch->next)
		if (watch->want_write)
			(void) lws_callback_on_writable(watch->wsi);
	return lws_service(context, 0) >= 0;
}

/* gw_loop_refuse makes every further handshake fail. */
void
gw_loop_refuse(void)
{
	refusing = true;
}

/* gw_now_ms returns the monotonic clock. */
int64_t
gw_now_ms(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* gw_socket_write_soon asks for a call to write a client's replies. */
void
gw_socket_write_soon(GwSocket *socket)
{
	(void) lws_callback_on_writable(socket);
}

/* gw_socket_pause stops or resumes reading from a client. */
void
gw_socket_pause(GwSocket *socket, bool pause)
{
	(void) lws_rx_flow_control(socket, pause ? 0 : 1);
}

/* gw_socket_kill closes a client's socket without any ceremony, soon. */
void
gw_socket_kill(GwSocket *socket)
{
	lws_set_timeout(socket, KILL_REASON, LWS_TO_KILL_ASYNC);
}

/*
 * gw_watch_create calls `ready` whenever a descriptor can be read, can be
 * written if that is wanted, or is at its end. The descriptor stays the
 * caller's. It returns NULL if it cannot watch.
 */
GwWatch *
gw_watch_create(int descriptor, GwWatchReady ready, void *owner)
{
	GwWatch    *watch = calloc(1, sizeof(GwWatch));
	lws_sock_file_fd_type copy;

	if (watch == NULL)
		return NULL;
	watch->ready = ready;
	watch->owner = owner;
	copy.filefd = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
	if (copy.filefd < 0 || fstat(copy.filefd, &watch->identity) != 0)
	{
		if (copy.filefd >= 0)
			(void) close(copy.filefd);
		free(watch);
		return NULL;
	}
	/* On failure the library has closed the copy. */
	watch->wsi = lws_adopt_descriptor_vhost(vhost, LWS_ADOPT_RAW_FILE_DESC,
											copy, PROTOCOL, NULL);
	if (watch->wsi == NULL)
	{
		free(watch);
		return NULL;
	}
	lws_set_opaque_user_data(watch->wsi, watch);
	watch->next = watches;
	if (watches != NULL)
		watches->previous = watch;
	watches = watch;
	return watch;
}

/* gw_watch_is_on tells whether a watch is on what this descriptor is now. */
bool
gw_watch_is_on(const GwWatch *watch, int descriptor)
{
	struct stat identity;

	return fstat(descriptor, &identity) == 0 &&
		identity.st_dev == watch->identity.st_dev &&
		identity.st_ino == watch->identity.st_ino;
}

void
gw_watch_want_write(GwWatch *watch, bool want)
{
	watch->want_write = want;
}

void
gw_watch_free(GwWatch *watch)
{
	if (watch->previous != NULL)
		watch->previous->next = watch->next;
	else
		watches = watch->next;
	if (watch->next != NULL)
		watch->next->previous = watch->previous;
	if (watch->wsi != NULL)
	{
		lws_set_opaque_user_data(watch->wsi, NULL);
		lws_set_timeout(watch->wsi, KILL_REASON, LWS_TO_KILL_ASYNC);
	}
	free(watch);
}

GwTimer *
gw_timer_create(GwTimerFire fire, void *owner)
{
	GwTimer    *timer = calloc(1, sizeof(GwTimer));

	if (timer == NULL)
		return NULL;
	timer->fire = fire;
	timer->owner = owner;
	return timer;
}

/* gw_timer_start calls `fire` once, so many milliseconds from now. */
void
gw_timer_start(GwTimer *timer, int64_t milliseconds)
{
	lws_sul_schedule(context, 0, &timer->sul, timer_fired,
					 milliseconds > 0 ? milliseconds * LWS_US_PER_MS : 1);
}

void
gw_timer_stop(GwTimer *timer)
{
	lws_sul_schedule(context, 0, &timer->sul, timer_fired,
					 LWS_SET_TIMER_USEC_CANCEL);
}

void
gw_timer_free(GwTimer *timer)
{
	gw_timer_stop(timer);
	free(timer);
}

static void
timer_fired(lws_sorted_usec_list_t *sul)
{
	GwTimer    *timer = lws_container_of(sul, GwTimer, sul);

	timer->fire(timer->owner);
}

/*
 * loop_callback is where libwebsockets calls. A non-zero result closes the
 * socket. What belongs to a socket hangs on its opaque pointer: a GwClient,
 * a GwWatch, or the body of an HTTP answer.
 */
static int
loop_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user,
			  void *in, size_t len)
{
	GwClient   *client;

	(void) user;
	switch (reason)
	{
		case LWS_CALLBACK_WSI_CREATE:
			sockets++;
			break;
		case LWS_CALLBACK_WSI_DESTROY:
			sockets--;
			break;
		case LWS_CALLBACK_FILTER_NETWORK_CONNECTION:
			if (sockets < config->max_connections + SPARE)
				break;
			gw_counters.connections_refused++;
			return -1;
		case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
			return handshake_check(wsi);
		case LWS_CALLBACK_ESTABLISHED:
			return websocket_open(wsi);
		case LWS_CALLBACK_RECEIVE:
			client = lws_get_opaque_user_data(wsi);
			gw_client_receive(client, in, len,
							  lws_remaining_packet_payload(wsi),
							  lws_frame_is_binary(wsi) != 0,
							  lws_is_final_fragment(wsi) != 0);
			break;
		case LWS_CALLBACK_SERVER_WRITEABLE:
			return websocket_write(wsi, lws_get_opaque_user_data(wsi));
		case LWS_CALLBACK_CLOSED:
			client = lws_get_opaque_user_data(wsi);
			lws_set_opaque_user_data(wsi, NULL);
			if (client != NULL)
				gw_client_gone(client);
			break;
		case LWS_CALLBACK_HTTP:
		case LWS_CALLBACK_HTTP_WRITEABLE:
		case LWS_CALLBACK_CLOSED_HTTP:
			return http_callback(wsi, reason, in);
		case LWS_CALLBACK_RAW_RX_FILE:
		case LWS_CALLBACK_RAW_WRITEABLE_FILE:
		case LWS_CALLBACK_RAW_CLOSE_FILE:
			return file_callback(wsi, reason);
		default:
			break;
	}
	return 0;
}

static int
http_callback(struct lws *wsi, enum lws_callback_reasons reason,
			  const char *path)
{
	GwBuffer   *body;

	if (reason == LWS_CALLBACK_HTTP)
		return http_begin(wsi, path);
	if (reason == LWS_CALLBACK_HTTP_WRITEABLE)
		return http_write(wsi);
	body = lws_get_opaque_user_data(wsi);
	lws_set_opaque_user_data(wsi, NULL);
	if (body != NULL)
		gw_buffer_free(body);
	free(body);
	return 0;
}

static int
file_callback(struct lws *wsi, enum lws_callback_reasons reason)
{
	GwWatch    *watch = lws_get_opaque_user_data(wsi);

	if (watch == NULL)
		return -1;
	if (reason == LWS_CALLBACK_RAW_CLOSE_FILE)
	{
		/* Its owner finds the end when it looks, and frees the watch. */
		watch->wsi = NULL;
		watch->want_write = false;
	}
	watch->ready(watch->owner);
	return 0;
}

/* handshake_check refuses everything but a WebSocket that may connect. */
static int
handshake_check(struct lws *wsi)
{
	char		string[256];
	const char *fault;

	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_UPGRADE) <= 0 ||
		strcasecmp(string, "websocket") != 0)
	{
		gw_counters.connections_refused++;
		gw_log_event("warning", "handshake_refused",
					 "upgrade to something else than websocket");
		return -1;
	}
	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_VERSION) <= 0 ||
		strcmp(string, "13") != 0)
		return version_refuse(wsi);
	fault = handshake_fault(wsi);
	if (fault != NULL)
		return handshake_refuse(wsi, HTTP_STATUS_BAD_REQUEST, fault);
	if (refusing)
		return handshake_refuse(wsi, HTTP_STATUS_SERVICE_UNAVAILABLE,
								"the gateway is stopping");
	if (gw_clients_count() >= (size_t) config->max_connections)
		return handshake_refuse(wsi, HTTP_STATUS_SERVICE_UNAVAILABLE,
								"too many connections"
								" (MESSAGE_BUS_MAX_CONNECTIONS)");
	if (lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0 &&
		(lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_ORIGIN) <= 0 ||
		 !list_has(config->origins, string)))
		return handshake_refuse(wsi, HTTP_STATUS_FORBIDDEN,
								"origin not allowed (MESSAGE_BUS_ORIGINS)");
	if (config->supabase_key[0] != '\0' && !key_is_presented(wsi))
		return handshake_refuse(wsi, HTTP_STATUS_UNAUTHORIZED,
								"apikey missing or wrong");
	return 0;
}

/*
 * handshake_fault returns what RFC 6455, section 4.2.1, finds wrong and
 * libwebsockets does not look at, or NULL. A subprotocol that is unknown is
 * refused here because libwebsockets would close without an answer.
 */
static const char *
handshake_fault(struct lws *wsi)
{
	static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	"abcdefghijklmnopqrstuvwxyz0123456789+/";
	char		string[256];

	if (lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) <= 0)
		return "the method must be GET";
	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_HTTP) <= 0 ||
		strcmp(string, "HTTP/1.1") != 0)
		return "the version of HTTP must be 1.1";
	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_KEY) != 24 ||
		strspn(string, base64) != 22 || strcmp(string + 22, "==") != 0)
		return "Sec-WebSocket-Key must be 16 bytes in base64";
	if (lws_hdr_total_length(wsi, WSI_TOKEN_PROTOCOL) > 0 &&
		(lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_PROTOCOL) <= 0 ||
		 !list_has(string, PROTOCOL)))
		return "the only subprotocol is " PROTOCOL;
	return NULL;
}

/* version_refuse tells a client of another version which one there is. */
static int
version_refuse(struct lws *wsi)
{
	static const unsigned char name[] = "sec-websocket-version:";
	unsigned char head[LWS_PRE + 512];
	unsigned char *at = head + LWS_PRE;
	unsigned char *end = head + sizeof(head) - 1;
	const char *detail = "the version of WebSocket must be 13";

	if (lws_add_http_header_status(wsi, HTTP_UPGRADE_REQUIRED, &at,
								   end) != 0 ||
		lws_add_http_header_by_name(wsi, name, (const unsigned char *) "13",
									2, &at, end) != 0 ||
		lws_add_http_header_content_length(wsi, 0, &at, end) != 0 ||
		lws_finalize_write_http_header(wsi, head + LWS_PRE, &at, end) != 0)
		detail = "could not answer a wrong version of WebSocket";
	gw_counters.connections_refused++;
	gw_log_event("warning", "handshake_refused", detail);
	return -1;
}

static int
handshake_refuse(struct lws *wsi, unsigned int status, const char *body)
{
	gw_counters.connections_refused++;
	gw_log_event("warning", "handshake_refused", body);
	(void) lws_return_http_status(wsi, status, body);
	return -1;
}

/*
 * list_has tells whether an item is in a list whose items are separated by
 * commas and spaces; letters may be large or small.
 */
static bool
list_has(const char *at, const char *item)
{
	size_t		length = strlen(item);

	while (*at != '\0')
	{
		size_t		width;

		at += strspn(at, ", ");
		width = strcspn(at, ", ");
		if (width == length && length > 0 &&
			strncasecmp(at, item, length) == 0)
			return true;
		at += width;
	}
	return false;
}

/*
 * key_is_presented compares the header or argument "apikey", in a time that
 * does not tell how much of it is right.
 */
static bool
key_is_presented(struct lws *wsi)
{
	const char *key = config->supabase_key;
	size_t		length = strlen(key);
	char		given[2048];
	const char *value = given;
	unsigned char differs;
	size_t		i;

	memset(given, 0, sizeof(given));
	if (lws_hdr_custom_copy(wsi, given, sizeof(given), "apikey:", 7) <= 0)
		value = lws_get_urlarg_by_name(wsi, "apikey=", given, sizeof(given));
	if (value == NULL)
		return false;
	differs = strlen(value) != length;
	for (i = 0; value[i] != '\0'; i++)
		differs |= (unsigned char) (value[i] ^ key[i % (length + 1)]);
	return differs == 0;
}

static int
websocket_open(struct lws *wsi)
{
	GwClient   *client = gw_client_open(wsi);

	lws_set_opaque_user_data(wsi, client);
	return client != NULL ? 0 : -1;
}

/* websocket_write writes one piece of the oldest reply, or closes. */
static int
websocket_write(struct lws *wsi, GwClient *client)
{
	GwReply    *reply;
	size_t		length;
	int			kind;

	if (client == NULL)
		return -1;
	reply = client->replies;
	if (reply == NULL)
	{
		if (!gw_client_may_close(client))
			return 0;
		lws_close_reason(wsi, (enum lws_close_status) client->close_code,
						 (unsigned char *) client->close_reason,
						 strlen(client->close_reason));
		return -1;
	}
	length = reply->length - reply->sent;
	kind = reply->sent > 0 ? LWS_WRITE_CONTINUATION :
		reply->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT;
	if (length > WRITE_MAX)
	{
		length = WRITE_MAX;
		kind |= LWS_WRITE_NO_FIN;
	}
	if (lws_write(wsi, reply->bytes + GW_WRITE_ROOM + reply->sent, length,
				  (enum lws_write_protocol) kind) < 0)
		return -1;
	gw_client_written(client, length);
	if (client->replies != NULL || client->state == GW_CLIENT_CLOSING)
		(void) lws_callback_on_writable(wsi);
	return 0;
}

/* http_begin writes the head of an HTTP answer and keeps its body. */
static int
http_begin(struct lws *wsi, const char *path)
{
	unsigned char head[LWS_PRE + 1024];
	unsigned char *start = head + LWS_PRE;
	unsigned char *at = start;
	unsigned char *end = head + sizeof(head) - 1;
	GwBuffer   *body = calloc(1, sizeof(GwBuffer));
	int			status;

	if (body == NULL)
		return -1;
	/* Room for the library before the body. */
	memset(head, 0, LWS_PRE);
	gw_buffer_append(body, head, LWS_PRE);
	if (lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0)
		status = gw_http_answer(path, body);
	else
	{
		gw_buffer_text(body, "{\"error\":\"method not allowed\"}\n");
		status = HTTP_STATUS_METHOD_NOT_ALLOWED;
	}
	if (body->failed ||
		lws_add_http_common_headers(wsi, (unsigned int) status,
									"application/json",
									body->length - LWS_PRE, &at, end) != 0 ||
		lws_finalize_write_http_header(wsi, start, &at, end) != 0)
	{
		gw_buffer_free(body);
		free(body);
		return -1;
	}
	lws_set_opaque_user_data(wsi, body);
	(void) lws_callback_on_writable(wsi);
	return 0;
}

static int
http_write(struct lws *wsi)
{
	GwBuffer   *body = lws_get_opaque_user_data(wsi);
	int			written;

	if (body == NULL)
		return 0;
	lws_set_opaque_user_data(wsi, NULL);
	written = lws_write(wsi, body->data + LWS_PRE, body->length - LWS_PRE,
						LWS_WRITE_HTTP_FINAL);
	gw_buffer_free(body);
	free(body);
	if (written < 0 || lws_http_transaction_completed(wsi) != 0)
		return -1;
	return 0;
}

/* log_library passes on what libwebsockets complains about. */
static void
log_library(int level, const char *string)
{
	char		line[512];
	size_t		length = strcspn(string, "\n");

	if (length >= sizeof(line))
		length = sizeof(line) - 1;
	memcpy(line, string, length);
	line[length] = '\0';
	gw_log_event(level == LLL_ERR ? "error" : "warning", "libwebsockets",
				 line);
}

/* LWS_PRE is what client.c leaves free before a reply. */
typedef char room_is_enough[GW_WRITE_ROOM >= LWS_PRE ? 1 : -1];
