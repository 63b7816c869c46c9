/* publishes.h - whether the bus takes publishes. */
#ifndef GW_PUBLISHES_H
#define GW_PUBLISHES_H

#include "database/database.h"
#include "request/batch.h"

extern void gw_note_publish(GwDatabase *database, const GwRequest *request,
							const char *sqlstate, GwResult result);
extern const char *gw_publishes_refused(void);

#endif
