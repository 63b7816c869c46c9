/*-------------------------------------------------------------------------
 *
 * echo.c
 *	  A bare libwebsockets server that sends back what it gets: as fast as
 *	  a gateway on this library could be if it did nothing.
 *
 * Usage:	bench_echo
 *
 * It listens on any free port of the loopback address, prints it, and ends
 * upon SIGTERM.  As the gateway, it reads 16 KiB at a time, and writes a frame
 * for each writeable callback.
 *
 *-------------------------------------------------------------------------
 */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 65536
#define MESSAGES 64				/* unsent ones of a connection */
#define MESSAGE_MAX 1024

typedef struct Echo
{
	int			first;
	int			count;
	size_t		sizes[MESSAGES];
	unsigned char messages[MESSAGES][LWS_PRE + MESSAGE_MAX];
} Echo;

/*
 * echo_keep takes bytes of a message, and asks to write when it is whole.
 */
static int
echo_keep(struct lws *wsi, Echo *echo, const void *data, size_t size)
{
	int			slot = (echo->first + echo->count) % MESSAGES;

	if (echo->count == MESSAGES || echo->sizes[slot] + size > MESSAGE_MAX)
		return -1;
	memcpy(echo->messages[slot] + LWS_PRE + echo->sizes[slot], data, size);
	echo->sizes[slot] += size;
	if (lws_remaining_packet_payload(wsi) > 0 || !lws_is_final_fragment(wsi))
		return 0;
	echo->count++;
	lws_callback_on_writable(wsi);
	return 0;
}

static int
echo_write(struct lws *wsi, Echo *echo)
{
	int			slot = echo->first;

	if (echo->count == 0)
		return 0;
	if (lws_write(wsi, echo->messages[slot] + LWS_PRE, echo->sizes[slot],
				  LWS_WRITE_TEXT) < 0)
		return -1;
	echo->sizes[slot] = 0;
	echo->first = (echo->first + 1) % MESSAGES;
	if (--echo->count > 0)
		lws_callback_on_writable(wsi);
	return 0;
}

static int
callback(struct lws *wsi, enum lws_callback_reasons reason, void *user,
		 void *in, size_t len)
{
	switch (reason)
	{
		case LWS_CALLBACK_RECEIVE:
			return echo_keep(wsi, user, in, len);
		case LWS_CALLBACK_SERVER_WRITEABLE:
			return echo_write(wsi, user);
		default:
			break;
	}
	return 0;
}

int
main(void)
{
	static const struct lws_protocols protocols[] = {
		{"echo", callback, sizeof(Echo), ROOM, 0, NULL, 0},
		{NULL, NULL, 0, 0, 0, NULL, 0}
	};
	struct lws_context_creation_info info;
	struct lws_context *context;
	struct lws_vhost *vhost;

	lws_set_log_level(LLL_ERR, NULL);
	memset(&info, 0, sizeof(info));
	info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
		LWS_SERVER_OPTION_DISABLE_IPV6;
	info.pt_serv_buf_size = 16384;
	context = lws_create_context(&info);
	info.iface = "127.0.0.1";
	info.protocols = protocols;
	info.vhost_name = "echo";
	vhost = context ? lws_create_vhost(context, &info) : NULL;
	if (vhost == NULL)
	{
		fprintf(stderr, "bench_echo: could not listen\n");
		return 1;
	}
	printf("%d\n", lws_get_vhost_listen_port(vhost));
	fflush(stdout);
	while (lws_service(context, 0) >= 0)
		continue;
	return 0;
}
