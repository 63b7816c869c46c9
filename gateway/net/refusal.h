/*
 * refusal.h
 *		Connections that were refused. See refusal.c.
 */
#ifndef GW_REFUSAL_H
#define GW_REFUSAL_H

#include "base/metrics.h"

extern void gw_refused(GwRefusal reason, const char *address,
					   const char *detail);

#endif							/* GW_REFUSAL_H */
