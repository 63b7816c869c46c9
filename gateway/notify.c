/*
 * notify.c
 *		What the service manager is told, through libsystemd.
 *
 * Without NOTIFY_SOCKET nothing is sent. If the unit asks for a watchdog
 * (WATCHDOG_USEC), a sign of life goes out from the loop twice in that time:
 * a loop that hangs is noticed. A message that cannot be sent is logged once
 * and otherwise without effect. (sd_notify waits where the manager's queue is
 * full, so where it has not read for minutes.)
 */
#include "notify.h"

#include <systemd/sd-daemon.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "net/loop.h"

static GwTimer *watchdog_timer;
static int64_t watchdog_ms;

static void watchdog(void *owner);

/* gw_notify_open finds out whether there is a watchdog; it needs the loop. */
void
gw_notify_open(void)
{
	uint64_t	usec;

	if (sd_watchdog_enabled(0, &usec) <= 0)
		return;
	watchdog_ms = (int64_t) usec / 2000;
	if (watchdog_ms == 0)
		return;
	watchdog_timer = gw_timer_create(watchdog, NULL);
	if (watchdog_timer != NULL)
		gw_timer_start(watchdog_timer, watchdog_ms);
}

/* gw_notify_reloading says that a reload begins, which READY=1 ends. */
void
gw_notify_reloading(void)
{
	struct timespec now;
	char		state[96];

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	(void) snprintf(state, sizeof(state),
					"RELOADING=1\nMONOTONIC_USEC=%" PRId64,
					(int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000);
	gw_notify(state);
}

/* gw_notify tells a state, in the words of sd_notify(3). */
void
gw_notify(const char *state)
{
	static bool failed;
	int			sent = sd_notify(0, state);

	if (sent < 0 && !failed)
	{
		failed = true;
		gw_log_event("warning", "notify", strerror(-sent));
	}
}

static void
watchdog(void *owner)
{
	(void) owner;
	gw_notify("WATCHDOG=1");
	gw_timer_start(watchdog_timer, watchdog_ms);
}
