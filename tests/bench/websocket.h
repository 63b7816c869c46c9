/*
 * websocket.h
 *		WebSocket connections of the load client.
 */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>

#define TEXT_FRAME 1
#define BINARY_FRAME 2

/* bytes that grow at the end and are taken from the front */
typedef struct Bytes
{
	char	   *data;
	size_t		start;
	size_t		end;
	size_t		room;
} Bytes;

typedef struct WebSocket
{
	int			socket;
	Bytes		in;				/* as it came from TCP */
	Bytes		out;			/* what TCP did not take yet */
} WebSocket;

/* These end the program if something is wrong. */
extern void bytes_append(Bytes *bytes, const char *data, size_t size);
extern void websocket_open(WebSocket *ws, int port, const char *token);
extern size_t websocket_frame(char *to, int opcode, const char *data,
							  size_t size);
extern void websocket_queue(WebSocket *ws, const char *frames, size_t size);
extern bool websocket_flush(WebSocket *ws);
extern void websocket_receive(WebSocket *ws);
extern bool websocket_next(WebSocket *ws, const char **payload, size_t *size);
extern int	websocket_skip(WebSocket *ws);

#endif							/* BENCH_WEBSOCKET_H */
