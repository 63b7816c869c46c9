/*
 * listen.c
 *		The listening sockets, and which connections they take.
 *
 * There are two: for clients, and, if MESSAGE_BUS_ADMIN_PORT is set, for who
 * asks how the gateway is. A pause is for both.
 *
 * libwebsockets accepts, all that waits in one go, and tells gw_listen_take
 * of each connection. It cannot listen on a port that is shared, or on a
 * socket that was made for it. So it listens on any port of a loopback
 * address, and a socket of ours takes the place of that behind its
 * descriptor.
 *
 * In a pause what takes that place is an eventfd, on which nothing ever
 * comes: connections wait in the kernel's queue, and what is open goes on.
 * (libwebsockets could pause by itself, but goes on by itself too, whenever
 * it closes a descriptor.) A pause is for one turn after ACCEPT_MAX
 * connections, so that a crowd does not hold up who is there; and as long as
 * descriptors are used up, less those that the database's connections may
 * need. Each turn looks again, and there is one every second.
 *
 * With MESSAGE_BUS_REUSE_PORT several processes listen on one port and the
 * kernel spreads connections over them; one that drains stops listening at
 * once, so that the others get what is new. It leaves a shared admin
 * port to them, too: who asks there would hear of the end by chance.
 *
 * What the handshake says is checked in handshake.c. How many connections an
 * address may have is the kernel's business, or a proxy's
 * (gateway/README.md).
 */
#include "net/listen.h"

#include <libwebsockets.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/metrics.h"
#include "net/loop.h"

/* Connections taken in one turn of the loop. */
#define ACCEPT_MAX		64

/*
 * Descriptors that connections do not get: for each of the database's, whose
 * socket is watched by a copy, and whose lookups open some; and a few more.
 */
#define RESERVED_EACH	4
#define RESERVED_MORE	8

/* A pause this long after another one is told again. */
#define PAUSE_NEWS_MS	60000

typedef struct Listener
{
	struct lws *wsi;			/* NULL: there is none, or none any more */
	int			listening;		/* our socket */
	int			heard;			/* what libwebsockets has: that, or silence */
	int			port;
	bool		shared;			/* with other processes */
} Listener;

static Listener listeners[GW_LISTENERS];
static int	silence = -1;		/* the eventfd */
static rlim_t reserved;
static char peer[GW_ADDRESS_MAX];	/* of the connection taken last */
static int	taken;				/* connections, in this turn */
static bool paused;				/* descriptors are used up */
static bool closing;
static int64_t paused_ms;		/* when accepting last paused */

static bool listener_open(Listener *listener, const char *host, long port,
						  bool shared);
static bool listener_waits(const Listener *listener);
static void listener_close(Listener *listener);
static bool all_listen(bool on);
static bool set_on(int descriptor, int option);
static bool listen_to(Listener *listener, int descriptor);
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
gw_listen_found(struct lws *wsi, GwListenKind kind)
{
	listeners[kind].wsi = wsi;
}

/* gw_listen_open listens; false if it cannot, which is logged. */
bool
gw_listen_open(const GwConfig *config, GwListenKind kind)
{
	Listener   *listener = &listeners[kind];

	reserved = RESERVED_MORE + RESERVED_EACH *
		(rlim_t) (GW_WAIT_FIRST + config->wait_connections);
	if (kind == GW_LISTEN_ADMIN)
		return listener_open(listener, config->admin_host, config->admin_port,
							 config->reuse_port);
	return listener_open(listener, config->host, config->port,
						 config->reuse_port);
}

static bool
listener_open(Listener *listener, const char *host, long port, bool shared)
{
	GwLogLine	line;
	int			fault = gw_listen_socket(host, port, shared, &listener->listening,
										 &listener->port);

	listener->shared = shared;
	listener->heard = -1;
	if (silence < 0)
		silence = eventfd(0, EFD_CLOEXEC);
	if (fault == 0 &&
		(silence < 0 || !listen_to(listener, listener->listening)))
		fault = errno;
	if (fault == 0)
		return true;
	gw_log_begin(&line, "error", "start");
	gw_log_text(&line, "detail", "could not listen");
	gw_log_text(&line, "reason", strerror(fault));
	gw_log_text(&line, "host", host);
	gw_log_number(&line, "port", port);
	gw_log_end(&line);
	return false;
}

/*
 * gw_listen_take remembers whose a connection is that was accepted, and
 * pauses before the next one if need be.
 */
void
gw_listen_take(const struct lws_filter_network_conn_args *from)
{
	gw_address_text(&from->cli_addr, peer);
	if (!gw_descriptor_is_free())
		listen_pause();
	else if (++taken >= ACCEPT_MAX)
		(void) all_listen(false);
}

/* gw_listen_peer returns the address of the connection taken last. */
const char *
gw_listen_peer(void)
{
	return peer;
}

/* gw_listen_port returns the port that is listened on. */
int
gw_listen_port(GwListenKind kind)
{
	return listeners[kind].port;
}

/*
 * gw_listen_turn, once in each turn of the loop, begins and ends a pause.
 * It looks before somebody is accepted who could not be.
 */
void
gw_listen_turn(void)
{
	bool		waits = false;
	size_t		i;

	taken = 0;
	if (closing)
	{
		listener_close(&listeners[GW_LISTEN_PUBLIC]);
		if (listeners[GW_LISTEN_ADMIN].shared)
			listener_close(&listeners[GW_LISTEN_ADMIN]);
	}
	for (i = 0; i < GW_LISTENERS; i++)
		waits = waits || listener_waits(&listeners[i]);
	if ((paused || waits) && !gw_descriptor_is_free())
		listen_pause();
	else
		paused = !all_listen(true);
}

/* listener_waits tells whether somebody waits to be accepted. */
static bool
listener_waits(const Listener *listener)
{
	struct lws_pollfd waiting = {listener->listening, LWS_POLLIN, 0};

	return listener->wsi != NULL && poll(&waiting, 1, 0) == 1;
}

/* listener_close takes those whom the kernel has, and no more. */
static void
listener_close(Listener *listener)
{
	struct lws_pollfd waiting = {0};

	if (listener->wsi == NULL)
		return;
	/* Those that the kernel has already taken would be reset. */
	(void) listen_to(listener, listener->listening);
	waiting.fd = lws_get_socket_fd(listener->wsi);
	waiting.events = waiting.revents = LWS_POLLIN;
	(void) lws_service_fd(gw_loop_context(), &waiting);
	lws_set_timeout(listener->wsi, PENDING_TIMEOUT_USER_REASON_BASE,
					LWS_TO_KILL_SYNC);
	listener->wsi = NULL;
	(void) close(listener->listening);
}

/* all_listen ends a pause of all listeners, or begins one; false if one
 * cannot. */
static bool
all_listen(bool on)
{
	bool		done = true;
	size_t		i;

	for (i = 0; i < GW_LISTENERS; i++)
		if (listeners[i].wsi != NULL &&
			!listen_to(&listeners[i], on ? listeners[i].listening : silence))
			done = false;
	return done;
}

/* gw_listen_close takes no connection any more, from the next turn on. */
void
gw_listen_close(void)
{
	closing = true;
}

/*
 * gw_listen_socket makes a listening socket and tells its port; it returns 0,
 * or what errno says.
 */
int
gw_listen_socket(const char *host, long port, bool shared, int *descriptor,
				 int *bound_port)
{
	static const struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM
	};
	struct addrinfo *address;
	struct sockaddr_in6 bound = {0};
	socklen_t	length = sizeof(bound);
	char		service[8];
	int			fault = 0;

	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	(void) snprintf(service, sizeof(service), "%ld", port);
	if (getaddrinfo(host, service, &hints, &address) != 0)
		return EINVAL;
	*descriptor = socket(address->ai_family,
						 SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*descriptor < 0 || !set_on(*descriptor, SO_REUSEADDR) ||
		(shared && !set_on(*descriptor, SO_REUSEPORT)) ||
		bind(*descriptor, address->ai_addr, address->ai_addrlen) != 0 ||
		listen(*descriptor, SOMAXCONN) != 0 ||
		getsockname(*descriptor, (struct sockaddr *) &bound, &length) != 0)
		fault = errno;
	freeaddrinfo(address);
	/* Both kinds of address have the port in the same place. */
	*bound_port = ntohs(bound.sin6_port);
	return fault;
}

static bool
set_on(int descriptor, int option)
{
	int			on = 1;

	return setsockopt(descriptor, SOL_SOCKET, option, &on, sizeof(on)) == 0;
}

/*
 * gw_address_text writes an address as text, of GW_ADDRESS_MAX bytes at most;
 * IPv4 in IPv6's clothes as IPv4.
 */
void
gw_address_text(const struct sockaddr_storage *from, char *text)
{
	if (getnameinfo((const struct sockaddr *) from, sizeof(*from), text,
					GW_ADDRESS_MAX, NULL, 0, NI_NUMERICHOST) != 0)
		text[		0] = '\0';

	if (strncmp(text, "::ffff:", 7) == 0 && strchr(text, '.') != NULL)
		memmove(text, text +7, strlen(text +7) + 1);
}

/* gw_descriptor_is_free tells that there is one to spare for a connection. */
bool
gw_descriptor_is_free(void)
{
	struct rlimit limit;
	int			probe;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return true;
	/* A socket, the lowest number that is free: as accept() would do. */
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe < 0)
		return false;
	(void) close(probe);
	return (rlim_t) probe + reserved < limit.rlim_cur;
}

/* listen_to chooses what libwebsockets listens to; false if it cannot. */
static bool
listen_to(Listener *listener, int descriptor)
{
	if (listener->heard != descriptor &&
		dup3(descriptor, lws_get_socket_fd(listener->wsi), O_CLOEXEC) >= 0)
		listener->heard = descriptor;
	return listener->heard == descriptor;
}

/* listen_pause pauses because descriptors are used up. */
static void
listen_pause(void)
{
	int64_t		now = gw_now_ms();

	(void) all_listen(false);
	if (paused)
		return;
	paused = true;
	gw_counters.accept_pauses++;
	if (paused_ms == 0 || now - paused_ms > PAUSE_NEWS_MS)
		gw_log_event("error", "accept_paused", "descriptors are used up:"
					 " new connections wait (RLIMIT_NOFILE)");
	paused_ms = now;
}
