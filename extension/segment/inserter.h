/*
 * inserter.h
 *		A leaf opened for inserting.
 */
#ifndef MBUS_INSERTER_H
#define MBUS_INSERTER_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"
#include "utils/relcache.h"

/* which rows an index has: a column that is not null in them, or these */
#define MBUS_EVERY_ROW		0
#define MBUS_BY_PREDICATE	(-1)

typedef struct MbusInserter
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *rri;
	TupleDesc	desc;			/* a plain copy of the table's */
	TupleDesc  *cut;			/* the first columns of it, by their number */
	TupleTableSlot *slot;		/* for one row; batches have their own */
	AttrNumber *wanted;			/* of each index: which rows it has */
	List	   *arbiters;		/* the index on transaction ids */
} MbusInserter;

extern MbusInserter *mbus_inserter_open(Oid leaf, int ncolumns,
										bool speculative);
extern void mbus_inserter_close(MbusInserter *inserter);
extern TupleTableSlot *mbus_inserter_slot(MbusInserter *inserter);
extern TupleTableSlot *mbus_inserter_slot_make(MbusInserter *inserter);
extern void mbus_inserter_store(MbusInserter *inserter, TupleTableSlot *slot);
extern void mbus_inserter_put(MbusInserter *inserter);
extern void mbus_inserter_index(MbusInserter *inserter,
								TupleTableSlot **slots, int n);
extern void mbus_slot_text(TupleTableSlot *slot, int column,
						   const char *value);

#endif							/* MBUS_INSERTER_H */
