/*
 * fault.h
 *		Failures: counted, kept and told.
 */
#ifndef MBUS_FAULT_H
#define MBUS_FAULT_H

#include "postgres.h"

#include "fmgr.h"

#include "state/state.h"

extern void mbus_fault_record(const char *function, ErrorData *edata,
							  Oid user, const char *subject, bool verified);
extern void mbus_fault_checksum(int64 message_id, const char *message);
extern Datum mbus_call(PGFunction body, const char *function,
					   FunctionCallInfo fcinfo);
extern Datum mbus_channel_call(PGFunction body, const char *function,
							   FunctionCallInfo fcinfo);

/* the database's worker only */
extern char *mbus_fault_take(MbusDatabase *db, uint64 *from, uint64 *to);
extern void mbus_fault_taken(MbusDatabase *db, uint64 from, uint64 to);

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

/*
 * MBUS_CHANNEL_FUNCTION does so for one whose first argument is the name of a
 * channel: that is what an error is recorded to be about.
 */
#define MBUS_CHANNEL_FUNCTION(name) \
	static Datum name##_body(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(mbus_##name); \
	Datum \
	mbus_##name(PG_FUNCTION_ARGS) \
	{ \
		return mbus_channel_call(name##_body, #name, fcinfo); \
	} \
	static Datum \
	name##_body(PG_FUNCTION_ARGS)

#endif							/* MBUS_FAULT_H */
