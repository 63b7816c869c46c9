/*
 * listen.h
 *		The listening socket, and which connections it takes. See listen.c.
 */
#ifndef GW_LISTEN_H
#define GW_LISTEN_H

#include <stdbool.h>

#include "base/config.h"

/* An address as text, with an interface and its zero byte. */
#define GW_ADDRESS_MAX		64

struct lws;
struct lws_context_creation_info;
struct lws_filter_network_conn_args;

extern void gw_listen_prepare(struct lws_context_creation_info *info);
extern void gw_listen_found(struct lws *wsi);
extern bool gw_listen_open(const GwConfig *config);
extern void gw_listen_take(const struct lws_filter_network_conn_args *from);
extern const char *gw_listen_peer(void);
extern int	gw_listen_port(void);
extern void gw_listen_turn(void);
extern void gw_listen_close(void);

#endif							/* GW_LISTEN_H */
