/*
 * fault.h
 *		Failures: counted, kept and told.
 */
#ifndef MBUS_FAULT_H
#define MBUS_FAULT_H

#include "postgres.h"

#include "fmgr.h"

extern void mbus_fault_record(const char *function, ErrorData *edata,
							  Oid user);
extern void mbus_fault_checksum(int64 message_id, const char *detail);
extern Datum mbus_call(PGFunction body, const char *function,
					   FunctionCallInfo fcinfo);

/*
 * MBUS_FUNCTION defines an SQL-callable function whose errors are recorded
 * on their way to the caller.
 */
#define MBUS_FUNCTION(name) \
	static Datum name##_body(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(mbus_##name); \
	Datum \
	mbus_##name(PG_FUNCTION_ARGS) \
	{ \
		return mbus_call(name##_body, #name, fcinfo); \
	} \
	static Datum \
	name##_body(PG_FUNCTION_ARGS)

#endif							/* MBUS_FAULT_H */
