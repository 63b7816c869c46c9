/*
 * segment_secret.c
 *		The secret of a segment.
 *
 * Beside the tables of segment n lies secret_<n>, with 32 random bytes in one
 * row.  What is derived from a secret says nothing of the segment's messages
 * any more when the secret is gone, so it goes when and where they go: it is
 * made in the transaction that makes the segment, dumped as its tables are,
 * and dropped in the transaction that drops them.  A row of a table that
 * lives on would stay in its file after a DELETE.
 *
 * The table has no parent, so that nobody's query comes upon it, and no index;
 * nobody has rights on it.  Its columns are of fixed length: it has no TOAST
 * table, also where a restore has made it, and what a restore brings is 32
 * bytes.  The row is inserted without a statement that could be logged.
 *
 * Locks: as the segment's tables, AccessExclusive to the transaction's end
 * when it is made and, had without waiting, when it is dropped.  Nobody
 * writes to it in between.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"

#include "base/random.h"
#include "segment/inserter.h"
#include "worker/segment_catalog.h"
#include "worker/segment_secret.h"
#include "worker/task.h"

/* columns of the tables secret_<n>, a half of the bytes each */
enum
{
	SECRET_FIRST = 1,
	SECRET_SECOND,
	SECRET_COLUMNS = SECRET_SECOND
};

static void secret_insert(Oid table);

/*
 * mbus_secret_create makes the secret of a segment, in the caller's
 * transaction; the current user becomes the table's owner.
 */
void
mbus_secret_create(MbusWork *work, int32 segment)
{
	char	   *name = psprintf("secret_%d", segment);
	Oid			table;

	mbus_sql("CREATE TABLE message_bus.%s (first uuid NOT NULL,"
			 " second uuid NOT NULL) USING heap", name);
	table = mbus_secret_table(work, segment);
	if (!OidIsValid(table))
		elog(ERROR, "table \"message_bus.%s\" was not created", name);
	mbus_segment_revoke(name, table);
	mbus_sql("ALTER TABLE message_bus.%s ENABLE ROW LEVEL SECURITY", name);
	mbus_segment_depend(table, work->extension);
	secret_insert(table);
}

/* Inserts the one row. */
static void
secret_insert(Oid table)
{
	MbusInserter *inserter = mbus_inserter_open(table, SECRET_COLUMNS, false);
	TupleTableSlot *slot = mbus_inserter_slot(inserter);
	pg_uuid_t	half[SECRET_COLUMNS];

	mbus_random(half, sizeof(half));
	slot->tts_values[SECRET_FIRST - 1] = UUIDPGetDatum(&half[0]);
	slot->tts_values[SECRET_SECOND - 1] = UUIDPGetDatum(&half[1]);
	mbus_inserter_put(inserter);
	mbus_inserter_close(inserter);
	explicit_bzero(half, sizeof(half));
}

/*
 * mbus_secret_table returns the table of a segment's secret, or InvalidOid.
 */
Oid
mbus_secret_table(MbusWork *work, int32 segment)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "secret_%d", segment);
	return get_relname_relid(name, work->schema);
}

/*
 * mbus_secret_filled tells whether a restore has filled a segment's secret, or
 * makes none.
 */
bool
mbus_secret_filled(MbusWork *work, int32 segment)
{
	bool		none;

	if (!OidIsValid(mbus_secret_table(work, segment)))
		return true;
	(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM message_bus.secret_%d"
						  " LIMIT 1", segment);
	return !none;
}

/*
 * mbus_secret_settle makes the secret of a restored segment ours.  One that
 * the restore has left out is made anew: what was derived from the old one
 * cannot be derived again, which the log tells.
 */
void
mbus_secret_settle(MbusWork *work, int32 segment)
{
	Oid			table = mbus_secret_table(work, segment);
	Oid			user;
	int			context;

	if (OidIsValid(table))
		mbus_segment_revoke(psprintf("secret_%d", segment), table);
	if (OidIsValid(table) && mbus_secret_filled(work, segment))
	{
		mbus_segment_depend(table, work->extension);
		return;
	}
	GetUserIdAndSecContext(&user, &context);
	if (OidIsValid(table))
	{
		mbus_segment_depend(table, work->extension);
		secret_insert(table);
	}
	else
	{
		mbus_task_become_owner(work);
		mbus_secret_create(work, segment);
		SetUserIdAndSecContext(user, context);
	}
	ereport(LOG,
			(errmsg("segment %d of message_bus was restored without its secret, and has a new one",
					segment),
			 errdetail("Nothing stored is affected; what was derived from the old secret cannot be derived again.")));
}
