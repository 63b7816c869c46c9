/*
 * schema.h
 *		The extension's schema and what is in it, by name.
 */
#ifndef MBUS_SCHEMA_H
#define MBUS_SCHEMA_H

#include "postgres.h"

extern Oid	mbus_schema(void);
extern Oid	mbus_relation(Oid schema, const char *name);

#endif							/* MBUS_SCHEMA_H */
