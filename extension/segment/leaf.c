/*
 * leaf.c
 *		The tables of a segment, found and opened without their parents.
 *
 * Nothing here locks message_bus.message or another parent: an open
 * transaction that reads or publishes must not hold up the worker that
 * detaches a segment.  The children are taken from pg_inherits and kept in a
 * sorted array; attaching and detaching invalidate the parent's relation
 * cache entry, and the callback marks the array stale.  Segments that are not
 * attached yet, whose numbers are in message_bus.unattached, are found by
 * their tables' names.  They are read first: one that is attached meanwhile is
 * found twice, in the other order it would be missed.  A table that is gone
 * by the time it is opened is a segment that has been retired: nothing in it
 * can be wanted.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/ids.h"
#include "base/schema.h"
#include "segment/leaf.h"

static const char *const family_names[MBUS_FAMILIES] = {
	[MBUS_MESSAGE] = "message",
	[MBUS_EVENT] = "event",
	[MBUS_ACK] = "ack",
	[MBUS_FAILURE] = "failure",
};

static MbusLeaf *cached = NULL;
static int	ncached = 0;
static Oid	cached_schema = InvalidOid;
static Oid	cached_parent[MBUS_FAMILIES];
static bool cached_stale = true;	/* must be read again */
static bool cached_complete = false;	/* the last reading came to its end */

static void leaf_invalidate(Datum arg, Oid relid);
static void leaves_load(Oid schema);
static void leaves_load_unattached(Oid schema);
static void leaves_load_family(List *children, MbusFamily family);
static int	leaf_compare(const void *a, const void *b);

/*
 * mbus_leaf_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_leaf_init(void)
{
	CacheRegisterRelcacheCallback(leaf_invalidate, (Datum) 0);
}

/* The server says that a table has changed (InvalidOid: any may have). */
static void
leaf_invalidate(Datum arg, Oid relid)
{
	if (relid == InvalidOid)
		cached_stale = true;
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		if (relid == cached_parent[f])
			cached_stale = true;
	}
}

/*
 * mbus_family_name returns the parent table's name.
 */
const char *
mbus_family_name(MbusFamily family)
{
	return family_names[family];
}

/*
 * mbus_leaves sets *leaves to the segments that exist, by ascending number,
 * and returns how many there are.  The array is a copy, in the caller's
 * memory context.
 */
int
mbus_leaves(Oid schema, MbusLeaf **leaves)
{
	leaves_load(schema);
	*leaves = palloc(Max(ncached, 1) * sizeof(MbusLeaf));
	if (ncached > 0)
		memcpy(*leaves, cached, ncached * sizeof(MbusLeaf));
	return ncached;
}

/*
 * mbus_leaf_open opens a segment's table, or returns NULL if there is none.
 */
Relation
mbus_leaf_open(Oid schema, int32 segment, MbusFamily family,
			   LOCKMODE lockmode)
{
	MbusLeaf   *leaf;

	leaves_load(schema);
	leaf = mbus_leaf_search(cached, ncached, segment);
	if (leaf == NULL || !OidIsValid(leaf->relid[family]))
		return NULL;
	return try_table_open(leaf->relid[family], lockmode);
}

/*
 * mbus_leaf_open_written opens a segment's table to read it, or returns NULL
 * if there is none or no row was ever written to it.
 */
Relation
mbus_leaf_open_written(Oid schema, int32 segment, MbusFamily family)
{
	Relation	leaf = mbus_leaf_open(schema, segment, family,
									  AccessShareLock);

	if (leaf && RelationGetNumberOfBlocks(leaf) == 0)
	{
		table_close(leaf, AccessShareLock);
		return NULL;
	}
	return leaf;
}

/*
 * mbus_leaf_index opens the leaf's index on one column, or that begins with
 * two if second is not 0, which is partial or not; caller closes it.
 */
Relation
mbus_leaf_index(Relation leaf, AttrNumber first, AttrNumber second,
				bool partial)
{
	List	   *indexes = RelationGetIndexList(leaf);
	ListCell   *cell;

	foreach(cell, indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisvalid && form->indkey.values[0] == first &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred,
						   NULL) != partial &&
			(second == 0 ? form->indnkeyatts == 1 :
			 form->indnkeyatts >= 2 && form->indkey.values[1] == second))
		{
			list_free(indexes);
			return index;
		}
		index_close(index, AccessShareLock);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"message_bus.%s\" lacks an index on column %d",
					RelationGetRelationName(leaf), first),
			 errhint("Do not drop indexes of segments.")));
}

/*
 * leaves_load makes the array good for this schema.  It is not complete until
 * all families have been read, so that an error on the way has it read again.
 */
static void
leaves_load(Oid schema)
{
	AcceptInvalidationMessages();
	if (!cached_stale && cached_complete && cached_schema == schema)
		return;

	cached_complete = false;
	if (cached)
		pfree(cached);
	cached = NULL;
	ncached = 0;
	cached_schema = schema;
	/* an invalidation that comes while we read makes it stale again */
	cached_stale = false;
	for (int f = 0; f < MBUS_FAMILIES; f++)
		cached_parent[f] = mbus_relation(schema, family_names[f]);
	leaves_load_unattached(schema);
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		List	   *children;

		children = find_inheritance_children(cached_parent[f], NoLock);
		leaves_load_family(children, (MbusFamily) f);
		list_free(children);
	}
	cached_complete = true;
}

/* Adds the tables of the segments that are not attached yet. */
static void
leaves_load_unattached(Oid schema)
{
	Relation	rel = table_open(mbus_relation(schema, "unattached"),
								 AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		MbusLeaf	leaf = {0};

		leaf.segment = DatumGetInt32(heap_getattr(tuple, 1,
												  RelationGetDescr(rel),
												  &isnull));
		for (int f = 0; f < MBUS_FAMILIES; f++)
		{
			char		name[NAMEDATALEN];

			snprintf(name, sizeof(name), "%s_%d", family_names[f],
					 leaf.segment);
			leaf.relid[f] = get_relname_relid(name, schema);
		}
		if (cached == NULL)
			cached = MemoryContextAlloc(CacheMemoryContext, sizeof(MbusLeaf));
		else
			cached = repalloc(cached, (ncached + 1) * sizeof(MbusLeaf));
		cached[ncached++] = leaf;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (ncached > 0)
		qsort(cached, ncached, sizeof(MbusLeaf), leaf_compare);
}

/* Adds the tables of one family; the families come one after the other. */
static void
leaves_load_family(List *children, MbusFamily family)
{
	int			nfound = ncached;
	size_t		prefix = strlen(family_names[family]) + 1;
	ListCell   *cell;

	if (children == NIL)
		return;
	if (cached == NULL)
		cached = MemoryContextAlloc(CacheMemoryContext,
									list_length(children) * sizeof(MbusLeaf));
	else
		cached = repalloc(cached, (ncached + list_length(children)) *
						  sizeof(MbusLeaf));
	foreach(cell, children)
	{
		char	   *name = get_rel_name(lfirst_oid(cell));
		int32		segment;
		MbusLeaf   *leaf;

		if (name == NULL || strlen(name) <= prefix)
			continue;
		segment = atoi(name + prefix);
		leaf = mbus_leaf_search(cached, ncached, segment);
		if (leaf == NULL)
		{
			leaf = &cached[nfound++];
			MemSet(leaf, 0, sizeof(*leaf));
			leaf->segment = segment;
		}
		leaf->relid[family] = lfirst_oid(cell);
		pfree(name);
	}
	ncached = nfound;
	qsort(cached, ncached, sizeof(MbusLeaf), leaf_compare);
}

/*
 * mbus_leaf_search returns a segment among some, by ascending number, or NULL.
 */
MbusLeaf *
mbus_leaf_search(MbusLeaf *leaves, int n, int32 segment)
{
	MbusLeaf	key = {.segment = segment};

	return n == 0 ? NULL :
		bsearch(&key, leaves, n, sizeof(MbusLeaf), leaf_compare);
}

static int
leaf_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusLeaf *) a)->segment,
					  ((const MbusLeaf *) b)->segment);
}
