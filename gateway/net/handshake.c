/*
 * handshake.c
 *		Which handshakes become WebSockets, and the token that they bring.
 *
 * libwebsockets would also answer "Upgrade: h2c" and open its HTTP/2 parser.
 * Only an upgrade to "websocket" is let through, and the header is read again
 * for that: the argument of the callback may point to freed memory when
 * libwebsockets has already refused the upgrade.
 */
#include "net/handshake.h"

#include <libwebsockets.h>

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "net/access.h"
#include "net/loop.h"
#include "net/refusal.h"

#define HTTP_UPGRADE_REQUIRED 426

/* What a client may ask for at least: max_message_bytes. */
#define LIMIT_LEAST		1024

static const GwConfig *config;
static bool refusing;			/* no handshake is accepted any more */

static const char *handshake_fault(struct lws *wsi);
static int	version_refuse(struct lws *wsi, const char *address);
static int	handshake_refuse(struct lws *wsi, const char *address,
							 GwRefusal reason, unsigned int status,
							 const char *body);
static bool limit_is_sound(struct lws *wsi, uint32_t *limit);
static bool key_is_presented(struct lws *wsi);
static const char *find_apikey(struct lws *wsi, char *given, size_t size);

void
gw_handshakes_init(const GwConfig *settings)
{
	config = settings;
}

/* gw_handshakes_refuse makes every further handshake fail. */
void
gw_handshakes_refuse(void)
{
	refusing = true;
}

/* gw_handshake_check refuses everything but a WebSocket that may connect. */
int
gw_handshake_check(struct lws *wsi, const char *address, size_t connections)
{
	char		string[256];
	const char *fault;
	uint32_t	limit;

	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_UPGRADE) <= 0 ||
		strcasecmp(string, "websocket") != 0)
	{
		gw_refused(GW_REFUSED_UPGRADE, address,
				   "upgrade to something else than websocket");
		return -1;
	}
	if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_VERSION) <= 0 ||
		strcmp(string, "13") != 0)
		return version_refuse(wsi, address);
	fault = handshake_fault(wsi);
	if (fault != NULL)
		return handshake_refuse(wsi, address, GW_REFUSED_UPGRADE,
								HTTP_STATUS_BAD_REQUEST, fault);
	if (!limit_is_sound(wsi, &limit))
		return handshake_refuse(wsi, address, GW_REFUSED_UPGRADE,
								HTTP_STATUS_BAD_REQUEST,
								"max_message_bytes must be a number from 1024"
								" to WS_MAX_MSG_BYTES");
	if (refusing)
		return handshake_refuse(wsi, address, GW_REFUSED_STOPPING,
								HTTP_STATUS_SERVICE_UNAVAILABLE,
								"the gateway is stopping");
	if (!gw_handshake_host_may(wsi))
		return handshake_refuse(wsi, address, GW_REFUSED_HOST, HTTP_STATUS_FORBIDDEN,
								"host not allowed (MESSAGE_BUS_HOSTS)");
	if (connections >= (size_t) config->max_connections)
		return handshake_refuse(wsi, address, GW_REFUSED_CONNECTIONS,
								HTTP_STATUS_SERVICE_UNAVAILABLE,
								"too many connections"
								" (MESSAGE_BUS_MAX_CONNECTIONS)");
	if (lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN) > 0 &&
		(lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_ORIGIN) <= 0 ||
		 !gw_origin_may(config, string)))
		return handshake_refuse(wsi, address, GW_REFUSED_ORIGIN,
								HTTP_STATUS_FORBIDDEN,
								"origin not allowed (MESSAGE_BUS_ORIGINS)");
	if (config->supabase_key[0] != '\0' && !key_is_presented(wsi))
		return handshake_refuse(wsi, address, GW_REFUSED_KEY,
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
	char		string[GW_HEADERS_MAX];

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
		 !gw_list_has(string, GW_PROTOCOL, strlen(GW_PROTOCOL))))
		return "the only subprotocol is " GW_PROTOCOL;
	return NULL;
}

/* version_refuse tells a client of another version which one there is. */
static int
version_refuse(struct lws *wsi, const char *address)
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
	gw_refused(GW_REFUSED_UPGRADE, address, detail);
	return -1;
}

static int
handshake_refuse(struct lws *wsi, const char *address, GwRefusal reason,
				 unsigned int status, const char *body)
{
	gw_refused(reason, address, body);
	(void) lws_return_http_status(wsi, status, body);
	return -1;
}

/* gw_handshake_host_may tells whether the Host header is one that is answered. */
bool
gw_handshake_host_may(struct lws *wsi)
{
	char		string[256];

	/* Without the header, as HTTP/1.0 allows, it counts as an empty one. */
	if (lws_hdr_total_length(wsi, WSI_TOKEN_HOST) <= 0)
		string[0] = '\0';
	else if (lws_hdr_copy(wsi, string, sizeof(string), WSI_TOKEN_HOST) <= 0)
		return false;
	return gw_host_may(config, config->host, string);
}

/* key_is_presented tells whether the client knows SUPABASE_KEY. */
static bool
key_is_presented(struct lws *wsi)
{
	char		given[GW_HEADERS_MAX];
	const char *value = find_apikey(wsi, given, sizeof(given));
	bool		right = value != NULL && gw_key_is(config->supabase_key, value);

	explicit_bzero(given, sizeof(given));
	return right;
}

/*
 * gw_handshake_token takes the token of a handshake: that of the header
 * Authorization, else the argument "access_token", else an apikey that looks
 * like a token. Without one the client is anonymous. It returns false if out
 * of memory.
 */
bool
gw_handshake_token(struct lws *wsi, GwBuffer *token)
{
	char		given[GW_HEADERS_MAX];
	const char *value = NULL;

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
		value = find_apikey(wsi, given, sizeof(given));
		/* With fewer than two dots the first is the last. */
		if (value != NULL && strchr(value, '.') == strrchr(value, '.'))
			value = NULL;
	}
	if (value != NULL)
		gw_buffer_text(token, value);
	explicit_bzero(given, sizeof(given));
	return !token->failed;
}

/*
 * gw_handshake_limit returns how large messages may be that the client is
 * sent; 0 if it does not say.
 */
uint32_t
gw_handshake_limit(struct lws *wsi)
{
	uint32_t	limit;

	return limit_is_sound(wsi, &limit) ? limit : 0;
}

/*
 * limit_is_sound reads the argument "max_message_bytes", 0 without one. The
 * library looks no further than an argument which does not fit: there is room
 * for the longest, which may be a token.
 */
static bool
limit_is_sound(struct lws *wsi, uint32_t *limit)
{
	char		given[GW_HEADERS_MAX] = "";
	const char *value = lws_get_urlarg_by_name(wsi, "max_message_bytes=",
											   given, sizeof(given));
	bool		is_number;
	unsigned long number = 0;

	*limit = 0;
	if (value == NULL)
	{
		explicit_bzero(given, sizeof(given));
		return true;
	}
	is_number = strspn(value, "0123456789") == strlen(value) &&
		strlen(value) <= 9;
	if (is_number)
		number = strtoul(value, NULL, 10);
	explicit_bzero(given, sizeof(given));
	*limit = (uint32_t) number;
	return is_number && number >= LIMIT_LEAST &&
		number <= (unsigned long) config->max_message;
}

/* find_apikey reads the header or argument "apikey"; NULL if there is none. */
static const char *
find_apikey(struct lws *wsi, char *given, size_t size)
{
	memset(given, 0, size);
	if (lws_hdr_custom_copy(wsi, given, (int) size, "apikey:", 7) > 0)
		return given;
	return lws_get_urlarg_by_name(wsi, "apikey=", given, (int) size);
}
