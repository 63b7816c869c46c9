/*
 * client_log.c
 *		What the log tells of a connection.
 */
#include "relay/client.h"

#include "base/log.h"
#include "base/metrics.h"
#include "net/loop.h"

/* gw_client_log_close tells how a connection was used, and who ended it. */
void
gw_client_log_close(const GwClient *client)
{
	GwLogLine	line;

	gw_log_begin(&line, "info", "close");
	gw_log_number(&line, "connection", client->identity->session);
	gw_identity_log(client->identity, &line);
	gw_log_number(&line, "ms", gw_now_ms() - client->opened_ms);
	gw_log_number(&line, "frames_in", (int64_t) client->frames_in);
	gw_log_number(&line, "frames_out", (int64_t) client->frames_out);
	gw_log_number(&line, "in_flight", (int64_t) client->in_flight);
	gw_log_number(&line, "unwritten", (int64_t) client->replies.bytes);
	gw_log_text(&line, "by", gw_end_names[client->end]);
	gw_log_number(&line, "code", client->close_code);
	if (client->close_reason != NULL && client->close_reason[0] != '\0')
		gw_log_text(&line, "reason", client->close_reason);
	gw_log_end(&line);
}

/* gw_client_log logs an event, with what there is to say of it, or NULL. */
void
gw_client_log(const char *level, const char *event, const GwClient *client,
			  const char *detail)
{
	GwLogLine	line;

	gw_log_begin(&line, level, event);
	gw_log_number(&line, "connection", client->identity->session);
	gw_identity_log(client->identity, &line);
	if (detail != NULL)
		gw_log_text(&line, "detail", detail);
	gw_log_end(&line);
}

/*
 * gw_client_log_refused logs a frame that was not relayed, of many in a second
 * some.
 */
void
gw_client_log_refused(GwClient *client, const char *why)
{
	if (gw_identity_logs_failure(client->identity, gw_now_ms(),
								 GW_LOGS_REFUSED))
		gw_client_log("warning", "refused", client, why);
}
