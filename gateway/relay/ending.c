/*
 * ending.c
 *		Ends of sessions that wait for the database.
 *
 * When a socket closes while the short lane is away, or the lane is lost with
 * what ends a session in it, the leases of that session would run until their
 * time is over, and cost their messages an attempt. So what ends it is kept
 * here until the lane is there again. To end a lease twice does no harm: its
 * number is never given out again.
 *
 * At most ENDINGS_MAX are kept; of more the leases run. One that was sent and
 * not answered TRIES_MAX times is dropped.
 */
#include "relay/ending.h"

#include <sys/queue.h>

#include "base/log.h"

#define ENDINGS_MAX		10000
#define TRIES_MAX		5

size_t		gw_endings_count;

static TAILQ_HEAD(, GwRequest) endings = TAILQ_HEAD_INITIALIZER(endings);

/*
 * gw_endings_keep takes over what ends a session; it is freed if it ends no
 * lease, or cannot be kept.
 */
void
gw_endings_keep(GwRequest *request)
{
	static GwLogFlood flood;
	GwLogLine	line;

	if (request->ends && request->tries < TRIES_MAX &&
		gw_endings_count < ENDINGS_MAX)
	{
		request->again = false;
		TAILQ_INSERT_TAIL(&endings, request, entry);
		gw_endings_count++;
		return;
	}
	if (request->ends)
	{
		gw_log_begin_few(&line, "warning", "ending_dropped", &flood);
		gw_log_number(&line, "connection", request->identity->session);
		gw_log_end(&line);
	}
	gw_request_free(request);
}

/* gw_endings_take returns the oldest; NULL if there is none. */
GwRequest *
gw_endings_take(void)
{
	GwRequest  *request = TAILQ_FIRST(&endings);

	if (request == NULL)
		return NULL;
	TAILQ_REMOVE(&endings, request, entry);
	gw_endings_count--;
	return request;
}
