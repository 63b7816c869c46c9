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
 * Index entries are made index by index, all rows of a batch into one before
 * the next, by the index's own method.  That is what the server's
 * ExecInsertIndexTuples comes to for a plain index, which takes a tenth of the
 * time of such a batch to find so, row by row.  The partial indexes of a leaf
 * are on a column that is not null: a row without it has none there, and the
 * predicate is not evaluated.
 *
 * The leaf stays locked (RowExclusive) until the transaction ends, as with
 * any INSERT.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "segment/inserter.h"
#include "segment/leaf.h"
#include "segment/leaf_keep.h"

static bool triggers_known(const TriggerDesc *triggers);
static void inserter_check(Relation rel, int ncolumns);
pg_noreturn static void leaf_changed(Relation rel);
static void indexes_check(MbusInserter *inserter);
static AttrNumber predicate_column(const IndexInfo *info);
static void row_check(MbusInserter *inserter, TupleTableSlot *slot);
static TupleDesc desc_cut(TupleDesc whole, int n);
static bool row_wanted(MbusInserter *inserter, int number,
					   TupleTableSlot *slot);

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
	indexes_check(inserter);
	inserter->desc = CreateTupleDescCopy(RelationGetDescr(inserter->rel));
	inserter->cut = palloc0((ncolumns + 1) * sizeof(TupleDesc));
	inserter->slot = mbus_inserter_slot_make(inserter);
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
 * mbus_inserter_slot_make returns a further slot for rows of the table, which
 * the caller drops.  It is on a plain copy of the descriptor, which no slot
 * has to pin.
 */
TupleTableSlot *
mbus_inserter_slot_make(MbusInserter *inserter)
{
	return MakeSingleTupleTableSlot(inserter->desc, &TTSOpsHeapTuple);
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
	mbus_inserter_store(inserter, slot);
	table_tuple_insert(inserter->rel, slot, GetCurrentCommandId(true), 0,
					   NULL);
	mbus_inserter_index(inserter, &slot, 1);
	ExecClearTuple(slot);
	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(inserter->estate);
}

/*
 * mbus_inserter_index makes the index entries of rows that are in the table,
 * in a memory context that is reset soon.
 */
void
mbus_inserter_index(MbusInserter *inserter, TupleTableSlot **slots, int n)
{
	ExprContext *context = GetPerTupleExprContext(inserter->estate);

	for (int i = 0; i < inserter->rri->ri_NumIndices; i++)
	{
		Relation	index = inserter->rri->ri_IndexRelationDescs[i];
		IndexInfo  *info = inserter->rri->ri_IndexRelationInfo[i];

		for (int row = 0; row < n && info->ii_ReadyForInserts; row++)
		{
			Datum		values[INDEX_MAX_KEYS];
			bool		isnull[INDEX_MAX_KEYS];

			context->ecxt_scantuple = slots[row];
			if (!row_wanted(inserter, i, slots[row]))
				continue;
			FormIndexDatum(info, slots[row], inserter->estate, values, isnull);
			index_insert(index, values, isnull, &slots[row]->tts_tid,
						 inserter->rel,
						 info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
						 false, info);
		}
	}
}

/* Whether an index has an entry for a row. */
static bool
row_wanted(MbusInserter *inserter, int number, TupleTableSlot *slot)
{
	AttrNumber	column = inserter->wanted[number];
	IndexInfo  *info = inserter->rri->ri_IndexRelationInfo[number];

	if (column == MBUS_EVERY_ROW)
		return true;
	if (column != MBUS_BY_PREDICATE)
		return !slot_attisnull(slot, column);
	if (info->ii_PredicateState == NULL)
		info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate,
												  inserter->estate);
	return ExecQual(info->ii_PredicateState,
					GetPerTupleExprContext(inserter->estate));
}

/*
 * indexes_check finds out which rows each index wants, and refuses those that
 * index_insert() alone is not enough for.
 */
static void
indexes_check(MbusInserter *inserter)
{
	int			n = inserter->rri->ri_NumIndices;

	inserter->wanted = palloc(Max(n, 1) * sizeof(AttrNumber));
	for (int i = 0; i < n; i++)
	{
		const IndexInfo *info = inserter->rri->ri_IndexRelationInfo[i];

		if (info->ii_ExclusionOps != NULL ||
			!inserter->rri->ri_IndexRelationDescs[i]->rd_index->indimmediate)
			leaf_changed(inserter->rel);
		inserter->wanted[i] = predicate_column(info);
	}
}

/*
 * The column that an index wants to be not null, MBUS_EVERY_ROW, or
 * MBUS_BY_PREDICATE if it wants something else.
 */
static AttrNumber
predicate_column(const IndexInfo *info)
{
	const NullTest *test;

	if (info->ii_Predicate == NIL)
		return MBUS_EVERY_ROW;
	test = linitial(info->ii_Predicate);
	if (list_length(info->ii_Predicate) == 1 && IsA(test, NullTest) &&
		test->nulltesttype == IS_NOT_NULL && !test->argisrow &&
		IsA(test->arg, Var) && ((const Var *) test->arg)->varattno > 0)
		return ((const Var *) test->arg)->varattno;
	return MBUS_BY_PREDICATE;
}

/*
 * inserter_check refuses a leaf that somebody has changed.
 */
static void
inserter_check(Relation rel, int ncolumns)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION || desc->natts != ncolumns ||
		!triggers_known(rel->trigdesc) || rel->rd_rules ||
		(desc->constr && desc->constr->has_generated_stored))
		leaf_changed(rel);
}

/*
 * Whether a table has no trigger but the one that looks at what a restore
 * brings, which is not for what is inserted here.
 */
static bool
triggers_known(const TriggerDesc *triggers)
{
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		if (strcmp(triggers->triggers[i].tgname, "log_restored") != 0)
			return false;
	}
	return true;
}

static void
leaf_changed(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"message_bus.%s\" is not as the extension made it",
					RelationGetRelationName(rel)),
			 errdetail("Segments take no triggers, rules or further columns, and no exclusion or deferrable constraints.")));
}

/*
 * mbus_inserter_store makes a row of the values in a slot, in the current
 * memory context, and checks it.  The row has the columns up to the last that
 * is not null, as one has that is older than the others: where only the last
 * ones are null it needs no bitmap of them.
 */
void
mbus_inserter_store(MbusInserter *inserter, TupleTableSlot *slot)
{
	int			n = inserter->desc->natts;
	HeapTuple	tuple;

	row_check(inserter, slot);
	while (n > 1 && slot->tts_isnull[n - 1])
		n--;
	if (inserter->cut[n] == NULL)
		inserter->cut[n] = desc_cut(inserter->desc, n);
	tuple = heap_form_tuple(inserter->cut[n], slot->tts_values,
							slot->tts_isnull);
	ExecStoreHeapTuple(tuple, slot, true);
}

/* The first n columns of a row; for as long as the inserter lives. */
static TupleDesc
desc_cut(TupleDesc whole, int n)
{
	MemoryContext caller = MemoryContextSwitchTo(GetMemoryChunkContext(whole));
	TupleDesc	desc = CreateTemplateTupleDesc(n);

	for (int i = 1; i <= n; i++)
		TupleDescCopyEntry(desc, i, whole, i);
	MemoryContextSwitchTo(caller);
	return desc;
}

/*
 * row_check checks the values in a slot against the leaf's constraints.  The
 * one CHECK that the extension makes, the range of ids, is left out: who
 * reserved the ids has seen to it, and the server would read it anew in each
 * statement, which costs as much as inserting a small row.  ExecConstraints
 * does the rest, and raises what there is to raise.
 */
static void
row_check(MbusInserter *inserter, TupleTableSlot *slot)
{
	TupleDesc	desc = RelationGetDescr(inserter->rel);
	bool		wanted = desc->constr && desc->constr->num_check > 1;

	for (int i = 0; i < desc->natts && !wanted; i++)
		wanted = TupleDescAttr(desc, i)->attnotnull && slot->tts_isnull[i];
	if (wanted)
	{
		ExecStoreVirtualTuple(slot);
		ExecConstraints(inserter->rri, slot, inserter->estate);
	}
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
