/*
 * listen.c
 *		The listening socket, and which connections it takes.
 *
 * The gateway accepts by itself and gives the loop what may stay, so that a
 * connection over the limit of all sockets costs no more than an accept, an
 * answer of one packet where there is no TLS, and a close. What the handshake
 * says is checked in socket.c. How many connections an address may have is
 * the kernel's business, or a proxy's (README.md).
 *
 * Accepting pauses while descriptors are used up: connections wait in the
 * kernel's queue, what is open goes on, and the last RESERVED descriptors are
 * left to the database's connections. Otherwise a listening socket that
 * cannot be served would keep the loop spinning.
 *
 * With MESSAGE_BUS_REUSE_PORT several processes listen on one port and the
 * kernel spreads connections over them; one that drains stops listening at
 * once, so that the others get what is new.
 */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "log.h"
#include "socket.h"

/* Connections taken in one turn of the loop. */
#define ACCEPT_MAX		64

/* Descriptors that connections do not get. */
#define RESERVED		32

#define PAUSE_MS		100

/* A pause this long after another one is told again. */
#define PAUSE_NEWS_MS	60000

/* Refusals that are logged in a second; the rest are counted. */
#define REFUSALS_LOGGED	20

static const GwConfig *config;
static int	listener = -1;
static int	port;
static GwWatch *watch;
static GwTimer *pause_timer;
static int64_t paused_ms;		/* when accepting last paused */

static int	listen_socket(void);
static bool set_on(int level, int option);
static void listen_ready(void *owner);
static void take_connection(int descriptor, const struct sockaddr *peer);
static void address_text(const struct sockaddr *peer, char *to);
static void turn_away(int descriptor, const char *detail);
static bool descriptor_is_free(void);
static void listen_pause(void);
static void listen_resume(void *owner);

/* gw_listen_open listens; false if it cannot, which is logged. */
bool
gw_listen_open(const GwConfig *settings)
{
	GwLogLine	line;
	int			fault;

	config = settings;
	fault = listen_socket();
	if (fault == 0)
	{
		pause_timer = gw_timer_create(listen_resume, NULL);
		watch = gw_watch_create(listener, listen_ready, NULL);
		if (pause_timer != NULL && watch != NULL)
			return true;
		fault = ENOMEM;
	}
	gw_log_begin(&line, "error", "start");
	gw_log_text(&line, "detail", "could not listen");
	gw_log_text(&line, "reason", strerror(fault));
	gw_log_text(&line, "host", config->host);
	gw_log_number(&line, "port", config->port);
	gw_log_end(&line);
	return false;
}

/* gw_listen_port returns the port that is listened on. */
int
gw_listen_port(void)
{
	return port;
}

/* gw_listen_close takes no connection any more. */
void
gw_listen_close(void)
{
	if (listener < 0)
		return;
	/* Those that the kernel has already taken would be reset. */
	listen_ready(NULL);
	gw_watch_free(watch);
	gw_timer_stop(pause_timer);
	(void) close(listener);
	listener = -1;
}

/*
 * gw_listen_refused counts and logs a connection that was refused. A flood
 * of them does not fill the log.
 */
void
gw_listen_refused(GwRefusal reason, const char *address,
				  const char *detail)
{
	static int64_t second;
	static int	logged;
	GwLogLine	line;
	int64_t		now = gw_now_ms() / 1000;

	gw_metric_refused(reason);
	if (second != now)
	{
		second = now;
		logged = 0;
	}
	if (logged++ >= REFUSALS_LOGGED)
		return;
	gw_log_begin(&line, "warning", "handshake_refused");
	gw_log_text(&line, "detail", detail);
	gw_log_text(&line, "address", address);
	if (logged == REFUSALS_LOGGED)
		gw_log_text(&line, "note", "more are counted only in this second");
	gw_log_end(&line);
}

/* listen_socket makes the socket and returns 0, or what errno says. */
static int
listen_socket(void)
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
	listener = socket(address->sa_family,
					  SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener < 0 || !set_on(SOL_SOCKET, SO_REUSEADDR) ||
		(config->reuse_port && !set_on(SOL_SOCKET, SO_REUSEPORT)) ||
		bind(listener, address, length) != 0 ||
		listen(listener, SOMAXCONN) != 0 ||
		getsockname(listener, (struct sockaddr *) &six, &length) != 0)
		return errno;
	/* Both kinds of address have the port in the same place. */
	port = ntohs(six.sin6_port);
	return 0;
}

static bool
set_on(int level, int option)
{
	int			on = 1;

	return setsockopt(listener, level, option, &on, sizeof(on)) == 0;
}

/* listen_ready takes the connections that wait. */
static void
listen_ready(void *owner)
{
	int			i;

	(void) owner;
	for (i = 0; i < ACCEPT_MAX; i++)
	{
		struct sockaddr_storage peer;
		socklen_t	length = sizeof(peer);
		int			descriptor;

		if (!descriptor_is_free())
		{
			listen_pause();
			return;
		}
		memset(&peer, 0, sizeof(peer));
		descriptor = accept4(listener, (struct sockaddr *) &peer, &length,
							 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (descriptor >= 0)
			take_connection(descriptor, (const struct sockaddr *) &peer);
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return;
		else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
				 errno == ENOMEM)
		{
			listen_pause();
			return;
		}
		/* Anything else is about that one connection, gone already. */
	}
}

/* take_connection gives a connection to the loop, or turns it away. */
static void
take_connection(int descriptor, const struct sockaddr *peer)
{
	const char *detail = "too many connections (MESSAGE_BUS_MAX_CONNECTIONS)";
	char		address[GW_ADDRESS_MAX];
	int			on = 1;

	address_text(peer, address);
	if (gw_sockets_count() < config->max_connections + GW_SPARE_SOCKETS)
	{
		(void) setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on,
						  sizeof(on));
		gw_socket_adopt(descriptor, address);
		return;
	}
	gw_listen_refused(GW_REFUSED_CONNECTIONS, address, detail);
	turn_away(descriptor, detail);
}

/* address_text writes an address as text; IPv4 in IPv6's clothes as IPv4. */
static void
address_text(const struct sockaddr *peer, char *to)
{
	struct sockaddr_in four;
	struct sockaddr_in6 six;
	const void *bytes = &six.sin6_addr;
	int			family = peer->sa_family;

	memcpy(&four, peer, sizeof(four));
	memcpy(&six, peer, sizeof(six));
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

/* turn_away closes a socket, with an answer where that can be read. */
static void
turn_away(int descriptor, const char *detail)
{
	char		answer[512];
	int			length;

	if (config->tls_cert[0] == '\0')
	{
		length = snprintf(answer, sizeof(answer),
						  "HTTP/1.1 429 Too Many Requests\r\n"
						  "content-type: text/plain\r\n"
						  "content-length: %zu\r\n"
						  "retry-after: 1\r\nconnection: close\r\n\r\n%s",
						  strlen(detail), detail);
		(void) send(descriptor, answer, (size_t) length,
					MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	(void) close(descriptor);
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
	probe = fcntl(listener, F_DUPFD_CLOEXEC, 0);
	if (probe < 0)
		return false;
	(void) close(probe);
	return (rlim_t) probe + RESERVED < limit.rlim_cur;
}

static void
listen_pause(void)
{
	int64_t		now = gw_now_ms();

	gw_counters.accept_pauses++;
	if (paused_ms == 0 || now - paused_ms > PAUSE_NEWS_MS)
		gw_log_event("error", "accept_paused", "descriptors are used up:"
					 " new connections wait (RLIMIT_NOFILE)");
	paused_ms = now;
	gw_watch_pause(watch, true);
	gw_timer_start(pause_timer, PAUSE_MS);
}

/* listen_resume, the timer, looks whether it goes on. */
static void
listen_resume(void *owner)
{
	(void) owner;
	if (descriptor_is_free())
		gw_watch_pause(watch, false);
	else
	{
		paused_ms = gw_now_ms();
		gw_timer_start(pause_timer, PAUSE_MS);
	}
}
