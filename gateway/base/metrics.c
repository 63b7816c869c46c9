/*
 * metrics.c
 *		What is counted: one thread, so no locks.
 *
 * Every label has a fixed set of values. Nothing here is taken from what a
 * client sends.
 */
#include "base/metrics.h"

#include <stdio.h>
#include <string.h>

GwCounters	gw_counters;
GwMetrics	gw_metrics;

#define COUNTER_NAME(name, series, help) \
	{#name, series, help, &gw_counters.name},

const GwCounterName gw_counter_names[GW_COUNTER_COUNT] = {
	GW_COUNTERS(COUNTER_NAME)
};

const char *const gw_lane_names[GW_LANES] = {"short", "long", "bulk",
"wait"};

const char *const gw_result_names[GW_RESULTS] = {"committed", "rolled back",
"unknown", "away", "dropped", "refused", "failed"};

const char *const gw_method_names[GW_METHODS] = {"publish", "publish_text",
	"publish_batch", "claim", "ack", "nack", "extend", "get",
	"get_by_transaction", "get_bytes", "peek", "store_message",
	"retrieve_message", "delete_message", "create_subscription",
	"drop_subscription", "pause", "resume", "seek", "redrive",
	"create_channel", "alter_channel", "drop_channel", "grant_channel",
	"revoke_channel", "purge_channel", "release_lease", "authenticate",
	"upload_begin", "upload_append", "upload_status", "upload_commit",
"upload_abort", "batch", "other"};

const int	gw_code_numbers[GW_CODES] = {0, -32700, -32600, -32601, -32602,
	-32603, -32001, -32002, -32003, -32004, -32005, -32006, -32007, -32008,
-32009, -32010, -32011, -32050, 1};

const char *const gw_end_names[GW_ENDS] = {"client", "gateway", "network"};

const char *const gw_refusal_names[GW_REFUSALS] = {"upgrade", "stopping",
	"connections", "host", "origin", "apikey", "memory", "too large", "buffered",
"not utf-8", "stopping"};

const int	gw_status_numbers[GW_STATUSES] = {200, 204, 206, 304, 400, 401,
	403, 404, 405, 408, 412, 413, 414, 416, 429, 431, 500, 503, 504, 505,
0};

const char *const gw_cut_names[GW_CUTS] = {"expired", "deleted", "denied",
"corrupt", "unanswered", "slow", "client", "stopping", "fault"};

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
gw_metric_request(GwLaneKind lane, size_t method, GwResult result, int code,
				  int64_t milliseconds)
{
	size_t		i;

	for (i = 0; i < GW_CODES - 1 && gw_code_numbers[i] != code; i++)
		;
	gw_metrics.requests[method][result][i]++;
	gw_metric_observe(GW_SCALE_LATENCY, lane, milliseconds);
}

/* gw_metric_status counts an answer of the HTTP door. */
void
gw_metric_status(int status)
{
	size_t		i;

	for (i = 0; i < GW_STATUSES - 1 && gw_status_numbers[i] != status; i++)
		;
	gw_metrics.statuses[i]++;
}

/* gw_metric_method returns the label of a method; ping is one of the rest. */
size_t
gw_metric_method(const char *name)
{
	size_t		i;

	for (i = 0; i < GW_METHOD_BATCH; i++)
		if (strcmp(gw_method_names[i], name) == 0)
			return i;
	return GW_METHOD_OTHER;
}

/* gw_metric_close counts the end of a connection. */
void
gw_metric_close(GwEnd end, int code)
{
	size_t		index = GW_CLOSE_CODES - 1;

	if (code >= 1000 && code <= 1015)
		index = (size_t) (code - 1000);
	else if (code >= 3000 && code <= 4999)
		index = code < 4000 ? GW_CLOSE_CODES - 3 : GW_CLOSE_CODES - 2;
	gw_metrics.closes[end][index]++;
}

/* gw_metric_close_label writes the label of a close code. */
const char *
gw_metric_close_label(size_t index, char *label, size_t size)
{
	static const char *const ranges[] = {"3xxx", "4xxx", "other"};

	if (index >= GW_CLOSE_CODES - 3)
		return ranges[index - (GW_CLOSE_CODES - 3)];
	(void) snprintf(label, size, "%d", 1000 + (int) index);
	return label;
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
