/*
 * access.h
 *		Who may open a WebSocket, and who may ask over HTTP. See access.c.
 */
#ifndef GW_ACCESS_H
#define GW_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/config.h"

extern bool gw_host_may(const GwConfig *config, const char *listens,
						const char *host);
extern bool gw_origin_may(const GwConfig *config, const char *origin);
extern bool gw_key_is(const char *key, const char *presented);

#endif							/* GW_ACCESS_H */
