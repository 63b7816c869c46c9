/*
 * ending.h
 *		Ends of sessions that wait for the database. See ending.c.
 */
#ifndef GW_ENDING_H
#define GW_ENDING_H

#include <stddef.h>

#include "request/batch.h"

extern size_t gw_endings_count;

extern void gw_endings_keep(GwRequest *request);
extern GwRequest *gw_endings_take(void);

#endif							/* GW_ENDING_H */
