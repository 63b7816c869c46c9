/*
 * metrics.h
 *		What is counted and shown to Prometheus. See metrics.c.
 */
#ifndef GW_METRICS_H
#define GW_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

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

/* What a lane is doing; the relay fills it in. */
typedef struct GwLaneState
{
	const char *name;
	size_t		connections;	/* to the database */
	size_t		ready;			/* of these */
	size_t		breakers_open;	/* of these */
	size_t		queued;			/* requests not yet sent */
	size_t		in_flight;		/* batches sent and not answered */
} GwLaneState;

extern void gw_metrics_init(void);
extern void gw_metric_refused(GwRefusal reason);
extern void gw_metric_request(const char *lane, const char *outcome,
							  int64_t milliseconds);
extern void gw_metric_batch(const char *lane, size_t requests);
extern void gw_metrics_text(GwBuffer *out);

#endif							/* GW_METRICS_H */
