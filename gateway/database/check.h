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

/* Queries of the steps of a check, and the one that every batch runs. */
extern const char *const gw_fault_query;
extern const char *const gw_settings_query;
extern const char *const gw_wait_query;
extern const char *const gw_relay_query;

extern const char *gw_check_role(const GwConfig *config);
extern void gw_check_settings(GwBuffer *json, const GwConfig *config);
extern bool gw_check_ping(const GwConfig *config, GwBuffer *sessions,
						  GwBuffer *frames);
extern const char *gw_check_reply(const PGresult *result);
extern void gw_check_secrets(const PGresult *result);
extern bool gw_check_is_asked(const char *sqlstate);

#endif							/* GW_CHECK_H */
