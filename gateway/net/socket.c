/*
 * socket.c
 *		Clients' sockets: WebSockets, and HTTP.
 *
 * What belongs to a socket hangs on its opaque pointer: a Link of ours, which
 * keeps the peer's address (libwebsockets cannot tell it of a peer that is
 * gone) and whoever owns the WebSocket. It goes with WSI_DESTROY. What comes
 * in is told by GwSocketEvents, and what goes out is asked for by them: one
 * lws_write for each writeable callback, in pieces of WRITE_MAX bytes, each a
 * WebSocket fragment, so that a large reply does not hold up the loop or need
 * a second copy. The library's own pings are off: they go out without regard
 * to what else comes in.
 */
#include "net/socket.h"

#include <libwebsockets.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/handshake.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/refusal.h"
#include "net/tls.h"

#define WRITE_MAX	((size_t) 128 * 1024)

/* What the library gives the kernel at a time: a piece and its head. */
#define PACKET_MAX	(WRITE_MAX + 16)

/* What each WebSocket holds for input, whether it is used or not. */
#define FRAME_MAX	4096

typedef struct Link
{
	char		address[GW_ADDRESS_MAX];	/* of its peer */
	void	   *owner;			/* once it is a WebSocket */
	bool		admin;			/* came by the admin port */
	bool		bare;			/* an HTTP answer without a body */
	GwBuffer	body;			/* of an HTTP answer to be written */
} Link;

static const GwConfig *config;
static const GwSocketEvents *events;
static GwHttpAnswer answer;
static struct lws_vhost *vhosts[GW_LISTENERS];

static int	socket_callback(struct lws *wsi, enum lws_callback_reasons reason,
							void *user, void *in, size_t len);
static int	link_callback(struct lws *wsi, Link *link,
						  enum lws_callback_reasons reason, void *in,
						  size_t len);
static int	link_create(struct lws *wsi);
static void link_free(Link *link);
static int	websocket_open(struct lws *wsi, Link *link);
static void websocket_closed(const Link *link, const unsigned char *payload,
							 size_t length);
static int	websocket_write(struct lws *wsi, void *owner);
static int	websocket_ping(struct lws *wsi);
static bool vhost_open(GwListenKind kind);
static int	http_begin(struct lws *wsi, Link *link, const char *path);
static int	http_status(struct lws *wsi, Link *link, const char *path,
						const char **type);
static int	http_head(struct lws *wsi, const Link *link, int status,
					  const char *type);
static int	head_add(struct lws *wsi, const char *name, const char *value,
					 unsigned char **at, unsigned char *end);
static int	http_write(struct lws *wsi, Link *link);

static const lws_retry_bo_t no_pings;

static const struct lws_protocols protocols[] = {
	{GW_PROTOCOL, socket_callback, 0, FRAME_MAX, 0, NULL, PACKET_MAX},
	{NULL, NULL, 0, 0, 0, NULL, 0}
};

/* gw_sockets_open listens; false if it cannot, which is logged. */
bool
gw_sockets_open(const GwConfig *settings, const GwSocketEvents *owners,
				GwHttpAnswer http)
{
	config = settings;
	events = owners;
	answer = http;
	gw_handshakes_init(config);
	return vhost_open(GW_LISTEN_PUBLIC) &&
		(config->admin_port == 0 || vhost_open(GW_LISTEN_ADMIN));
}

/* vhost_open makes what libwebsockets listens with; false if it cannot. */
static bool
vhost_open(GwListenKind kind)
{
	struct lws_context_creation_info info;

	memset(&info, 0, sizeof(info));
	gw_listen_prepare(&info);
	if (kind == GW_LISTEN_PUBLIC && config->tls_cert[0] != '\0')
		info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT |
			LWS_SERVER_OPTION_CREATE_VHOST_SSL_CTX;
	info.protocols = protocols;
	info.vhost_name = kind == GW_LISTEN_PUBLIC ? GW_PROTOCOL : "admin";
	info.server_string = "message-bus-gateway";
	info.alpn = "http/1.1";
	info.retry_and_idle_policy = &no_pings;
	info.timeout_secs_ah_idle = (unsigned int) config->http_timeout;
	info.keepalive_timeout = (int) config->http_timeout;
	vhosts[kind] = lws_create_vhost(gw_loop_context(), &info);
	if (vhosts[kind] == NULL)
	{
		gw_log_event("error", "start", "could not create the listener");
		return false;
	}
	/* Who is there already is the listener. */
	(void) lws_callback_all_protocol_vhost_args(vhosts[kind], NULL,
												LWS_CALLBACK_USER, &kind, 0);
	return gw_listen_open(config, kind);
}

/* gw_socket_address returns the address of a client's peer. */
const char *
gw_socket_address(GwSocket *socket)
{
	const Link *link = lws_get_opaque_user_data(socket);

	return link->address;
}

/* gw_socket_write_soon asks for a call to write what there is. */
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
	lws_set_timeout(socket, PENDING_TIMEOUT_USER_REASON_BASE,
					LWS_TO_KILL_ASYNC);
}

/*
 * socket_callback is where libwebsockets calls. A non-zero result closes the
 * socket.
 */
static int
socket_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user,
				void *in, size_t len)
{
	Link	   *link;

	if (reason == LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS)
		gw_tls_prepare(user);
	else if (reason == LWS_CALLBACK_USER)
		gw_listen_found(wsi, *(const GwListenKind *) in);
	else if (reason == LWS_CALLBACK_FILTER_NETWORK_CONNECTION)
		gw_listen_take(user);
	else if (reason == LWS_CALLBACK_SERVER_NEW_CLIENT_INSTANTIATED)
		return link_create(wsi);
	/* Before there is a vhost there is no socket either. */
	link = vhosts[GW_LISTEN_PUBLIC] != NULL && wsi != NULL ?
		lws_get_opaque_user_data(wsi) : NULL;
	return link != NULL ? link_callback(wsi, link, reason, in, len) : 0;
}

/* link_callback handles what happens to a client's socket. */
static int
link_callback(struct lws *wsi, Link *link, enum lws_callback_reasons reason,
			  void *in, size_t len)
{
	switch (reason)
	{
		case LWS_CALLBACK_WSI_DESTROY:
			link_free(link);
			break;
		case LWS_CALLBACK_RAW_ADOPT:
		case LWS_CALLBACK_RAW_RX:
			/* The method CONNECT would have bytes of no protocol at all. */
			gw_refused(GW_REFUSED_UPGRADE, link->address,
					   "the method CONNECT is not served");
			return -1;
		case LWS_CALLBACK_HTTP_CONFIRM_UPGRADE:
			if (link->admin)
			{
				gw_refused(GW_REFUSED_UPGRADE, link->address,
						   "the admin port takes no WebSocket");
				return -1;
			}
			return gw_handshake_check(wsi, link->address,
									  *events->connections);
		case LWS_CALLBACK_ESTABLISHED:
			return websocket_open(wsi, link);
		case LWS_CALLBACK_RECEIVE:
			events->receive(link->owner, in, len,
							lws_remaining_packet_payload(wsi),
							lws_frame_is_binary(wsi) != 0,
							lws_is_final_fragment(wsi) != 0);
			break;
		case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
			websocket_closed(link, in, len);
			break;
		case LWS_CALLBACK_RECEIVE_PONG:
			events->pong(link->owner);
			break;
		case LWS_CALLBACK_SERVER_WRITEABLE:
			return link->owner != NULL ? websocket_write(wsi, link->owner) : -1;
		case LWS_CALLBACK_CLOSED:
			if (link->owner != NULL)
				events->gone(link->owner);
			link->owner = NULL;
			break;
		case LWS_CALLBACK_HTTP:
			return http_begin(wsi, link, in);
		case LWS_CALLBACK_HTTP_WRITEABLE:
			return http_write(wsi, link);
		case LWS_CALLBACK_CLOSED_HTTP:
			gw_buffer_free(&link->body);
			break;
		default:
			break;
	}
	return 0;
}

/* link_create makes the link of a connection that was accepted. */
static int
link_create(struct lws *wsi)
{
	Link	   *link = calloc(1, sizeof(Link));

	if (link == NULL)
	{
		gw_refused(GW_REFUSED_MEMORY, gw_listen_peer(), "out of memory");
		return -1;
	}
	link->admin = lws_get_vhost(wsi) == vhosts[GW_LISTEN_ADMIN];
	(void) snprintf(link->address, sizeof(link->address), "%s",
					gw_listen_peer());
	lws_set_opaque_user_data(wsi, link);
	return 0;
}

/* link_free forgets a socket that is gone. */
static void
link_free(Link *link)
{
	if (link->owner != NULL)
		events->gone(link->owner);
	gw_buffer_free(&link->body);
	free(link);
}

static int
websocket_open(struct lws *wsi, Link *link)
{
	GwBuffer	token = {0};
	uint32_t	limit = gw_handshake_limit(wsi);

	/* Without authentication a token is none of the gateway's business. */
	if (!gw_config_authenticates(config) || gw_handshake_token(wsi, &token))
		link->owner = events->open(wsi, &token, limit);
	gw_buffer_wipe(&token);
	return link->owner != NULL ? 0 : -1;
}

/* websocket_closed tells of a client's close frame. */
static void
websocket_closed(const Link *link, const unsigned char *payload, size_t length)
{
	if (link->owner == NULL)
		return;
	if (length < 2)
		events->closed(link->owner, LWS_CLOSE_STATUS_NO_STATUS, NULL, 0);
	else
		events->closed(link->owner, payload[0] << 8 | payload[1],
					   (const char *) payload + 2, length - 2);
}

/* websocket_write writes one piece of what there is, or closes. */
static int
websocket_write(struct lws *wsi, void *owner)
{
	GwOutput	output = {.kind = GW_OUTPUT_NONE};
	int			kind;

	events->next(owner, &output);
	if (output.kind == GW_OUTPUT_NONE)
		return 0;
	if (output.kind == GW_OUTPUT_PING)
		return websocket_ping(wsi);
	if (output.kind == GW_OUTPUT_CLOSE)
	{
		lws_close_reason(wsi, (enum lws_close_status) output.code,
						 (unsigned char *) output.reason,
						 strlen(output.reason));
		return -1;
	}
	kind = !output.begins ? LWS_WRITE_CONTINUATION :
		output.binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT;
	if (output.length > WRITE_MAX)
	{
		output.length = WRITE_MAX;
		kind |= LWS_WRITE_NO_FIN;
	}
	if (lws_write(wsi, output.bytes, output.length,
				  (enum lws_write_protocol) kind) < 0)
		return -1;
	if (events->written(owner, output.length))
		(void) lws_callback_on_writable(wsi);
	return 0;
}

/*
 * websocket_ping writes a ping, and asks for another turn to write. It is not
 * empty, because the library keeps the answer to an empty one to itself.
 */
static int
websocket_ping(struct lws *wsi)
{
	unsigned char ping[LWS_PRE + 1] = {0};

	ping[LWS_PRE] = '.';
	if (lws_write(wsi, ping + LWS_PRE, 1, LWS_WRITE_PING) < 0)
		return -1;
	(void) lws_callback_on_writable(wsi);
	return 0;
}

/* http_begin writes the head of an HTTP answer and keeps its body. */
static int
http_begin(struct lws *wsi, Link *link, const char *path)
{
	static const unsigned char room[LWS_PRE];
	const char *type = "application/json";
	int			status;

	/* Room for the library before the body. */
	gw_buffer_free(&link->body);
	gw_buffer_append(&link->body, room, LWS_PRE);
	status = http_status(wsi, link, path, &type);
	link->bare = status == HTTP_STATUS_NO_CONTENT ||
		lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI) > 0;
	if (link->body.failed || http_head(wsi, link, status, type) != 0)
		return -1;
	(void) lws_callback_on_writable(wsi);
	return 0;
}

/* http_status appends the body of an answer, and returns its status. */
static int
http_status(struct lws *wsi, Link *link, const char *path, const char **type)
{
	GwBuffer   *body = &link->body;

	if (!link->admin && !gw_handshake_host_may(wsi))
	{
		gw_refused(GW_REFUSED_HOST, link->address,
				   "host not allowed (MESSAGE_BUS_HOSTS)");
		gw_buffer_text(body, "{\"error\":\"host not allowed"
					   " (MESSAGE_BUS_HOSTS)\"}\n");
		return HTTP_STATUS_FORBIDDEN;
	}
	if (!link->admin && !config->public_status)
	{
		gw_buffer_text(body, "{\"error\":\"not found\"}\n");
		return HTTP_STATUS_NOT_FOUND;
	}
	if (lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) > 0 ||
		lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI) > 0)
		return answer(path, link->admin, body, type);
	if (lws_hdr_total_length(wsi, WSI_TOKEN_OPTIONS_URI) > 0)
		return HTTP_STATUS_NO_CONTENT;
	gw_buffer_text(body, "{\"error\":\"method not allowed\"}\n");
	return HTTP_STATUS_METHOD_NOT_ALLOWED;
}

/* http_head writes the head of an answer; not 0 if it cannot. */
static int
http_head(struct lws *wsi, const Link *link, int status, const char *type)
{
	static const char alone[] = "frame-ancestors 'none';"
	" base-uri 'none'; object-src 'none'";
	unsigned char head[LWS_PRE + 1024];
	unsigned char *start = head + LWS_PRE;
	unsigned char *at = start;
	unsigned char *end = head + sizeof(head) - 1;
	int			fault;

	if (status == HTTP_STATUS_NO_CONTENT)
		fault = lws_add_http_header_status(wsi, (unsigned int) status, &at,
										   end);
	else
		fault = lws_add_http_common_headers(wsi, (unsigned int) status, type,
											link->body.length - LWS_PRE, &at,
											end);
	if (fault == 0 && link->admin)
		fault = head_add(wsi, "x-content-type-options:", "nosniff", &at, end) ||
			head_add(wsi, "referrer-policy:", "no-referrer", &at, end) ||
			head_add(wsi, "cache-control:", "no-cache", &at, end) ||
			head_add(wsi, "content-security-policy:", alone, &at, end);
	if (fault == 0 && (status == HTTP_STATUS_NO_CONTENT ||
					   status == HTTP_STATUS_METHOD_NOT_ALLOWED))
		fault = head_add(wsi, "allow:", "GET, HEAD, OPTIONS", &at, end);
	return fault != 0 ? fault :
		lws_finalize_write_http_header(wsi, start, &at, end);
}

/* head_add appends a header, whose name ends with a colon; not 0 if it cannot. */
static int
head_add(struct lws *wsi, const char *name, const char *value,
		 unsigned char **at, unsigned char *end)
{
	return lws_add_http_header_by_name(wsi, (const unsigned char *) name,
									   (const unsigned char *) value,
									   (int) strlen(value), at, end);
}

static int
http_write(struct lws *wsi, Link *link)
{
	GwBuffer   *body = &link->body;
	int			written = 0;

	if (body->length == 0)
		return 0;
	if (!link->bare)
		written = lws_write(wsi, body->data + LWS_PRE, body->length - LWS_PRE,
							LWS_WRITE_HTTP_FINAL);
	gw_buffer_free(body);
	return written < 0 || lws_http_transaction_completed(wsi) != 0 ? -1 : 0;
}

/* LWS_PRE is what the owner leaves free before a reply. */
typedef char room_is_enough[GW_WRITE_ROOM >= LWS_PRE ? 1 : -1];
