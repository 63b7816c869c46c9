/*-------------------------------------------------------------------------
 *
 * storm.c
 *	  Sockets that send a gateway one message over and over.
 *
 * Usage:	bench_storm -p PORT [-t TOKEN] [-c CONNECTIONS] [-f IN_FLIGHT] [-u]
 *				FILE
 *
 * FILE holds the message. Each connection has IN_FLIGHT of them out, and sends
 * one more for each that is answered, by whatever. With -u a connection sends
 * the message without its end, and then an empty fragment each 10 ms. Who is
 * closed connects again after 10 ms. It goes on until it is ended.
 *
 * Each connection is a process of its own, which ends where the connection
 * does.
 *
 *-------------------------------------------------------------------------
 */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "websocket.h"

#define FINAL 0x80				/* in a frame's first byte */
#define PAUSE 10000000			/* ns */

static const char *token = NULL;
static int	port = 0;
static int	connections = 1;
static int	in_flight = 1;
static bool unfinished = false;
static char *frame;
static size_t frame_size;

static void
frame_read(const char *path)
{
	FILE	   *file = fopen(path, "r");
	char	   *text;
	size_t		size;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0)
		die(path, "could not be read");
	size = (size_t) ftell(file);
	rewind(file);
	text = allocate(size + 1);

	if (fread(text, 1, size, file) != size)
		die(path, "could not be read");
	(void) fclose(file);
	frame = allocate(size + 14);
	frame_size = websocket_frame(frame, TEXT_FRAME, text, size);
	if (unfinished)
		frame[0] = (char) (frame[0] & ~FINAL);
	free(text);
}

/* hold keeps a message unfinished. */
static void
hold(WebSocket *ws)
{
	char		empty[14];
	size_t		size = websocket_frame(empty, 0, "", 0);

	empty[0] = (char) (empty[0] & ~FINAL);
	websocket_queue(ws, frame, frame_size);
	for (;;)
	{
		if (websocket_flush(ws))
			websocket_queue(ws, empty, size);
		sleep_ns(PAUSE);
	}
}

static void
storm(void)
{
	struct pollfd polled = {0};
	WebSocket	ws;
	int			left = in_flight;

	websocket_open(&ws, port, token);
	if (unfinished)
		hold(&ws);
	polled.fd = ws.socket;
	for (;;)
	{
		bool		done;

		/* one at a time: a message may be large */
		done = websocket_flush(&ws);
		if (done && left > 0)
		{
			websocket_queue(&ws, frame, frame_size);
			left--;
			continue;
		}
		polled.events = done ? POLLIN : POLLIN | POLLOUT;
		(void) poll(&polled, 1, -1);
		if (polled.revents & ~POLLOUT)
			websocket_receive(&ws);
		left += websocket_skip(&ws);
	}
}

static void
child_start(void)
{
	pid_t		pid = fork();

	if (pid < 0)
		die("fork", "failed");
	if (pid > 0)
		return;
	(void) prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* what ends a connection is no news */
	(void) freopen("/dev/null", "w", stderr);
	storm();
}

int
main(int argc, char **argv)
{
	int			option;
	int			i;

	while ((option = getopt(argc, argv, "p:t:c:f:u")) != -1)
	{
		if (option == 'p')
			port = atoi(optarg);
		else if (option == 't')
			token = optarg;
		else if (option == 'c')
			connections = atoi(optarg);
		else if (option == 'f')
			in_flight = atoi(optarg);
		else if (option == 'u')
			unfinished = true;
		else
			return 2;
	}
	if (optind != argc - 1)
		return 2;
	frame_read(argv[optind]);
	for (i = 0; i < connections; i++)
		child_start();
	while (wait(NULL) > 0)
	{
		sleep_ns(PAUSE);
		child_start();
	}
	return 0;
}
