/*-------------------------------------------------------------------------
 *
 * carry.c
 *	  Moves large bodies up and down through the gateway, or into a table.
 *
 * Usage:	bench_carry [-p PORT] [-c CONNECTIONS] [-f IN_FLIGHT] [-z PIECE]
 *					[-r RATE] [-o] [-e] WHAT:ID:BYTES[:slow] ...
 *
 * Each argument is a body, carried in pieces of PIECE bytes (1 MiB) by
 * CONNECTIONS (1) of its own with IN_FLIGHT (2) pieces each:
 *
 * up		by upload_append to the upload ID
 * down		by get_bytes of the message ID
 * base		by libpq, a binary parameter and a transaction for each piece, into
 *			the table bench_bare; connections, in flight and ID do not matter
 * read		by libpq, get_bytes of the message ID in binary, a transaction for each
 *			piece; connections and in flight do not matter
 *
 * With -o pieces go in order, one at a time, each on the next connection. What is slow moves RATE bytes a second (262144) on each
 * connection, as TCP lets it. It ends when all that is not slow is done, or
 * with -e when its input ends, and prints "seconds" and "bytes", of all bodies.
 *
 * The mask of frames is zero, so that what costs time is the gateway.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "websocket.h"

#define MAX_BODIES 256
#define MAX_CARRIERS 1024
#define SLICE_NS INT64_C(20000000)

typedef enum What
{
	UP, DOWN, BASE, READ
}			What;

typedef struct Body
{
	What		what;
	int64_t		id;
	int64_t		size;
	int64_t		at;				/* the next piece */
	int64_t		done;			/* bytes that were answered */
	bool		slow;
}			Body;

/* A connection, which carries pieces of one body. */
typedef struct Carrier
{
	WebSocket	ws;
	Body	   *body;
	int			in_flight;
	int64_t		asked[16];		/* sizes of pieces in flight, oldest first */
	double		allowed;		/* bytes that one that is slow may move */
}			Carrier;

static int	port = 0;
static int	each = 1;
static int	most = 2;
static bool in_order = false;
static bool until_end = false;
static int64_t piece = 1024 * 1024;
static double rate = 262144;
static char *bytes;				/* of a piece */
static Body bodies[MAX_BODIES];
static int	body_count;
static Carrier carriers[MAX_CARRIERS];
static int	carrier_count;
static int	turn;				/* of carriers, in order */

/* body_read reads an argument. */
static void
body_read(const char *text)
{
	Body	   *body = &bodies[body_count];
	char		what[8];
	char		slow[8] = "";
	long long	id;
	long long	size;

	if (body_count == MAX_BODIES ||
		sscanf(text, "%7[a-z]:%lld:%lld:%7s", what, &id, &size, slow) < 3)
		die("no body", text);
	body->what = strcmp(what, "up") == 0 ? UP :
		strcmp(what, "down") == 0 ? DOWN :
		strcmp(what, "read") == 0 ? READ : BASE;
	body->id = id;
	body->size = size;
	body->slow = slow[0] != '\0';
	body_count++;
}

/* carry_base inserts a body's pieces. */
static void
carry_base(Body * body)
{
	PGconn	   *pg = connect_server();
	const Oid	type = BYTEAOID;
	const int	format = 1;

	pg_check(pg, PQprepare(pg, "piece", "INSERT INTO bench_bare VALUES ($1)",
						   1, &type), PGRES_COMMAND_OK);
	while (body->at < body->size)
	{
		int			size = (int) (body->size - body->at < piece ?
								  body->size - body->at : piece);
		const char *const value = bytes;

		pg_check(pg, PQexecPrepared(pg, "piece", 1, &value, &size, &format, 0),
				 PGRES_COMMAND_OK);
		body->at += size;
	}
	body->done = body->at;
	PQfinish(pg);
}

/* carry_read reads a body's pieces. */
static void
carry_read(Body * body)
{
	PGconn	   *pg = connect_server();
	const Oid	types[3] = {INT8OID, INT8OID, INT8OID};
	const int	sizes[3] = {8, 8, 8};
	const int	formats[3] = {1, 1, 1};

	pg_check(pg, PQprepare(pg, "piece", "SELECT message_bus.get_bytes($1, $2,"
						   " $3)", 3, types), PGRES_COMMAND_OK);
	while (body->at < body->size)
	{
		char		numbers[24];
		const char *const values[3] = {numbers, numbers + 8, numbers + 16};
		PGresult   *result;

		put_int64(put_int64(put_int64(numbers, (uint64_t) body->id),
							(uint64_t) body->at), (uint64_t) piece);
		result = PQexecPrepared(pg, "piece", 3, values, sizes, formats, 1);
		if (PQresultStatus(result) != PGRES_TUPLES_OK ||
			PQgetlength(result, 0, 0) == 0)
			die("get_bytes", PQerrorMessage(pg));
		body->at += PQgetlength(result, 0, 0);
		PQclear(result);
	}
	body->done = body->at;
	PQfinish(pg);
}

/* carrier_ask sends the next piece, or asks for it. */
static void
carrier_ask(Carrier * carrier)
{
	Body	   *body = carrier->body;
	int64_t		size = body->size - body->at < piece ?
	body->size - body->at : piece;
	int64_t		more = body->what == UP ? size : 0;
	char		head[14] = {0};
	char		line[256];
	int			length;

	length = snprintf(line, sizeof(line),
					  body->what == UP ?
					  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"upload_append\","
					  "\"params\":{\"upload\":%lld,\"from_byte\":%lld}}\n" :
					  "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"get_bytes\","
					  "\"params\":{\"id\":%lld,\"from_byte\":%lld,"
					  "\"max_bytes\":%lld}}\n",
					  (long long) body->id, (long long) body->at,
					  (long long) size);
	head[0] = (char) (0x80 | BINARY_FRAME);
	head[1] = (char) (0x80 | 127);
	put_int64(head + 2, length + more);
	websocket_queue(&carrier->ws, head, sizeof(head));
	websocket_queue(&carrier->ws, line, (size_t) length);
	websocket_queue(&carrier->ws, bytes, (size_t) more);
	carrier->asked[carrier->in_flight++] = size;
	body->at += size;
}

/* carrier_answered notes an answer to the oldest piece. */
static void
carrier_answered(Carrier * carrier)
{
	carrier->body->done += carrier->asked[0];
	carrier->in_flight--;
	memmove(carrier->asked, carrier->asked + 1,
			(size_t) carrier->in_flight * sizeof(carrier->asked[0]));
}

/* carrier_take takes what has come. */
static void
carrier_take(Carrier * carrier)
{
	size_t		before = carrier->ws.in.end - carrier->ws.in.start;
	const char *payload;
	size_t		size;
	int			n;

	websocket_receive(&carrier->ws);
	carrier->allowed -=
		(double) (carrier->ws.in.end - carrier->ws.in.start - before);
	if (carrier->body->what == DOWN)
	{
		for (n = websocket_skip(&carrier->ws); n > 0; n--)
			carrier_answered(carrier);
		return;
	}
	while (websocket_next(&carrier->ws, &payload, &size))
	{
		if (memmem(payload, size, "\"result\"", 8) == NULL)
			die("an append failed", strndup(payload, size));
		carrier_answered(carrier);
	}
}

/* carrier_send sends what TCP takes, of one that is slow as much as it may. */
static void
carrier_send(Carrier * carrier)
{
	Bytes	   *out = &carrier->ws.out;
	size_t		size = out->end - out->start;
	ssize_t		sent;

	if (!carrier->body->slow)
	{
		(void) websocket_flush(&carrier->ws);
		return;
	}
	if (size > (size_t) carrier->allowed)
		size = (size_t) carrier->allowed;
	sent = send(carrier->ws.socket, out->data + out->start, size, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		die("could not send", strerror(errno));
	if (sent > 0)
	{
		out->start += (size_t) sent;
		carrier->allowed -= (double) sent;
	}
}

/* carriers_ask has each ask for as many pieces as it may. */
static void
carriers_ask(void)
{
	int			i;

	for (i = 0; i < carrier_count && !in_order; i++)
		while (carriers[i].in_flight < most &&
			   carriers[i].body->at < carriers[i].body->size)
			carrier_ask(&carriers[i]);
	if (!in_order || carriers[turn].in_flight > 0 ||
		carriers[turn].body->at == carriers[turn].body->size)
		return;
	turn = (turn + 1) % carrier_count;
	carrier_ask(&carriers[turn]);
}

/* carriers_turn waits, and moves what can be moved; false if input ends. */
static bool
carriers_turn(double passed)
{
	struct pollfd polls[MAX_CARRIERS + 1];
	int			i;

	polls[carrier_count].fd = until_end ? 0 : -1;
	polls[carrier_count].revents = 0;
	polls[carrier_count].events = POLLIN;
	for (i = 0; i < carrier_count; i++)
	{
		Carrier    *carrier = &carriers[i];
		bool		may;

		carrier->allowed += passed * rate;
		if (carrier->allowed > rate)
			carrier->allowed = rate;
		may = !carrier->body->slow || carrier->allowed >= 1;
		polls[i].fd = carrier->ws.socket;
		polls[i].events = !may ? 0 : POLLIN |
			(carrier->ws.out.start < carrier->ws.out.end ? POLLOUT : 0);
	}
	if (poll(polls, (nfds_t) carrier_count + 1, (int) (SLICE_NS / 1000000)) < 0)
		die("poll", strerror(errno));
	for (i = 0; i < carrier_count; i++)
	{
		if (polls[i].revents & POLLOUT)
			carrier_send(&carriers[i]);
		if (polls[i].revents & (POLLIN | POLLHUP | POLLERR))
			carrier_take(&carriers[i]);
	}
	return polls[carrier_count].revents == 0;
}

/* bodies_done tells whether all is done that is not slow. */
static bool
bodies_done(void)
{
	int			i;

	for (i = 0; i < body_count; i++)
		if (!bodies[i].slow && bodies[i].done < bodies[i].size)
			return false;
	return true;
}

/* options_read reads the command line. */
static void
options_read(int argc, char **argv)
{
	int			option;

	while ((option = getopt(argc, argv, "p:c:f:z:r:oe")) != -1)
	{
		if (option == 'p')
			port = atoi(optarg);
		else if (option == 'c')
			each = atoi(optarg);
		else if (option == 'f')
			most = atoi(optarg);
		else if (option == 'z')
			piece = atoll(optarg);
		else if (option == 'r')
			rate = atof(optarg);
		else if (option == 'o')
			in_order = true;
		else if (option == 'e')
			until_end = true;
		else
			exit(2);
	}
	for (; optind < argc; optind++)
		body_read(argv[optind]);
	if (body_count == 0 || most < 1 || most > 16 || piece < 1)
		die("usage", "see carry.c");
}

int
main(int argc, char **argv)
{
	int64_t		begin;
	int64_t		last;
	int64_t		total = 0;
	int			i;
	int			j;

	options_read(argc, argv);
	bytes = allocate((size_t) piece);
	for (i = 0; i < piece; i++)
		bytes[i] = (char) (random() >> 8);
	for (i = 0; i < body_count; i++)
		for (j = 0; bodies[i].what < BASE && j < each; j++)
		{
			if (carrier_count == MAX_CARRIERS)
				die("too many", "connections");
			websocket_open(&carriers[carrier_count].ws, port, NULL);
			carriers[carrier_count++].body = &bodies[i];
		}
	begin = last = now_ns();
	for (i = 0; i < body_count; i++)
		if (bodies[i].what == BASE)
			carry_base(&bodies[i]);
		else if (bodies[i].what == READ)
			carry_read(&bodies[i]);
	while (!bodies_done())
	{
		int64_t		now = now_ns();

		carriers_ask();
		if (!carriers_turn((double) (now - last) / 1e9))
			break;
		last = now;
	}
	for (i = 0; i < body_count; i++)
		total += bodies[i].done;
	printf("seconds %.4f bytes %lld\n", (double) (now_ns() - begin) / 1e9,
		   (long long) total);
	return 0;
}
