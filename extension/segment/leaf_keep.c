/*
 * leaf_keep.c
 *		How many tables of segments the server's own cache keeps open.
 *
 * PostgreSQL keeps what it knows of each table and index that a process has
 * opened, some 20 kB for a table with one or two indexes, for as long as the
 * process lives.  With thousands of segments that would be all its memory.  So
 * the last LEAVES_KEPT of those that were opened here are kept; what the
 * server knows of an older one is thrown away as if it had been altered.
 * Opening it again costs some 100 microseconds: one who goes round more of
 * them than are kept pays that each time.  What people's queries open through
 * the parents is not bounded by this.
 *
 * One that is in use is not thrown away, but read anew by the server.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "segment/leaf_keep.h"

#define LEAVES_KEPT		1024
#define LEAF_INDEXES	6

typedef struct Kept
{
	Oid			table;			/* InvalidOid: unused */
	int			nindexes;
	Oid			index[LEAF_INDEXES];
} Kept;

static Kept kept[LEAVES_KEPT];	/* a ring */
static int	next = 0;
static HTAB *kept_tables = NULL;	/* the tables in it, by OID */

static void kept_drop(Kept *old);

/*
 * mbus_leaf_keep takes note of a table that was opened for the first time, or
 * again after it was thrown away.  The caller has it open.
 */
void
mbus_leaf_keep(Relation leaf)
{
	Kept	   *new = &kept[next];
	Oid			table = RelationGetRelid(leaf);
	List	   *indexes;
	ListCell   *cell;
	bool		found;

	if (kept_tables == NULL)
	{
		HASHCTL		ctl;

		MemSet(&ctl, 0, sizeof(ctl));
		ctl.keysize = ctl.entrysize = sizeof(Oid);
		ctl.hcxt = CacheMemoryContext;
		kept_tables = hash_create("message_bus leaves", LEAVES_KEPT, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	(void) hash_search(kept_tables, &table, HASH_FIND, &found);
	if (found)
		return;
	indexes = RelationGetIndexList(leaf);
	kept_drop(new);
	foreach(cell, indexes)
	{
		if (new->nindexes < LEAF_INDEXES)
			new->index[new->nindexes++] = lfirst_oid(cell);
	}
	new->table = table;
	(void) hash_search(kept_tables, &table, HASH_ENTER, NULL);
	next = (next + 1) % LEAVES_KEPT;
	list_free(indexes);
}

/* Has the server throw away what it knows of a table. */
static void
kept_drop(Kept *old)
{
	Kept		was = *old;

	MemSet(old, 0, sizeof(*old));
	if (!OidIsValid(was.table))
		return;
	(void) hash_search(kept_tables, &was.table, HASH_REMOVE, NULL);
	for (int i = 0; i < was.nindexes; i++)
		RelationCacheInvalidateEntry(was.index[i]);
	RelationCacheInvalidateEntry(was.table);
}
