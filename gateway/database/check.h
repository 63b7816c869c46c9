/*
 * session.h
 *		What a database session must be before it relays. See session.c.
 */
#ifndef GW_SESSION_H
#define GW_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buffer.h"
#include "base/config.h"

/* Queries of the steps of a check, and the one that every batch runs. */
extern const char *const gw_fault_query;
extern const char *const gw_settings_query;
extern const char *const gw_wait_query;
extern const char *const gw_relay_query;

extern const char *gw_session_role(const GwConfig *config);
extern void gw_session_settings(GwBuffer *json, const GwConfig *config);
extern bool gw_session_ping(const GwConfig *config, GwBuffer *sessions,
							GwBuffer *frames);
extern bool gw_error_asks_check(const char *sqlstate);

#endif							/* GW_SESSION_H */
