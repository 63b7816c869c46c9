/*
 * fill.h
 *		Which requests go into a lane's next batch. See fill.c.
 */
#ifndef GW_FILL_H
#define GW_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/metrics.h"
#include "relay/queue.h"
#include "request/batch.h"

/* A lane whose batch is filled. */
typedef struct GwFill
{
	GwLaneKind	kind;
	size_t		connection;		/* its index */
	uint32_t	generation;		/* of the connection's lives */
	bool		has_many;		/* a frame of many calls is in flight */
	bool		has_alone;		/* one of its kind has a batch of one that may
								 * take long */
	/* What takes over a request that is not to be sent. */
	void		(*drop) (GwLaneKind kind, GwRequest *request,
						 const GwError *error, GwResult result);
} GwFill;

extern void gw_fill_init(const GwConfig *config);
extern void gw_lane_weigh(GwRequest *request);
extern GwBatch *gw_batch_fill(const GwFill *fill, GwQueue *own,
							  GwQueue *shared);

#endif							/* GW_FILL_H */
