/*
 * listen.h
 *		The listening sockets, and which connections they take. See listen.c.
 */
#ifndef GW_LISTEN_H
#define GW_LISTEN_H

#include <stdbool.h>

#include "base/config.h"

/* An address as text, with an interface and its zero byte. */
#define GW_ADDRESS_MAX		64

typedef enum GwListenKind
{
	GW_LISTEN_PUBLIC,			/* for clients */
	GW_LISTEN_ADMIN,			/* for who asks how the gateway is */
	GW_LISTENERS
} GwListenKind;

struct lws;
struct lws_context_creation_info;
struct lws_filter_network_conn_args;
struct sockaddr_storage;

extern void gw_listen_prepare(struct lws_context_creation_info *info);
extern void gw_listen_found(struct lws *wsi, GwListenKind kind);
extern bool gw_listen_open(const GwConfig *config, GwListenKind kind);
extern void gw_listen_take(const struct lws_filter_network_conn_args *from);
extern const char *gw_listen_peer(void);
extern int	gw_listen_port(GwListenKind kind);
extern void gw_listen_turn(void);
extern void gw_listen_close(void);
extern int	gw_listen_socket(const char *host, long port, bool shared,
							 int *descriptor, int *bound_port);
extern void gw_address_text(const struct sockaddr_storage *from, char *text);
extern bool gw_descriptor_is_free(void);

#endif							/* GW_LISTEN_H */
