/*
 * exposition.c
 *		What is counted, as text for Prometheus (format 0.0.4).
 *
 * Every series is there from the start, so that a rate over the first failure
 * is not lost; but for those of errors by method and of closes by code, which
 * would be thousands.
 */
#include "status/exposition.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#include "base/metrics.h"
#include "base/version.h"
#include "http/connection.h"
#include "http/door.h"
#include "relay/client.h"
#include "relay/intake.h"
#include "relay/pool.h"
#include "relay/relay.h"
#include "relay/reply.h"

#define PREFIX		"message_bus_gateway_"

#define LENGTH(array)	(sizeof(array) / sizeof((array)[0]))

static void put_head(GwBuffer *out, const char *name, const char *type,
					 const char *help);
static void put_series(GwBuffer *out, const char *name, const char *label,
					   const char *value, uint64_t number);
static void put_labelled(GwBuffer *out);
static void put_http(GwBuffer *out);
static void put_requests(GwBuffer *out, size_t method, size_t result);
static void put_closes(GwBuffer *out, size_t end, size_t index);
static void put_lanes(GwBuffer *out);
static void put_histograms(GwBuffer *out, GwScaleKind kind, const char *name,
						   const char *help);
static void put_number(GwBuffer *out, GwScaleKind kind, int64_t number);

static const struct
{
	const char *name;
	const size_t *value;
	const char *help;
}			gauges[] = {

	{"connections", &gw_client_totals.count,
	"WebSocket connections that are open."},
	{"buffered_bytes", &gw_intake_totals.bytes,
	"Bytes of frames that are not answered yet."},
	{"replies_queued", &gw_reply_totals.count,
	"Replies that wait to be written."},
	{"replies_queued_bytes", &gw_reply_totals.bytes,
	"Bytes of replies that wait to be written."},
	{"bulk_up_bytes", &gw_pool_taken[GW_POOL_UP],
	"Bytes of uploads that are not answered yet."},
	{"bulk_down_bytes", &gw_pool_taken[GW_POOL_DOWN],
	"Bytes of downloads that are not written yet."},
	{"http_connections", &gw_http_connections,
	"Connections of the HTTP door that are open."},
	{"http_downloads", &gw_door_active,
	"Requests of the HTTP door that are being answered."}
};

static const struct
{
	const char *name;
	size_t		member;
	const char *help;
}			lane_gauges[] = {

	{"database_connections", offsetof(GwLaneState, connections),
	"Database connections of a lane."},
	{"database_connections_ready", offsetof(GwLaneState, ready),
	"Database connections of a lane that are ready."},
	{"breaker_open", offsetof(GwLaneState, breakers_open),
	"Circuit breakers of a lane that refuse requests."},
	{"requests_queued", offsetof(GwLaneState, queued),
	"Requests that wait to be sent to the database."},
	{"batches_in_flight", offsetof(GwLaneState, in_flight),
	"Batches that were sent and are not answered yet."}
};

/* gw_metrics_text appends everything that is counted. */
void
gw_metrics_text(GwBuffer *out)
{
	size_t		i;

	for (i = 0; i < GW_COUNTER_COUNT; i++)
	{
		const GwCounterName *counter = &gw_counter_names[i];

		if (counter->series == NULL)
			continue;
		put_head(out, counter->series, "counter", counter->help);
		put_series(out, counter->series, NULL, NULL, *counter->value);
	}
	for (i = 0; i < LENGTH(gauges); i++)
	{
		put_head(out, gauges[i].name, "gauge", gauges[i].help);
		put_series(out, gauges[i].name, NULL, NULL, *gauges[i].value);
	}
	put_head(out, "start_time_seconds", "gauge",
			 "When the gateway was started, in Unix time.");
	put_series(out, "start_time_seconds", NULL, NULL,
			   (uint64_t) gw_metrics.started);
	put_head(out, "build_info", "gauge", "Always 1; the label is the version.");
	put_series(out, "build_info", "version", GW_VERSION, 1);
	put_labelled(out);
	put_http(out);
	put_lanes(out);
	put_histograms(out, GW_SCALE_LATENCY, "request_seconds",
				   "Time from a frame's arrival to its answer.");
	put_histograms(out, GW_SCALE_SIZE, "batch_requests",
				   "Requests in a batch that was sent.");
}

static void
put_head(GwBuffer *out, const char *name, const char *type,
		 const char *help)
{
	gw_buffer_format(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n",
					 name, help, name, type);
}

/* put_series appends one number, with a label or (NULL) without. */
static void
put_series(GwBuffer *out, const char *name, const char *label,
		   const char *value, uint64_t number)
{
	gw_buffer_format(out, PREFIX "%s", name);
	if (label != NULL)
		gw_buffer_format(out, "{%s=\"%s\"}", label, value);
	gw_buffer_format(out, " %" PRIu64 "\n", number);
}

/* put_labelled appends the counters that have labels. */
static void
put_labelled(GwBuffer *out)
{
	size_t		i;
	size_t		j;

	put_head(out, "requests_total", "counter",
			 "Requests that were answered, by method, outcome and code.");
	for (i = 0; i < GW_METHODS; i++)
		for (j = 0; j < GW_RESULTS; j++)
			put_requests(out, i, j);
	put_head(out, "connections_closed_total", "counter",
			 "WebSocket connections that ended, by whom and with which code.");
	for (i = 0; i < GW_ENDS; i++)
		for (j = 0; j < GW_CLOSE_CODES; j++)
			put_closes(out, i, j);
	put_head(out, "connections_refused_total", "counter",
			 "Connections and handshakes that were refused, by reason.");
	for (i = 0; i <= GW_REFUSED_CONNECTION_LAST; i++)
		put_series(out, "connections_refused_total", "reason",
				   gw_refusal_names[i], gw_metrics.refusals[i]);
	put_head(out, "frames_refused_total", "counter",
			 "Frames that were refused before they were relayed, by reason.");
	for (; i < GW_REFUSALS; i++)
		put_series(out, "frames_refused_total", "reason", gw_refusal_names[i],
				   gw_metrics.refusals[i]);
}

/* put_http appends what the HTTP door counts. */
static void
put_http(GwBuffer *out)
{
	char		label[16];
	size_t		i;

	put_head(out, "http_requests_total", "counter",
			 "Answers of the HTTP door, by status.");
	for (i = 0; i < GW_STATUSES; i++)
	{
		if (gw_status_numbers[i] != 0)
			(void) snprintf(label, sizeof(label), "%d", gw_status_numbers[i]);
		else
			gw_text_copy(label, sizeof(label), "other");
		put_series(out, "http_requests_total", "status", label,
				   gw_metrics.statuses[i]);
	}
	put_head(out, "http_cut_total", "counter",
			 "Downloads that ended short of their length, by reason.");
	for (i = 0; i < GW_CUTS; i++)
		put_series(out, "http_cut_total", "reason", gw_cut_names[i],
				   gw_metrics.cuts[i]);
}

/*
 * put_requests appends the requests of a method that ended in one way: each
 * method's committed ones, the rest as soon as there are any.
 */
static void
put_requests(GwBuffer *out, size_t method, size_t result)
{
	size_t		i;

	for (i = 0; i < GW_CODES; i++)
	{
		uint64_t	number = gw_metrics.requests[method][result][i];
		char		code[16] = "other";

		if (number == 0 && (i > 0 || result != GW_COMMITTED))
			continue;
		if (i < GW_CODES - 1)
			(void) snprintf(code, sizeof(code), "%d", gw_code_numbers[i]);
		gw_buffer_format(out, PREFIX "requests_total{method=\"%s\","
						 "outcome=\"%s\",code=\"%s\"} %" PRIu64 "\n",
						 gw_method_names[method], gw_result_names[result],
						 code, number);
	}
}

/* put_closes appends how many connections somebody ended with a code. */
static void
put_closes(GwBuffer *out, size_t end, size_t index)
{
	uint64_t	number = gw_metrics.closes[end][index];
	char		label[16];

	if (number > 0 || index == 0)
		gw_buffer_format(out, PREFIX "connections_closed_total{by=\"%s\","
						 "code=\"%s\"} %" PRIu64 "\n", gw_end_names[end],
						 gw_metric_close_label(index, label, sizeof(label)),
						 number);
}

/* put_lanes appends what each lane is doing. */
static void
put_lanes(GwBuffer *out)
{
	GwLaneState states[GW_LANES];
	size_t		lane;
	size_t		i;

	for (lane = 0; lane < GW_LANES; lane++)
		states[lane] = gw_relay_lane_state((GwLaneKind) lane);
	for (i = 0; i < LENGTH(lane_gauges); i++)
	{
		put_head(out, lane_gauges[i].name, "gauge", lane_gauges[i].help);
		for (lane = 0; lane < GW_LANES; lane++)
			put_series(out, lane_gauges[i].name, "lane", gw_lane_names[lane],
					   *(const size_t *) ((const char *) &states[lane] +
										  lane_gauges[i].member));
	}
}

/* put_histograms appends a histogram of each lane. */
static void
put_histograms(GwBuffer *out, GwScaleKind kind, const char *name,
			   const char *help)
{
	size_t		lane;

	put_head(out, name, "histogram", help);
	for (lane = 0; lane < GW_LANES; lane++)
	{
		const GwHistogram *histogram = &gw_metrics.histograms[kind][lane];
		uint64_t	below = 0;
		size_t		i;

		for (i = 0; i <= gw_scales[kind].count; i++)
		{
			below += histogram->counts[i];
			gw_buffer_format(out, PREFIX "%s_bucket{lane=\"%s\",le=\"", name,
							 gw_lane_names[lane]);
			if (i < gw_scales[kind].count)
				put_number(out, kind, gw_scales[kind].steps[i]);
			else
				gw_buffer_text(out, "+Inf");
			gw_buffer_format(out, "\"} %" PRIu64 "\n", below);
		}
		gw_buffer_format(out, PREFIX "%s_sum{lane=\"%s\"} ", name,
						 gw_lane_names[lane]);
		put_number(out, kind, (int64_t) histogram->sum);
		gw_buffer_format(out, "\n" PREFIX "%s_count{lane=\"%s\"} %" PRIu64
						 "\n", name, gw_lane_names[lane], histogram->count);
	}
}

/* put_number appends a number, milliseconds as seconds. */
static void
put_number(GwBuffer *out, GwScaleKind kind, int64_t number)
{
	if (kind == GW_SCALE_LATENCY)
		gw_buffer_format(out, "%" PRId64 ".%03d", number / 1000,
						 (int) (number % 1000));
	else
		gw_buffer_format(out, "%" PRId64, number);
}
