/*
 * read.c
 *		Stored messages: get, get_bytes, get_by_transaction, peek.
 *
 * A message is found by its id alone: the id's upper bits are the segment,
 * whose leaf is opened by OID.  What has expired by clock_timestamp() or was
 * deleted is not there, whether or not its space has been returned.
 *
 * Under READ COMMITTED a new snapshot is taken for each read, so that a call
 * sees what earlier calls of the same statement or relay did; peek always
 * takes one of its own, after it has asked the registry for the first
 * unfinished publish: in the other order it would show a message and later
 * one before it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fault.h"
#include "leaf.h"
#include "publish.h"
#include "read.h"
#include "settings.h"
#include "state.h"

#define MBUS_PEEK_MAX		10000
#define MBUS_VERIFIED		16
#define MBUS_STORED_COLUMNS 16

bool		mbus_relay_raw_payload = false;

/* Large messages this backend has verified: ranges are not verified anew. */
static struct
{
	Oid			schema;
	int64		id;
}			verified[MBUS_VERIFIED];
static int	next_verified = 0;

static Snapshot read_snapshot(void);
static void message_read(HeapTuple tuple, TupleDesc desc, MbusStored *m);
static text *text_or_null(HeapTuple tuple, TupleDesc desc, int column);
static bool scan_one(Relation leaf, AttrNumber first, AttrNumber second,
					 ScanKey key, int nkeys, Snapshot snapshot,
					 MbusStored *message);
static bool transaction_fetch(Oid schema, const MbusChannel *channel,
							  text *transaction_id, MbusStored *message);
static void may_read(Oid schema, const MbusStored *message);
static Datum message_datum(Oid schema, const MbusStored *message,
						   TupleDesc desc, bool whole);
static void message_values(Oid schema, const MbusStored *message, bool whole,
						   Datum *values, bool *isnull);
static bool message_columns(Oid schema, const MbusStored *message, bool whole,
							Datum *values, bool *isnull);
static void peek_values(Oid schema, const MbusStored *message, Datum *values,
						bool *isnull);
static Datum stored_message_result(FunctionCallInfo fcinfo, Oid schema,
								   const MbusStored *message, bool whole);
static void peek_leaf(Oid schema, Relation leaf, int32 channel_id,
					  int64 after, int64 limit, int *left,
					  Snapshot snapshot, ReturnSetInfo *rsinfo);
static struct varlena *payload_read(const MbusStored *message);
static bool payload_matches(const MbusStored *message,
							struct varlena *payload);
static bool is_verified(Oid schema, int64 id);
static void remember_verified(Oid schema, int64 id);

/* A registered snapshot; the caller unregisters it. */
static Snapshot
read_snapshot(void)
{
	if (IsolationUsesXactSnapshot())
		return RegisterSnapshot(GetTransactionSnapshot());
	return RegisterSnapshot(GetLatestSnapshot());
}

/*
 * mbus_message_fetch finds a message by its id; false if there is none, or it
 * has expired or was deleted.  Privileges are the caller's to check.
 */
bool
mbus_message_fetch(Oid schema, int64 id, MbusStored *message)
{
	Relation	leaf;
	Snapshot	snapshot;
	ScanKeyData key;
	bool		found;

	if (id <= 0 || (id >> MBUS_ROW_BITS) > MBUS_SEGMENT_MAX)
		return false;
	leaf = mbus_leaf_open(schema, MbusSegmentOf(id), MBUS_MESSAGE,
						  AccessShareLock);
	if (leaf == NULL)
		return false;
	ScanKeyInit(&key, MBUS_COL_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	snapshot = read_snapshot();
	found = scan_one(leaf, MBUS_COL_ID, 0, &key, 1, snapshot, message);
	UnregisterSnapshot(snapshot);
	/* the payload may still be in its TOAST table: a found one stays locked */
	table_close(leaf, found ? NoLock : AccessShareLock);
	return found && message->expires_at > GetCurrentTimestamp() &&
		!mbus_message_deleted(schema, id);
}

/*
 * mbus_message_deleted tells whether a committed deletion hides the message,
 * now, whatever the transaction's snapshot: as with expiry.
 */
bool
mbus_message_deleted(Oid schema, int64 id)
{
	Relation	leaf;
	Relation	index;
	Snapshot	snapshot;
	SysScanDesc scan;
	ScanKeyData key;
	bool		deleted;

	leaf = mbus_leaf_open(schema, MbusSegmentOf(id), MBUS_EVENT,
						  AccessShareLock);
	if (leaf == NULL)
		return false;
	if (RelationGetNumberOfBlocks(leaf) == 0)
	{
		table_close(leaf, AccessShareLock);
		return false;
	}
	/* the partial index has only deletions */
	index = mbus_leaf_index(leaf, MBUS_EVENT_MESSAGE_ID, 0, true);
	ScanKeyInit(&key, MBUS_EVENT_MESSAGE_ID, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(id));
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan_ordered(leaf, index, snapshot, 1, &key);
	deleted = HeapTupleIsValid(systable_getnext_ordered(scan,
														ForwardScanDirection));
	systable_endscan_ordered(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(leaf, AccessShareLock);
	return deleted;
}

/* Reads the first row of an index scan. */
static bool
scan_one(Relation leaf, AttrNumber first, AttrNumber second, ScanKey key,
		 int nkeys, Snapshot snapshot, MbusStored *message)
{
	Relation	index = mbus_leaf_index(leaf, first, second,
										second == MBUS_COL_TRANSACTION_ID);
	SysScanDesc scan;
	HeapTuple	tuple;

	for (int i = 0; i < nkeys; i++)
		key[i].sk_collation = index->rd_indcollation[i];
	scan = systable_beginscan_ordered(leaf, index, snapshot, nkeys, key);
	tuple = systable_getnext_ordered(scan, ForwardScanDirection);
	if (HeapTupleIsValid(tuple))
		message_read(tuple, RelationGetDescr(leaf), message);
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/*
 * message_read copies a row; the payload stays toasted if it is.
 */
static void
message_read(HeapTuple tuple, TupleDesc desc, MbusStored *m)
{
	Datum		value;
	bool		isnull;
	bytea	   *digest;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	MemSet(m, 0, sizeof(*m));
	m->id = DatumGetInt64(READ(MBUS_COL_ID));
	m->channel_id = DatumGetInt32(READ(MBUS_COL_CHANNEL_ID));
	m->size = DatumGetInt32(READ(MBUS_COL_SIZE));
	m->created_at = DatumGetTimestampTz(READ(MBUS_COL_CREATED_AT));
	m->expires_at = DatumGetTimestampTz(READ(MBUS_COL_EXPIRES_AT));
	m->available_at = DatumGetTimestampTz(READ(MBUS_COL_AVAILABLE_AT));
	value = READ(MBUS_COL_SESSION);
	m->session = isnull ? 0 : DatumGetInt64(value);
	m->publisher = text_or_null(tuple, desc, MBUS_COL_PUBLISHER);
	m->content_type = TextDatumGetCString(READ(MBUS_COL_CONTENT_TYPE));
	m->compression =
		mbus_compression_parse(TextDatumGetCString(READ(MBUS_COL_ENCODING)));
	digest = DatumGetByteaPP(READ(MBUS_COL_SHA256));
	memcpy(m->sha256, VARDATA_ANY(digest),
		   Min(VARSIZE_ANY_EXHDR(digest), MBUS_SHA256_BYTES));
	m->subject = text_or_null(tuple, desc, MBUS_COL_SUBJECT);
	m->key = text_or_null(tuple, desc, MBUS_COL_KEY);
	m->transaction_id = text_or_null(tuple, desc, MBUS_COL_TRANSACTION_ID);
	m->headers = (struct varlena *) text_or_null(tuple, desc,
												 MBUS_COL_HEADERS);
	value = READ(MBUS_COL_PAYLOAD);
	m->stored = (struct varlena *)
		DatumGetPointer(datumCopy(value, false, -1));
#undef READ
}

static text *
text_or_null(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, desc, &isnull);

	if (isnull)
		return NULL;
	return (text *) PG_DETOAST_DATUM_COPY(value);
}

/*
 * mbus_message_payload returns a message's payload, verified if the session
 * verifies reads: XX001, recorded, if the bytes are not those published.
 */
struct varlena *
mbus_message_payload(Oid schema, const MbusStored *message)
{
	struct varlena *payload = payload_read(message);

	if (payload == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("stored bytes of message " INT64_FORMAT " do not match their checksum",
						message->id),
				 errhint("The storage below the database has changed them; restore the message from its publisher or a backup.")));
	return payload;
}

/*
 * payload_read returns a message's payload, or NULL, and records that, if the
 * bytes are not those published.
 */
static struct varlena *
payload_read(const MbusStored *message)
{
	struct varlena *payload;
	char		why[100];

	payload = PG_DETOAST_DATUM(PointerGetDatum(message->stored));
	payload = mbus_payload_decode(payload, message->compression,
								  message->size);
	if (!payload_matches(message, payload))
	{
		snprintf(why, sizeof(why),
				 "stored bytes of message " INT64_FORMAT
				 " do not match their checksum", message->id);
		mbus_fault_checksum(message->id, why);
		return NULL;
	}
	mbus_count(MBUS_C_READ, 1);
	mbus_count(MBUS_C_READ_BYTES, message->size);
	return payload;
}

/*
 * payload_matches tells whether the bytes are those published.  Their number
 * counts also where the session does not verify: ranges are cut by it.
 */
static bool
payload_matches(const MbusStored *message, struct varlena *payload)
{
	uint8		sha256[MBUS_SHA256_BYTES];

	if (payload == NULL || VARSIZE_ANY_EXHDR(payload) != message->size)
		return false;
	if (!mbus_verify_on_read)
		return true;
	mbus_sha256(VARDATA_ANY(payload), message->size, sha256);
	return memcmp(sha256, message->sha256, MBUS_SHA256_BYTES) == 0;
}

/* Errors unless the current user may consume the message's channel. */
static void
may_read(Oid schema, const MbusStored *message)
{
	const MbusChannel *channel;

	channel = mbus_channel_by_id(schema, message->channel_id);
	if (channel == NULL || !mbus_channel_allows(channel, MBUS_CONSUME))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for message " INT64_FORMAT,
						message->id),
				 errdetail("Role \"%s\" has no privilege to consume its channel.",
						   GetUserNameFromId(GetUserId(), false))));
}

/* Finds a message; false also where its channel has been dropped. */
static bool
readable_fetch(Oid schema, int64 id, MbusStored *message)
{
	if (!mbus_message_fetch(schema, id, message) ||
		mbus_channel_by_id(schema, message->channel_id) == NULL)
		return false;
	may_read(schema, message);
	return true;
}

/*
 * get(id bigint) returns one message, whole.
 */
MBUS_FUNCTION(get)
{
	Oid			schema = mbus_schema();
	MbusStored	message;

	if (PG_ARGISNULL(0) ||
		!readable_fetch(schema, PG_GETARG_INT64(0), &message))
		PG_RETURN_NULL();
	return stored_message_result(fcinfo, schema, &message, true);
}

/*
 * get_by_transaction(channel, transaction_id) returns one message; by
 * reference if it is larger than message_bus.inline_max.
 */
MBUS_FUNCTION(get_by_transaction)
{
	Oid			schema = mbus_schema();
	const MbusChannel *channel;
	MbusStored	message;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	channel = mbus_channel_open(schema, PG_GETARG_TEXT_PP(0), MBUS_CONSUME);
	if (!transaction_fetch(schema, channel, PG_GETARG_TEXT_PP(1), &message))
		PG_RETURN_NULL();
	return stored_message_result(fcinfo, schema, &message, false);
}

/*
 * retrieve_message(transaction_id) returns the payload of the message with
 * that transaction id on the default channel, and records the access.
 */
MBUS_FUNCTION(retrieve_message)
{
	Oid			schema = mbus_schema();
	const MbusChannel *channel;
	MbusStored	message;
	struct varlena *payload;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	channel = mbus_channel_open(schema,
								cstring_to_text(mbus_default_channel),
								MBUS_CONSUME);
	if (!transaction_fetch(schema, channel, PG_GETARG_TEXT_PP(0), &message) ||
		!mbus_content_is_json(message.content_type))
		PG_RETURN_NULL();
	payload = mbus_message_payload(schema, &message);
	if (!XactReadOnly && !RecoveryInProgress())
		mbus_insert_event(schema, message.id, "accessed",
						  GetCurrentTimestamp());
	PG_RETURN_POINTER(payload);
}

/*
 * delete_message(transaction_id) hides the message with that transaction id
 * on the default channel; false if there is none.
 */
MBUS_FUNCTION(delete_message)
{
	Oid			schema = mbus_schema();
	const MbusChannel *channel;
	MbusStored	message;

	mbus_write_check("message_bus.delete_message()");
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	channel = mbus_channel_open(schema,
								cstring_to_text(mbus_default_channel),
								MBUS_CONSUME);
	mbus_channel_check(channel, MBUS_PUBLISH);
	if (!transaction_fetch(schema, channel, PG_GETARG_TEXT_PP(0), &message))
		PG_RETURN_BOOL(false);
	mbus_insert_event(schema, message.id, "deleted", GetCurrentTimestamp());
	mbus_count(MBUS_C_DELETED, 1);
	PG_RETURN_BOOL(true);
}

/*
 * record_event(id bigint, kind text, at timestamptz) is what the triggers of
 * the view message_bus.message_bus record with.
 */
MBUS_FUNCTION(record_event)
{
	Oid			schema = mbus_schema();
	char	   *kind = text_to_cstring(PG_GETARG_TEXT_PP(1));
	bool		deletes = strcmp(kind, "deleted") == 0;
	const MbusChannel *channel;
	MbusStored	message;

	mbus_write_check("message_bus.record_event()");
	if (!deletes && strcmp(kind, "accessed") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown kind of event \"%s\"", kind),
				 errdetail("An event is accessed or deleted.")));
	if (!readable_fetch(schema, PG_GETARG_INT64(0), &message))
		PG_RETURN_BOOL(false);
	if (deletes)
	{
		channel = mbus_channel_by_id(schema, message.channel_id);
		mbus_channel_check(channel, MBUS_PUBLISH);
		mbus_count(MBUS_C_DELETED, 1);
	}
	mbus_insert_event(schema, message.id, kind, PG_GETARG_TIMESTAMPTZ(2));
	PG_RETURN_BOOL(true);
}

/*
 * transaction_fetch finds the live message with a transaction id, newest
 * segment first.
 */
static bool
transaction_fetch(Oid schema, const MbusChannel *channel,
				  text *transaction_id, MbusStored *message)
{
	int32		channel_id = channel->channel_id;
	Snapshot	snapshot;
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(schema, &leaves);
	bool		found = false;

	snapshot = read_snapshot();
	for (int i = nleaves - 1; i >= 0 && !found; i--)
	{
		ScanKeyData key[2];
		Relation	leaf;

		leaf = mbus_leaf_open(schema, leaves[i].segment, MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			continue;
		ScanKeyInit(&key[0], MBUS_COL_CHANNEL_ID, BTEqualStrategyNumber,
					F_INT4EQ, Int32GetDatum(channel_id));
		ScanKeyInit(&key[1], MBUS_COL_TRANSACTION_ID, BTEqualStrategyNumber,
					F_TEXTEQ, PointerGetDatum(transaction_id));
		found = scan_one(leaf, MBUS_COL_CHANNEL_ID, MBUS_COL_TRANSACTION_ID,
						 key, 2, snapshot, message);
		table_close(leaf, found ? NoLock : AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return found && message->expires_at > GetCurrentTimestamp() &&
		!mbus_message_deleted(schema, message->id);
}

/*
 * get_bytes(id bigint, from_byte bigint, max_bytes bigint) returns a range of
 * a payload's bytes; an empty one behind its end.
 */
MBUS_FUNCTION(get_bytes)
{
	Oid			schema = mbus_schema();
	MbusStored	message;
	struct varlena *payload;
	int64		from;
	int64		count;

	if (PG_ARGISNULL(0) ||
		!readable_fetch(schema, PG_GETARG_INT64(0), &message))
		PG_RETURN_NULL();
	from = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	count = PG_ARGISNULL(2) ? Max(message.size, 0) : PG_GETARG_INT64(2);
	if (from < 0 || count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid range of bytes: from_byte " INT64_FORMAT ", max_bytes " INT64_FORMAT,
						from, count),
				 errdetail("Both are zero or more.")));
	from = Min(from, message.size);
	count = Min(count, message.size - from);

	if (message.size > mbus_inline_max && is_verified(schema, message.id) &&
		message.compression <= MBUS_COMPRESS_LZ4)
		PG_RETURN_BYTEA_P(PG_DETOAST_DATUM_SLICE(PointerGetDatum(message.stored),
												 from, count));
	payload = mbus_message_payload(schema, &message);
	if (mbus_verify_on_read)
		remember_verified(schema, message.id);
	if (from == 0 && count == message.size)
		PG_RETURN_BYTEA_P(payload);
	PG_RETURN_BYTEA_P(cstring_to_text_with_len(VARDATA_ANY(payload) + from,
											   count));
}

static bool
is_verified(Oid schema, int64 id)
{
	if (!mbus_verify_on_read)
		return true;
	for (int i = 0; i < MBUS_VERIFIED; i++)
	{
		if (verified[i].id == id && verified[i].schema == schema)
			return true;
	}
	return false;
}

static void
remember_verified(Oid schema, int64 id)
{
	if (is_verified(schema, id))
		return;
	verified[next_verified].schema = schema;
	verified[next_verified].id = id;
	next_verified = (next_verified + 1) % MBUS_VERIFIED;
}

/*
 * peek(channel, after_id, max_messages) returns messages by ascending id, and
 * stops before the first unfinished publish, so that nothing is skipped.
 */
MBUS_FUNCTION(peek)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	int32		channel_id;
	int64		after = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	int			left = PG_ARGISNULL(2) ? 100 : PG_GETARG_INT32(2);
	int64		limit;
	Snapshot	snapshot;
	MbusLeaf   *leaves;
	int			nleaves;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	if (left < 1 || left > MBUS_PEEK_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid max_messages: %d", left),
				 errdetail("It is from 1 to %d.", MBUS_PEEK_MAX)));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot peek during recovery"),
				 errdetail("A standby does not know which publishes are unfinished.")));
	channel_id = mbus_channel_open(schema, PG_GETARG_TEXT_PP(0),
								   MBUS_CONSUME)->channel_id;

	/* first the limit, then the snapshot: see the top of this file */
	nleaves = mbus_leaves(schema, &leaves);
	limit = mbus_published_limit(mbus_database(), schema, channel_id,
								 nleaves ? leaves[nleaves - 1].segment : 0);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	pfree(leaves);
	nleaves = mbus_leaves(schema, &leaves);
	for (int i = 0; i < nleaves && left > 0; i++)
	{
		Relation	leaf;

		if (leaves[i].segment < (after >> MBUS_ROW_BITS) ||
			MbusFirstId(leaves[i].segment) >= limit)
			continue;
		leaf = mbus_leaf_open(schema, leaves[i].segment, MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			continue;
		peek_leaf(schema, leaf, channel_id, after, limit, &left, snapshot,
				  rsinfo);
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return (Datum) 0;
}

static void
peek_leaf(Oid schema, Relation leaf, int32 channel_id, int64 after,
		  int64 limit, int *left, Snapshot snapshot, ReturnSetInfo *rsinfo)
{
	Relation	index = mbus_leaf_index(leaf, MBUS_COL_CHANNEL_ID,
										MBUS_COL_ID, false);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "message_bus peek",
											  ALLOCSET_DEFAULT_SIZES);
	ScanKeyData key[3];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], MBUS_COL_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(channel_id));
	ScanKeyInit(&key[1], MBUS_COL_ID, BTGreaterStrategyNumber, F_INT8GT,
				Int64GetDatum(after));
	ScanKeyInit(&key[2], MBUS_COL_ID, BTLessStrategyNumber, F_INT8LT,
				Int64GetDatum(limit));
	scan = systable_beginscan_ordered(leaf, index, snapshot, 3, key);
	while (*left > 0 &&
		   HeapTupleIsValid(tuple = systable_getnext_ordered(scan,
															 ForwardScanDirection)))
	{
		MemoryContext caller = MemoryContextSwitchTo(row);
		MbusStored	message;
		Datum		values[MBUS_STORED_COLUMNS];
		bool		isnull[MBUS_STORED_COLUMNS];

		CHECK_FOR_INTERRUPTS();
		message_read(tuple, RelationGetDescr(leaf), &message);
		if (message.expires_at > GetCurrentTimestamp() &&
			!mbus_message_deleted(schema, message.id))
		{
			peek_values(schema, &message, values, isnull);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
			(*left)--;
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(row);
	}
	systable_endscan_ordered(scan);
	index_close(index, AccessShareLock);
	MemoryContextDelete(row);
}

/*
 * peek_values fills in a row of peek.  A message whose bytes do not match is
 * there by reference, so that it stops nobody from reading on: get() tells.
 */
static void
peek_values(Oid schema, const MbusStored *message, Datum *values,
			bool *isnull)
{
	bool		inlined = message_columns(schema, message, false, values,
										  isnull);
	struct varlena *payload = inlined ? payload_read(message) : NULL;

	if (inlined && payload == NULL)
		values[MBUS_STORED_COLUMNS - 2] = BoolGetDatum(true);
	values[MBUS_STORED_COLUMNS - 1] = PointerGetDatum(payload);
	isnull[MBUS_STORED_COLUMNS - 1] = payload == NULL;
}

/* One stored_message, in the type the call expects. */
static Datum
stored_message_result(FunctionCallInfo fcinfo, Oid schema,
					  const MbusStored *message, bool whole)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function returning record called in context that cannot accept type record")));
	return message_datum(schema, message, BlessTupleDesc(desc), whole);
}

static Datum
message_datum(Oid schema, const MbusStored *message, TupleDesc desc,
			  bool whole)
{
	Datum		values[MBUS_STORED_COLUMNS];
	bool		isnull[MBUS_STORED_COLUMNS];

	message_values(schema, message, whole, values, isnull);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, isnull));
}

/*
 * message_values fills in the columns of message_bus.stored_message.  With
 * "whole" the payload is there whatever its size.
 */
static void
message_values(Oid schema, const MbusStored *message, bool whole,
			   Datum *values, bool *isnull)
{
	bool		inlined = message_columns(schema, message, whole, values,
										  isnull);

	isnull[MBUS_STORED_COLUMNS - 1] = !inlined;
	values[MBUS_STORED_COLUMNS - 1] = inlined ?
		PointerGetDatum(mbus_message_payload(schema, message)) : (Datum) 0;
}

/*
 * message_columns fills in all columns but the last, the payload, and returns
 * whether that is to be there.
 */
static bool
message_columns(Oid schema, const MbusStored *message, bool whole,
				Datum *values, bool *isnull)
{
	const MbusChannel *channel = mbus_channel_by_id(schema,
													message->channel_id);
	bytea	   *digest = palloc(VARHDRSZ + MBUS_SHA256_BYTES);
	bool		by_reference = !whole && message->size > mbus_inline_max;
	int			i = 0;

	SET_VARSIZE(digest, VARHDRSZ + MBUS_SHA256_BYTES);
	memcpy(VARDATA(digest), message->sha256, MBUS_SHA256_BYTES);
	MemSet(isnull, 0, MBUS_STORED_COLUMNS * sizeof(bool));

	values[i++] = Int64GetDatum(message->id);
	isnull[i] = channel == NULL;
	values[i++] = channel ? CStringGetTextDatum(channel->name) : (Datum) 0;
	values[i++] = TimestampTzGetDatum(message->created_at);
	values[i++] = TimestampTzGetDatum(message->expires_at);
	values[i++] = TimestampTzGetDatum(message->available_at);
	isnull[i] = message->key == NULL;
	values[i++] = PointerGetDatum(message->key);
	isnull[i] = message->transaction_id == NULL;
	values[i++] = PointerGetDatum(message->transaction_id);
	values[i++] = PointerGetDatum(message->publisher);
	isnull[i] = message->subject == NULL;
	values[i++] = PointerGetDatum(message->subject);
	isnull[i] = message->session == 0;
	values[i++] = Int64GetDatum(message->session);
	isnull[i] = message->headers == NULL;
	values[i++] = PointerGetDatum(message->headers);
	values[i++] = CStringGetTextDatum(message->content_type);
	values[i++] = Int64GetDatum(message->size);
	values[i++] = PointerGetDatum(digest);
	values[i++] = BoolGetDatum(by_reference);
	Assert(i == MBUS_STORED_COLUMNS - 1);
	return !by_reference && (mbus_content_is_json(message->content_type) ||
							 mbus_relay_raw_payload);
}

/*
 * stored_json(payload, encoding, size, content_type, sha256) returns a row's
 * payload as json, NULL where it is not JSON or does not match: no stored
 * message may make a view fail.
 */
PG_FUNCTION_INFO_V1(mbus_stored_json);
Datum
mbus_stored_json(PG_FUNCTION_ARGS)
{
	struct varlena *payload;
	char	   *encoding;
	int32		size = PG_GETARG_INT32(2);
	bytea	   *digest = PG_GETARG_BYTEA_PP(4);
	uint8		sha256[MBUS_SHA256_BYTES];

	if (!mbus_content_is_json(text_to_cstring(PG_GETARG_TEXT_PP(3))))
		PG_RETURN_NULL();
	encoding = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!mbus_compression_known(encoding))
		PG_RETURN_NULL();
	payload = mbus_payload_decode((struct varlena *) PG_GETARG_BYTEA_PP(0),
								  mbus_compression_parse(encoding), size);
	if (payload == NULL)
		PG_RETURN_NULL();
	mbus_sha256(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), sha256);
	if (VARSIZE_ANY_EXHDR(digest) != MBUS_SHA256_BYTES ||
		memcmp(sha256, VARDATA_ANY(digest), MBUS_SHA256_BYTES) != 0)
		PG_RETURN_NULL();
	/* anybody may call this, with bytes that were never published */
	if (!pg_verify_mbstr(PG_UTF8, VARDATA_ANY(payload),
						 VARSIZE_ANY_EXHDR(payload), true))
		PG_RETURN_NULL();
	PG_RETURN_POINTER(payload);
}

/*
 * mbus_message_preview returns the first bytes of a message that the caller
 * may read, NULL where there is none or where that would mean to decompress
 * all of it.  They are not verified: a preview is not the message.
 */
struct varlena *
mbus_message_preview(int64 id, int32 max_bytes)
{
	Oid			schema = mbus_schema();
	MbusStored	message;

	if (!readable_fetch(schema, id, &message) ||
		message.compression > MBUS_COMPRESS_LZ4)
		return NULL;
	return PG_DETOAST_DATUM_SLICE(PointerGetDatum(message.stored), 0,
								  max_bytes);
}
