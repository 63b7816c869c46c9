/*
 * row_whole.h
 *		Whether a row can be taken apart.
 */
#ifndef MBUS_ROW_WHOLE_H
#define MBUS_ROW_WHOLE_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/htup.h"
#include "access/tupdesc.h"

extern bool mbus_row_whole(HeapTuple tuple, TupleDesc desc, AttrNumber least,
						   Oid toast);

#endif							/* MBUS_ROW_WHOLE_H */
