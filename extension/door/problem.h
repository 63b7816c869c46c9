/*
 * problem.h
 *		Errors as RFC 9457 has them.
 */
#ifndef MBUS_PROBLEM_H
#define MBUS_PROBLEM_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/elog.h"

/* An answer that is no message; texts are borrowed. */
typedef struct MbusProblem
{
	int			status;
	const char *sqlstate;
	const char *detail;			/* NULL: the title says it all */
} MbusProblem;

extern void mbus_problem_of(const ErrorData *edata, bool anonymous,
							MbusProblem *problem);
extern void mbus_problem_set(int status, MbusProblem *problem);
extern void mbus_problem_append(StringInfo out, const MbusProblem *problem);

#endif							/* MBUS_PROBLEM_H */
