/*
 * listen.h
 *		The listening socket, and which connections it takes. See listen.c.
 */
#ifndef GW_LISTEN_H
#define GW_LISTEN_H

#include <stdbool.h>

#include "config.h"
#include "metrics.h"

extern bool gw_listen_open(const GwConfig *config);
extern int	gw_listen_port(void);
extern void gw_listen_close(void);
extern void gw_listen_refused(GwRefusal reason, const char *address,
							  const char *detail);

#endif							/* GW_LISTEN_H */
