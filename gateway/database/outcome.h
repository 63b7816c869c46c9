/*
 * outcome.h
 *		The rows that relay returns. See outcome.c.
 */
#ifndef GW_OUTCOME_H
#define GW_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "request/answer.h"
#include "request/frame.h"

/*
 * How one batch ended. Not `failed`: it is committed and has rows. Failed
 * and not `unknown`: the server rolled it back and `error` says why. Failed
 * and `unknown`: it may be committed or not.
 */
typedef struct GwOutcome
{
	bool		failed;
	bool		unknown;
	const GwError *error;
	size_t		rows;
	const void *result;			/* for gw_outcome_row, outcome.c */
} GwOutcome;

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

extern bool gw_outcome_fits(const void *result);
extern bool gw_outcome_row(const GwOutcome *outcome, size_t row, GwRow *to);
extern void gw_row_leases(const GwRow *row, GwBuffer *leases);

#endif							/* GW_OUTCOME_H */
