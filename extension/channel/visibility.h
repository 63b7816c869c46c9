/*
 * visibility.h
 *		Whose a message is, in a channel that keeps subjects apart.
 */
#ifndef MBUS_VISIBILITY_H
#define MBUS_VISIBILITY_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/htup.h"
#include "access/tupdesc.h"

extern bool mbus_visible(Oid schema, int32 publisher_id, const text *subject,
						 const text *recipient);
extern bool mbus_visible_row(Oid schema, HeapTuple tuple, TupleDesc desc,
							 AttrNumber publisher_column,
							 AttrNumber subject_column,
							 AttrNumber recipient_column);

#endif							/* MBUS_VISIBILITY_H */
