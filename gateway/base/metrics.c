/*
 * metrics.c
 *		What is counted: one thread, so no locks.
 *
 * Every label has a fixed set of values. Nothing here is taken from what a
 * client sends.
 */
#include "base/metrics.h"

GwCounters	gw_counters;
GwMetrics	gw_metrics;

#define COUNTER_NAME(name, series, help) \
	{#name, series, help, &gw_counters.name},

const GwCounterName gw_counter_names[GW_COUNTER_COUNT] = {
	GW_COUNTERS(COUNTER_NAME)
};

const char *const gw_lane_names[GW_LANES] = {"short", "long", "wait"};

const char *const gw_result_names[GW_RESULTS] = {"committed", "rolled back",
"unknown", "away", "dropped", "refused"};

const char *const gw_refusal_names[GW_REFUSALS] = {"upgrade", "stopping",
	"connections", "host", "origin", "apikey", "memory", "too large", "buffered",
"not utf-8", "stopping"};

const GwScale gw_scales[GW_SCALES] = {
	{14, {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 60000}},
	{9, {1, 2, 5, 10, 20, 30, 40, 50, 60}}
};

/* gw_metric_refused counts a connection or a frame that was refused. */
void
gw_metric_refused(GwRefusal reason)
{
	gw_metrics.refusals[reason]++;
	if (reason <= GW_REFUSED_CONNECTION_LAST)
		gw_counters.connections_refused++;
	else
		gw_counters.frames_refused++;
}

/* gw_metric_request counts a request that was answered. */
void
gw_metric_request(GwLaneKind lane, GwResult result, int64_t milliseconds)
{
	gw_metrics.requests[lane][result]++;
	gw_metric_observe(GW_SCALE_LATENCY, lane, milliseconds);
}

/* gw_metric_observe puts a value into the histogram of a lane. */
void
gw_metric_observe(GwScaleKind kind, GwLaneKind lane, int64_t value)
{
	const GwScale *scale = &gw_scales[kind];
	GwHistogram *histogram = &gw_metrics.histograms[kind][lane];
	size_t		i;

	for (i = 0; i < scale->count && value > scale->steps[i]; i++)
		;
	histogram->counts[i]++;
	histogram->count++;
	histogram->sum += (uint64_t) value;
}
