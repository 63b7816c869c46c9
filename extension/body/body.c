/*
 * body.c
 *		Large bodies: where one is, and that it stays.
 *
 * See body/README.md for the protocol.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/columns.h"
#include "base/schema.h"
#include "base/settings.h"
#include "body/body.h"
#include "state/store.h"

static bool taken_lock(Oid schema, const MbusBody *body);
static bool body_locate(Oid schema, int64 number, LOCKMODE lockmode,
						MbusBody *body);
static Oid	store_lock(Oid schema, int32 store_no, LOCKMODE lockmode);
static int64 body_moved_to(Oid schema, int64 number);
static void hold_insert(Oid schema, int32 store_no, TimestampTz until,
						int64 message_id);

/*
 * mbus_body_new makes a body of a size, -1 if that is not known, in a store of
 * a series, whose table it locks (RowExclusive) to the end of the transaction.
 * "expires_at" is when it will expire, as far as that is known.  It waits for
 * the worker where no store is open or ready: 55000 if that takes too long.
 * 53400 if there are too many stores of one body, 53100 if the disk is full.
 */
void
mbus_body_new(MbusDatabase *db, Oid schema, int32 series, int64 size,
			  TimestampTz expires_at, MbusBody *body)
{
	MbusStoreTaken taken;

	body->own = size < 0 ||
		size > (int64) mbus_own_body_min * 1024 * 1024;
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (body->own)
			mbus_store_own(db, schema, &taken);
		else
			mbus_store_shared(db, schema, series, size, expires_at, &taken);
		body->body = taken.body;
		body->store_no = MbusStoreOf(taken.body);
		body->relid = taken.relid;
		if (taken_lock(schema, body))
			break;
		mbus_store_gone(db, body->store_no);
	}
}

/*
 * taken_lock locks the table that a body was taken in; false if it has gone.
 * The lock comes first: without one the name may be looked up in a cache that
 * is older than the table.
 */
static bool
taken_lock(Oid schema, const MbusBody *body)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "part_%d", body->store_no);
	LockRelationOid(body->relid, RowExclusiveLock);
	if (get_relname_relid(name, schema) == body->relid)
		return true;
	UnlockRelationOid(body->relid, RowExclusiveLock);
	return false;
}

/*
 * mbus_body_find finds a body by its number, also where it was moved, and
 * locks its table to the end of the transaction; false if the store has gone.
 */
bool
mbus_body_find(Oid schema, int64 number, LOCKMODE lockmode, MbusBody *body)
{
	if (body_locate(schema, number, lockmode, body))
		return true;
	number = body_moved_to(schema, number);
	return number != 0 && body_locate(schema, number, lockmode, body);
}

static bool
body_locate(Oid schema, int64 number, LOCKMODE lockmode, MbusBody *body)
{
	if (number <= 0 || number > MbusBodyOf(PG_INT32_MAX, MBUS_BODIES_LIMIT - 1))
		return false;
	body->body = number;
	body->store_no = MbusStoreOf(number);
	AcceptInvalidationMessages();	/* names of stores come again */
	body->relid = store_lock(schema, body->store_no, lockmode);
	return OidIsValid(body->relid);
}

/*
 * store_lock locks the table of a store that is there, and returns it.
 */
static Oid
store_lock(Oid schema, int32 store_no, LOCKMODE lockmode)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "part_%d", store_no);
	for (;;)
	{
		Oid			relid = get_relname_relid(name, schema);

		if (!OidIsValid(relid))
			return InvalidOid;
		LockRelationOid(relid, lockmode);
		/* the lock has brought what happened meanwhile */
		if (get_relname_relid(name, schema) == relid)
			return relid;
		UnlockRelationOid(relid, lockmode);
	}
}

/* Where a body was moved to; 0: it was not. */
static int64
body_moved_to(Oid schema, int64 number)
{
	Relation	rel = table_open(mbus_relation(schema, "body_moved"),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int64		to = 0;
	ScanKeyData key;
	SysScanDesc rows;
	HeapTuple	tuple;
	bool		isnull;

	ScanKeyInit(&key, MBUS_MOVED_BODY, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(number));
	rows = systable_beginscan(rel, mbus_relation(schema, "body_moved_pkey"),
							  true, snapshot, 1, &key);
	tuple = systable_getnext(rows);
	if (HeapTupleIsValid(tuple))
		to = DatumGetInt64(heap_getattr(tuple, MBUS_MOVED_TO_BODY,
										RelationGetDescr(rel), &isnull));
	systable_endscan(rows);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return to;
}

/*
 * mbus_body_keep keeps a body as long as a message that refers to it, which
 * this transaction makes.  The caller has the body's table locked to the end
 * of the transaction (RowShare or stronger), and has seen since then that the
 * body is there.  "always_hold": by a row of its own, since the body is not
 * new, or may be wanted longer than its store promises.
 */
void
mbus_body_keep(MbusDatabase *db, Oid schema, const MbusBody *body,
			   TimestampTz expires_at, int64 message_id, bool always_hold)
{
	if (!always_hold && !body->own &&
		mbus_store_raise(db, schema, body->store_no, expires_at))
		return;
	hold_insert(schema, body->store_no, expires_at, message_id);
}

static void
hold_insert(Oid schema, int32 store_no, TimestampTz until, int64 message_id)
{
	Relation	rel = table_open(mbus_relation(schema, "body_hold"),
								 RowExclusiveLock);
	Datum		values[MBUS_HOLD_MESSAGE_ID];
	bool		nulls[MBUS_HOLD_MESSAGE_ID] = {false};

	values[MBUS_HOLD_STORE_NO - 1] = Int32GetDatum(store_no);
	values[MBUS_HOLD_UNTIL - 1] = TimestampTzGetDatum(until);
	values[MBUS_HOLD_MESSAGE_ID - 1] = Int64GetDatum(message_id);
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values,
											nulls));
	table_close(rel, NoLock);
}
