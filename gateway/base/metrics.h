/*
 * metrics.h
 *		What is counted. See metrics.c.
 */
#ifndef GW_METRICS_H
#define GW_METRICS_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

/*
 * The counters without labels: name (here and in /healthz), series of
 * /metrics (NULL: it is the sum of another one), and what that tells.
 */
#define GW_COUNTERS(X) \
	X(connections, "connections_opened_total", \
	  "WebSocket connections that were opened.") \
	X(connections_refused, NULL, NULL) \
	X(frames_in, "frames_received_total", \
	  "Whole messages that clients sent.") \
	X(bytes_in, "received_bytes_total", \
	  "Bytes of the messages that clients sent.") \
	X(frames_out, "frames_sent_total", \
	  "Messages that were written to clients.") \
	X(bytes_out, "sent_bytes_total", \
	  "Bytes of the messages that were written.") \
	X(frames_refused, NULL, NULL) \
	X(frames_cut_off, "frames_cut_off_total", \
	  "Messages whose socket closed before their end.") \
	X(batches, "batches_total", \
	  "Batches whose end is known.") \
	X(batches_failed, "batches_failed_total", \
	  "Batches that were rolled back or lost.") \
	X(outcomes_unknown, "outcomes_unknown_total", \
	  "Requests that were answered -32050, outcome unknown.") \
	X(replies_undelivered, "replies_undelivered_total", \
	  "Replies whose connection was gone or did not read.") \
	X(replies_missing, "replies_missing_total", \
	  "Requests for which the database returned no reply.") \
	X(database_connects, "database_connects_total", \
	  "Database connections that became ready.") \
	X(database_losses, "database_losses_total", \
	  "Database connections that were ready and got lost.") \
	X(http_connections, "http_connections_opened_total", \
	  "Connections of the HTTP door that were opened.") \
	X(http_bytes_out, "http_sent_bytes_total", \
	  "Bytes of the HTTP door's answers that were written.") \
	X(accept_pauses, "accept_pauses_total", \
	  "Times that accepting paused because descriptors were used up.") \
	X(reloads, "reloads_total", \
	  "Reloads of the configuration that were asked for.") \
	X(reloads_failed, "reloads_failed_total", \
	  "Reloads that were refused for a fault.") \
	X(log_lines_lost, "log_lines_lost_total", \
	  "Log lines that could not be written.")

#define GW_COUNTER_MEMBER(name, series, help) uint64_t name;

typedef struct GwCounters
{
	GW_COUNTERS(GW_COUNTER_MEMBER)
} GwCounters;

typedef struct GwCounterName
{
	const char *name;
	const char *series;
	const char *help;
	const uint64_t *value;
} GwCounterName;

#define GW_COUNTER_COUNT	(sizeof(GwCounters) / sizeof(uint64_t))

typedef enum GwLaneKind
{
	GW_LANE_SHORT,
	GW_LANE_LONG,
	GW_LANE_BULK,				/* any of a few connections */
	GW_LANE_WAIT,				/* any of several connections */
	GW_LANES
} GwLaneKind;

/*
 * Database connections of a gateway, in this order: short, long, those for
 * bulk, and those that wait.
 */
#define GW_BULK_FIRST		2
#define GW_BULK_COUNT		2
#define GW_WAIT_FIRST		(GW_BULK_FIRST + GW_BULK_COUNT)
#define GW_WAIT_MAX			16
#define GW_CONNECTIONS_MAX	(GW_WAIT_FIRST + GW_WAIT_MAX)

/* How a request ended. */
typedef enum GwResult
{
	GW_COMMITTED,
	GW_ROLLED_BACK,
	GW_UNKNOWN,
	GW_AWAY,
	GW_DROPPED,
	GW_REFUSED,
	GW_FAILED,					/* the database answered it with an error */
	GW_RESULTS
} GwResult;

/* Methods have a label each; the last two are for the rest. */
#define GW_METHODS		35
#define GW_METHOD_BATCH	(GW_METHODS - 2)
#define GW_METHOD_OTHER	(GW_METHODS - 1)

/* JSON-RPC codes likewise; the first is none, the last any other. */
#define GW_CODES		19

/* Who ended a connection. */
typedef enum GwEnd
{
	GW_END_CLIENT,				/* by a close frame */
	GW_END_GATEWAY,
	GW_END_NETWORK,				/* nobody: the socket was gone */
	GW_ENDS
} GwEnd;

/* Close codes: 1000 to 1015, then 3xxx, 4xxx and any other. */
#define GW_CLOSE_CODES	19

/* Why a connection or a frame was refused: a label each. */
typedef enum GwRefusal
{
	/* Connections. */
	GW_REFUSED_UPGRADE,
	GW_REFUSED_STOPPING,
	GW_REFUSED_CONNECTIONS,
	GW_REFUSED_HOST,
	GW_REFUSED_ORIGIN,
	GW_REFUSED_KEY,
	GW_REFUSED_MEMORY,
	GW_REFUSED_CONNECTION_LAST = GW_REFUSED_MEMORY,
	/* Frames. */
	GW_REFUSED_TOO_LARGE,
	GW_REFUSED_BUFFERED,
	GW_REFUSED_NOT_UTF8,
	GW_REFUSED_DRAINING,
	GW_REFUSALS
} GwRefusal;

/* Statuses of the HTTP door; the last is any other. */
#define GW_STATUSES		21

/* Why a download ended short of its length. */
typedef enum GwCut
{
	GW_CUT_EXPIRED,
	GW_CUT_DELETED,
	GW_CUT_DENIED,
	GW_CUT_CORRUPT,
	GW_CUT_UNANSWERED,			/* by the database */
	GW_CUT_SLOW,				/* the client took too little */
	GW_CUT_CLIENT,				/* the client has gone */
	GW_CUT_STOPPING,
	GW_CUT_FAULT,				/* what should not be */
	GW_CUTS
} GwCut;

/* What histograms are made of, with the upper bounds of their buckets. */
typedef enum GwScaleKind
{
	GW_SCALE_LATENCY,			/* of requests, ms */
	GW_SCALE_SIZE,				/* of batches, requests */
	GW_SCALES
} GwScaleKind;

#define GW_STEPS_MAX	16

typedef struct GwScale
{
	size_t		count;			/* the last step, +Inf, goes without saying */
	int64_t		steps[GW_STEPS_MAX];
} GwScale;

typedef struct GwHistogram
{
	uint64_t	counts[GW_STEPS_MAX];
	uint64_t	count;
	uint64_t	sum;
} GwHistogram;

/* What has labels, each with a fixed set of values. */
typedef struct GwMetrics
{
	uint64_t	requests[GW_METHODS][GW_RESULTS][GW_CODES];
	uint64_t	closes[GW_ENDS][GW_CLOSE_CODES];
	uint64_t	refusals[GW_REFUSALS];
	uint64_t	statuses[GW_STATUSES];
	uint64_t	cuts[GW_CUTS];
	GwHistogram histograms[GW_SCALES][GW_LANES];
	time_t		started;
} GwMetrics;

extern GwCounters gw_counters;
extern GwMetrics gw_metrics;
extern const GwCounterName gw_counter_names[GW_COUNTER_COUNT];
extern const char *const gw_lane_names[GW_LANES];
extern const char *const gw_result_names[GW_RESULTS];
extern const char *const gw_method_names[GW_METHODS];
extern const int gw_code_numbers[GW_CODES];
extern const char *const gw_end_names[GW_ENDS];
extern const char *const gw_refusal_names[GW_REFUSALS];
extern const int gw_status_numbers[GW_STATUSES];
extern const char *const gw_cut_names[GW_CUTS];
extern const GwScale gw_scales[GW_SCALES];

extern void gw_metric_refused(GwRefusal reason);
extern void gw_metric_request(GwLaneKind lane, size_t method, GwResult result,
							  int code, int64_t milliseconds);
extern size_t gw_metric_method(const char *name);
extern void gw_metric_status(int status);
extern void gw_metric_close(GwEnd end, int code);
extern const char *gw_metric_close_label(size_t index, char *label,
										 size_t size);
extern void gw_metric_observe(GwScaleKind kind, GwLaneKind lane,
							  int64_t value);

#endif							/* GW_METRICS_H */
