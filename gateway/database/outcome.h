/*
 * outcome.h
 *		The rows that relay returns. See outcome.c.
 */
#ifndef GW_OUTCOME_H
#define GW_OUTCOME_H

#include <libpq-fe.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "database/database.h"
#include "request/frame.h"

/* One row; it lives as long as its outcome. */
typedef struct GwRow
{
	int64_t		session;
	GwSpan		frame;			/* begins with its opcode */
	size_t		request;		/* in the call, from 1 */
	bool		answers;		/* is about the request, not the gateway's own */
	int			code;			/* of the request's first error, or 0 */
	const char *sqlstate;		/* of that, or empty */
	GwSpan		leases;			/* as PostgreSQL sends an array */
} GwRow;

extern bool gw_outcome_fits(const PGresult *result);
extern bool gw_outcome_row(const GwOutcome *outcome, size_t row, GwRow *to);
extern void gw_row_leases(const GwRow *row, GwBuffer *leases);

#endif							/* GW_OUTCOME_H */
