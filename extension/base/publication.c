/*
 * publication.c
 *		What the bus writes is written under any publication.
 *
 * The server refuses an UPDATE or DELETE of a table that a publication has
 * without what a subscriber would need: a replica identity, all of whose
 * columns are in the publication's list, and in it all that its filter names.
 * No identity is right for every list and every filter.  So each of our tables
 * that is updated has one (its key, or the whole row), which is what a
 * subscriber wants, and the server's check is told that nobody publishes the
 * table: whoever makes a publication must not stop the bus.  What is published
 * does not change: the process that sends it reads the catalog by itself.
 * Under such a publication the subscriber is who cannot apply it.
 *
 * The check reads what the relation cache keeps of a table's publications, and
 * it is written there, before the executor begins.  It is thrown away with the
 * cache's entry.  Were that to happen in between, because another transaction
 * has just changed a publication, the statement would fail as the server's own
 * would; the worker tries its own again.
 *
 * Locks: none but those that the statement has.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_publication.h"
#include "executor/executor.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/publication.h"

static ExecutorStart_hook_type prev_executor_start = NULL;

static void publication_start(QueryDesc *queryDesc, int eflags);
static void result_settle(RangeTblEntry *rte, Oid schema);
static PublicationDesc *nothing_published(void);

/*
 * mbus_publication_init installs the hook; called from _PG_init while the
 * server preloads libraries.
 */
void
mbus_publication_init(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = publication_start;
}

/* Settles the tables of ours that a statement writes, and begins it. */
static void
publication_start(QueryDesc *queryDesc, int eflags)
{
	PlannedStmt *statement = queryDesc->plannedstmt;
	ListCell   *cell;
	Oid			schema;

	if (statement->resultRelations != NIL)
	{
		schema = get_namespace_oid("message_bus", true);
		foreach(cell, statement->resultRelations)
		{
			if (OidIsValid(schema))
				result_settle(rt_fetch(lfirst_int(cell), statement->rtable),
							  schema);
		}
	}
	if (prev_executor_start)
		prev_executor_start(queryDesc, eflags);
	else
		standard_ExecutorStart(queryDesc, eflags);
}

/* Notes that nobody publishes a table, if it is one of the schema. */
static void
result_settle(RangeTblEntry *rte, Oid schema)
{
	PublicationDesc *desc;
	Relation	rel;

	if (rte->rtekind != RTE_RELATION || rte->relkind != RELKIND_RELATION ||
		get_rel_namespace(rte->relid) != schema)
		return;
	rel = table_open(rte->relid, rte->rellockmode);
	desc = nothing_published();
	if (rel->rd_pubdesc)
		pfree(rel->rd_pubdesc);
	rel->rd_pubdesc = desc;
	table_close(rel, NoLock);
}

/* What the relation cache has of a table that nobody publishes. */
static PublicationDesc *
nothing_published(void)
{
	PublicationDesc *desc = MemoryContextAllocZero(CacheMemoryContext,
												   sizeof(PublicationDesc));

	desc->rf_valid_for_update = true;
	desc->rf_valid_for_delete = true;
	desc->cols_valid_for_update = true;
	desc->cols_valid_for_delete = true;
#if PG_VERSION_NUM >= 180000
	desc->gencols_valid_for_update = true;
	desc->gencols_valid_for_delete = true;
#endif
	return desc;
}
