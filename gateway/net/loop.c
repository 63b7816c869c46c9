/*
 * loop.c
 *		The event loop: clock, watched descriptors, timers.
 *
 * One thread runs the loop; main.c calls gw_loop_turn, which waits and then
 * handles everything that is ready. What libwebsockets asks for:
 *
 *	- It closes descriptors that it adopted, so a watch is given a dup().
 *	- It forgets a wish to write that is made in the writeable callback of an
 *	  adopted descriptor, so wishes are kept and made again before each turn.
 *	- An adopted descriptor may be let go from anywhere, so that is done by
 *	  its own timeout, never at once.
 */
#include "net/loop.h"

#include <libwebsockets.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/log.h"

#define READ_MAX	16384

struct GwWatch
{
	LIST_ENTRY(GwWatch) entry;
	struct lws *wsi;			/* NULL once the descriptor is at its end */
	GwWatchReady ready;
	void	   *owner;
	struct stat identity;		/* of what is watched */
	bool		want_write;
};

struct GwTimer
{
	lws_sorted_usec_list_t sul;
	GwTimerFire fire;
	void	   *owner;
};

static struct lws_context *context;
static struct lws_vhost *vhost;
static LIST_HEAD(, GwWatch) watches = LIST_HEAD_INITIALIZER(watches);

static int64_t clock_ms(clockid_t clock);
static int	watch_callback(struct lws *wsi, enum lws_callback_reasons reason,
						   void *user, void *in, size_t len);
static void timer_fired(lws_sorted_usec_list_t *sul);
static void log_library(int level, const char *string);

static const struct lws_protocols protocols[] = {
	{"watch", watch_callback, 0, 0, 0, NULL, 0},
	{NULL, NULL, 0, 0, 0, NULL, 0}
};

/* gw_loop_open makes the loop; false if it cannot, which is logged. */
bool
gw_loop_open(const GwConfig *config)
{
	struct lws_context_creation_info info;

	lws_set_log_level(LLL_ERR | LLL_WARN, log_library);
	memset(&info, 0, sizeof(info));
	info.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS;
	if (config->tls_cert[0] != '\0')
		info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
	info.pt_serv_buf_size = READ_MAX;
	info.max_http_header_data = GW_HEADERS_MAX;
	info.max_http_header_pool = (unsigned short)
		(config->max_connections < 60000 ?
		 config->max_connections + GW_SPARE_SOCKETS : 60000);
	info.timeout_secs = (unsigned int) config->http_timeout;
	context = lws_create_context(&info);
	if (context != NULL)
	{
		info.port = CONTEXT_PORT_NO_LISTEN_SERVER;
		info.protocols = protocols;
		info.vhost_name = "watches";
		vhost = lws_create_vhost(context, &info);
	}
	if (vhost == NULL)
		gw_log_event("error", "start", "could not create the event loop");
	return vhost != NULL;
}

/* gw_loop_context returns what the rest of the room builds on. */
struct lws_context *
gw_loop_context(void)
{
	return context;
}

/* gw_loop_turn waits and handles what is ready; false if the loop failed. */
bool
gw_loop_turn(void)
{
	GwWatch    *watch;

	LIST_FOREACH(watch, &watches, entry)
		if (watch->want_write && watch->wsi != NULL)
		(void) lws_callback_on_writable(watch->wsi);
	return lws_service(context, 0) >= 0;
}

/* gw_now_ms returns the monotonic clock. */
int64_t
gw_now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

/* gw_unix_ms returns the time of day, by which tokens expire. */
int64_t
gw_unix_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

static int64_t
clock_ms(clockid_t clock)
{
	struct timespec now;

	(void) clock_gettime(clock, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * gw_watch_create calls `ready` whenever a descriptor can be read, can be
 * written if that is wanted, or is at its end. The descriptor stays the
 * caller's. It returns NULL if it cannot watch.
 */
GwWatch *
gw_watch_create(int descriptor, GwWatchReady ready, void *owner)
{
	GwWatch    *watch = calloc(1, sizeof(GwWatch));
	lws_sock_file_fd_type copy;

	if (watch == NULL)
		return NULL;
	watch->ready = ready;
	watch->owner = owner;
	copy.filefd = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
	if (copy.filefd >= 0 && fstat(copy.filefd, &watch->identity) == 0)
		watch->wsi = lws_adopt_descriptor_vhost(vhost, LWS_ADOPT_RAW_FILE_DESC,
												copy, protocols[0].name, NULL);
	if (watch->wsi == NULL)
	{
		/* Where the library fails it leaves a file, unlike a socket, open. */
		if (copy.filefd >= 0)
			(void) close(copy.filefd);
		free(watch);
		return NULL;
	}
	lws_set_opaque_user_data(watch->wsi, watch);
	LIST_INSERT_HEAD(&watches, watch, entry);
	return watch;
}

/* gw_watch_is_on tells whether a watch is on what this descriptor is now. */
bool
gw_watch_is_on(const GwWatch *watch, int descriptor)
{
	struct stat identity;

	return fstat(descriptor, &identity) == 0 &&
		identity.st_dev == watch->identity.st_dev &&
		identity.st_ino == watch->identity.st_ino;
}

void
gw_watch_want_write(GwWatch *watch, bool want)
{
	watch->want_write = want;
}

/* gw_watch_free looks no more; NULL is nothing to look at. */
void
gw_watch_free(GwWatch *watch)
{
	if (watch == NULL)
		return;
	LIST_REMOVE(watch, entry);
	if (watch->wsi != NULL)
	{
		lws_set_opaque_user_data(watch->wsi, NULL);
		lws_set_timeout(watch->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
	}
	free(watch);
}

GwTimer *
gw_timer_create(GwTimerFire fire, void *owner)
{
	GwTimer    *timer = calloc(1, sizeof(GwTimer));

	if (timer == NULL)
		return NULL;
	timer->fire = fire;
	timer->owner = owner;
	return timer;
}

/* gw_timer_start calls `fire` once, so many milliseconds from now. */
void
gw_timer_start(GwTimer *timer, int64_t milliseconds)
{
	lws_sul_schedule(context, 0, &timer->sul, timer_fired,
					 milliseconds > 0 ? milliseconds * LWS_US_PER_MS : 1);
}

void
gw_timer_stop(GwTimer *timer)
{
	lws_sul_schedule(context, 0, &timer->sul, timer_fired,
					 LWS_SET_TIMER_USEC_CANCEL);
}

void
gw_timer_free(GwTimer *timer)
{
	gw_timer_stop(timer);
	free(timer);
}

static void
timer_fired(lws_sorted_usec_list_t *sul)
{
	GwTimer    *timer = lws_container_of(sul, GwTimer, sul);

	timer->fire(timer->owner);
}

static int
watch_callback(struct lws *wsi, enum lws_callback_reasons reason, void *user,
			   void *in, size_t len)
{
	GwWatch    *watch;

	(void) user;
	(void) in;
	(void) len;
	if (reason != LWS_CALLBACK_RAW_RX_FILE &&
		reason != LWS_CALLBACK_RAW_WRITEABLE_FILE &&
		reason != LWS_CALLBACK_RAW_CLOSE_FILE)
		return 0;
	watch = lws_get_opaque_user_data(wsi);
	if (watch == NULL)
		return -1;
	if (reason == LWS_CALLBACK_RAW_CLOSE_FILE)
	{
		/* Its owner finds the end when it looks, and frees the watch. */
		lws_set_opaque_user_data(wsi, NULL);
		watch->wsi = NULL;
		watch->want_write = false;
	}
	watch->ready(watch->owner);
	return 0;
}

/* log_library passes on what libwebsockets complains about. */
static void
log_library(int level, const char *string)
{
	static GwLogFlood flood;
	char		detail[512];
	GwLogLine	line;

	gw_text_copy(detail, sizeof(detail), string);
	gw_log_begin_few(&line, level == LLL_ERR ? "error" : "warning",
					 "libwebsockets", &flood);
	gw_log_text(&line, "detail", detail);
	gw_log_end(&line);
}
