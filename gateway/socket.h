/*
 * socket.h
 *		The event loop: sockets, descriptors and timers. See socket.c.
 */
#ifndef GW_SOCKET_H
#define GW_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"

/* Descriptors beyond the WebSocket connections: HTTP, handshakes, our own. */
#define GW_SPARE_SOCKETS	256

/* An address as text, with its zero byte (INET6_ADDRSTRLEN). */
#define GW_ADDRESS_MAX		46

/* Room that must be free before the bytes of a reply (LWS_PRE). */
#define GW_WRITE_ROOM	16

/* A connection's socket, a watched descriptor, a timer: all opaque. */
typedef struct lws GwSocket;
typedef struct GwWatch GwWatch;
typedef struct GwTimer GwTimer;

typedef void (*GwTimerFire) (void *owner);
typedef void (*GwWatchReady) (void *owner);

extern bool gw_loop_open(const GwConfig *config);
extern bool gw_loop_turn(void);
extern void gw_loop_refuse(void);
extern int64_t gw_now_ms(void);
extern int64_t gw_unix_ms(void);

extern bool gw_sockets_open(void);
extern void gw_sockets_sweep(void);
extern const char *gw_socket_address(GwSocket *socket);
extern void gw_socket_write_soon(GwSocket *socket);
extern void gw_socket_pause(GwSocket *socket, bool pause);
extern void gw_socket_kill(GwSocket *socket);

extern GwWatch *gw_watch_create(int descriptor, GwWatchReady ready,
								void *owner);
extern bool gw_watch_is_on(const GwWatch *watch, int descriptor);
extern void gw_watch_want_write(GwWatch *watch, bool want);
extern void gw_watch_pause(GwWatch *watch, bool pause);
extern void gw_watch_free(GwWatch *watch);

extern GwTimer *gw_timer_create(GwTimerFire fire, void *owner);
extern void gw_timer_start(GwTimer *timer, int64_t milliseconds);
extern void gw_timer_stop(GwTimer *timer);
extern void gw_timer_free(GwTimer *timer);

#endif							/* GW_SOCKET_H */
