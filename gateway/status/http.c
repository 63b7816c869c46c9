/*
 * http.c
 *		Bodies of the HTTP endpoints: JSON, /metrics for Prometheus, and on
 *		the admin port pages.
 *
 * /healthz tells that the process lives, and its counters; "warning" once a
 * log line was lost. /readyz is 200 if frames can be relayed, else 503 with
 * the reasons.
 */
#include "status/http.h"

#include <inttypes.h>
#include <string.h>

#include "base/metrics.h"
#include "relay/client.h"
#include "relay/intake.h"
#include "relay/relay.h"
#include "status/exposition.h"
#include "status/pages.h"

static bool draining;

static void health_body(GwBuffer *body);
static int	ready_body(GwBuffer *body, bool operator);

/*
 * gw_http_answer appends the body for a path, sets *type to its media type,
 * and returns the status. Who asks on the admin port is the operator.
 */
int
gw_http_answer(const char *path, bool operator, GwBuffer *body,
			   const char **type)
{
	*type = "application/json";
	if (strcmp(path, "/healthz") == 0)
	{
		health_body(body);
		return 200;
	}
	if (strcmp(path, "/readyz") == 0)
		return ready_body(body, operator);
	if (strcmp(path, "/metrics") == 0)
	{
		*type = "text/plain; version=0.0.4; charset=utf-8";
		gw_metrics_text(body);
		return 200;
	}
	if (operator && gw_page_put(path, body, type))
		return 200;
	gw_buffer_text(body, "{\"error\":\"not found\",\"paths\":"
				   "[\"/healthz\",\"/readyz\",\"/metrics\"],"
				   "\"hint\":\"Open a WebSocket for JSON-RPC.\"}\n");
	return 404;
}

/* gw_http_drain makes /readyz say that the gateway is stopping. */
void
gw_http_drain(void)
{
	draining = true;
}

static void
health_body(GwBuffer *body)
{
	bool		lost = gw_counters.log_lines_lost > 0;
	size_t		i;

	gw_buffer_format(body, "{\"status\":\"%s\",\"connections_open\":%zu,"
					 "\"buffered_bytes\":%zu", lost ? "warning" : "ok",
					 gw_client_totals.count, gw_intake_totals.bytes);
	if (lost)
		gw_buffer_text(body, ",\"warnings\":[\"log lines were lost\"]");
	for (i = 0; i < GW_COUNTER_COUNT; i++)
		gw_buffer_format(body, ",\"%s\":%" PRIu64, gw_counter_names[i].name,
						 *gw_counter_names[i].value);
	gw_buffer_text(body, "}\n");
}

static int
ready_body(GwBuffer *body, bool operator)
{
	GwBuffer	reasons = {0};
	bool		ready;

	gw_relay_reasons(&reasons, operator);
	if (draining && reasons.length > 0)
		gw_buffer_text(&reasons, ",");
	if (draining)
		gw_buffer_json(&reasons, "the gateway is stopping");
	ready = reasons.length == 0;
	if (ready)
		gw_buffer_text(body, "{\"ready\":true}\n");
	else
	{
		gw_buffer_text(body, "{\"ready\":false,\"reasons\":[");
		gw_buffer_append(body, reasons.data, reasons.length);
		gw_buffer_text(body, "]}\n");
	}
	if (reasons.failed)
		body->failed = true;
	gw_buffer_free(&reasons);
	return ready ? 200 : 503;
}
