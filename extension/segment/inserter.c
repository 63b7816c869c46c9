/*
 * inserter.c
 *		A leaf opened for inserting, and rows into it.
 *
 * Rows go to the table access method directly, with no planner and no parent
 * in between.  That interface checks nothing, so everything it lacks is done
 * here: the table is refused if it has triggers, rules or generated columns,
 * NOT NULL and CHECK constraints are run (but for the one of each leaf that is
 * the range of its ids, which holds for ids that were reserved in it; the
 * partition constraint says the same, and reading it would lock the parent),
 * and every index gets its entry.  No right is asked for: who may write was
 * settled before.
 *
 * The leaf stays locked (RowExclusive) until the transaction ends, as with
 * any INSERT.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "segment/inserter.h"
#include "segment/leaf.h"
#include "segment/leaf_keep.h"

static void inserter_check(Relation rel, int ncolumns);

/*
 * mbus_inserter_open opens a leaf for inserting.  With "speculative" its
 * index on transaction ids arbitrates.
 */
MbusInserter *
mbus_inserter_open(Oid leaf, int ncolumns, bool speculative)
{
	MbusInserter *inserter = palloc0(sizeof(MbusInserter));

	inserter->rel = table_open(leaf, RowExclusiveLock);
	mbus_leaf_keep(inserter->rel);
	inserter_check(inserter->rel, ncolumns);
	inserter->estate = CreateExecutorState();
	inserter->rri = makeNode(ResultRelInfo);
	/* not in any range table: the error of a constraint looks for it there */
	InitResultRelInfo(inserter->rri, inserter->rel, 0, NULL, 0);
	ExecOpenIndices(inserter->rri, speculative);
	inserter->slot = table_slot_create(inserter->rel, NULL);
	if (speculative)
	{
		Relation	index = mbus_leaf_index(inserter->rel,
											MBUS_COL_CHANNEL_ID,
											MBUS_COL_TRANSACTION_ID, true);

		inserter->arbiters = list_make1_oid(RelationGetRelid(index));
		index_close(index, NoLock);
	}
	return inserter;
}

/*
 * mbus_inserter_close closes it; the leaf's lock stays.
 */
void
mbus_inserter_close(MbusInserter *inserter)
{
	ExecDropSingleTupleTableSlot(inserter->slot);
	ExecCloseIndices(inserter->rri);
	FreeExecutorState(inserter->estate);
	table_close(inserter->rel, NoLock);
	pfree(inserter);
}

/*
 * mbus_inserter_slot returns the slot of the next row, no column of it null:
 * the caller fills it in, in a memory context that lasts until the put.
 */
TupleTableSlot *
mbus_inserter_slot(MbusInserter *inserter)
{
	TupleTableSlot *slot = inserter->slot;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, false,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	return slot;
}

/*
 * mbus_inserter_put inserts the row that is in the slot.
 */
void
mbus_inserter_put(MbusInserter *inserter)
{
	TupleTableSlot *slot = inserter->slot;
	MemoryContext caller;

	caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(inserter->estate));
	ExecStoreVirtualTuple(slot);
	mbus_row_check(inserter, slot);
	table_tuple_insert(inserter->rel, slot, GetCurrentCommandId(true), 0,
					   NULL);
	list_free(MbusInsertIndexTuples(inserter->rri, slot, inserter->estate,
									false, NULL, NIL));
	ExecClearTuple(slot);
	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(inserter->estate);
}

/*
 * inserter_check refuses a leaf that somebody has changed.
 */
static void
inserter_check(Relation rel, int ncolumns)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION || desc->natts != ncolumns ||
		rel->trigdesc || rel->rd_rules ||
		(desc->constr && desc->constr->has_generated_stored))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"message_bus.%s\" is not as the extension made it",
						RelationGetRelationName(rel)),
				 errdetail("Segments take no triggers, rules or further columns.")));
}

/*
 * mbus_row_check checks a row against the leaf's constraints.  The one CHECK
 * that the extension makes, the range of ids, is left out: who reserved the
 * ids has seen to it, and the server would read it anew in each statement,
 * which costs as much as inserting a small row.  ExecConstraints does the
 * rest, and raises what there is to raise.
 */
void
mbus_row_check(MbusInserter *inserter, TupleTableSlot *slot)
{
	TupleDesc	desc = RelationGetDescr(inserter->rel);
	bool		wanted = desc->constr && desc->constr->num_check > 1;

	for (int i = 0; i < desc->natts && !wanted; i++)
		wanted = TupleDescAttr(desc, i)->attnotnull && slot->tts_isnull[i];
	if (wanted)
		ExecConstraints(inserter->rri, slot, inserter->estate);
}

/*
 * mbus_slot_text sets a text column of a slot; NULL is NULL.
 */
void
mbus_slot_text(TupleTableSlot *slot, int column, const char *value)
{
	slot->tts_isnull[column - 1] = value == NULL;
	slot->tts_values[column - 1] = value ? CStringGetTextDatum(value) :
		(Datum) 0;
}
