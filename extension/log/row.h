/*
 * row.h
 *		Rows and the entries that the log has of them.
 */
#ifndef MBUS_ROW_H
#define MBUS_ROW_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#include "log/entry.h"

extern int64 mbus_row_entry(MbusEntry *entry, Oid schema, int kind,
							HeapTuple tuple, TupleDesc desc,
							const uint8 *secret);
extern bool mbus_row_entry_sound(MbusEntry *entry, Oid schema, int kind,
								 HeapTuple tuple, TupleDesc desc,
								 const uint8 *secret);
extern int	mbus_row_kind(const char *word);
extern Relation mbus_row_table(Oid schema, int kind, int32 segment);
extern AttrNumber mbus_row_number(int kind);
extern int64 mbus_row_number_of(int kind, HeapTuple tuple, TupleDesc desc);
extern bool mbus_segment_secret(Oid schema, int32 segment, Snapshot snapshot,
								uint8 *secret);

#endif							/* MBUS_ROW_H */
