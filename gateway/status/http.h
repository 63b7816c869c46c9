/*
 * http.h
 *		Bodies of the HTTP endpoints. See http.c.
 */
#ifndef GW_HTTP_H
#define GW_HTTP_H

#include <stdbool.h>

#include "base/buffer.h"

extern int	gw_http_answer(const char *path, bool operator, GwBuffer *body,
						   const char **type);
extern void gw_http_drain(void);

#endif							/* GW_HTTP_H */
