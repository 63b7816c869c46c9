/*
 * handshake.h
 *		Which handshakes become WebSockets. See handshake.c.
 */
#ifndef GW_HANDSHAKE_H
#define GW_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/config.h"

#define GW_PROTOCOL	"message-bus"

struct lws;

extern void gw_handshakes_init(const GwConfig *config);
extern void gw_handshakes_refuse(void);
extern int	gw_handshake_check(struct lws *wsi, const char *address,
							   size_t connections);
extern bool gw_handshake_host_may(struct lws *wsi);
extern uint32_t gw_handshake_limit(struct lws *wsi);
extern bool gw_handshake_token(struct lws *wsi, GwBuffer *token);

#endif							/* GW_HANDSHAKE_H */
