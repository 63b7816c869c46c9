/*
 * options.h
 *		The connection string. See options.c.
 */
#ifndef GW_OPTIONS_H
#define GW_OPTIONS_H

#include <libpq-fe.h>

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"

extern bool gw_options_check_url(const char *url, char *why, size_t size);
extern bool gw_options_hosts(const char *url, GwBuffer *hosts,
							 GwBuffer *ports);
extern PGconn *gw_options_connect(const char *url, const char *hosts,
								  const char *addresses, const char *ports);

#endif							/* GW_OPTIONS_H */
