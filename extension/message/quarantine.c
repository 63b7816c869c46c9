/*
 * quarantine.c
 *		Messages that are damaged: the table message_bus.quarantine.
 *
 * A message is put there when a look at it (scrub.c) finds that its bytes are
 * not those published, and taken out when a later look finds that they are.
 * Meanwhile no claim delivers it, and who reads it gets XX001, without that
 * its bytes are touched: reading them may fail in ways that stop a claim for
 * all its other messages.
 *
 * What is told by the filter in shared memory is mostly enough
 * (state/scrub_state.c): the table is looked into for the others, whatever
 * the transaction's snapshot.  Who inserts takes RowExclusive on the table,
 * then marks the filter, then inserts; the worker reads the filter anew under
 * Share, which none of these is in the middle of.  The table has
 * MBUS_QUARANTINE_MAX rows at most: what is found beyond is counted, and each
 * read of it finds it again.
 *
 * A row that is rolled back leaves a bit in the filter that is set, and costs
 * a look into the table; and it counts as there, as one that is let out does.
 * Where the quarantine seems to be full the worker counts it each minute.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/columns.h"
#include "base/owner.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "message/quarantine.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/scrub_state.h"
#include "state/state.h"

static int	damage_insert(Oid schema, MbusDatabase *db,
						  const MbusDamage *damage);

/*
 * mbus_damage_code tells whether an error says that what is stored is damaged:
 * those of data, of the disk, and those that the server does not expect.
 */
bool
mbus_damage_code(int sqlerrcode)
{
	int			category = ERRCODE_TO_CATEGORY(sqlerrcode);

	return category == ERRCODE_INTERNAL_ERROR ||
		category == ERRCODE_SYSTEM_ERROR ||
		category == ERRCODE_DATA_EXCEPTION;
}

/*
 * mbus_quarantined tells whether a message is in quarantine.
 */
bool
mbus_quarantined(int64 id)
{
	MbusDatabase *db = mbus_database_or_null();
	int32		channel_id;

	return (db == NULL || mbus_quarantine_may(db, id)) &&
		mbus_quarantine_channel(mbus_schema(), id, &channel_id);
}

/*
 * mbus_quarantine_channel looks for a message in the table, and sets its
 * channel.
 */
bool
mbus_quarantine_channel(Oid schema, int64 id, int32 *channel_id)
{
	Relation	rel = table_open(mbus_relation(schema, "quarantine"),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc rows;
	HeapTuple	tuple;
	bool		found;
	bool		isnull;

	ScanKeyInit(&key, MBUS_QUARANTINED_MESSAGE_ID, BTEqualStrategyNumber,
				F_INT8EQ, Int64GetDatum(id));
	rows = systable_beginscan(rel, mbus_relation(schema, "quarantine_pkey"),
							  true, snapshot, 1, &key);
	tuple = systable_getnext(rows);
	found = HeapTupleIsValid(tuple);
	if (found)
		*channel_id = DatumGetInt32(heap_getattr(tuple,
												 MBUS_QUARANTINED_CHANNEL_ID,
												 RelationGetDescr(rel),
												 &isnull));
	systable_endscan(rows);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * mbus_quarantine_settle puts what was found damaged into quarantine, and lets
 * out what is sound; returns how many it has put there.  Where nothing can be
 * written it does nothing.
 */
int
mbus_quarantine_settle(Oid schema, const MbusDamage *damage, int n)
{
	MbusDatabase *db = mbus_database_or_null();
	Oid			types[] = {INT8OID};
	Relation	rel;
	int			added = 0;

	if (n == 0 || db == NULL || RecoveryInProgress() || XactReadOnly)
		return 0;
	rel = table_open(mbus_relation(schema, "quarantine"), RowExclusiveLock);
	for (int i = 0; i < n; i++)
	{
		Datum		id = Int64GetDatum(damage[i].id);

		if (damage[i].kind != NULL)
			added += damage_insert(schema, db, &damage[i]);
		else
			mbus_count(MBUS_C_QUARANTINE_LEFT,
					   mbus_run_as_owner(schema,
										 "DELETE FROM message_bus.quarantine"
										 " WHERE message_id = $1", 1, types,
										 &id, NULL));
	}
	table_close(rel, NoLock);
	mbus_count(MBUS_C_QUARANTINED, added);
	return added;
}

/* Inserts a row, if there is room; returns how many, 0 or 1. */
static int
damage_insert(Oid schema, MbusDatabase *db, const MbusDamage *damage)
{
	Oid			types[] = {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID, TEXTOID};
	Datum		values[5];
	char		nulls[] = "     ";
	int			added;

	if (pg_atomic_read_u32(&db->scrub.quarantined) >= MBUS_QUARANTINE_MAX)
		return 0;
	mbus_quarantine_mark(db, damage->id);
	values[0] = Int64GetDatum(damage->id);
	values[1] = Int32GetDatum(damage->channel_id);
	values[2] = TimestampTzGetDatum(mbus_now());
	values[3] = CStringGetTextDatum(damage->kind);
	values[4] = CStringGetTextDatum(damage->detail);
	if (damage->detail[0] == '\0')
		nulls[4] = 'n';
	added = mbus_run_as_owner(schema, "INSERT INTO message_bus.quarantine"
							  " (message_id, channel_id, found_at, kind, detail)"
							  " VALUES ($1, $2, $3, $4, $5)"
							  " ON CONFLICT (message_id) DO NOTHING", 5,
							  types, values, nulls);
	pg_atomic_fetch_add_u32(&db->scrub.quarantined, added);
	return added;
}

/*
 * is_quarantined(id) tells whether a message is, of a channel that the current
 * user may consume, audit or monitor; else false.
 */
MBUS_FUNCTION(is_quarantined)
{
	Oid			schema = mbus_schema();
	int64		id = PG_GETARG_INT64(0);
	MbusDatabase *db = mbus_database_or_null();
	const MbusChannel *channel;
	int32		channel_id;

	if ((db && !mbus_quarantine_may(db, id)) ||
		!mbus_quarantine_channel(schema, id, &channel_id))
		PG_RETURN_BOOL(false);
	channel = mbus_channel_by_id(schema, channel_id);
	PG_RETURN_BOOL(mbus_monitors() ||
				   (channel && mbus_channel_allows(channel, MBUS_SEE)));
}
