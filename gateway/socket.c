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
 *	- It does not say who a socket's peer is when that is gone, and pings
 *	  without regard to what else comes in. So each socket has a GwLink of
 *	  ours, which keeps the address and goes with WSI_DESTROY.
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
 * A client that was not heard for MESSAGE_BUS_PING_SECS is pinged, and closed
 * if it is not heard for as long again. Bytes of a message count as heard, so
 * that a slow upload, which holds up the answer to a ping, is not cut off.
 */
#include "socket.h"

#include <libwebsockets.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "client.h"
#include "http.h"
#include "listen.h"
#include "log.h"
#include "tls.h"

#define PROTOCOL	"message-bus"
#define WRITE_MAX	((size_t) 128 * 1024)
#define READ_MAX	16384

/* What each WebSocket holds for input, whether it is used or not. */
#define FRAME_MAX	4096
#define HEADERS_MAX	8192

#define HTTP_UPGRADE_REQUIRED 426

#define KILL_REASON	PENDING_TIMEOUT_USER_REASON_BASE

/* A client's socket, from accept to close. */
typedef struct GwLink
{
	struct GwLink *next;
	struct GwLink *previous;
	struct lws *wsi;
	char		address[GW_ADDRESS_MAX];	/* of its peer */
	GwClient   *client;			/* once it is a WebSocket */
	GwBuffer	body;			/* of an HTTP answer to be written */
	int64_t		heard_ms;		/* when it answered a ping */
	int64_t		pinged_ms;		/* when it was pinged, 0 if it was heard since */
	bool		want_ping;
} GwLink;

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
static struct lws_vhost *vhost; /* of watched descriptors */
static GwWatch *watches;
static GwLink *links;
static bool refusing;			/* no handshake is accepted any more */

static int	loop_callback(struct lws *wsi, enum lws_callback_reasons reason,
						  void *user, void *in, size_t len);
static int	http_callback(struct lws *wsi, GwLink *link,
						  enum lws_callback_reasons reason, const char *path);
static int	file_callback(struct lws *wsi, enum lws_callback_reasons reason);
static int	link_create(struct lws *wsi);
static int	handshake_check(struct lws *wsi, GwLink *link);
static const char *handshake_fault(struct lws *wsi);
static int	version_refuse(struct lws *wsi, const GwLink *link);
static int	handshake_refuse(struct lws *wsi, GwRefusal reason,
							 unsigned int status, const char *body);
static bool host_may(struct lws *wsi);
static bool key_is_presented(struct lws *wsi);
static bool take_token(struct lws *wsi, GwBuffer *token);
static int	websocket_open(struct lws *wsi, GwLink *link);
static int	websocket_write(struct lws *wsi, GwLink *link);
static int	websocket_ping(struct lws *wsi, GwLink *link);
static int	http_begin(struct lws *wsi, GwLink *link, const char *path);
static int	http_write(struct lws *wsi, GwLink *link);
static void link_sweep(GwLink *link, int64_t now);
static void link_free(GwLink *link);
static void log_library(int level, const char *string);
static void timer_fired(lws_sorted_usec_list_t *sul);

/* The library's own pings are off. */
static const lws_retry_bo_t no_pings;

static const struct lws_protocols protocols[] = {
	{PROTOCOL, loop_callback, 0, FRAME_MAX, 0, NULL, 0},
	{NULL, NULL, 0, 0, 0, NULL, 0}
};

/* gw_loop_open makes the loop; false if it cannot, which is logged. */
bool
gw_loop_open(const GwConfig *settings)
{
	struct lws_context_creation_info info;

	config = settings;
	lws_set_log_level(LLL_ERR | LLL_WARN, log_library);
	memset(&info, 0, sizeof(info));
	info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS;
	if (config->tls_cert[0] != '\0')
		info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
	info.pt_serv_buf_size = READ_MAX;
	info.max_http_header_data = HEADERS_MAX;
	info.max_http_header_pool = (unsigned short)
		(config->max_connections < 60000 ?
		 config->max_connections + GW_SPARE_SOCKETS : 60000);
	info.timeout_secs = (unsigned int) config->http_timeout;
	context = lws_create_context(&info);
	if (context != NULL)
	{
		info.port = CONTEXT_PORT_NO_LISTEN_SERVER;
		info.protocols = protocols;
		info.vhost_name = "watches";
		vhost = lws_create_vhost(context, &info);
	}
	if (vhost == NULL)
		gw_log_event("error", "start", "could not create the event loop");
	return vhost != NULL;
}

/* gw_sockets_open listens; false if it cannot, which is logged. */
bool
gw_sockets_open(void)
{
	struct lws_context_creation_info info;
	struct lws_vhost *clients;

	memset(&info, 0, sizeof(info));
	gw_listen_prepare(&info);
	if (config->tls_cert[0] != '\0')
		info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT |
			LWS_SERVER_OPTION_CREATE_VHOST_SSL_CTX;
	info.protocols = protocols;
	info.vhost_name = PROTOCOL;
	info.server_string = "message-bus-gateway";
	info.alpn = "http/1.1";
	info.retry_and_idle_policy = &no_pings;
	info.timeout_secs_ah_idle = (unsigned int) config->http_timeout;
	info.keepalive_timeout = (int) config->http_timeout;
	clients = lws_create_vhost(context, &info);
	if (clients == NULL)
		gw_log_event("error", "start", "could not create the listener");
	/* Who is there already is the listener: see LWS_CALLBACK_USER. */
	return clients != NULL &&
		lws_callback_all_protocol_vhost_args(clients, NULL,
											 LWS_CALLBACK_USER, NULL,
											 0) == 0 &&
		gw_listen_open(context, config);
}

/* gw_loop_turn waits and handles what is ready; false if the loop failed. */
bool
gw_loop_turn(void)
{
	GwWatch    *watch;

	for (watch = watches; watch != NULL; watch = watch->next)
		if (watch->want_write && watch->wsi != NULL)
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

/* gw_unix_ms returns the time of day, by which tokens expire. */
int64_t
gw_unix_ms(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* gw_sockets_sweep, once a second, looks for those that are not heard. */
void
gw_sockets_sweep(void)
{
	int64_t		now = gw_now_ms();
	GwLink	   *link;

	for (link = links; link != NULL; link = link->next)
		if (link->client != NULL && link->client->state == GW_CLIENT_OPEN)
			link_sweep(link, now);
}

/* gw_socket_address returns the address of a client's peer. */
const char *
gw_socket_address(GwSocket *socket)
{
	const GwLink *link = lws_get_opaque_user_data(socket);

	return link->address;
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

/* gw_watch_pause stops or resumes looking whether it can be read. */
void
gw_watch_pause(GwWatch *watch, bool pause)
{
	if (watch->wsi != NULL)
		(void) lws_rx_flow_control(watch->wsi, pause ? 0 : 1);
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
 * socket. What belongs to a socket hangs on its opaque pointer: a GwLink, or
 * a GwWatch on adopted descriptors.
 */
static int
loop_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user,
			  void *in, size_t len)
{
	GwLink	   *link = NULL;

	if (reason == LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS)
		gw_tls_prepare(user);
	if (reason == LWS_CALLBACK_USER)
		gw_listen_found(wsi);
	if (reason == LWS_CALLBACK_FILTER_NETWORK_CONNECTION)
		return gw_listen_take(user);
	if (reason == LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED)
		return link_create(wsi);
	if (reason == LWS_CALLBACK_RAW_RX_FILE ||
		reason == LWS_CALLBACK_RAW_WRITEABLE_FILE ||
		reason == LWS_CALLBACK_RAW_CLOSE_FILE)
		return file_callback(wsi, reason);
	/* Before there is a vhost there is no socket either. */
	if (vhost != NULL && wsi != NULL)
		link = lws_get_opaque_user_data(wsi);
	if (link == NULL)
		return 0;
	switch (reason)
	{
		case LWS_CALLBACK_WSI_DESTROY:
			link_free(link);
			break;
		case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
			return handshake_check(wsi, link);
		case LWS_CALLBACK_ESTABLISHED:
			return websocket_open(wsi, link);
		case LWS_CALLBACK_RECEIVE:
			gw_client_receive(link->client, in, len,
							  lws_remaining_packet_payload(wsi),
							  lws_frame_is_binary(wsi) != 0,
							  lws_is_final_fragment(wsi) != 0);
			break;
		case LWS_CALLBACK_RECEIVE_PONG:
			link->heard_ms = gw_now_ms();
			break;
		case LWS_CALLBACK_SERVER_WRITEABLE:
			return websocket_write(wsi, link);
		case LWS_CALLBACK_CLOSED:
			if (link->client != NULL)
				gw_client_gone(link->client);
			link->client = NULL;
			break;
		case LWS_CALLBACK_HTTP:
		case LWS_CALLBACK_HTTP_WRITEABLE:
		case LWS_CALLBACK_CLOSED_HTTP:
			return http_callback(wsi, link, reason, in);
		default:
			break;
	}
	return 0;
}

static int
http_callback(struct lws *wsi, GwLink *link, enum lws_callback_reasons reason,
			  const char *path)
{
	if (reason == LWS_CALLBACK_HTTP)
		return http_begin(wsi, link, path);
	if (reason == LWS_CALLBACK_HTTP_WRITEABLE)
		return http_write(wsi, link);
	gw_buffer_free(&link->body);
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
		lws_set_opaque_user_data(wsi, NULL);
		watch->wsi = NULL;
		watch->want_write = false;
	}
	watch->ready(watch->owner);
	return 0;
}

/* link_create makes the link of a connection that was accepted. */
static int
link_create(struct lws *wsi)
{
	GwLink	   *link = calloc(1, sizeof(GwLink));

	if (link == NULL)
	{
		gw_listen_refused(GW_REFUSED_MEMORY, gw_listen_peer(),
						  "out of memory");
		return -1;
	}
	(void) snprintf(link->address, sizeof(link->address), "%s",
					gw_listen_peer());
	link->wsi = wsi;
	link->heard_ms = gw_now_ms();
	link->next = links;
	if (links != NULL)
		links->previous = link;
	links = link;
	lws_set_opaque_user_data(wsi, link);
	return 0;
}

/* handshake_check refuses everything but a WebSocket that may connect. */
static int
handshake_check(struct lws *wsi, GwLink *link)
{
	char		string[256];
	const char *fault;

	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_UPGRADE) <= 0 ||
		strcasecmp(string, "websocket") != 0)
	{
		gw_listen_refused(GW_REFUSED_UPGRADE, link->address,
						  "upgrade to something else than websocket");
		return -1;
	}
	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_VERSION) <= 0 ||
		strcmp(string, "13") != 0)
		return version_refuse(wsi, link);
	fault = handshake_fault(wsi);
	if (fault != NULL)
		return handshake_refuse(wsi, GW_REFUSED_UPGRADE,
								HTTP_STATUS_BAD_REQUEST, fault);
	if (refusing)
		return handshake_refuse(wsi, GW_REFUSED_STOPPING,
								HTTP_STATUS_SERVICE_UNAVAILABLE,
								"the gateway is stopping");
	if (!host_may(wsi))
		return handshake_refuse(wsi, GW_REFUSED_HOST, HTTP_STATUS_FORBIDDEN,
								"host not allowed (MESSAGE_BUS_HOSTS)");
	if (gw_clients_count() >= (size_t) config->max_connections)
		return handshake_refuse(wsi, GW_REFUSED_CONNECTIONS,
								HTTP_STATUS_SERVICE_UNAVAILABLE,
								"too many connections"
								" (MESSAGE_BUS_MAX_CONNECTIONS)");
	if (lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0 &&
		(lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_ORIGIN) <= 0 ||
		 !gw_origin_may(config, string)))
		return handshake_refuse(wsi, GW_REFUSED_ORIGIN,
								HTTP_STATUS_FORBIDDEN,
								"origin not allowed (MESSAGE_BUS_ORIGINS)");
	if (config->supabase_key[0] != '\0' && !key_is_presented(wsi))
		return handshake_refuse(wsi, GW_REFUSED_KEY,
								HTTP_STATUS_UNAUTHORIZED,
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
		 !gw_list_has(string, PROTOCOL, strlen(PROTOCOL))))
		return "the only subprotocol is " PROTOCOL;
	return NULL;
}

/* version_refuse tells a client of another version which one there is. */
static int
version_refuse(struct lws *wsi, const GwLink *link)
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
	gw_listen_refused(GW_REFUSED_UPGRADE, link->address, detail);
	return -1;
}

static int
handshake_refuse(struct lws *wsi, GwRefusal reason, unsigned int status,
				 const char *body)
{
	const GwLink *link = lws_get_opaque_user_data(wsi);

	gw_listen_refused(reason, link->address, body);
	(void) lws_return_http_status(wsi, status, body);
	return -1;
}

/* host_may tells whether the Host header is one that is answered. */
static bool
host_may(struct lws *wsi)
{
	char		string[256];

	/* Without the header, as HTTP/1.0 allows, it counts as an empty one. */
	if (lws_hdr_total_length(wsi, WSI_TOKEN_HOST) <= 0)
		string[0] = '\0';
	else if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_HOST) <= 0)
		return false;
	return gw_host_may(config, string);
}

/* key_is_presented looks at the header or argument "apikey". */
static bool
key_is_presented(struct lws *wsi)
{
	char		given[2048];
	const char *value = given;
	bool		right;

	memset(given, 0, sizeof(given));
	if (lws_hdr_custom_copy(wsi, given, sizeof(given), "apikey:", 7) <= 0)
		value = lws_get_urlarg_by_name(wsi, "apikey=", given, sizeof(given));
	right = value != NULL && gw_key_is(config->supabase_key, value);
	explicit_bzero(given, sizeof(given));
	return right;
}

/*
 * take_token takes the token of a handshake: that of the header Authorization,
 * else the argument "access_token", else an apikey that looks like a token.
 * Without one the client is anonymous. It returns false if out of memory.
 */
static bool
take_token(struct lws *wsi, GwBuffer *token)
{
	char		given[HEADERS_MAX];
	const char *value = NULL;
	const char *dot;

	memset(given, 0, sizeof(given));
	if (lws_hdr_copy(wsi, given, sizeof(given),
					 WSI_TOKEN_HTTP_AUTHORIZATION) > 7 &&
		strncasecmp(given, "Bearer ", 7) == 0)
		value = given + 7 + strspn(given + 7, " ");
	else
		value = lws_get_urlarg_by_name(wsi, "access_token=", given,
									   sizeof(given));
	if (value == NULL)
	{
		value = given;
		if (lws_hdr_custom_copy(wsi, given, sizeof(given), "apikey:", 7) <= 0)
			value = lws_get_urlarg_by_name(wsi, "apikey=", given,
										   sizeof(given));
		dot = value != NULL ? strchr(value, '.') : NULL;
		if (dot == NULL || strchr(dot + 1, '.') == NULL)
			value = NULL;
	}
	if (value != NULL)
		gw_buffer_text(token, value);
	explicit_bzero(given, sizeof(given));
	return !token->failed;
}

static int
websocket_open(struct lws *wsi, GwLink *link)
{
	GwBuffer	token = {0};

	/* Without authentication a token is none of the gateway's business. */
	if (!gw_config_authenticates(config) || take_token(wsi, &token))
		link->client = gw_client_open(wsi, &token);
	gw_buffer_wipe(&token);
	return link->client != NULL ? 0 : -1;
}

/* websocket_write writes one piece of the oldest reply, or closes. */
static int
websocket_write(struct lws *wsi, GwLink *link)
{
	GwClient   *client = link->client;
	GwReply    *reply;
	size_t		length;
	int			kind;

	if (client == NULL)
		return -1;
	reply = client->replies;
	if (link->want_ping && (reply == NULL || reply->sent == 0))
		return websocket_ping(wsi, link);
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

/*
 * websocket_ping writes a ping, and asks for another turn to write. It is not
 * empty, because the library keeps the answer to an empty one to itself.
 */
static int
websocket_ping(struct lws *wsi, GwLink *link)
{
	unsigned char ping[LWS_PRE + 1] = {0};

	link->want_ping = false;
	ping[LWS_PRE] = '.';
	if (lws_write(wsi, ping + LWS_PRE, 1, LWS_WRITE_PING) < 0)
		return -1;
	(void) lws_callback_on_writable(wsi);
	return 0;
}

/* http_begin writes the head of an HTTP answer and keeps its body. */
static int
http_begin(struct lws *wsi, GwLink *link, const char *path)
{
	unsigned char head[LWS_PRE + 1024];
	unsigned char *start = head + LWS_PRE;
	unsigned char *at = start;
	unsigned char *end = head + sizeof(head) - 1;
	GwBuffer   *body = &link->body;
	const char *type = "application/json";
	int			status;

	/* Room for the library before the body. */
	gw_buffer_free(body);
	memset(head, 0, LWS_PRE);
	gw_buffer_append(body, head, LWS_PRE);
	if (!host_may(wsi))
	{
		gw_listen_refused(GW_REFUSED_HOST, link->address,
						  "host not allowed (MESSAGE_BUS_HOSTS)");
		gw_buffer_text(body, "{\"error\":\"host not allowed"
					   " (MESSAGE_BUS_HOSTS)\"}\n");
		status = HTTP_STATUS_FORBIDDEN;
	}
	else if (lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0)
		status = gw_http_answer(path, body, &type);
	else
	{
		gw_buffer_text(body, "{\"error\":\"method not allowed\"}\n");
		status = HTTP_STATUS_METHOD_NOT_ALLOWED;
	}
	if (body->failed ||
		lws_add_http_common_headers(wsi, (unsigned int) status, type,
									body->length - LWS_PRE, &at, end) != 0 ||
		lws_finalize_write_http_header(wsi, start, &at, end) != 0)
		return -1;
	(void) lws_callback_on_writable(wsi);
	return 0;
}

static int
http_write(struct lws *wsi, GwLink *link)
{
	GwBuffer   *body = &link->body;
	int			written;

	if (body->length == 0)
		return 0;
	written = lws_write(wsi, body->data + LWS_PRE, body->length - LWS_PRE,
						LWS_WRITE_HTTP_FINAL);
	gw_buffer_free(body);
	if (written < 0 || lws_http_transaction_completed(wsi) != 0)
		return -1;
	return 0;
}

/*
 * link_sweep pings a client that was not heard for long, and disconnects one
 * that does not answer, or that has been idle for too long.
 */
static void
link_sweep(GwLink *link, int64_t now)
{
	GwClient   *client = link->client;
	int64_t		heard = link->heard_ms > client->received_ms ?
	link->heard_ms : client->received_ms;
	int64_t		active = client->received_ms > client->progress_ms ?
	client->received_ms : client->progress_ms;
	int64_t		silence = config->ping_secs * 1000;

	if (active < client->opened_ms)
		active = client->opened_ms;

	/*
	 * What is not read from is not heard, and what reads a long reply answers
	 * no ping before its end: the time to send is its limit.
	 */
	if (client->paused || client->replies != NULL)
		heard = link->heard_ms = now;
	if (heard >= link->pinged_ms)
		link->pinged_ms = 0;
	if (silence > 0 && link->pinged_ms != 0 &&
		now - link->pinged_ms >= silence)
		gw_disconnect(client, GW_CLOSE_GOING_AWAY, "no answer to a ping");
	else if (silence > 0 && link->pinged_ms == 0 && now - heard >= silence)
	{
		link->pinged_ms = now;
		link->want_ping = true;
		(void) lws_callback_on_writable(link->wsi);
	}
	if (config->idle_timeout > 0 && client->in_flight == 0 &&
		client->replies == NULL && client->intake == GW_INTAKE_IDLE &&
		now - active >= config->idle_timeout * 1000)
		gw_disconnect(client, GW_CLOSE_GOING_AWAY, "idle for too long");
}

/* link_free forgets a socket that is gone. */
static void
link_free(GwLink *link)
{
	if (link->previous != NULL)
		link->previous->next = link->next;
	else
		links = link->next;
	if (link->next != NULL)
		link->next->previous = link->previous;
	if (link->client != NULL)
		gw_client_gone(link->client);
	gw_buffer_free(&link->body);
	free(link);
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
