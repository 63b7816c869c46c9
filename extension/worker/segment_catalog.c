/*
 * segment_catalog.c
 *		What the catalog knows of segments: their numbers, their tables.
 *
 * All of it is read when it is asked for, in the caller's transaction; nothing
 * is kept.  Others make and drop tables too: a restore, DROP EXTENSION.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_inherits.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"

#include "base/ids.h"
#include "segment/leaf.h"
#include "worker/segment_catalog.h"
#include "worker/task.h"

static bool leaf_whole(Oid leaf);

/*
 * mbus_highest_segment returns the highest segment number in the catalog, as
 * row or as table, or that rows name; or 0.  It reads all of it.
 */
int64
mbus_highest_segment(void)
{
	bool		isnull;
	int64		highest;

	highest = mbus_sql_int64(&isnull,
							 "SELECT greatest("
							 "(SELECT max(segment_no) FROM message_bus.segment),"
							 "(SELECT max(n) FROM"
							 " (SELECT substring(relname"
							 "   FROM '^(?:message|event|ack|failure|secret)_([0-9]{1,9})$')::int"
							 "  FROM pg_class WHERE relnamespace ="
							 "   'message_bus'::regnamespace) AS t (n)"
							 " WHERE n <= %d))::int8", MBUS_SEGMENT_MAX);
	return Max(highest, mbus_named_segment());
}

/*
 * mbus_named_segment returns the highest segment that is part of an id in a
 * row: below which nothing is wanted (a restore brings these without the
 * segments that have been retired), or that a subscription has passed; or 0.
 */
int64
mbus_named_segment(void)
{
	bool		isnull;

	return mbus_sql_int64(&isnull,
						  "SELECT greatest("
						  "(SELECT max(purged_to) >> %d FROM message_bus.channel),"
						  "(SELECT max(start_id) - 1 >> %d"
						  " FROM message_bus.subscription),"
						  "(SELECT max(cursor) >> %d"
						  " FROM message_bus.checkpoint))::int8",
						  MBUS_ROW_BITS, MBUS_ROW_BITS, MBUS_ROW_BITS);
}

/*
 * mbus_segment_depend makes a segment's table go with the extension.
 */
void
mbus_segment_depend(Oid leaf, Oid extension)
{
	ObjectAddress table;
	ObjectAddress owner;

	ObjectAddressSet(table, RelationRelationId, leaf);
	ObjectAddressSet(owner, ExtensionRelationId, extension);
	recordDependencyOn(&table, &owner, DEPENDENCY_AUTO);
}

/*
 * mbus_segment_revoke takes back what default privileges granted on a new
 * table.
 */
void
mbus_segment_revoke(const char *name, Oid leaf)
{
	char	   *grantees;

	if (SPI_execute(psprintf("SELECT string_agg(DISTINCT CASE a.grantee"
							 " WHEN 0 THEN 'PUBLIC'"
							 " ELSE quote_ident(pg_get_userbyid(a.grantee))"
							 " END, ', ')"
							 " FROM pg_class c, aclexplode(c.relacl) a"
							 " WHERE c.oid = %u AND a.grantee <> c.relowner",
							 leaf), false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read privileges of \"message_bus.%s\"", name);
	grantees = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (grantees)
		mbus_sql("REVOKE ALL ON TABLE message_bus.%s FROM %s",
				 name, grantees);
}

/*
 * mbus_leaf_state reads the state of one table, and sets *leaf to its oid;
 * called in a transaction, with SPI.
 */
MbusLeafState
mbus_leaf_state(MbusWork *work, MbusFamily family, int32 segment, Oid *leaf)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "%s_%d", mbus_family_name(family), segment);
	*leaf = get_relname_relid(name, work->schema);
	if (!OidIsValid(*leaf))
		return MBUS_LEAF_GONE;
	if (!get_rel_relispartition(*leaf))
		return MBUS_LEAF_DETACHED;
	if (PartitionHasPendingDetach(*leaf))
		return MBUS_LEAF_PENDING;
	return leaf_whole(*leaf) ? MBUS_LEAF_ATTACHED : MBUS_LEAF_UNFINISHED;
}

/*
 * leaf_whole tells whether a table has what a restore makes after it has
 * filled the table: indexes, and row security as about the last of all.
 */
static bool
leaf_whole(Oid leaf)
{
	bool		isnull;

	return mbus_sql_int64(&isnull,
						  "SELECT (relrowsecurity AND relhasindex)::int::int8"
						  " FROM pg_class WHERE oid = %u", leaf) == 1;
}

/*
 * mbus_segments_query runs a query for segment numbers, in a transaction of
 * its own.
 */
void
mbus_segments_query(MbusWork *work, MbusNumbers *found, const char *query)
{
	mbus_task_begin();
	mbus_task_hold_extension(work);
	if (SPI_execute(query, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", query);
	found->n = (int) SPI_processed;
	found->number = MemoryContextAlloc(found->context,
									   Max(found->n, 1) * sizeof(int32));
	for (int i = 0; i < found->n; i++)
	{
		bool		isnull;

		found->number[i] =
			DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
										SPI_tuptable->tupdesc, 1, &isnull));
	}
	mbus_task_commit();
}
