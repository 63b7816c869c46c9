/*
 * connection.h
 *		The sockets of the HTTP door. See connection.c.
 */
#ifndef GW_CONNECTION_H
#define GW_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "http/head.h"

/* With no more than this unwritten a socket counts as drained. */
#define GW_HTTP_DRAINED	((size_t) 128 * 1024)

/* A connection: opaque. */
typedef struct GwHttpConnection GwHttpConnection;

/* How a connection ended. */
typedef enum GwHttpEnd
{
	GW_HTTP_CLOSED,				/* by the gateway, when all was written */
	GW_HTTP_GONE,				/* by the client, or the network */
	GW_HTTP_SLOW,				/* the client takes too little, too late */
	GW_HTTP_CUT					/* by the door */
} GwHttpEnd;

/* What connections tell the door. */
typedef struct GwHttpEvents
{
	/* A connection has come; returns its owner, NULL to close it. */
	void	   *(*open) (GwHttpConnection *connection, const char *address);

	/*
	 * A head has come, or what there is of one that has a fault; it lives for
	 * this call. Until gw_http_done there is no other.
	 */
	void		(*request) (void *owner, const GwHead *head);
	/* The client took so many bytes. */
	void		(*written) (void *owner, size_t bytes);
	/* It no longer exists, for whatever reason. */
	void		(*gone) (void *owner, GwHttpEnd end);
} GwHttpEvents;

/* How many connections there are. */
extern size_t gw_http_connections;

extern bool gw_http_listen(const GwConfig *config, const GwHttpEvents *events);
extern int	gw_http_port(void);
extern void gw_http_send(GwHttpConnection *connection, const void *bytes,
						 size_t length);
extern size_t gw_http_unwritten(const GwHttpConnection *connection);
extern void gw_http_done(GwHttpConnection *connection, bool closes);
extern void gw_http_cut(GwHttpConnection *connection);
extern void gw_http_stop(void);
extern void gw_http_sweep(void);

#endif							/* GW_CONNECTION_H */
