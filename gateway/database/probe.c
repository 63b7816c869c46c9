/*
 * probe.c
 *		What a connection is asked again and again.
 *
 * Once a second, between two batches, each connection tells which backend
 * serves it (backend.c), and why the bus takes no publishes, if it does not:
 * the extension's bus_fault() knows that without a publish. So /readyz does.
 */
#include "database/probe.h"

#include <stdlib.h>

#include "base/buffer.h"
#include "database/check.h"
#include "net/loop.h"

/* An answer that is so late does not come. */
#define SILENT_MS	5000

/*
 * gw_probe_send sends a probe, whose Sync is the last of so many that are to
 * come; false if libpq cannot.
 */
bool
gw_probe_send(GwProbe *probe, PGconn *conn, size_t away)
{
	probe->away = away;
	probe->sent_ms = gw_now_ms();
	return PQsendQueryParams(conn, gw_probe_query, 0, NULL, NULL, NULL, NULL,
							 0) == 1 && PQpipelineSync(conn) == 1;
}

/*
 * gw_probe_is_back counts a Sync and tells whether it is the probe's. What it
 * had to wait for before is no silence.
 */
bool
gw_probe_is_back(GwProbe *probe)
{
	if (probe->away == 0)
		return false;
	probe->sent_ms = gw_now_ms();
	return --probe->away == 0;
}

/*
 * gw_probe_take reads what a probe has brought, on a connection whose server
 * told this process id at the start. It returns NULL, or what is wrong.
 */
const char *
gw_probe_take(GwProbe *probe, const PGresult *result, int told)
{
	if (PQntuples(result) != 1 || PQnfields(result) != 2)
		return "the database does not tell its backend";
	gw_text_copy(probe->bus, sizeof(probe->bus), PQgetvalue(result, 0, 1));
	if (gw_backend_saw(&probe->backend, atoi(PQgetvalue(result, 0, 0)), told))
		return NULL;
	return gw_backend_fault;
}

/* gw_probe_bus tells why the bus takes no publishes; NULL if it does. */
const char *
gw_probe_bus(const GwProbe *probe)
{
	/* Behind a batch it may be late. */
	if (probe->away == 1 && gw_now_ms() - probe->sent_ms > SILENT_MS)
		return "the database does not answer";
	return probe->bus[0] != '\0' ? probe->bus : NULL;
}

/* gw_probe_forget: the connection is gone. */
void
gw_probe_forget(GwProbe *probe)
{
	gw_backend_forget(&probe->backend);
	probe->away = 0;
	probe->bus[0] = '\0';
}
