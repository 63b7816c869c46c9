/*
 * access.h
 *		Reads that are recorded.
 */
#ifndef MBUS_ACCESS_H
#define MBUS_ACCESS_H

#include "postgres.h"

extern void mbus_access_record(Oid schema, const int64 *ids, int n);

#endif							/* MBUS_ACCESS_H */
