/*
 * check.h
 *		What a database session must be before it relays. See check.c.
 */
#ifndef GW_CHECK_H
#define GW_CHECK_H

#include <libpq-fe.h>

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "base/config.h"

/* The steps, in their order. */
enum
{
	GW_STEP_FAULT,
	GW_STEP_SETTINGS,
	GW_STEP_PROBE,
	GW_STEP_PREPARE_WAIT,
	GW_STEP_PREPARE,
	GW_STEP_PING,
	GW_STEPS					/* all done: its backend is to be proven */
};

/* The fault of a database without the extension. */
extern const char gw_not_installed[];

/* What is asked again and again, and what every batch runs. */
extern const char *const gw_probe_query;
extern const char *const gw_relay_query;

extern bool gw_check_send(PGconn *conn, const GwConfig *config);
extern bool gw_check_ping(const GwConfig *config, GwBuffer *sessions,
						  GwBuffer *frames);
extern const char *gw_check_login(const PGresult *result,
								  const char *sqlstate, const char *message);
extern const char *gw_check_failed(const char *sqlstate,
								   const char *message);
extern const char *gw_check_reply(const PGresult *result);
extern bool gw_check_is_asked(const char *sqlstate);

#endif							/* GW_CHECK_H */
