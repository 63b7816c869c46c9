/*
 * loop.h
 *		The event loop: clock, watched descriptors, timers. See loop.c.
 */
#ifndef GW_LOOP_H
#define GW_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"

/* Descriptors beyond the WebSocket connections: HTTP, handshakes, our own. */
#define GW_SPARE_SOCKETS	256

/* The longest head of a request. */
#define GW_HEADERS_MAX		8192

typedef struct GwWatch GwWatch;
typedef struct GwTimer GwTimer;

typedef void (*GwTimerFire) (void *owner);
typedef void (*GwWatchReady) (void *owner);

extern bool gw_loop_open(const GwConfig *config);
extern struct lws_context *gw_loop_context(void);
extern bool gw_loop_turn(void);
extern int64_t gw_now_ms(void);
extern int64_t gw_unix_ms(void);

extern GwWatch *gw_watch_create(int descriptor, GwWatchReady ready,
								void *owner);
extern bool gw_watch_is_on(const GwWatch *watch, int descriptor);
extern void gw_watch_want_write(GwWatch *watch, bool want);
extern void gw_watch_free(GwWatch *watch);

extern GwTimer *gw_timer_create(GwTimerFire fire, void *owner);
extern void gw_timer_start(GwTimer *timer, int64_t milliseconds);
extern void gw_timer_stop(GwTimer *timer);
extern void gw_timer_free(GwTimer *timer);

#endif							/* GW_LOOP_H */
