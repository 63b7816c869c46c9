/*
 * refusal.c
 *		Connections that were refused: counted and logged.
 */
#include "net/refusal.h"

#include "base/log.h"
#include "net/loop.h"

/* Refusals that are logged in a second; the rest are counted. */
#define REFUSALS_LOGGED	20

/*
 * gw_refused counts and logs a connection that was refused. A flood
 * of them does not fill the log.
 */
void
gw_refused(GwRefusal reason, const char *address,
		   const char *detail)
{
	static int64_t second;
	static int	logged;
	GwLogLine	line;
	int64_t		now = gw_now_ms() / 1000;

	gw_metric_refused(reason);
	if (second != now)
	{
		second = now;
		logged = 0;
	}
	if (logged++ >= REFUSALS_LOGGED)
		return;
	gw_log_begin(&line, "warning", "handshake_refused");
	gw_log_text(&line, "detail", detail);
	gw_log_text(&line, "address", address);
	if (logged == REFUSALS_LOGGED)
		gw_log_text(&line, "note", "more are counted only in this second");
	gw_log_end(&line);
}
