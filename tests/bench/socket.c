/*-------------------------------------------------------------------------
 *
 * socket.c
 *	  Publish messages over WebSockets, to the gateway or to NATS JetStream.
 *
 * Usage:	bench_socket -p PORT [-c CONNECTIONS] [-f IN_FLIGHT] [-s SECONDS]
 *				MODE
 *
 * MODE says what is sent and what is an acknowledgement of it:
 *
 *	bus		publish() in JSON-RPC to the channel "bench"; its result
 *	channels	the same, each connection to a channel of its own, bench_1,
 *			bench_2 ...
 *	nats	PUB with a reply subject; JetStream's answer, with a sequence
 *	echo	as bus, to a server that sends back what it gets
 *	idle	nothing: it opens CONNECTIONS, prints a line, and ends with its
 *			standard input
 *
 * One thread.  Each connection has IN_FLIGHT messages out, and sends the next
 * when one is acknowledged.  Messages are JSON texts of PAYLOAD bytes, made
 * up and masked before the clock starts, and the same for all modes; what
 * comes in is looked at only so far as to know that it is no error.
 *
 * It prints names and values: messages, seconds, rate (messages a second),
 * and the p50, p99 and longest time to an acknowledgement in microseconds.
 * The first WARM_UP seconds do not count.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client.h"
#include "websocket.h"

#define PAYLOAD 210				/* bytes of a message */
#define POOL 64					/* different messages of a connection */
#define FRAME_MAX 1024
#define WARM_UP 0.5				/* seconds */
#define EVENTS 256

#define STREAM "{\"name\":\"BENCH\",\"subjects\":[\"bench\"]," \
	"\"retention\":\"limits\",\"storage\":\"file\",\"num_replicas\":1," \
	"\"max_consumers\":-1,\"max_msgs\":-1,\"max_bytes\":-1,\"discard\":\"old\"," \
	"\"max_age\":86400000000000}"

typedef struct Connection
{
	WebSocket	ws;
	Bytes		lines;			/* NATS' protocol, of whatever frames */
	int64_t    *sent;			/* when, of those in flight: a ring */
	uint64_t	first;			/* of the ring */
	uint64_t	next;
	bool		watches_write;
	char		frames[POOL][FRAME_MAX];
	size_t		frame_sizes[POOL];
} Connection;

typedef struct Mode
{
	const char *name;
	int			opcode;
	int			(*make) (char *to, const char *payload, int connection,
						 int number);
	void		(*begin) (Connection *connection, int number);
	int			(*take) (Connection *connection);	/* returns how many */
} Mode;

static int	bus_make(char *to, const char *payload, int connection, int number);
static int	channels_make(char *to, const char *payload, int connection,
						  int number);
static void bus_begin(Connection *connection, int number);
static int	bus_take(Connection *connection);
static int	nats_make(char *to, const char *payload, int connection,
					  int number);
static void nats_begin(Connection *connection, int number);
static int	nats_take(Connection *connection);
static int	echo_take(Connection *connection);

static const Mode modes[] = {
	{"bus", TEXT_FRAME, bus_make, bus_begin, bus_take},
	{"channels", TEXT_FRAME, channels_make, bus_begin, bus_take},
	{"nats", BINARY_FRAME, nats_make, nats_begin, nats_take},
	{"echo", TEXT_FRAME, bus_make, bus_begin, echo_take},
	{"idle", TEXT_FRAME, bus_make, bus_begin, echo_take}
};

static const Mode *mode;
static int	port;
static int	connections = 1;
static int	in_flight = 1;
static double seconds = 10;
static int	poller;
static int64_t counted_from;
static int64_t *latencies;
static size_t nlatencies = 0;
static size_t room = 0;

/* ----------
 * The bus, and the echo
 * ----------
 */

static int
bus_make(char *to, const char *payload, int connection, int number)
{
	(void) connection;
	return snprintf(to, FRAME_MAX,
					"{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"publish\","
					"\"params\":{\"channel\":\"bench\",\"payload\":%s}}",
					number, payload);
}

static int
channels_make(char *to, const char *payload, int connection, int number)
{
	return snprintf(to, FRAME_MAX,
					"{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"publish\","
					"\"params\":{\"channel\":\"bench_%d\",\"payload\":%s}}",
					number, connection + 1, payload);
}

static void
bus_begin(Connection *connection, int number)
{
	(void) connection;
	(void) number;
}

static int
bus_take(Connection *connection)
{
	const char *payload;
	size_t		size;
	int			n = 0;

	for (; websocket_next(&connection->ws, &payload, &size); n++)
	{
		if (memmem(payload, size, "\"result\":", 9) == NULL)
			die("publish", strndup(payload, size));
	}
	return n;
}

static int
echo_take(Connection *connection)
{
	const char *payload;
	size_t		size;
	int			n = 0;

	while (websocket_next(&connection->ws, &payload, &size))
		n++;
	return n;
}

/* ----------
 * NATS
 * ----------
 */

static int
nats_make(char *to, const char *payload, int connection, int number)
{
	return snprintf(to, FRAME_MAX, "PUB bench _INBOX.%d.%d %d\r\n%s\r\n",
					connection, number, PAYLOAD, payload);
}

static void
nats_say(Connection *connection, const char *text)
{
	char		frame[FRAME_MAX];
	size_t		size = websocket_frame(frame, BINARY_FRAME, text,
									   strlen(text));

	websocket_queue(&connection->ws, frame, size);
	(void) websocket_flush(&connection->ws);
}

/*
 * nats_begin subscribes to a connection's answers.  The first connection
 * makes the stream.
 */
static void
nats_begin(Connection *connection, int number)
{
	char		line[FRAME_MAX];

	nats_say(connection, "CONNECT {\"verbose\":false,\"pedantic\":false,"
			 "\"lang\":\"c\",\"version\":\"0\",\"protocol\":1,"
			 "\"headers\":true,\"no_responders\":true}\r\n");
	snprintf(line, sizeof(line), "SUB _INBOX.%d.* 1\r\n", number);
	nats_say(connection, line);
	if (number > 0)
		return;
	snprintf(line, sizeof(line),
			 "PUB $JS.API.STREAM.CREATE.BENCH _INBOX.0.make %zu\r\n%s\r\n",
			 strlen(STREAM), STREAM);
	nats_say(connection, line);
	do
	{
		sleep_ns(1000000);
		websocket_receive(&connection->ws);
	} while (nats_take(connection) == 0);
}

/*
 * nats_message takes the message whose line this is; false if it is not
 * whole.
 */
static bool
nats_message(Bytes *lines, const char *line, const char *end)
{
	const char *number = memrchr(line, ' ', (size_t) (end - line));
	size_t		size = strtoul(number + 1, NULL, 10);
	const char *body = end + 2;

	if (size + 2 > (size_t) (lines->data + lines->end - body))
		return false;
	if (memmem(body, size, "\"seq\":", 6) == NULL &&
		memmem(body, size, "\"did_create\":true", 17) == NULL)
		die("NATS", strndup(body, size));
	lines->start = (size_t) (body + size + 2 - lines->data);
	return true;
}

static int
nats_take(Connection *connection)
{
	Bytes	   *lines = &connection->lines;
	const char *payload;
	size_t		size;
	int			n = 0;

	while (websocket_next(&connection->ws, &payload, &size))
		bytes_append(lines, payload, size);
	while (lines->start < lines->end)
	{
		const char *line = lines->data + lines->start;
		const char *end = memmem(line, lines->end - lines->start, "\r\n", 2);

		if (end == NULL)
			break;
		if (strncmp(line, "MSG ", 4) == 0)
		{
			if (!nats_message(lines, line, end))
				break;
			n++;
			continue;
		}
		if (strncmp(line, "PING", 4) == 0)
			nats_say(connection, "PONG\r\n");
		else if (strncmp(line, "INFO ", 5) != 0)
			die("NATS", strndup(line, (size_t) (end - line)));
		lines->start = (size_t) (end + 2 - lines->data);
	}
	return n;
}

/* ----------
 * The loop
 * ----------
 */

/*
 * payload_make makes up a JSON text.
 */
static void
payload_make(char *payload, int number)
{
	static const char letters[] =
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ";
	int			i = snprintf(payload, PAYLOAD, "{\"number\": %d, \"text\": \"",
							 number);

	while (i < PAYLOAD - 2)
		payload[i++] = letters[random() % (long) (sizeof(letters) - 1)];
	memcpy(payload + i, "\"}", 3);
}

static void
connection_open(Connection *connection, int number)
{
	struct epoll_event event = {EPOLLIN, {.ptr = connection}};
	char		payload[PAYLOAD + 1];
	char		message[FRAME_MAX];
	int			i;

	websocket_open(&connection->ws, port, NULL);
	mode->begin(connection, number);
	connection->sent = allocate((size_t) in_flight * sizeof(int64_t));
	for (i = 0; i < POOL; i++)
	{
		int			size;

		payload_make(payload, number * POOL + i);
		size = mode->make(message, payload, number, i);
		connection->frame_sizes[i] = websocket_frame(connection->frames[i],
													 mode->opcode, message,
													 (size_t) size);
	}
	if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->ws.socket, &event) != 0)
		die("epoll", strerror(errno));
}

/*
 * connection_send sends n messages, or leaves to epoll what TCP does not take.
 */
static void
connection_send(Connection *connection, int n)
{
	struct epoll_event event = {EPOLLIN, {.ptr = connection}};
	int64_t		now = now_ns();
	bool		done;

	while (n-- > 0)
	{
		uint64_t	number = connection->next++;

		websocket_queue(&connection->ws, connection->frames[number % POOL],
						connection->frame_sizes[number % POOL]);
		connection->sent[number % (uint64_t) in_flight] = now;
	}
	done = websocket_flush(&connection->ws);
	if (done != connection->watches_write)
		return;
	connection->watches_write = !done;
	if (!done)
		event.events |= EPOLLOUT;
	if (epoll_ctl(poller, EPOLL_CTL_MOD, connection->ws.socket, &event) != 0)
		die("epoll", strerror(errno));
}

/*
 * connection_note counts n acknowledgements, which come in the order of the
 * messages.
 */
static void
connection_note(Connection *connection, int n, int64_t now)
{
	while (n-- > 0)
	{
		uint64_t	number = connection->first++;

		if (now < counted_from)
			continue;
		if (nlatencies == room)
		{
			room = room ? 2 * room : 65536;
			latencies = enlarge(latencies, room * sizeof(int64_t));
		}
		latencies[nlatencies++] =
			now - connection->sent[number % (uint64_t) in_flight];
	}
}

/*
 * run sends until the time is over, and returns when the last counted
 * acknowledgement came.
 */
static int64_t
run(Connection *all)
{
	struct epoll_event events[EVENTS];
	int64_t		now = now_ns();
	int64_t		end;
	int			i;

	counted_from = now + (int64_t) (WARM_UP * 1e9);
	end = counted_from + (int64_t) (seconds * 1e9);
	for (i = 0; i < connections; i++)
		connection_send(&all[i], in_flight);
	while (now < end)
	{
		int			n = epoll_wait(poller, events, EVENTS, 10000);

		if (n <= 0)
			die("server", "acknowledges nothing");
		for (i = 0; i < n; i++)
		{
			Connection *connection = events[i].data.ptr;
			int			taken;

			websocket_receive(&connection->ws);
			taken = mode->take(connection);
			now = now_ns();
			connection_note(connection, taken, now);
			connection_send(connection, taken);
		}
	}
	return now;
}

static void
report(int64_t end)
{
	double		length = (double) (end - counted_from) / 1e9;

	sort_numbers(latencies, nlatencies);
	printf("messages %zu seconds %.6f rate %.1f p50_us %.1f p99_us %.1f"
		   " max_us %.1f\n",
		   nlatencies, length, (double) nlatencies / length,
		   percentile_us(latencies, nlatencies, 0.5),
		   percentile_us(latencies, nlatencies, 0.99),
		   percentile_us(latencies, nlatencies, 1));
}

/*
 * idle keeps connections open until standard input ends.
 */
static void
idle(void)
{
	WebSocket  *all = allocate((size_t) connections * sizeof(WebSocket));
	struct rlimit limit;
	int			i;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		die("getrlimit", strerror(errno));
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		die("setrlimit", strerror(errno));
	for (i = 0; i < connections; i++)
		websocket_open(&all[i], port, NULL);
	printf("connections %d\n", connections);
	fflush(stdout);
	while (getchar() != EOF)
		continue;
}

static void
usage(void)
{
	die("usage", "bench_socket -p PORT [-c CONNECTIONS] [-f IN_FLIGHT]"
		" [-s SECONDS] MODE");
}

static void
read_options(int argc, char **argv)
{
	int			option;
	size_t		i;

	while ((option = getopt(argc, argv, "c:f:p:s:")) != -1)
	{
		switch (option)
		{
			case 'c':
				connections = (int) strtol(optarg, NULL, 10);
				break;
			case 'f':
				in_flight = (int) strtol(optarg, NULL, 10);
				break;
			case 'p':
				port = (int) strtol(optarg, NULL, 10);
				break;
			case 's':
				seconds = strtod(optarg, NULL);
				break;
			default:
				usage();
		}
	}
	if (optind != argc - 1 || port < 1 || port > 65535 || connections < 1 ||
		in_flight < 1 || in_flight > POOL || seconds <= 0)
		usage();
	for (i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
	{
		if (strcmp(modes[i].name, argv[optind]) == 0)
			mode = &modes[i];
	}
	if (mode == NULL)
		usage();
}

int
main(int argc, char **argv)
{
	Connection *all;
	int			i;

	read_options(argc, argv);
	if (strcmp(mode->name, "idle") == 0)
	{
		idle();
		return 0;
	}
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (poller < 0)
		die("epoll", strerror(errno));
	all = allocate((size_t) connections * sizeof(Connection));
	for (i = 0; i < connections; i++)
		connection_open(&all[i], i);
	report(run(all));
	return 0;
}
