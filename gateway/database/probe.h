/*
 * probe.h
 *		What a connection is asked again and again. See probe.c.
 */
#ifndef GW_PROBE_H
#define GW_PROBE_H

#include <libpq-fe.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "database/backend.h"

/* How often. */
#define GW_PROBE_MS		1000

typedef struct GwProbe
{
	GwBackend	backend;
	size_t		away;			/* Syncs until the one's that is sent, with
								 * it; 0: none is */
	int64_t		sent_ms;
	char		bus[256];		/* why no publish is taken; empty: it is */
} GwProbe;

extern bool gw_probe_send(GwProbe *probe, PGconn *conn, size_t away);
extern bool gw_probe_is_back(GwProbe *probe);
extern const char *gw_probe_take(GwProbe *probe, const PGresult *result,
								 int told);
extern const char *gw_probe_bus(const GwProbe *probe);
extern void gw_probe_forget(GwProbe *probe);

#endif							/* GW_PROBE_H */
