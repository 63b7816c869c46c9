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
 *
 * With thousands of segments what is kept of each matters: it is five numbers
 * here, and in the server's own caches nothing, unless its table is opened.
 * So names are read from pg_class past these caches, and only those of tables
 * that the array did not have before.  Most tables of acks, failures and events
 * were never written to; whether one was is asked of its file, the first few
 * times, so that who looks into all segments opens only what has rows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/compat.h"
#include "base/ids.h"
#include "base/schema.h"
#include "segment/leaf.h"
#include "segment/leaf_keep.h"
#include "state/state.h"
#include "state/unfinished.h"

#define LOOKS	4				/* at a table's file, before it is opened */
#define PLACES	64				/* of kinds of indexes */

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
static uint64 cached_version = 0;	/* another one after each reading */

/* A table whose segment is known. */
typedef struct Known
{
	Oid			relid;
	int32		segment;
	uint8		looks;
} Known;

static Relation leaf_open(Oid relid, LOCKMODE lockmode);
static MbusLeaf *leaf_find(Oid schema, int32 segment, MbusFamily family);
static void leaf_invalidate(Datum arg, Oid relid);
static void leaves_load(Oid schema);
static void leaves_load_unattached(Oid schema);
static void leaves_load_family(List *children, MbusFamily family,
							   const MbusLeaf *old, int nold);
static bool leaf_empty(MbusLeaf *leaf, MbusFamily family);
static bool table_empty(Oid relid);
static Known *known_tables(const MbusLeaf *old, int nold, MbusFamily family,
						   int *n);
static bool file_empty(Form_pg_class table);
static int32 table_segment(Relation classes, Oid relid, MbusFamily family);
static int	known_compare(const void *a, const void *b);
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
 * and returns how many there are; those that a restore is filling are left
 * out.  The array is a copy, in the caller's memory context.
 */
int
mbus_leaves(Oid schema, MbusLeaf **leaves)
{
	MbusDatabase *db = mbus_database_or_null();
	int			n = 0;

	leaves_load(schema);
	*leaves = palloc(Max(ncached, 1) * sizeof(MbusLeaf));
	/* none is hidden mostly */
	if (ncached > 0 &&
		(db == NULL || mbus_segments_show(db, cached[ncached - 1].segment)))
	{
		memcpy(*leaves, cached, ncached * sizeof(MbusLeaf));
		return ncached;
	}
	for (int i = 0; i < ncached; i++)
	{
		if (!mbus_segment_hidden(db, cached[i].segment))
			(*leaves)[n++] = cached[i];
	}
	return n;
}

/*
 * mbus_leaves_borrow does so without a copy: the array is good until the next
 * call of any function that may look at the catalog.  *version is another
 * number, never 0, whenever the segments may be others.  What a restore is
 * filling is among them, for it shows without a new version; until then
 * mbus_leaf_open() has no table of it.
 */
const MbusLeaf *
mbus_leaves_borrow(Oid schema, int *nleaves, uint64 *version)
{
	leaves_load(schema);
	*nleaves = ncached;
	*version = cached_version;
	return cached;
}

/*
 * mbus_leaf_open opens a segment's table, or returns NULL if there is none, or
 * a restore is filling it.
 */
Relation
mbus_leaf_open(Oid schema, int32 segment, MbusFamily family,
			   LOCKMODE lockmode)
{
	MbusLeaf   *leaf = leaf_find(schema, segment, family);

	return leaf ? leaf_open(leaf->relid[family], lockmode) : NULL;
}

/* Opens a table, or returns NULL if it is gone. */
static Relation
leaf_open(Oid relid, LOCKMODE lockmode)
{
	Relation	rel = try_table_open(relid, lockmode);

	if (rel)
		mbus_leaf_keep(rel);
	return rel;
}

/* A segment that has a table of a family, in the array; or NULL. */
static MbusLeaf *
leaf_find(Oid schema, int32 segment, MbusFamily family)
{
	MbusDatabase *db = mbus_database_or_null();
	MbusLeaf   *leaf;

	if (db && mbus_segment_hidden(db, segment))
		return NULL;
	leaves_load(schema);
	leaf = mbus_leaf_search(cached, ncached, segment);
	return leaf && OidIsValid(leaf->relid[family]) ? leaf : NULL;
}

/*
 * mbus_leaf_open_written opens a segment's table to read it, or returns NULL
 * if there is none or no row was ever written to it.
 */
Relation
mbus_leaf_open_written(Oid schema, int32 segment, MbusFamily family)
{
	MbusLeaf   *leaf = leaf_find(schema, segment, family);
	Relation	rel;

	if (leaf == NULL || leaf_empty(leaf, family))
		return NULL;
	rel = leaf_open(leaf->relid[family], AccessShareLock);
	if (rel && RelationGetNumberOfBlocks(rel) == 0)
	{
		table_close(rel, AccessShareLock);
		return NULL;
	}
	return rel;
}

/*
 * mbus_leaf_attached tells whether a segment has a table that
 * mbus_leaf_open() finds.
 */
bool
mbus_leaf_attached(Oid schema, int32 segment, MbusFamily family)
{
	return leaf_find(schema, segment, family) != NULL;
}

/*
 * leaf_empty tells whether a table has no row, if that can be told without
 * opening it.  One that is asked for often is opened.
 */
static bool
leaf_empty(MbusLeaf *leaf, MbusFamily family)
{
	uint8	   *looks = &leaf->looks[family];

	if (*looks >= LOOKS)
		return false;
	(*looks)++;
	if (table_empty(leaf->relid[family]))
		return true;
	*looks = LOOKS;
	return false;
}

/*
 * table_empty asks the table's file, under a lock that keeps it there.  One
 * that is gone, or has no file of its own, is left to who opens it.
 */
static bool
table_empty(Oid relid)
{
	bool		empty = false;
	Relation	classes;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	LockRelationOid(relid, AccessShareLock);
	classes = table_open(RelationRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(classes, ClassOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_class table = (Form_pg_class) GETSTRUCT(tuple);

		if (table->relkind == RELKIND_RELATION && table->relfilenode != 0)
			empty = file_empty(table);
	}
	systable_endscan(scan);
	table_close(classes, AccessShareLock);
	UnlockRelationOid(relid, AccessShareLock);
	return empty;
}

static bool
file_empty(Form_pg_class table)
{
	MbusFileNode file = MBUS_FILE_NODE(OidIsValid(table->reltablespace) ?
									   table->reltablespace :
									   MyDatabaseTableSpace,
									   table->relfilenode);

	return smgrnblocks(smgropen(file, MBUS_NO_BACKEND), MAIN_FORKNUM) == 0;
}

/*
 * mbus_leaf_index opens the leaf's index on one column, or that begins with
 * two if second is not 0, which is partial or not; caller closes it.  Leaves
 * of a family have the same indexes, mostly in the same order: it looks first
 * where it has found the last one of the kind, since what the server learns of
 * an index that is opened is dear.
 */
Relation
mbus_leaf_index(Relation leaf, AttrNumber first, AttrNumber second,
				bool partial)
{
	static uint8 places[PLACES];
	uint8	   *place = &places[(first * 5 + second * 2 + partial) % PLACES];
	List	   *indexes = RelationGetIndexList(leaf);
	int			n = list_length(indexes);
	int			from = *place;

	for (int i = 0; i < n; i++)
	{
		int			at = (from + i) % n;
		Relation	index = index_open(list_nth_oid(indexes, at),
									   AccessShareLock);
		Form_pg_index form = index->rd_index;

		if (form->indisvalid && form->indkey.values[0] == first &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred,
						   NULL) != partial &&
			(second == 0 ? form->indnkeyatts == 1 :
			 form->indnkeyatts >= 2 && form->indkey.values[1] == second))
		{
			*place = (uint8) at;
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
	MbusLeaf   *old = cached;
	int			nold = ncached;

	AcceptInvalidationMessages();
	if (!cached_stale && cached_complete && cached_schema == schema)
		return;

	if (!cached_complete || cached_schema != schema)
		nold = 0;
	cached_complete = false;
	cached = NULL;
	ncached = 0;
	cached_schema = schema;
	cached_version++;
	/* an invalidation that comes while we read makes it stale again */
	cached_stale = false;
	for (int f = 0; f < MBUS_FAMILIES; f++)
		cached_parent[f] = mbus_relation(schema, family_names[f]);
	leaves_load_unattached(schema);
	for (int f = 0; f < MBUS_FAMILIES; f++)
	{
		List	   *children;

		children = find_inheritance_children(cached_parent[f], NoLock);
		leaves_load_family(children, (MbusFamily) f, old, nold);
		list_free(children);
	}
	cached_complete = true;
	if (old)
		pfree(old);
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

/*
 * Adds the tables of one family, which find_inheritance_children() has sorted
 * by OID; the families come one after the other.
 */
static void
leaves_load_family(List *children, MbusFamily family, const MbusLeaf *old,
				   int nold)
{
	int			nfound = ncached;
	Relation	classes;
	Known	   *known;
	int			nknown;
	ListCell   *cell;

	if (children == NIL)
		return;
	if (cached == NULL)
		cached = MemoryContextAlloc(CacheMemoryContext,
									list_length(children) * sizeof(MbusLeaf));
	else
		cached = repalloc(cached, (ncached + list_length(children)) *
						  sizeof(MbusLeaf));
	known = known_tables(old, nold, family, &nknown);
	classes = table_open(RelationRelationId, AccessShareLock);
	foreach(cell, children)
	{
		Known		key = {.relid = lfirst_oid(cell)};
		Known	   *found;
		int32		segment;
		MbusLeaf   *leaf;

		found = bsearch(&key, known, nknown, sizeof(Known), known_compare);
		segment = found ? found->segment :
			table_segment(classes, key.relid, family);
		if (segment < 0)
			continue;
		leaf = mbus_leaf_search(cached, ncached, segment);
		if (leaf == NULL)
		{
			leaf = &cached[nfound++];
			MemSet(leaf, 0, sizeof(*leaf));
			leaf->segment = segment;
		}
		leaf->relid[family] = key.relid;
		leaf->looks[family] = found ? found->looks : 0;
	}
	table_close(classes, AccessShareLock);
	pfree(known);
	ncached = nfound;
	qsort(cached, ncached, sizeof(MbusLeaf), leaf_compare);
}

/* The tables of one family that the array of before had, by OID. */
static Known *
known_tables(const MbusLeaf *old, int nold, MbusFamily family, int *n)
{
	Known	   *known = palloc(Max(nold, 1) * sizeof(Known));

	*n = 0;
	for (int i = 0; i < nold; i++)
	{
		if (!OidIsValid(old[i].relid[family]))
			continue;
		known[*n].relid = old[i].relid[family];
		known[*n].looks = old[i].looks[family];
		known[(*n)++].segment = old[i].segment;
	}
	qsort(known, *n, sizeof(Known), known_compare);
	return known;
}

/* The segment that a table's name tells, -1 if it is gone or tells none. */
static int32
table_segment(Relation classes, Oid relid, MbusFamily family)
{
	size_t		prefix = strlen(family_names[family]) + 1;
	int32		segment = -1;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(classes, ClassOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		const char *name = NameStr(((Form_pg_class) GETSTRUCT(tuple))->relname);

		if (strlen(name) > prefix)
			segment = atoi(name + prefix);
	}
	systable_endscan(scan);
	return segment;
}

static int
known_compare(const void *a, const void *b)
{
	return mbus_order(((const Known *) a)->relid, ((const Known *) b)->relid);
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

/*
 * mbus_leaf_deform takes a row of a leaf apart, into as many values as such
 * tables have columns; 55000 if somebody has given it others.
 */
void
mbus_leaf_deform(HeapTuple tuple, TupleDesc desc, int ncolumns,
				 Datum *values, bool *isnull)
{
	if (desc->natts != ncolumns)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a table of a segment is not as the extension made it"),
				 errdetail("It has %d columns, not %d.", desc->natts,
						   ncolumns)));
	heap_deform_tuple(tuple, desc, values, isnull);
}
