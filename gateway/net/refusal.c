/*
 * refusal.c
 *		Connections that were refused: counted and logged.
 */
#include "net/refusal.h"

#include "base/log.h"

/* gw_refused counts a connection that was refused, and logs a few. */
void
gw_refused(GwRefusal reason, const char *address,
		   const char *detail)
{
	static GwLogFlood flood;
	GwLogLine	line;

	gw_metric_refused(reason);
	gw_log_begin_few(&line, "warning", "handshake_refused", &flood);
	gw_log_text(&line, "detail", detail);
	gw_log_text(&line, "address", address);
	gw_log_end(&line);
}
