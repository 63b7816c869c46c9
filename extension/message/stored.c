/*
 * stored.c
 *		Stored messages: found by id or transaction id, read, verified.
 *
 * A message is found by its id alone: the id's upper bits are the segment,
 * whose leaf is opened by OID.  What has expired by the bus's time, was
 * deleted or purged is not there, whether or not its space has been returned.
 *
 * Under READ COMMITTED a new snapshot is taken for each read, so that a call
 * sees what earlier calls of the same statement or relay did.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "segment/row_whole.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/payload.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "channel/publisher.h"
#include "channel/purged.h"
#include "channel/visibility.h"
#include "message/stored.h"
#include "segment/era.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/clock.h"
#include "state/scrub_state.h"

static bool fetch(Oid schema, int64 id, Snapshot snapshot,
				  MbusStored *message);
static bool is_hidden(Oid schema, const MbusStored *message);
static bool is_live(Oid schema, const MbusStored *message);
static bool by_transaction(Oid schema, const MbusChannel *channel,
						   text *transaction_id, Snapshot snapshot,
						   MbusStored *message);
static bool is_deleted(Oid schema, int64 id, bool own);
static Snapshot read_snapshot(void);
static bool scan_one(MbusLeafScan *rows, Snapshot snapshot,
					 MbusStored *message);
static text *text_or_null(HeapTuple tuple, TupleDesc desc, int column);

/*
 * mbus_message_fetch finds a message by its id; false if there is none, or it
 * has expired, was deleted or purged.  Privileges are the caller's to check.
 */
bool
mbus_message_fetch(Oid schema, int64 id, MbusStored *message)
{
	return fetch(schema, id, read_snapshot(), message) &&
		is_live(schema, message);
}

/*
 * mbus_message_fetch_latest does the same with all that has been committed,
 * whatever the transaction's isolation: a claim delivers that, too.
 */
bool
mbus_message_fetch_latest(Oid schema, int64 id, MbusStored *message)
{
	return mbus_message_fetch_stored(schema, id, message) &&
		message->expires_at > mbus_now();
}

/*
 * mbus_message_fetch_stored does so also with one that has expired, as long as
 * its segment is there.
 */
bool
mbus_message_fetch_stored(Oid schema, int64 id, MbusStored *message)
{
	return fetch(schema, id, RegisterSnapshot(GetLatestSnapshot()), message) &&
		!is_hidden(schema, message);
}

/*
 * mbus_message_expiry returns when a message expires or has; 0 if there is no
 * such one any more.
 */
TimestampTz
mbus_message_expiry(Oid schema, int64 id)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller,
												  "message_bus expiry",
												  ALLOCSET_SMALL_SIZES);
	MbusStored	message;
	bool		found;

	MemoryContextSwitchTo(context);
	found = fetch(schema, id, RegisterSnapshot(GetLatestSnapshot()), &message);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return found ? message.expires_at : 0;
}

/* Fetches a message's row and lets the snapshot go. */
static bool
fetch(Oid schema, int64 id, Snapshot snapshot, MbusStored *message)
{
	Relation	leaf = NULL;
	MbusLeafScan rows;
	bool		found;

	if (id > 0 && (id >> MBUS_ROW_BITS) <= MBUS_SEGMENT_MAX)
		leaf = mbus_leaf_open(schema, MbusSegmentOf(id), MBUS_MESSAGE,
							  AccessShareLock);
	if (leaf == NULL)
	{
		UnregisterSnapshot(snapshot);
		return false;
	}
	mbus_leaf_scan_open(&rows, leaf, MBUS_COL_ID, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_COL_ID, id, id);
	found = scan_one(&rows, snapshot, message);
	UnregisterSnapshot(snapshot);
	/* the payload may still be in its TOAST table: a found one stays locked */
	table_close(leaf, found ? NoLock : AccessShareLock);
	return found;
}

/*
 * mbus_message_by_transaction finds the live message with a transaction id.
 */
bool
mbus_message_by_transaction(Oid schema, const MbusChannel *channel,
							text *transaction_id, MbusStored *message)
{
	return by_transaction(schema, channel, transaction_id, read_snapshot(),
						  message) &&
		is_live(schema, message);
}

/*
 * mbus_message_with_transaction finds the message that keeps a publish from
 * using a transaction id, live or not, whatever the transaction's isolation.
 */
bool
mbus_message_with_transaction(Oid schema, const MbusChannel *channel,
							  text *transaction_id, MbusStored *message)
{
	return by_transaction(schema, channel, transaction_id,
						  RegisterSnapshot(GetLatestSnapshot()), message);
}

/*
 * mbus_message_why_gone says why a message is not there any more; NULL: it is.
 */
const char *
mbus_message_why_gone(Oid schema, int32 channel_id, int64 id)
{
	if (mbus_message_expiry(schema, id) <= mbus_now())
		return "has expired";
	if (mbus_message_deleted(schema, id))
		return "was deleted";
	return mbus_message_purged(schema, channel_id, id) ? "was purged" : NULL;
}

/* Finds the row with a transaction id, newest segment first, and lets the
 * snapshot go. */
static bool
by_transaction(Oid schema, const MbusChannel *channel, text *transaction_id,
			   Snapshot snapshot, MbusStored *message)
{
	int32		channel_id = channel->channel_id;
	bool		found = false;
	int32	   *segments;
	int			n = mbus_segments_with(schema, channel_id, transaction_id,
									   &segments);

	for (int i = 0; i < n && !found; i++)
	{
		MbusLeafScan rows;
		Relation	leaf;

		leaf = mbus_leaf_open(schema, segments[i], MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			continue;
		mbus_leaf_scan_open(&rows, leaf, MBUS_COL_CHANNEL_ID,
							MBUS_COL_TRANSACTION_ID, true);
		mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID, channel_id);
		mbus_leaf_scan_text(&rows, MBUS_COL_TRANSACTION_ID, transaction_id);
		found = scan_one(&rows, snapshot, message);
		table_close(leaf, found ? NoLock : AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	return found;
}

/* Whether a stored message has neither expired nor been deleted or purged. */
static bool
is_live(Oid schema, const MbusStored *message)
{
	return message->expires_at > mbus_now() && !is_hidden(schema, message);
}

/*
 * mbus_message_left tells whether a message that was found is not there any
 * more: it has expired, was deleted or purged, or its channel was dropped.  Its
 * body may have gone then.
 */
bool
mbus_message_left(Oid schema, const MbusStored *message)
{
	return !is_live(schema, message) ||
		mbus_channel_policy(schema, message->channel_id) == NULL;
}

/*
 * mbus_message_unchecked tells whether a message says that it is JSON, and
 * nobody has looked: it was uploaded.  It is not given as JSON.
 */
bool
mbus_message_unchecked(const MbusStored *message)
{
	return message->body != 0 && !message->json &&
		mbus_content_is_json(message->content_type);
}

/* Whether it was deleted or purged. */
static bool
is_hidden(Oid schema, const MbusStored *message)
{
	return mbus_message_purged(schema, message->channel_id, message->id) ||
		mbus_message_deleted(schema, message->id);
}

/*
 * mbus_message_visible tells whether the channel's visibility lets the current
 * user see a message.  One that he may not see is for him not there: nothing
 * that he is told may differ.  Privileges are the caller's to check.
 */
bool
mbus_message_visible(Oid schema, const MbusStored *message)
{
	const MbusChannel *channel = mbus_channel_by_id(schema,
													message->channel_id);

	return channel != NULL &&
		(!channel->by_subject ||
		 mbus_channel_allows(channel, MBUS_CLAIM) ||
		 (mbus_channel_allows(channel, MBUS_CONSUME) &&
		  mbus_visible(schema, message->publisher_id, message->subject,
					   message->recipient)));
}

/*
 * mbus_message_purged tells whether a committed purge of its channel has
 * taken the message, now, as with a deletion.  It looks up the channel.
 */
bool
mbus_message_purged(Oid schema, int32 channel_id, int64 id)
{
	const MbusPolicy *policy = mbus_channel_policy(schema, channel_id);

	return policy != NULL && mbus_channel_purged(policy, id);
}

/*
 * mbus_message_deleted tells whether a deletion, a committed one or one of
 * this transaction, hides the message, now, whatever the transaction's
 * snapshot: as with expiry.
 */
bool
mbus_message_deleted(Oid schema, int64 id)
{
	return is_deleted(schema, id, true);
}

/*
 * mbus_message_deleted_for_good tells whether a committed one does.  Who passes
 * a message for it need not see it again.
 */
bool
mbus_message_deleted_for_good(Oid schema, int64 id)
{
	return is_deleted(schema, id, false);
}

/* Looks for a deletion, also for one of this transaction if "own". */
static bool
is_deleted(Oid schema, int64 id, bool own)
{
	Relation	leaf = mbus_leaf_open_written(schema, MbusSegmentOf(id),
											  MBUS_EVENT);
	MbusLeafScan rows;
	Snapshot	snapshot;
	bool		deleted;

	if (leaf == NULL)
		return false;
	/* the partial index has only deletions */
	mbus_leaf_scan_open(&rows, leaf, MBUS_EVENT_MESSAGE_ID, 0, true);
	mbus_leaf_scan_int8(&rows, MBUS_EVENT_MESSAGE_ID, id, id);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	if (!own)
		snapshot->curcid = FirstCommandId;
	mbus_leaf_scan_begin(&rows, snapshot);
	deleted = mbus_leaf_scan_next(&rows) != NULL;
	mbus_leaf_scan_close(&rows);
	UnregisterSnapshot(snapshot);
	table_close(leaf, AccessShareLock);
	return deleted;
}

/* A registered snapshot; the caller unregisters it. */
static Snapshot
read_snapshot(void)
{
	if (IsolationUsesXactSnapshot())
		return RegisterSnapshot(GetTransactionSnapshot());
	return RegisterSnapshot(GetLatestSnapshot());
}

/* Reads the first row of a scan, and closes it. */
static bool
scan_one(MbusLeafScan *rows, Snapshot snapshot, MbusStored *message)
{
	HeapTuple	tuple;

	mbus_leaf_scan_begin(rows, snapshot);
	tuple = mbus_leaf_scan_next(rows);
	if (tuple)
		mbus_message_read(tuple, RelationGetDescr(rows->leaf), message);
	mbus_leaf_scan_close(rows);
	return tuple != NULL;
}

/*
 * mbus_message_read copies a row; the payload stays toasted if it is.  XX001 if
 * it is damaged, and the worker looks at it.
 */
void
mbus_message_read(HeapTuple tuple, TupleDesc desc, MbusStored *m)
{
	Datum		value;
	bool		isnull;
	bytea	   *digest;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	MemSet(m, 0, sizeof(*m));
	m->id = DatumGetInt64(READ(MBUS_COL_ID));
	if (!mbus_row_whole(tuple, desc, MBUS_COL_PAYLOAD, InvalidOid))
	{
		mbus_scrub_want(m->id);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the row of message " INT64_FORMAT " is damaged",
						m->id)));
	}
	m->channel_id = DatumGetInt32(READ(MBUS_COL_CHANNEL_ID));
	m->size = DatumGetInt64(READ(MBUS_COL_SIZE));
	m->created_at = DatumGetTimestampTz(READ(MBUS_COL_CREATED_AT));
	m->expires_at = DatumGetTimestampTz(READ(MBUS_COL_EXPIRES_AT));
	value = READ(MBUS_COL_AVAILABLE_AT);
	m->available_at = isnull ? m->created_at : DatumGetTimestampTz(value);
	value = READ(MBUS_COL_SESSION);
	m->session = isnull ? 0 : DatumGetInt64(value);
	m->publisher_id = DatumGetInt32(READ(MBUS_COL_PUBLISHER_ID));
	value = READ(MBUS_COL_CONTENT_TYPE);
	m->content_type = isnull ? pstrdup(MBUS_CONTENT_JSON) :
		TextDatumGetCString(value);
	m->compression = mbus_compression_of(DatumGetChar(READ(MBUS_COL_ENCODING)));
	digest = DatumGetByteaPP(READ(MBUS_COL_SHA256));
	memcpy(m->sha256, VARDATA_ANY(digest),
		   Min(VARSIZE_ANY_EXHDR(digest), MBUS_SHA256_BYTES));
	m->subject = text_or_null(tuple, desc, MBUS_COL_SUBJECT);
	m->key = text_or_null(tuple, desc, MBUS_COL_KEY);
	m->transaction_id = text_or_null(tuple, desc, MBUS_COL_TRANSACTION_ID);
	m->recipient = text_or_null(tuple, desc, MBUS_COL_RECIPIENT);
	m->headers = (struct varlena *) text_or_null(tuple, desc,
												 MBUS_COL_HEADERS);
	value = READ(MBUS_COL_PAYLOAD);
	m->stored = (struct varlena *)
		DatumGetPointer(datumCopy(value, false, -1));
	value = READ(MBUS_COL_BODY);
	m->body = isnull ? 0 : DatumGetInt64(value);
	m->json = MbusEncodingJson(DatumGetChar(READ(MBUS_COL_ENCODING)));
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
 * mbus_message_columns fills in all columns but the last, the payload, and
 * returns whether that is to be there.
 */
bool
mbus_message_columns(Oid schema, const MbusStored *message, bool whole,
					 Datum *values, bool *isnull)
{
	const MbusChannel *channel = mbus_channel_by_id(schema,
													message->channel_id);
	bytea	   *digest = palloc(VARHDRSZ + MBUS_SHA256_BYTES);
	bool		by_reference = mbus_message_unchecked(message) ||
	(!whole && message->size > mbus_inline_max);
	text	   *publisher;
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
	publisher = mbus_publisher_name(schema, message->publisher_id);
	isnull[i] = publisher == NULL;
	values[i++] = PointerGetDatum(publisher);
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
							 mbus_caller.raw_payload);
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
	int64		size = PG_GETARG_INT64(2);
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
