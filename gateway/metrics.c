/*
 * metrics.c
 *		What is counted, as text for Prometheus (format 0.0.4).
 *
 * Counters that belong to no label are those of log.h; here is what has
 * labels: requests by lane and outcome, how long they took, the sizes of
 * batches, refusals by reason. Every label has a fixed set of values, and
 * every series is there from the start, so that a rate over the first
 * failure is not lost. Nothing here is taken from what a client sends.
 */
#include "metrics.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include "log.h"
#include "relay.h"
#include "version.h"

#define PREFIX		"message_bus_gateway_"
#define STEPS_MAX	16

static const char *const lane_names[] = {"short", "long", "wait"};
static const char *const outcome_names[] = {"committed", "rolled back",
"unknown", "away", "dropped", "refused"};
static const char *const refusal_names[GW_REFUSALS] = {
	[GW_REFUSED_UPGRADE] = "upgrade",
	[GW_REFUSED_STOPPING] = "stopping",
	[GW_REFUSED_CONNECTIONS] = "connections",
	[GW_REFUSED_HOST] = "host",
	[GW_REFUSED_ORIGIN] = "origin",
	[GW_REFUSED_KEY] = "apikey",
	[GW_REFUSED_MEMORY] = "memory",
	[GW_REFUSED_TOO_LARGE] = "too large",
	[GW_REFUSED_BUFFERED] = "buffered",
	[GW_REFUSED_NOT_UTF8] = "not utf-8",
	[GW_REFUSED_DRAINING] = "stopping"
};

#define LANES		(sizeof(lane_names) / sizeof(lane_names[0]))
#define OUTCOMES	(sizeof(outcome_names) / sizeof(outcome_names[0]))

/* Upper bounds of the buckets; the last, +Inf, goes without saying. */
static const int64_t latency_steps[] = {1, 2, 5, 10, 20, 50, 100, 200, 500,
1000, 2000, 5000, 10000, 60000};
static const int64_t size_steps[] = {1, 2, 5, 10, 20, 30, 40, 50, 60};

#define LATENCY_STEPS	(sizeof(latency_steps) / sizeof(latency_steps[0]))
#define SIZE_STEPS		(sizeof(size_steps) / sizeof(size_steps[0]))

typedef struct Histogram
{
	uint64_t	counts[STEPS_MAX];
	uint64_t	count;
	uint64_t	sum;
} Histogram;

static uint64_t requests[LANES][OUTCOMES];
static uint64_t refusals[GW_REFUSALS];
static Histogram latencies[LANES];
static Histogram sizes[LANES];
static time_t started;

static size_t name_index(const char *const *names, size_t count,
						 const char *name);
static void observe(Histogram *histogram, const int64_t *steps,
					size_t step_count, int64_t value);
static void put_head(GwBuffer *out, const char *name, const char *type,
					 const char *help);
static void put_counters(GwBuffer *out);
static void put_gauges(GwBuffer *out);
static void put_labelled(GwBuffer *out);
static void put_lanes(GwBuffer *out);
static void put_lane_gauge(GwBuffer *out, const GwLaneState *states,
						   size_t member, const char *name,
						   const char *help);
static void put_histograms(GwBuffer *out, const Histogram *histograms,
						   const int64_t *steps, size_t step_count,
						   bool milliseconds, const char *name,
						   const char *help);
static void put_value(GwBuffer *out, int64_t value, bool milliseconds);

void
gw_metrics_init(void)
{
	started = time(NULL);
}

/* gw_metric_refused counts a connection or a frame that was refused. */
void
gw_metric_refused(GwRefusal reason)
{
	refusals[reason]++;
	if (reason <= GW_REFUSED_CONNECTION_LAST)
		gw_counters.connections_refused++;
	else
		gw_counters.frames_refused++;
}

/* gw_metric_request counts a request that was answered. */
void
gw_metric_request(const char *lane, const char *outcome,
				  int64_t milliseconds)
{
	size_t		index = name_index(lane_names, LANES, lane);

	if (index == LANES)
		return;
	requests[index][name_index(outcome_names, OUTCOMES - 1, outcome)]++;
	observe(&latencies[index], latency_steps, LATENCY_STEPS, milliseconds);
}

/* gw_metric_batch counts a batch that was sent, and its requests. */
void
gw_metric_batch(const char *lane, size_t count)
{
	size_t		index = name_index(lane_names, LANES, lane);

	if (index < LANES)
		observe(&sizes[index], size_steps, SIZE_STEPS, (int64_t) count);
}

/* gw_metrics_text appends everything that is counted. */
void
gw_metrics_text(GwBuffer *out)
{
	put_counters(out);
	put_gauges(out);
	put_labelled(out);
	put_lanes(out);
	put_histograms(out, latencies, latency_steps, LATENCY_STEPS, true,
				   "request_seconds",
				   "Time from a frame's arrival to its answer.");
	put_histograms(out, sizes, size_steps, SIZE_STEPS, false,
				   "batch_requests", "Requests in a batch that was sent.");
}

/* name_index returns the place of a name, or `count` if it has none. */
static size_t
name_index(const char *const *names, size_t count, const char *name)
{
	size_t		i;

	for (i = 0; i < count && strcmp(names[i], name) != 0; i++)
		;
	return i;
}

static void
observe(Histogram *histogram, const int64_t *steps, size_t step_count,
		int64_t value)
{
	size_t		i;

	for (i = 0; i < step_count && value > steps[i]; i++)
		;
	histogram->counts[i]++;
	histogram->count++;
	histogram->sum += (uint64_t) value;
}

static void
put_head(GwBuffer *out, const char *name, const char *type,
		 const char *help)
{
	gw_buffer_format(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n",
					 name, help, name, type);
}

static void
put_counters(GwBuffer *out)
{
	const GwCounters *c = &gw_counters;
	const struct
	{
		const char *name;
		uint64_t	value;
		const char *help;
	}			counters[] = {
		{"connections_opened_total", c->connections,
		"WebSocket connections that were opened."},
		{"frames_received_total", c->frames_in,
		"Whole messages that clients sent."},
		{"frames_sent_total", c->frames_out,
		"Messages that were written to clients."},
		{"received_bytes_total", c->bytes_in,
		"Bytes of the messages that clients sent."},
		{"sent_bytes_total", c->bytes_out,
		"Bytes of the messages that were written."},
		{"frames_cut_off_total", c->frames_cut_off,
		"Messages whose socket closed before their end."},
		{"batches_total", c->batches,
		"Batches whose end is known."},
		{"batches_failed_total", c->batches_failed,
		"Batches that were rolled back or lost."},
		{"outcomes_unknown_total", c->outcomes_unknown,
		"Requests that were answered -32050, outcome unknown."},
		{"replies_undelivered_total", c->replies_undelivered,
		"Replies whose connection was gone or did not read."},
		{"replies_missing_total", c->replies_missing,
		"Requests for which the database returned no reply."},
		{"database_connects_total", c->database_connects,
		"Database connections that became ready."},
		{"database_losses_total", c->database_losses,
		"Database connections that were ready and got lost."},
		{"accept_pauses_total", c->accept_pauses,
		"Times that accepting paused because descriptors were used up."},
		{"reloads_total", c->reloads,
		"Reloads of the configuration that were asked for."},
		{"reloads_failed_total", c->reloads_failed,
		"Reloads that were refused for a fault."},
		{"log_lines_lost_total", c->log_lines_lost,
		"Log lines that could not be written."}
	};
	size_t		i;

	for (i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
	{
		put_head(out, counters[i].name, "counter", counters[i].help);
		gw_buffer_format(out, PREFIX "%s %" PRIu64 "\n", counters[i].name,
						 counters[i].value);
	}
}

static void
put_gauges(GwBuffer *out)
{
	const struct
	{
		const char *name;
		uint64_t	value;
		const char *help;
	}			gauges[] = {
		{"connections", gw_clients_count(),
		"WebSocket connections that are open."},
		{"buffered_bytes", gw_clients_buffered(),
		"Bytes of frames that are not answered yet."},
		{"replies_queued", gw_clients_unwritten_replies(),
		"Replies that wait to be written."},
		{"replies_queued_bytes", gw_clients_unwritten(),
		"Bytes of replies that wait to be written."}
	};
	size_t		i;

	for (i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++)
	{
		put_head(out, gauges[i].name, "gauge", gauges[i].help);
		gw_buffer_format(out, PREFIX "%s %" PRIu64 "\n", gauges[i].name,
						 gauges[i].value);
	}
	put_head(out, "start_time_seconds", "gauge",
			 "When the gateway was started, in Unix time.");
	gw_buffer_format(out, PREFIX "start_time_seconds %lld\n",
					 (long long) started);
	put_head(out, "build_info", "gauge", "Always 1; the label is the version.");
	gw_buffer_text(out, PREFIX "build_info{version=\"" GW_VERSION "\"} 1\n");
}

/* put_labelled appends the counters that have labels. */
static void
put_labelled(GwBuffer *out)
{
	size_t		i;
	size_t		j;

	put_head(out, "requests_total", "counter",
			 "Requests that were answered, by lane and outcome.");
	for (i = 0; i < LANES; i++)
		for (j = 0; j < OUTCOMES; j++)
			gw_buffer_format(out, PREFIX "requests_total{lane=\"%s\","
							 "outcome=\"%s\"} %" PRIu64 "\n", lane_names[i],
							 outcome_names[j], requests[i][j]);
	put_head(out, "connections_refused_total", "counter",
			 "Connections and handshakes that were refused, by reason.");
	for (i = 0; i <= GW_REFUSED_CONNECTION_LAST; i++)
		gw_buffer_format(out, PREFIX "connections_refused_total{reason="
						 "\"%s\"} %" PRIu64 "\n", refusal_names[i],
						 refusals[i]);
	put_head(out, "frames_refused_total", "counter",
			 "Frames that were refused before they were relayed, by reason.");
	for (; i < GW_REFUSALS; i++)
		gw_buffer_format(out, PREFIX "frames_refused_total{reason=\"%s\"} %"
						 PRIu64 "\n", refusal_names[i], refusals[i]);
}

static void
put_lanes(GwBuffer *out)
{
	static const struct
	{
		size_t		member;
		const char *name;
		const char *help;
	}			gauges[] = {
		{offsetof(GwLaneState, connections), "database_connections",
		"Database connections of a lane."},
		{offsetof(GwLaneState, ready), "database_connections_ready",
		"Database connections of a lane that are ready."},
		{offsetof(GwLaneState, breakers_open), "breaker_open",
		"Circuit breakers of a lane that refuse requests."},
		{offsetof(GwLaneState, queued), "requests_queued",
		"Requests that wait to be sent to the database."},
		{offsetof(GwLaneState, in_flight), "batches_in_flight",
		"Batches that were sent and are not answered yet."}
	};
	GwLaneState states[LANES];
	size_t		i;

	for (i = 0; i < LANES; i++)
	{
		memset(&states[i], 0, sizeof(states[i]));
		states[i].name = lane_names[i];
		gw_relay_lane_state(&states[i]);
	}
	for (i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++)
		put_lane_gauge(out, states, gauges[i].member, gauges[i].name,
					   gauges[i].help);
}

static void
put_lane_gauge(GwBuffer *out, const GwLaneState *states, size_t member,
			   const char *name, const char *help)
{
	size_t		i;

	put_head(out, name, "gauge", help);
	for (i = 0; i < LANES; i++)
	{
		size_t		value;

		memcpy(&value, (const char *) &states[i] + member, sizeof(value));
		gw_buffer_format(out, PREFIX "%s{lane=\"%s\"} %zu\n", name,
						 states[i].name, value);
	}
}

/* put_histograms appends a histogram of each lane. */
static void
put_histograms(GwBuffer *out, const Histogram *histograms,
			   const int64_t *steps, size_t step_count, bool milliseconds,
			   const char *name, const char *help)
{
	size_t		lane;

	put_head(out, name, "histogram", help);
	for (lane = 0; lane < LANES; lane++)
	{
		const Histogram *histogram = &histograms[lane];
		uint64_t	below = 0;
		size_t		i;

		for (i = 0; i < step_count; i++)
		{
			below += histogram->counts[i];
			gw_buffer_format(out, PREFIX "%s_bucket{lane=\"%s\",le=\"", name,
							 lane_names[lane]);
			put_value(out, steps[i], milliseconds);
			gw_buffer_format(out, "\"} %" PRIu64 "\n", below);
		}
		gw_buffer_format(out, PREFIX "%s_bucket{lane=\"%s\",le=\"+Inf\"} %"
						 PRIu64 "\n" PREFIX "%s_sum{lane=\"%s\"} ", name,
						 lane_names[lane], histogram->count, name,
						 lane_names[lane]);
		put_value(out, (int64_t) histogram->sum, milliseconds);
		gw_buffer_format(out, "\n" PREFIX "%s_count{lane=\"%s\"} %" PRIu64
						 "\n", name, lane_names[lane], histogram->count);
	}
}

/* put_value appends a number, milliseconds as seconds. */
static void
put_value(GwBuffer *out, int64_t value, bool milliseconds)
{
	if (milliseconds)
		gw_buffer_format(out, "%" PRId64 ".%03d", value / 1000,
						 (int) (value % 1000));
	else
		gw_buffer_format(out, "%" PRId64, value);
}
