/*
 * relay.h
 *		Lanes between sockets and database. See relay.c.
 */
#ifndef GW_RELAY_H
#define GW_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "client.h"
#include "metrics.h"
#include "config.h"

extern bool gw_relay_open(const GwConfig *config);
extern void gw_relay_submit(GwRequest *request);
extern void gw_relay_session_end(GwIdentity *identity);
extern void gw_relay_turn(void);
extern void gw_relay_sweep(void);
extern bool gw_relay_is_idle(void);
extern bool gw_relay_is_ready(GwBuffer *reasons);
extern void gw_relay_lane_state(GwLaneState *state);
extern void gw_relay_drain(void);
extern void gw_relay_close(void);

#endif							/* GW_RELAY_H */
