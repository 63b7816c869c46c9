/*
 * socket.h
 *		Clients' sockets. See socket.c.
 */
#ifndef GW_SOCKET_H
#define GW_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/config.h"

/* Room that must be free before the bytes of a reply (LWS_PRE). */
#define GW_WRITE_ROOM	16

/* A client's socket: opaque. */
typedef struct lws GwSocket;

typedef enum GwOutputKind
{
	GW_OUTPUT_NONE,				/* nothing, for now */
	GW_OUTPUT_PIECE,			/* bytes of a message, to its end */
	GW_OUTPUT_PING,
	GW_OUTPUT_CLOSE				/* with code and reason */
} GwOutputKind;

/* What a WebSocket is to write next. */
typedef struct GwOutput
{
	GwOutputKind kind;
	unsigned char *bytes;		/* behind GW_WRITE_ROOM free ones */
	size_t		length;
	bool		begins;			/* a message, which may be binary */
	bool		binary;
	int			code;
	const char *reason;			/* at most 123 bytes */
} GwOutput;

/* What sockets tell and ask whoever owns WebSockets. */
typedef struct GwSocketEvents
{
	/*
	 * A new WebSocket, which asks for messages up to a limit (0: it does not
	 * say): returns its owner, or NULL to close it.
	 */
	void	   *(*open) (GwSocket *socket, GwBuffer *token, uint32_t limit);
	/* Bytes came; `more` of the same frame, or of the message, are to come. */
	void		(*receive) (void *owner, const unsigned char *bytes,
							size_t length, size_t more, bool binary,
							bool final);
	void		(*pong) (void *owner);
	/* All that was written before has gone out: what is next? */
	void		(*next) (void *owner, GwOutput *output);
	/* So much was written; is there more? */
	bool		(*written) (void *owner, size_t length);
	/* A close frame came; the code is 1005 if it had none. */
	void		(*closed) (void *owner, int code, const char *reason,
						   size_t length);
	/* The socket no longer exists, for whatever reason. */
	void		(*gone) (void *owner);
	/* How many WebSockets there are. */
	const size_t *connections;
} GwSocketEvents;

/*
 * Appends the body for a path, sets *type to its media type, and returns the
 * status.
 */
typedef int (*GwHttpAnswer) (const char *path, bool operator, GwBuffer *body,
							 const char **type);

extern bool gw_sockets_open(const GwConfig *config,
							const GwSocketEvents *events, GwHttpAnswer http);
extern const char *gw_socket_address(GwSocket *socket);
extern void gw_socket_write_soon(GwSocket *socket);
extern void gw_socket_pause(GwSocket *socket, bool pause);
extern void gw_socket_kill(GwSocket *socket);

#endif							/* GW_SOCKET_H */
