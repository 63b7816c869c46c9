/*
 * resolve.h
 *		Host names to addresses, without blocking. See resolve.c.
 */
#ifndef GW_RESOLVE_H
#define GW_RESOLVE_H

#include <stdbool.h>

#include "base/buffer.h"

typedef struct GwResolve GwResolve;

/*
 * Called once: ok with the three lists that libpq takes, each a string, or
 * not ok with all of them empty.
 */
typedef void (*GwResolved) (void *owner, bool ok, const GwBuffer *hosts,
							const GwBuffer *addresses, const GwBuffer *ports);

extern GwResolve *gw_resolve_start(const char *hosts, const char *ports,
								   size_t first, GwResolved done, void *owner);
extern void gw_resolve_free(GwResolve *resolve);

#endif							/* GW_RESOLVE_H */
