/*
 * connection.c
 *		The sockets of the HTTP door: they are accepted, read and written here.
 *
 * libwebsockets' HTTP role has no part in it, nor has its loop but for one
 * descriptor: an epoll instance of this file holds all sockets of the door,
 * and the loop watches that. A socket is looked at for what can be done with
 * it, no more: for input as long as there is room for it, for output while
 * there is some. The end of input is looked for always, and ends the
 * connection whatever it is doing, so that no state of a socket is reported
 * for ever.
 *
 * A connection's state:
 *
 *	READING		a head comes, in HTTP_CLIENT_TIMEOUT_SECS from its first byte
 *				(408); without any byte it is closed after as long
 *	ANSWERING	the door answers; what is sent meanwhile waits, up to a head's
 *				length, then the socket is not read from
 *	FLUSHING	the answer ended; it is written
 *	LINGERING	all is written and the answer was the last: what the client
 *				still sends is dropped, LINGER_MS long, because closing a
 *				socket with unread input takes from the client what it has not
 *				read of the answer
 *	ENDED		the socket is closed; freed when nobody is at work with it
 *
 * Bounds: twice MESSAGE_BUS_HTTP_DOWNLOADS connections; when these are there,
 * one makes room for the next: one that is LINGERING, else that has sent
 * nothing, else not a whole head, for longest; so nobody keeps others out by
 * what he does not finish. If all are being answered the next waits in the
 * kernel's queue. The kernel
 * holds 128 KiB that are not on their way yet (TCP_NOTSENT_LOWAT), and one
 * call to send() gives it no more; a few of these calls are for one socket,
 * then it is the next one's turn. Who takes no byte for
 * MESSAGE_BUS_SEND_TIMEOUT_SECS, or less than 1 KiB a second over a minute, is
 * closed.
 */
#include "http/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "base/log.h"
#include "net/listen.h"
#include "net/loop.h"

/* Connections taken, sockets handled, in one turn; and writes to one of them. */
#define ACCEPT_MAX		64
#define EVENTS_MAX		64
#define WRITES_MAX		4

#define LINGER_MS		2000

/* Who takes less than this in a window, and could take more, is too slow. */
#define WINDOW_MS		60000
#define WINDOW_LEAST	((size_t) 60 * 1024)

typedef enum State
{
	READING,
	ANSWERING,
	FLUSHING,
	LINGERING,
	ENDED
} State;

/* What is to be written, in the order in which it came. */
typedef struct Chunk
{
	STAILQ_ENTRY(Chunk) entry;
	size_t		length;
	size_t		sent;
	unsigned char bytes[];
} Chunk;

struct GwHttpConnection
{
	LIST_ENTRY(GwHttpConnection) entry;
	State		state;
	int			descriptor;
	uint32_t	watched;		/* what epoll looks for */
	void	   *owner;
	bool		closes;			/* when the answer is written */
	bool		failed;			/* it is to end: out of memory */
	int64_t		since_ms;		/* of the state, or of a head's first byte */
	int64_t		taken_ms;		/* when bytes were taken last */
	int64_t		window_ms;		/* when the window began ... */
	size_t		window_bytes;	/* ... and what was taken since */
				STAILQ_HEAD(, Chunk) out;
	size_t		unwritten;		/* bytes of that */
	size_t		length;			/* of what was read and is not done with */
	GwHead		head;
	unsigned char in[GW_HEAD_MAX];
};

typedef LIST_HEAD(, GwHttpConnection)
List;

size_t		gw_http_connections;

static const GwConfig *config;
static const GwHttpEvents *events;
static List all = LIST_HEAD_INITIALIZER(all);
static List ended = LIST_HEAD_INITIALIZER(ended);
static int	poller = -1;
static int	listener = -1;
static bool listening;			/* the listener is looked at */
static int	port;

static void poller_ready(void *owner);
static void listener_ready(void);
static void listener_watch(bool on);
static bool listener_waits(void);
static int	idle_rank(const GwHttpConnection *connection);
static bool listener_has_room(void);
static void connection_open(int descriptor,
							const struct sockaddr_storage *from);
static void connection_ready(GwHttpConnection *connection, uint32_t what);
static void connection_read(GwHttpConnection *connection);
static void connection_advance(GwHttpConnection *connection);
static void connection_take_head(GwHttpConnection *connection);
static void connection_write(GwHttpConnection *connection);
static bool connection_write_one(GwHttpConnection *connection);
static void connection_flushed(GwHttpConnection *connection);
static void connection_watch(GwHttpConnection *connection);
static void connection_move(GwHttpConnection *connection, State state);
static void connection_sweep(GwHttpConnection *connection, int64_t now);
static bool connection_is_slow(GwHttpConnection *connection, int64_t now);
static void connection_end(GwHttpConnection *connection, GwHttpEnd end);
static void free_ended(void);

/* gw_http_listen opens the door; false if it cannot, which is logged. */
bool
gw_http_listen(const GwConfig *settings, const GwHttpEvents *owner)
{
	struct epoll_event event = {.events = EPOLLIN};
	GwLogLine	line;
	int			fault;

	config = settings;
	events = owner;
	fault = gw_listen_socket(config->http_host, config->http_port,
							 config->reuse_port, &listener, &port);
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (fault == 0 &&
		(poller < 0 ||
		 epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) != 0 ||
		 gw_watch_create(poller, poller_ready, NULL) == NULL))
		fault = errno;
	listening = fault == 0;
	if (listening)
		return true;
	gw_log_begin(&line, "error", "start");
	gw_log_text(&line, "detail", "could not open the HTTP door");
	gw_log_text(&line, "reason", strerror(fault));
	gw_log_text(&line, "host", config->http_host);
	gw_log_number(&line, "port", config->http_port);
	gw_log_end(&line);
	return false;
}

/* gw_http_port returns the port of the door. */
int
gw_http_port(void)
{
	return port;
}

/*
 * gw_http_send appends to what is written to a client. Without memory the
 * connection is cut, a little later.
 */
void
gw_http_send(GwHttpConnection *connection, const void *bytes, size_t length)
{
	Chunk	   *chunk;

	if (connection->state == ENDED || length == 0)
		return;
	chunk = malloc(sizeof(Chunk) + length);
	if (chunk == NULL)
		connection->failed = true;
	else
	{
		memcpy(chunk->bytes, bytes, length);
		chunk->length = length;
		chunk->sent = 0;
		STAILQ_INSERT_TAIL(&connection->out, chunk, entry);
		if (connection->unwritten == 0)
			connection->window_ms = 0;
		connection->unwritten += length;
	}
	connection_watch(connection);
}

/* gw_http_unwritten tells how many bytes the kernel has not taken. */
size_t
gw_http_unwritten(const GwHttpConnection *connection)
{
	return connection->unwritten;
}

/*
 * gw_http_done ends an answer: it is written, then the next request is read,
 * unless this was the last.
 */
void
gw_http_done(GwHttpConnection *connection, bool closes)
{
	if (connection->state != ANSWERING)
		return;
	connection->closes = closes || listener < 0;
	connection_move(connection, FLUSHING);
}

/* gw_http_cut closes a connection at once, in the middle of an answer. */
void
gw_http_cut(GwHttpConnection *connection)
{
	connection_end(connection, GW_HTTP_CUT);
}

/* gw_http_stop takes no connection and no request any more. */
void
gw_http_stop(void)
{
	GwHttpConnection *connection;
	GwHttpConnection *next;

	if (listener < 0)
		return;
	(void) close(listener);
	listener = -1;
	listening = false;
	for (connection = LIST_FIRST(&all); connection != NULL; connection = next)
	{
		next = LIST_NEXT(connection, entry);
		if (connection->state == READING && connection->length == 0)
			connection_end(connection, GW_HTTP_CLOSED);
	}
}

/* gw_http_sweep, some times a second, looks at what has a time limit. */
void
gw_http_sweep(void)
{
	int64_t		now = gw_now_ms();
	GwHttpConnection *connection;
	GwHttpConnection *next;

	for (connection = LIST_FIRST(&all); connection != NULL; connection = next)
	{
		next = LIST_NEXT(connection, entry);
		connection_sweep(connection, now);
	}
	free_ended();
	listener_watch(true);
}

/* poller_ready handles the sockets that something can be done with. */
static void
poller_ready(void *owner)
{
	struct epoll_event ready[EVENTS_MAX];
	int			count = epoll_wait(poller, ready, EVENTS_MAX, 0);
	int			i;

	(void) owner;
	for (i = 0; i < count; i++)
		if (ready[i].data.ptr == NULL)
			listener_ready();
		else
			connection_ready(ready[i].data.ptr, ready[i].events);
	free_ended();
}

/* listener_ready takes those who wait, as many as there is room for. */
static void
listener_ready(void)
{
	int			taken;

	for (taken = 0; taken < ACCEPT_MAX; taken++)
	{
		struct sockaddr_storage from;
		socklen_t	length = sizeof(from);
		int			descriptor;

		if (!listener_waits() || !listener_has_room())
			break;
		descriptor = accept4(listener, (struct sockaddr *) &from, &length,
							 SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (descriptor < 0)
		{
			/* It may fail for as long as there is no memory. */
			if (errno != EAGAIN && errno != ECONNABORTED)
				listener_watch(false);
			break;
		}
		connection_open(descriptor, &from);
	}
}

/* listener_watch has the listener looked at, or not. */
static void
listener_watch(bool on)
{
	struct epoll_event event = {.events = on ? EPOLLIN : 0};

	if (listener < 0 || on == listening)
		return;
	if (epoll_ctl(poller, EPOLL_CTL_MOD, listener, &event) == 0)
		listening = on;
}

/* listener_waits tells whether somebody waits to be taken. */
static bool
listener_waits(void)
{
	struct pollfd waiting = {listener, POLLIN, 0};

	return listener >= 0 && poll(&waiting, 1, 0) == 1;
}

/* idle_rank tells how willingly a connection is given up; 0: it is not. */
static int
idle_rank(const GwHttpConnection *connection)
{
	return connection->state == LINGERING ? 3 :
		connection->state != READING ? 0 : connection->length == 0 ? 2 : 1;
}

/*
 * listener_has_room tells whether one more connection may come; if not, nobody
 * looks at the listener until a connection ends, or the next sweep.
 */
static bool
listener_has_room(void)
{
	GwHttpConnection *connection;
	GwHttpConnection *idle = NULL;
	bool		full = gw_http_connections >=
	2 * (size_t) config->http_downloads;

	if (full)
		LIST_FOREACH(connection, &all, entry)
			if (idle_rank(connection) > 0 &&
				(idle == NULL || idle_rank(connection) > idle_rank(idle) ||
				 (idle_rank(connection) == idle_rank(idle) &&
				  connection->since_ms <= idle->since_ms)))
			idle = connection;
	if (idle != NULL)
		connection_end(idle, GW_HTTP_CLOSED);
	if ((full && idle == NULL) || !gw_descriptor_is_free())
	{
		listener_watch(false);
		return false;
	}
	return true;
}

/* connection_open makes a connection of a socket, or closes it. */
static void
connection_open(int descriptor, const struct sockaddr_storage *from)
{
	GwHttpConnection *connection = calloc(1, sizeof(GwHttpConnection));
	struct epoll_event event = {.events = EPOLLRDHUP | EPOLLIN};
	char		address[GW_ADDRESS_MAX];
	int			on = 1;
	int			unsent = (int) GW_HTTP_DRAINED;

	(void) setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void) setsockopt(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent,
					  sizeof(unsent));
	gw_address_text(from, address);
	event.data.ptr = connection;
	if (connection != NULL)
		connection->owner = events->open(connection, address);
	if (connection == NULL || connection->owner == NULL ||
		epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &event) != 0)
	{
		if (connection != NULL && connection->owner != NULL)
			events->gone(connection->owner, GW_HTTP_CUT);
		free(connection);
		(void) close(descriptor);
		return;
	}
	STAILQ_INIT(&connection->out);
	connection->descriptor = descriptor;
	connection->watched = event.events;
	connection->since_ms = gw_now_ms();
	LIST_INSERT_HEAD(&all, connection, entry);
	gw_http_connections++;
}

/* connection_ready handles what can be done with a socket. */
static void
connection_ready(GwHttpConnection *connection, uint32_t what)
{
	if (connection->state == ENDED)
		return;
	if ((what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
	{
		connection_end(connection, connection->state == LINGERING ?
					   GW_HTTP_CLOSED : GW_HTTP_GONE);
		return;
	}
	if ((what & EPOLLOUT) != 0)
		connection_write(connection);
	if (connection->state != ENDED && (what & EPOLLIN) != 0)
		connection_read(connection);
	if (connection->state != ENDED)
		connection_watch(connection);
}

/* connection_read takes what has come, as far as there is room. */
static void
connection_read(GwHttpConnection *connection)
{
	size_t		room = sizeof(connection->in) - connection->length;
	ssize_t		got = 0;

	if (connection->state == LINGERING)
	{
		unsigned char dropped[GW_HEAD_MAX];

		(void) recv(connection->descriptor, dropped, sizeof(dropped), 0);
		return;
	}
	if (room > 0)
		got = recv(connection->descriptor, connection->in + connection->length,
				   room, 0);
	if (got < 0 && errno != EAGAIN && errno != EINTR)
		connection_end(connection, GW_HTTP_GONE);
	if (got <= 0)
		return;
	if (connection->length == 0 && connection->state == READING)
		connection->since_ms = gw_now_ms();
	connection->length += (size_t) got;
	connection_advance(connection);
}

/* connection_advance hands the door the next head, if it is there. */
static void
connection_advance(GwHttpConnection *connection)
{
	if (connection->state == READING && connection->length > 0 &&
		gw_head_read(&connection->head, connection->in, connection->length))
		connection_take_head(connection);
}

/*
 * connection_take_head hands the door a head, and moves what came behind it to
 * the front. What it was made of may hold secrets.
 */
static void
connection_take_head(GwHttpConnection *connection)
{
	size_t		length = connection->head.length;

	connection_move(connection, ANSWERING);
	events->request(connection->owner, &connection->head);
	if (connection->state == ENDED)
		return;
	if (connection->head.fault != 0)
		length = connection->length;
	connection->length -= length;
	memmove(connection->in, connection->in + length, connection->length);
	explicit_bzero(connection->in + connection->length, length);
	gw_head_begin(&connection->head);
	connection_watch(connection);
}

/* connection_write gives the kernel what it takes, a few times. */
static void
connection_write(GwHttpConnection *connection)
{
	int			writes;

	if (connection->failed)
	{
		connection_end(connection, GW_HTTP_CUT);
		return;
	}
	for (writes = 0; writes < WRITES_MAX && connection->unwritten > 0; writes++)
		if (!connection_write_one(connection))
			return;
	if (connection->unwritten == 0)
		connection_flushed(connection);
}

/*
 * connection_write_one writes of the oldest bytes what the kernel takes; false
 * if it takes none, or the connection has ended.
 */
static bool
connection_write_one(GwHttpConnection *connection)
{
	Chunk	   *chunk = STAILQ_FIRST(&connection->out);
	size_t		length = chunk->length - chunk->sent;
	ssize_t		taken;

	if (length > GW_HTTP_DRAINED)
		length = GW_HTTP_DRAINED;
	taken = send(connection->descriptor, chunk->bytes + chunk->sent, length,
				 MSG_NOSIGNAL);
	if (taken < 0 && errno != EAGAIN && errno != EINTR)
		connection_end(connection, GW_HTTP_GONE);
	if (taken <= 0)
		return false;
	chunk->sent += (size_t) taken;
	connection->unwritten -= (size_t) taken;
	connection->taken_ms = gw_now_ms();
	connection->window_bytes += (size_t) taken;
	if (chunk->sent == chunk->length)
	{
		STAILQ_REMOVE_HEAD(&connection->out, entry);
		free(chunk);
	}
	events->written(connection->owner, (size_t) taken);
	return connection->state != ENDED;
}

/* connection_flushed goes on when all is written. */
static void
connection_flushed(GwHttpConnection *connection)
{
	connection->window_ms = 0;
	if (connection->state != FLUSHING)
		return;
	if (connection->closes || listener < 0)
	{
		(void) shutdown(connection->descriptor, SHUT_WR);
		connection_move(connection, LINGERING);
		return;
	}
	connection_move(connection, READING);
	connection_advance(connection);
}

/* connection_watch has epoll look for what can be done, and no more. */
static void
connection_watch(GwHttpConnection *connection)
{
	struct epoll_event event = {.events = EPOLLRDHUP};

	if (connection->state == LINGERING ||
		connection->length < sizeof(connection->in))
		event.events |= EPOLLIN;
	if (connection->unwritten > 0 || connection->state == FLUSHING)
		event.events |= EPOLLOUT;
	event.data.ptr = connection;
	if (event.events == connection->watched)
		return;
	if (epoll_ctl(poller, EPOLL_CTL_MOD, connection->descriptor, &event) != 0)
		connection->failed = true;
	connection->watched = event.events;
}

/* connection_move is the only function that changes a state before its end. */
static void
connection_move(GwHttpConnection *connection, State state)
{
	connection->state = state;
	connection->since_ms = gw_now_ms();
	connection_watch(connection);
}

/* connection_sweep ends what has taken too long. */
static void
connection_sweep(GwHttpConnection *connection, int64_t now)
{
	int64_t		limit = config->http_timeout * 1000;

	if (connection->failed)
		connection_end(connection, GW_HTTP_CUT);
	else if (connection->state == READING && now - connection->since_ms > limit)
	{
		if (connection->length == 0)
		{
			connection_end(connection, GW_HTTP_CLOSED);
			return;
		}
		connection->head.fault = 408;
		connection->head.why = "the head took too long";
		connection->head.closes = true;
		connection_take_head(connection);
	}
	else if (connection->state == LINGERING &&
			 now - connection->since_ms > LINGER_MS)
		connection_end(connection, GW_HTTP_CLOSED);
	else if (connection->unwritten > 0 &&
			 connection_is_slow(connection, now))
		connection_end(connection, GW_HTTP_SLOW);
}

/* connection_is_slow tells that a client takes too little of what there is. */
static bool
connection_is_slow(GwHttpConnection *connection, int64_t now)
{
	if (connection->window_ms == 0)
	{
		connection->window_ms = connection->taken_ms = now;
		connection->window_bytes = 0;
	}
	if (now - connection->taken_ms > config->send_timeout * 1000)
		return true;
	if (now - connection->window_ms < WINDOW_MS)
		return false;
	if (connection->window_bytes < WINDOW_LEAST)
		return true;
	connection->window_ms = now;
	connection->window_bytes = 0;
	return false;
}

/* connection_end closes a socket; the rest is freed a little later. */
static void
connection_end(GwHttpConnection *connection, GwHttpEnd end)
{
	Chunk	   *chunk;

	if (connection->state == ENDED)
		return;
	connection->state = ENDED;
	LIST_REMOVE(connection, entry);
	LIST_INSERT_HEAD(&ended, connection, entry);
	gw_http_connections--;
	(void) close(connection->descriptor);
	while ((chunk = STAILQ_FIRST(&connection->out)) != NULL)
	{
		STAILQ_REMOVE_HEAD(&connection->out, entry);
		free(chunk);
	}
	connection->unwritten = 0;
	explicit_bzero(connection->in, connection->length);
	events->gone(connection->owner, end);
	listener_watch(true);
}

/* free_ended frees the connections that ended. */
static void
free_ended(void)
{
	GwHttpConnection *connection;

	while ((connection = LIST_FIRST(&ended)) != NULL)
	{
		LIST_REMOVE(connection, entry);
		free(connection);
	}
}
