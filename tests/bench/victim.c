/*-------------------------------------------------------------------------
 *
 * victim.c
 *	  A client that behaves, beside which others attack the gateway.
 *
 * Usage:	bench_victim -p PORT [-t TOKEN] [-s SECONDS]
 *
 * Two connections: one publishes messages of PAYLOAD bytes to the channel
 * "bench", the other claims one at a time, with the ack of the last one. Each
 * sends the next PAUSE after the answer, which is what a client does that has
 * something else to do, too.
 *
 * It prints names and values, for publish and claim: the number and the rate of
 * answers, p50, p99 and longest time to one in microseconds; and how many of
 * both were errors. An answer that takes longer than PATIENCE ends the program
 * as failed. The first WARM_UP seconds do not count.
 *
 *-------------------------------------------------------------------------
 */
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "websocket.h"

#define PAYLOAD 210				/* bytes of a message */
#define FRAME_MAX 1024
#define WARM_UP 0.5				/* seconds */
#define PAUSE 2000000			/* ns */
#define PATIENCE 30000000000	/* ns */

typedef struct Caller
{
	const char *name;
	WebSocket	ws;
	bool		waits;			/* for an answer */
	int64_t		moment;			/* sent, or to be sent */
	int64_t		lease;			/* to ack; 0: none */
	int64_t    *latencies;
	size_t		nlatencies;
	size_t		room;
} Caller;

static int64_t counted_from;
static size_t errors = 0;

static void
send_next(Caller *caller, int64_t now)
{
	char text[	FRAME_MAX];
	char		frame[FRAME_MAX + 14];
	int			size;

	if (caller->name[0] == 'p')
		size = snprintf(text, sizeof(text),
						"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"publish\","
						"\"params\":{\"channel\":\"bench\",\"payload\":\"%0*d\"}}",
						PAYLOAD - 2, 1);
	else
		size = snprintf(text, sizeof(text),
						"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"claim\","
						"\"params\":{\"channel\":\"bench\"%s%.0lld}}",
						caller->lease != 0 ? ",\"ack\":" : "",
						(long long) caller->lease);
	websocket_queue(&caller->ws, frame,
					websocket_frame(frame, TEXT_FRAME, text, (size_t) size));
	(void) websocket_flush(&caller->ws);
	caller->moment = now;
	caller->waits = true;
}

static void
note(Caller *caller, int64_t now)
{
	if (now < counted_from)
		return;
	if (caller->nlatencies == caller->room)
	{
		caller->room = caller->room ? 2 * caller->room : 65536;
		caller->latencies = enlarge(caller->latencies,
									caller->room * sizeof(int64_t));
	}
	caller->latencies[caller->nlatencies++] = now - caller->moment;
}

static void
take(Caller *caller)
{
	const char *payload;
	size_t		size;
	int64_t		now;

	websocket_receive(&caller->ws);
	now = now_ns();
	while (websocket_next(&caller->ws, &payload, &size))
	{
		const char *lease = memmem(payload, size, "\"lease\":", 8);

		if (memmem(payload, size, "\"result\":", 9) == NULL)
		{
			errors++;
			fprintf(stderr, "%s: %.*s\n", caller->name, (int) size, payload);
		}
		note(caller, now);
		caller->lease = lease ? strtoll(lease + 8, NULL, 10) : 0;
		caller->waits = false;
		caller->moment = now + PAUSE;
	}
}

static void
report(Caller *caller, double length)
{
	size_t		n = caller->nlatencies;

	if (n == 0)
		die(caller->name, "no answer");
	sort_numbers(caller->latencies, n);
	printf("%s %zu %s_rate %.1f %s_p50_us %.1f %s_p99_us %.1f %s_max_us %.1f ",
		   caller->name, n, caller->name, (double) n / length,
		   caller->name, percentile_us(caller->latencies, n, 0.5),
		   caller->name, percentile_us(caller->latencies, n, 0.99),
		   caller->name, percentile_us(caller->latencies, n, 1));
}

int
main(int argc, char **argv)
{
	Caller		callers[2] = {{.name = "publish"}, {.name = "claim"}};
	struct pollfd polled[2];
	const char *token = NULL;
	double		seconds = 10;
	int			port = 0;
	int64_t		now;
	int			option;
	int			i;

	while ((option = getopt(argc, argv, "p:t:s:")) != -1)
	{
		if (option == 'p')
			port = atoi(optarg);
		else if (option == 't')
			token = optarg;
		else if (option == 's')
			seconds = atof(optarg);
		else
			return 2;
	}
	for (i = 0; i < 2; i++)
	{
		websocket_open(&callers[i].ws, port, token);
		polled[i].fd = callers[i].ws.socket;
		polled[i].events = POLLIN;
	}
	counted_from = now_ns() + (int64_t) (WARM_UP * 1e9);
	while ((now = now_ns()) < counted_from + (int64_t) (seconds * 1e9))
	{
		for (i = 0; i < 2; i++)
		{
			if (callers[i].waits && now - callers[i].moment > PATIENCE)
				die(callers[i].name, "no answer in time");
			if (!callers[i].waits && now >= callers[i].moment)
				send_next(&callers[i], now);
		}
		(void) poll(polled, 2, 1);
		for (i = 0; i < 2; i++)
			if (polled[i].revents != 0)
				take(&callers[i]);
	}
	for (i = 0; i < 2; i++)
	{
		/* what is still waited for has taken so long at least */
		if (callers[i].waits)
			note(&callers[i], now);
		report(&callers[i], (double) (now - counted_from) / 1e9);
	}
	printf("errors %zu\n", errors);
	return 0;
}
