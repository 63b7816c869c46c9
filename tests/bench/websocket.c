/*
 * websocket.c
 *		WebSocket connections of the load client: as little as there can be,
 *		so that what is measured is the server.
 *
 * Frames are made and masked before the clock starts. What comes in is read
 * into one buffer and looked at in place.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "websocket.h"

#define READ_SIZE 65536
#define HANDSHAKE "GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" \
	"Upgrade: websocket\r\nConnection: Upgrade\r\n" \
	"Sec-WebSocket-Version: 13\r\n" \
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s%s\r\n\r\n"

static const char mask[4] = {0x5a, 0x17, 0x6c, 0x33};

static void bytes_reserve(Bytes *bytes, size_t size);
static void wait_for(int descriptor, short events);
static bool frame_next(WebSocket *ws, int *first, const char **payload,
					   size_t *size);

void
bytes_append(Bytes *bytes, const char *data, size_t size)
{
	bytes_reserve(bytes, size);
	memcpy(bytes->data + bytes->end, data, size);
	bytes->end += size;
}

/*
 * bytes_reserve makes room for more at the end.
 */
static void
bytes_reserve(Bytes *bytes, size_t size)
{
	if (bytes->start == bytes->end)
		bytes->start = bytes->end = 0;
	if (bytes->room - bytes->end >= size)
		return;
	if (bytes->start > 0)
	{
		memmove(bytes->data, bytes->data + bytes->start,
				bytes->end - bytes->start);
		bytes->end -= bytes->start;
		bytes->start = 0;
	}
	if (bytes->room - bytes->end < size)
	{
		bytes->room = 2 * (bytes->end + size);
		bytes->data = enlarge(bytes->data, bytes->room);
	}
}

/*
 * websocket_open connects and shakes hands, with a token unless that is NULL,
 * and waits for that.  The socket does not block afterwards.
 */
void
websocket_open(WebSocket *ws, int port, const char *token)
{
	struct sockaddr_in address = {0};
	char		request[1024];
	char	   *end = NULL;
	int			on = 1;

	memset(ws, 0, sizeof(*ws));
	address.sin_family = AF_INET;
	address.sin_port = htons((uint16_t) port);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ws->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (ws->socket < 0 ||
		connect(ws->socket, (struct sockaddr *) &address,
				sizeof(address)) != 0 ||
		setsockopt(ws->socket, IPPROTO_TCP, TCP_NODELAY, &on,
				   sizeof(on)) != 0 ||
		fcntl(ws->socket, F_SETFL, O_NONBLOCK) != 0)
		die("could not connect", strerror(errno));
	snprintf(request, sizeof(request), HANDSHAKE, port,
			 token ? "Authorization: Bearer " : "X-Token: none",
			 token ? token : "");
	websocket_queue(ws, request, strlen(request));
	if (!websocket_flush(ws))
		die("handshake", "not taken");
	while (end == NULL)
	{
		wait_for(ws->socket, POLLIN);
		websocket_receive(ws);
		end = memmem(ws->in.data, ws->in.end, "\r\n\r\n", 4);
	}
	if (strncmp(ws->in.data, "HTTP/1.1 101", 12) != 0)
		die("handshake", "refused");
	ws->in.start = (size_t) (end + 4 - ws->in.data);
}

static void
wait_for(int descriptor, short events)
{
	struct pollfd one = {descriptor, events, 0};

	if (poll(&one, 1, 30000) <= 0)
		die("server", "no answer");
}

/*
 * websocket_frame writes a masked frame, for which there must be 14 bytes
 * more than its payload, and returns its size.
 */
size_t
websocket_frame(char *to, int opcode, const char *data, size_t size)
{
	char	   *at = to;
	size_t		i;

	*at++ = (char) (0x80 | opcode);
	if (size < 126)
		*at++ = (char) (0x80 | size);
	else if (size < 65536)
	{
		*at++ = (char) (0x80 | 126);
		at = put_int16(at, (uint16_t) size);
	}
	else
	{
		*at++ = (char) (0x80 | 127);
		at = put_int64(at, (int64_t) size);
	}
	memcpy(at, mask, 4);
	at += 4;
	for (i = 0; i < size; i++)
		at[i] = data[i] ^ mask[i % 4];
	return (size_t) (at - to) + size;
}

void
websocket_queue(WebSocket *ws, const char *frames, size_t size)
{
	bytes_append(&ws->out, frames, size);
}

/*
 * websocket_flush sends what TCP takes, and tells whether that was all.
 */
bool
websocket_flush(WebSocket *ws)
{
	while (ws->out.start < ws->out.end)
	{
		ssize_t		sent = send(ws->socket, ws->out.data + ws->out.start,
								ws->out.end - ws->out.start, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN)
			return false;
		if (sent < 0)
			die("could not send", strerror(errno));
		ws->out.start += (size_t) sent;
	}
	return true;
}

/*
 * websocket_receive reads once.
 */
void
websocket_receive(WebSocket *ws)
{
	ssize_t		got;

	bytes_reserve(&ws->in, READ_SIZE);
	got = recv(ws->socket, ws->in.data + ws->in.end, READ_SIZE, 0);
	if (got == 0)
		die("server", "has closed the connection");
	if (got < 0 && errno != EAGAIN)
		die("could not receive", strerror(errno));
	if (got > 0)
		ws->in.end += (size_t) got;
}

/*
 * websocket_next takes one message of what was read; false if none is whole.
 * Its payload stays where it is until the next websocket_receive().  Frames
 * that the server cuts a message into are beyond what is measured here.
 */
bool
websocket_next(WebSocket *ws, const char **payload, size_t *size)
{
	int			first;

	if (!frame_next(ws, &first, payload, size))
		return false;
	if (first != (0x80 | TEXT_FRAME) && first != (0x80 | BINARY_FRAME))
		die("server", "has sent a frame that is no whole message");
	return true;
}

/*
 * websocket_skip takes all frames that were read, and returns how many messages
 * ended with them.
 */
int
websocket_skip(WebSocket *ws)
{
	const char *payload;
	size_t		size;
	int			first;
	int			n = 0;

	while (frame_next(ws, &first, &payload, &size))
	{
		if ((first & 0x80) != 0 && (first & 0x08) == 0)
			n++;
	}
	return n;
}

/* frame_next takes one frame of what was read; false if none is whole. */
static bool
frame_next(WebSocket *ws, int *first, const char **payload, size_t *size)
{
	const unsigned char *at = (unsigned char *) ws->in.data + ws->in.start;
	size_t		left = ws->in.end - ws->in.start;
	size_t		head = 2;
	size_t		length;

	if (left < 2)
		return false;
	length = at[1];
	if (length == 126)
		head = 4;
	else if (length == 127)
		head = 10;
	if (left < head)
		return false;
	if (head == 4)
		length = (size_t) at[2] << 8 | at[3];
	else if (head == 10)
		length = (size_t) get_int64((const char *) at + 2);
	if (left - head < length)
		return false;
	*first = at[0];
	*payload = (const char *) at + head;
	*size = length;
	ws->in.start += head + length;
	return true;
}
