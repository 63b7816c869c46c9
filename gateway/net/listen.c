/*
 * listen.c
 *		The listening socket, and which connections it takes.
 *
 * libwebsockets accepts, all that waits in one go, and asks gw_listen_take
 * about each connection, where listening may pause: for one turn after
 * ACCEPT_MAX connections, so that a crowd does not hold up who is there; and
 * as long as descriptors are used up. Connections wait in the kernel's queue
 * then, what is open goes on, and the last RESERVED descriptors are left to
 * the database's connections. libwebsockets ends a pause by itself when any
 * descriptor is closed; a connection that slips through is closed.
 *
 * What it cannot do is listen on a port that is shared, or on a socket that
 * was made for it. So it listens on any port of a loopback address, and a
 * socket of ours takes the place of that behind its descriptor.
 *
 * With MESSAGE_BUS_REUSE_PORT several processes listen on one port and the
 * kernel spreads connections over them; one that drains stops listening at
 * once, so that the others get what is new.
 *
 * What the handshake says is checked in handshake.c. How many connections an
 * address may have is the kernel's business, or a proxy's (README.md).
 */
#include "net/listen.h"

#include <libwebsockets.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/metrics.h"
#include "net/loop.h"

/* Connections taken in one turn of the loop. */
#define ACCEPT_MAX		64

/* Descriptors that connections do not get. */
#define RESERVED		32

/* A pause this long after another one is told again. */
#define PAUSE_NEWS_MS	60000

static struct lws *listener;
static int	port;
static char peer[GW_ADDRESS_MAX];	/* of the connection taken last */
static int	taken;				/* connections, in this turn */
static bool paused;				/* descriptors are used up */
static bool closing;
static int64_t paused_ms;		/* when accepting last paused */

static int	listen_socket(const GwConfig *config, int *descriptor);
static bool set_on(int descriptor, int option);
static void address_text(const struct sockaddr *from, char *to);
static bool descriptor_is_free(void);
static void listen_pause(void);

/* gw_listen_prepare makes libwebsockets listen where nobody looks. */
void
gw_listen_prepare(struct lws_context_creation_info *info)
{
	info->port = 0;
	info->iface = "127.0.0.1";
	info->options = LWS_SERVER_OPTION_DISABLE_IPV6;
}

/* gw_listen_found is told which connection of libwebsockets listens. */
void
gw_listen_found(struct lws *wsi)
{
	listener = wsi;
}

/* gw_listen_open listens; false if it cannot, which is logged. */
bool
gw_listen_open(const GwConfig *config)
{
	GwLogLine	line;
	int			descriptor = -1;
	int			fault = listen_socket(config, &descriptor);

	if (fault == 0 &&
		dup3(descriptor, lws_get_socket_fd(listener), O_CLOEXEC) < 0)
		fault = errno;
	if (descriptor >= 0)
		(void) close(descriptor);
	if (fault == 0)
		return true;
	gw_log_begin(&line, "error", "start");
	gw_log_text(&line, "detail", "could not listen");
	gw_log_text(&line, "reason", strerror(fault));
	gw_log_text(&line, "host", config->host);
	gw_log_number(&line, "port", config->port);
	gw_log_end(&line);
	return false;
}

/*
 * gw_listen_take looks at a connection that was accepted, remembers whose it
 * is and pauses before the next one if need be. Not 0: it is closed.
 */
int
gw_listen_take(const struct lws_filter_network_conn_args *from)
{
	address_text((const struct sockaddr *) &from->cli_addr, peer);
	if (!descriptor_is_free())
	{
		if (paused)
			return -1;
		listen_pause();
	}
	if (++taken >= ACCEPT_MAX || paused)
		(void) lws_rx_flow_control(listener, 0);
	return 0;
}

/* gw_listen_peer returns the address of the connection taken last. */
const char *
gw_listen_peer(void)
{
	return peer;
}

/* gw_listen_port returns the port that is listened on. */
int
gw_listen_port(void)
{
	return port;
}

/* gw_listen_turn, once in each turn of the loop, ends a pause. */
void
gw_listen_turn(void)
{
	struct lws_pollfd ready = {-1, LWS_POLLIN, LWS_POLLIN};

	taken = 0;
	if (listener == NULL)
		return;
	paused = paused && !descriptor_is_free();
	if (!paused)
		(void) lws_rx_flow_control(listener, 1);
	if (!closing)
		return;
	/* Those that the kernel has already taken would be reset. */
	ready.fd = lws_get_socket_fd(listener);
	(void) lws_service_fd(gw_loop_context(), &ready);
	lws_set_timeout(listener, PENDING_TIMEOUT_USER_REASON_BASE,
					LWS_TO_KILL_SYNC);
	listener = NULL;
}

/* gw_listen_close takes no connection any more, from the next turn on. */
void
gw_listen_close(void)
{
	closing = true;
}

/* listen_socket makes the socket and returns 0, or what errno says. */
static int
listen_socket(const GwConfig *config, int *descriptor)
{
	const char *host = config->host;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
	const struct sockaddr *address = (const struct sockaddr *) &four;
	socklen_t	length = sizeof(four);
	in_port_t	wanted = htons((in_port_t) config->port);

	memset(&four, 0, sizeof(four));
	memset(&six, 0, sizeof(six));
	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	four.sin_family = AF_INET;
	four.sin_port = wanted;
	if (inet_pton(AF_INET, host, &four.sin_addr) != 1)
	{
		six.sin6_family = AF_INET6;
		six.sin6_port = wanted;
		if (inet_pton(AF_INET6, host, &six.sin6_addr) != 1)
			return EINVAL;
		address = (const struct sockaddr *) &six;
		length = sizeof(six);
	}
	*descriptor = socket(address->sa_family,
						 SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*descriptor < 0 || !set_on(*descriptor, SO_REUSEADDR) ||
		(config->reuse_port && !set_on(*descriptor, SO_REUSEPORT)) ||
		bind(*descriptor, address, length) != 0 ||
		listen(*descriptor, SOMAXCONN) != 0 ||
		getsockname(*descriptor, (struct sockaddr *) &six, &length) != 0)
		return errno;
	/* Both kinds of address have the port in the same place. */
	port = ntohs(six.sin6_port);
	return 0;
}

static bool
set_on(int descriptor, int option)
{
	int			on = 1;

	return setsockopt(descriptor, SOL_SOCKET, option, &on, sizeof(on)) == 0;
}

/* address_text writes an address as text; IPv4 in IPv6's clothes as IPv4. */
static void
address_text(const struct sockaddr *from, char *to)
{
	struct sockaddr_in four;
	struct sockaddr_in6 six;
	const void *bytes = &six.sin6_addr;
	int			family = from->sa_family;

	memcpy(&four, from, sizeof(four));
	memcpy(&six, from, sizeof(six));
	if (family == AF_INET)
		bytes = &four.sin_addr;
	else if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
	{
		family = AF_INET;
		bytes = &six.sin6_addr.s6_addr[12];
	}
	if (inet_ntop(family, bytes, to, GW_ADDRESS_MAX) == NULL)
		to[0] = '\0';
}

/* descriptor_is_free tells that there is one to spare for a connection. */
static bool
descriptor_is_free(void)
{
	struct rlimit limit;
	int			probe;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return true;
	/* The kernel hands out the lowest number that is free. */
	probe = fcntl(lws_get_socket_fd(listener), F_DUPFD_CLOEXEC, 0);
	if (probe < 0)
		return false;
	(void) close(probe);
	return (rlim_t) probe + RESERVED < limit.rlim_cur;
}

static void
listen_pause(void)
{
	int64_t		now = gw_now_ms();

	paused = true;
	gw_counters.accept_pauses++;
	if (paused_ms == 0 || now - paused_ms > PAUSE_NEWS_MS)
		gw_log_event("error", "accept_paused", "descriptors are used up:"
					 " new connections wait (RLIMIT_NOFILE)");
	paused_ms = now;
}
