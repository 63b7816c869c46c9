/*
 * database.h
 *		One asynchronous connection to PostgreSQL. See database.c.
 */
#ifndef GW_DATABASE_H
#define GW_DATABASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/config.h"
#include "database/outcome.h"

typedef struct GwDatabase GwDatabase;

typedef struct GwDatabaseEvents
{
	/* A batch has ended: the oldest that was sent. */
	void		(*done) (void *owner, const GwOutcome *outcome);
	/* The connection is gone, and with it all that was sent. */
	void		(*lost) (void *owner, const char *reason);
} GwDatabaseEvents;

extern GwDatabase *gw_database_open(const GwConfig *config, const char *name,
									const GwDatabaseEvents *events,
									void *owner);
extern bool gw_database_is_ready(const GwDatabase *database);
extern bool gw_database_is_new(const GwDatabase *database);
extern const char *gw_database_reason(const GwDatabase *database);
extern const char *gw_database_bus(const GwDatabase *database);
extern void gw_database_took(GwDatabase *database);
extern const char *gw_database_told(const GwDatabase *database);
extern void gw_database_send(GwDatabase *database, const GwBuffer *sessions,
							 const GwBuffer *frames, long wait_ms);
extern void gw_database_drop(GwDatabase *database, const char *reason);
extern void gw_database_free(GwDatabase *database);

#endif							/* GW_DATABASE_H */
