/*
 * relay.h
 *		Which lane a request takes. See relay.c.
 */
#ifndef GW_RELAY_H
#define GW_RELAY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "base/config.h"
#include "base/metrics.h"
#include "request/batch.h"

/* What the lanes of one kind are doing. */
typedef struct GwLaneState
{
	size_t		connections;	/* to the database */
	size_t		ready;			/* of these */
	size_t		breakers_open;	/* of these */
	size_t		queued;			/* requests not yet sent */
	size_t		in_flight;		/* batches sent and not answered */
} GwLaneState;

extern bool gw_relay_open(const GwConfig *config);
extern void gw_relay_submit(GwRequest *request);
extern bool gw_relay_ask(GwRequest *request, GwError *error);
extern void gw_relay_withdraw(GwRequest *request);
extern void gw_relay_over_limit(GwIdentity *identity, const GwBuffer *message);
extern bool gw_relay_greet(GwIdentity *identity, GwError *error);
extern void gw_relay_turn(void);
extern void gw_relay_sweep(void);
extern bool gw_relay_is_new(void);
extern bool gw_relay_is_idle(void);
extern void gw_relay_reasons(GwBuffer *reasons, bool operator);
extern GwLaneState gw_relay_lane_state(GwLaneKind kind);
extern void gw_relay_drain(void);
extern void gw_relay_close(void);

#endif							/* GW_RELAY_H */
