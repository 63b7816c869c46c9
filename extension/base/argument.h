/*
 * argument.h
 *		Arguments of SQL functions, and whether one may write.
 */
#ifndef MBUS_ARGUMENT_H
#define MBUS_ARGUMENT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/array.h"

extern int64 mbus_interval_us(const Interval *interval);
extern void mbus_required(FunctionCallInfo fcinfo, int argno,
						  const char *name);
extern text *mbus_required_text(FunctionCallInfo fcinfo, int argno,
								const char *name);
extern ArrayType *mbus_array_argument(FunctionCallInfo fcinfo, int argno,
									  const char *name);
extern void mbus_name_check(const char *kind, const char *name);
extern void mbus_write_check(const char *what);

#endif							/* MBUS_ARGUMENT_H */
