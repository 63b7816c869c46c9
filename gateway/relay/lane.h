/*
 * lane.h
 *		Lanes between clients and database. See lane.c.
 */
#ifndef GW_LANE_H
#define GW_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/config.h"
#include "base/metrics.h"
#include "database/database.h"
#include "relay/client.h"
#include "relay/queue.h"
#include "request/answer.h"
#include "request/batch.h"

typedef struct GwLane
{
	size_t		index;			/* among the database connections */
	GwLaneKind	kind;
	size_t		depth;			/* batches in flight at a time */
	GwDatabase *database;		/* NULL: not needed so far */
	uint32_t	generation;		/* of the connection's lives */
	GwQueue    *turns;			/* in which its sessions take turns */
	GwQueue		queue;
	int64_t		session;		/* whose claim it has, in the pool */
				STAILQ_HEAD(, GwBatch) flight;	/* sent, oldest first */
	size_t		in_flight;
	long		lost_in_row;	/* batches lost since one ended well */
	int64_t		closed_until;	/* the breaker is open until then */
} GwLane;

/* By database connection: short, long, bulk, and those that wait. */
extern GwLane gw_lanes[GW_CONNECTIONS_MAX];

extern void gw_lanes_init(const GwConfig *config, GwQueue *bulk,
						  GwQueue *waiting);
extern bool gw_lane_open(GwLane *lane);
extern bool gw_lane_takes(const GwLane *lane, GwError *error);
extern void gw_lane_turn(GwLane *lane, long wait_ms);

extern void gw_queue_refuse(GwQueue *queue, GwLaneKind lane,
							const GwError *error);

extern void gw_session_end(GwIdentity *identity);
extern void gw_endings_send(void);
extern void gw_request_end(GwLaneKind lane, GwRequest *request,
						   const GwError *error, GwResult result);

#endif							/* GW_LANE_H */
