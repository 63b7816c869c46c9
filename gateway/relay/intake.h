/*
 * intake.h
 *		Who may have how many bytes of frames in the gateway. See intake.c.
 */
#ifndef GW_INTAKE_H
#define GW_INTAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/config.h"
#include "request/identity.h"

/* Bytes of unanswered and unfinished frames. */
typedef struct GwIntakeTotals
{
	size_t		bytes;			/* of all connections */
	size_t		strangers;		/* of these, of connections without a token */
} GwIntakeTotals;

extern GwIntakeTotals gw_intake_totals;

extern void gw_intake_init(const GwConfig *config);
extern void gw_intake_begin(GwIdentity *identity);
extern void gw_intake_add(GwIdentity *identity, size_t bytes);
extern void gw_intake_remove(GwIdentity *identity, size_t bytes);
extern void gw_intake_meet(GwIdentity *identity);
extern size_t gw_intake_limit(const GwIdentity *identity, bool *anonymous);
extern bool gw_intake_is_full(const GwIdentity *identity, char *why,
							  size_t size);
extern bool gw_intake_has_share(const GwIdentity *identity);
extern bool gw_intake_must_greet(const GwIdentity *identity);

#endif							/* GW_INTAKE_H */
