/*
 * notify.c
 *		What the service manager is told: systemd's notify protocol.
 *
 * Each message is one datagram to the socket that NOTIFY_SOCKET names, a
 * path or, with @ in front, an abstract name. Without that variable nothing
 * is sent. If the unit asks for a watchdog (WATCHDOG_USEC), a sign of life
 * goes out from the loop twice in that time: a loop that hangs is noticed.
 * A message that cannot be sent is logged once and otherwise without effect.
 */
#include "notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "log.h"
#include "socket.h"

static struct sockaddr_un manager;
static socklen_t manager_length;
static int	descriptor = -1;
static GwTimer *watchdog_timer;
static int64_t watchdog_ms;
static bool failed;

static void open_watchdog(void);
static void watchdog(void *owner);
static void notify_send(const char *message);

/*
 * gw_notify_open finds out whether there is a service manager. It takes the
 * variables out of the environment, and needs the loop.
 */
void
gw_notify_open(void)
{
	const char *name = getenv("NOTIFY_SOCKET");
	size_t		length = name != NULL ? strlen(name) : 0;

	if (length < 2 || length >= sizeof(manager.sun_path) ||
		(name[0] != '/' && name[0] != '@'))
		return;
	manager.sun_family = AF_UNIX;
	memcpy(manager.sun_path, name, length);
	if (name[0] == '@')
		manager.sun_path[0] = '\0';
	manager_length = (socklen_t) (offsetof(struct sockaddr_un, sun_path) +
								  length);
	descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
						0);
	if (descriptor >= 0)
		open_watchdog();
	(void) unsetenv("NOTIFY_SOCKET");
}

void
gw_notify_ready(void)
{
	notify_send("READY=1");
}

/* gw_notify_reloading says that a reload begins, which ready ends. */
void
gw_notify_reloading(void)
{
	struct timespec now;
	char		message[96];

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	(void) snprintf(message, sizeof(message),
					"RELOADING=1\nMONOTONIC_USEC=%" PRId64,
					(int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000);
	notify_send(message);
}

void
gw_notify_stopping(void)
{
	notify_send("STOPPING=1");
}

/* gw_notify_status sets the line that "systemctl status" shows. */
void
gw_notify_status(const char *status)
{
	char		message[256];

	(void) snprintf(message, sizeof(message), "STATUS=%s", status);
	notify_send(message);
}

static void
open_watchdog(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");

	if (usec == NULL || (pid != NULL && atol(pid) != (long) getpid()))
		return;
	watchdog_ms = (int64_t) strtoll(usec, NULL, 10) / 2000;
	if (watchdog_ms <= 0)
		return;
	watchdog_timer = gw_timer_create(watchdog, NULL);
	if (watchdog_timer != NULL)
		gw_timer_start(watchdog_timer, watchdog_ms);
}

static void
watchdog(void *owner)
{
	(void) owner;
	notify_send("WATCHDOG=1");
	gw_timer_start(watchdog_timer, watchdog_ms);
}

static void
notify_send(const char *message)
{
	ssize_t		sent;

	if (descriptor < 0)
		return;
	sent = sendto(descriptor, message, strlen(message), MSG_NOSIGNAL,
				  (const struct sockaddr *) &manager, manager_length);
	if (sent < 0 && !failed)
	{
		failed = true;
		gw_log_event("warning", "notify", strerror(errno));
	}
}
