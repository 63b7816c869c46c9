/*
 * door.h
 *		The HTTP door: requests, and what they are answered. See door.c.
 */
#ifndef GW_DOOR_H
#define GW_DOOR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/config.h"

/* Requests that are being answered. */
extern size_t gw_door_active;

extern bool gw_door_open(const GwConfig *config);
extern void gw_door_drain(void);
extern void gw_door_close(void);

#endif							/* GW_DOOR_H */
