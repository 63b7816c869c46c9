/*
 * names.c
 *		Which numbers of segments are named, or used, already.
 *
 * Whoever opens a segment must know that its number is above all that is used.
 * To read the whole catalog for that would make each segment dearer than the
 * one before.  So this process remembers what it has read, and reads again
 * only what can have changed:
 *
 *	- ids in rows (purges, starts of subscriptions, cursors of checkpoints):
 *	  when one of their tables was invalidated; triggers do that for what is
 *	  written to them (not for the worker's own updates of checkpoints, which
 *	  name nothing that is not open yet), ALTER TABLE does it when triggers
 *	  are off
 *	- tables: those whose OIDs are above all that were seen; where OIDs begin
 *	  anew, all of them.  One that was made before and committed later is seen
 *	  when it is attached, or by its name when that number's turn has come: so
 *	  numbers are taken one by one on this way, and a jump reads everything
 *	- segments that are attached: those that were not made here, and not seen
 *	  by the last look for what was restored (restore.c).  Who is about to
 *	  attach or fill one asks for a look (segment/fill.c): all is read then
 *
 * Who finds anything reads all (mbus_highest_segment(), mbus_restore_hide()).
 * All of it is this process's memory: a worker that starts reads everything.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "storage/lwlock.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/ids.h"
#include "base/schema.h"
#include "segment/leaf.h"
#include "state/state.h"
#include "worker/names.h"
#include "worker/segment_catalog.h"
#include "worker/task.h"

#define TABLES	(MBUS_FAMILIES + 1) /* of a segment: the secret, too */

/* the tables whose rows name ids */
static const char *const naming[] = {"channel", "subscription", "checkpoint"};

static Oid	names_schema = InvalidOid;	/* that all of this is of */
static Oid	naming_relid[lengthof(naming)];
static uint64 rows_changes = 1; /* invalidations, counted */
static uint64 rows_read = 0;	/* how many of them rows_highest knows of */
static int64 rows_highest = 0;

static Oid	tables_seen = InvalidOid;	/* highest OID; InvalidOid: none */
static int64 tables_highest = 0;	/* number among them */

/* Tables of messages, by OID. */
typedef struct TableSet
{
	Oid		   *table;
	int			n;
	uint64		version;		/* of the leaves that these are all of; 0: of
								 * none */
} TableSet;

static TableSet ours;			/* none of them is a restore's */
static TableSet looked;			/* that a look for these began with */

static void names_invalidate(Datum arg, Oid relid);
static void names_begin(MbusWork *work);
static void tables_see(MbusWork *work);
static bool number_used(MbusWork *work, int64 number);
static const char *table_prefix(int which);
static int64 table_number(Form_pg_class table);
static void set_free(TableSet *set);
static bool set_has(const TableSet *set, Oid table);
static int	oid_compare(const void *a, const void *b);

PG_FUNCTION_INFO_V1(mbus_checkpoint_made);

/*
 * mbus_names_init registers the invalidation; when the worker starts.
 */
void
mbus_names_init(void)
{
	CacheRegisterRelcacheCallback(names_invalidate, (Datum) 0);
}

static void
names_invalidate(Datum arg, Oid relid)
{
	bool		names = relid == InvalidOid;

	for (int i = 0; i < (int) lengthof(naming); i++)
		names |= relid == naming_relid[i];
	if (names)
		rows_changes++;
}

/*
 * mbus_checkpoint_made (trigger) tells the worker that there is another row of
 * checkpoint, at commit.
 */
Datum
mbus_checkpoint_made(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mbus_checkpoint_made: not called as a trigger");
	CacheInvalidateRelcache(((TriggerData *) fcinfo->context)->tg_relation);
	return PointerGetDatum(NULL);
}

/* Forgets what is of another extension. */
static void
names_begin(MbusWork *work)
{
	AcceptInvalidationMessages();
	if (names_schema == work->schema)
		return;
	names_schema = InvalidOid;
	for (int i = 0; i < (int) lengthof(naming); i++)
		naming_relid[i] = mbus_relation(work->schema, naming[i]);
	rows_changes++;
	tables_seen = InvalidOid;
	set_free(&ours);
	set_free(&looked);
	names_schema = work->schema;
}

/*
 * mbus_names_changes returns another number, never 0, when rows may name
 * others; in a transaction.
 */
uint64
mbus_names_changes(MbusWork *work)
{
	names_begin(work);
	return rows_changes;
}

/*
 * mbus_names_highest returns the highest segment that rows name, or 0; in a
 * transaction, with SPI.
 */
int64
mbus_names_highest(MbusWork *work)
{
	uint64		changes;

	names_begin(work);
	changes = rows_changes;
	if (rows_read != changes)
	{
		/* what is invalidated while we read is read again */
		rows_highest = mbus_named_segment();
		rows_read = changes;
	}
	return rows_highest;
}

/*
 * mbus_names_free tells whether the numbers from "least" to "number" are surely
 * above that of each table there is; in a transaction.  If not, everything is
 * to be read.
 */
bool
mbus_names_free(MbusWork *work, int64 least, int64 number)
{
	if (!mbus_names_ours(work))
		return false;
	tables_see(work);
	if (least <= tables_highest)
	{
		tables_seen = InvalidOid;
		return false;
	}
	for (; least <= number; least++)
	{
		if (number_used(work, least))
			return false;
	}
	return true;
}

/* Whether there is a table of that number, by its name. */
static bool
number_used(MbusWork *work, int64 number)
{
	for (int f = 0; f < TABLES; f++)
	{
		char		name[NAMEDATALEN];

		snprintf(name, sizeof(name), "%s_" INT64_FORMAT, table_prefix(f),
				 number);
		if (OidIsValid(get_relname_relid(name, work->schema)))
			return true;
	}
	return false;
}

/* Takes note of the tables that were made since the last call. */
static void
tables_see(MbusWork *work)
{
	Relation	classes = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (!OidIsValid(tables_seen))
		tables_highest = 0;
	ScanKeyInit(&key, Anum_pg_class_oid, BTGreaterStrategyNumber, F_OIDGT,
				ObjectIdGetDatum(tables_seen));
	scan = systable_beginscan(classes, ClassOidIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class table = (Form_pg_class) GETSTRUCT(tuple);

		tables_seen = Max(tables_seen, table->oid);
		if (table->relnamespace == work->schema)
			tables_highest = Max(tables_highest, table_number(table));
	}
	systable_endscan(scan);
	table_close(classes, AccessShareLock);
}

/* What the names of a segment's tables begin with. */
static const char *
table_prefix(int which)
{
	return which < MBUS_FAMILIES ? mbus_family_name((MbusFamily) which) :
		"secret";
}

/* The segment that a table's name tells, or 0. */
static int64
table_number(Form_pg_class table)
{
	const char *name = NameStr(table->relname);

	for (int f = 0; f < TABLES; f++)
	{
		const char *family = table_prefix(f);
		size_t		prefix = strlen(family);
		size_t		digits;

		if (strncmp(name, family, prefix) != 0 || name[prefix] != '_')
			continue;
		name += prefix + 1;
		digits = strspn(name, "0123456789");
		if (digits == 0 || digits > 9 || name[digits] != '\0' ||
			atoi(name) > MBUS_SEGMENT_MAX)
			return 0;
		return atoi(name);
	}
	return 0;
}

/*
 * mbus_names_made takes note of a table of messages that this worker has made:
 * it is committed.  Where OIDs have begun anew, all tables are seen again.
 */
void
mbus_names_made(MbusWork *work, Oid leaf)
{
	int			at = ours.n;

	if (leaf < tables_seen)
		tables_seen = InvalidOid;
	if (names_schema != work->schema)
		return;
	ours.table = ours.table == NULL ?
		MemoryContextAlloc(TopMemoryContext, sizeof(Oid)) :
		repalloc(ours.table, (ours.n + 1) * sizeof(Oid));
	for (; at > 0 && ours.table[at - 1] > leaf; at--)
		ours.table[at] = ours.table[at - 1];
	ours.table[at] = leaf;
	ours.n++;
}

/*
 * mbus_names_ours tells whether all segments that are attached were made by
 * this worker, or seen by the last look for a restore's; in a transaction.
 * If not, or if somebody waits for such a look, it may begin.
 */
bool
mbus_names_ours(MbusWork *work)
{
	const MbusLeaf *leaves;
	int			nleaves;
	TableSet	found = {0};
	bool		all = true;
	bool		asked;

	LWLockAcquire(&work->db->lock, LW_SHARED);
	asked = work->db->numbering.looks_wanted !=
		work->db->numbering.looks_done;
	LWLockRelease(&work->db->lock);
	names_begin(work);
	leaves = mbus_leaves_borrow(work->schema, &nleaves, &found.version);
	if (found.version == ours.version)
		return !asked;
	found.table = MemoryContextAlloc(TopMemoryContext,
									 Max(nleaves, 1) * sizeof(Oid));
	for (int i = 0; i < nleaves; i++)
	{
		Oid			table = leaves[i].relid[MBUS_MESSAGE];

		if (!OidIsValid(table))
			continue;
		all = all && set_has(&ours, table);
		found.table[found.n++] = table;
	}
	qsort(found.table, found.n, sizeof(Oid), oid_compare);
	set_free(all ? &ours : &looked);
	if (all)
		ours = found;
	else
		looked = found;
	return all && !asked;
}

/*
 * mbus_names_looked says that the look has ended, and that none of the
 * segments that it began with is a restore's.
 */
void
mbus_names_looked(void)
{
	if (looked.version == 0)
		return;
	set_free(&ours);
	ours = looked;
	MemSet(&looked, 0, sizeof(looked));
}

static void
set_free(TableSet *set)
{
	if (set->table)
		pfree(set->table);
	MemSet(set, 0, sizeof(*set));
}

static bool
set_has(const TableSet *set, Oid table)
{
	return set->n > 0 && bsearch(&table, set->table, set->n, sizeof(Oid),
								 oid_compare) != NULL;
}

static int
oid_compare(const void *a, const void *b)
{
	return mbus_order(*(const Oid *) a, *(const Oid *) b);
}
