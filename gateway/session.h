/*
 * session.h
 *		What a database session must be before it relays. See session.c.
 */
#ifndef GW_SESSION_H
#define GW_SESSION_H

#include <stdbool.h>
#include <stddef.h>

#include "buffer.h"
#include "config.h"

/* Queries of the steps of a check, and the one that every batch runs. */
extern const char *const gw_survey_query;
extern const char *const gw_settings_query;
extern const char *const gw_wait_query;
extern const char *const gw_relay_query;

/* Returns the text of a column of the survey's row. */
typedef const char *(*GwColumn) (const void *row, size_t column);

extern const char *gw_session_role(const GwConfig *config);
extern const char *gw_survey_fault(const GwConfig *config, GwColumn column,
								   const void *row);
extern void gw_session_settings(GwBuffer *json, const GwConfig *config);
extern bool gw_session_ping(const GwConfig *config, GwBuffer *sessions,
							GwBuffer *frames);
extern bool gw_error_asks_check(const char *sqlstate);

#endif							/* GW_SESSION_H */
