/*
 * owner.h
 *		Statements that run as the owner of the extension's tables.
 */
#ifndef MBUS_OWNER_H
#define MBUS_OWNER_H

#include "postgres.h"

extern Oid	mbus_tables_owner(Oid schema);
extern int	mbus_run_as_owner(Oid schema, const char *command, int nargs,
							  const Oid *types, Datum *values,
							  const char *nulls);
extern int	mbus_run_as_owner_latest(Oid schema, const char *command,
									 int nargs, const Oid *types,
									 Datum *values);

#endif							/* MBUS_OWNER_H */
