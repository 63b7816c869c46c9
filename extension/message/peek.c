/*
 * peek.c
 *		peek: a channel's messages by ascending id, with no gaps.
 *
 * The registry is asked for the first unfinished publish, and only then the
 * snapshot is taken: in the other order peek would show a message and later
 * one before it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "segment/row_whole.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/purged.h"
#include "channel/visibility.h"
#include "message/access.h"
#include "message/payload_read.h"
#include "message/stored.h"
#include "segment/channel_scan.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/unfinished.h"

#define MBUS_PEEK_MAX		10000

/* How much more is wanted. */
typedef struct Wanted
{
	int			messages;
	int64		bytes;
	bool		first;			/* none was returned so far */
	bool		own;			/* only what is the caller's or for him */
} Wanted;

static int64 bytes_argument(FunctionCallInfo fcinfo, int argno);
static void peek_leaf(Oid schema, Relation leaf, int32 channel_id,
					  int64 after, int64 limit, Wanted *left,
					  Snapshot snapshot, ReturnSetInfo *rsinfo,
					  int64 **read);
static bool row_readable(HeapTuple tuple, TupleDesc desc);
static bool peek_fits(Wanted *left, const MbusStored *message);
static void peek_values(Oid schema, const MbusStored *message, Datum *values,
						bool *isnull);

/*
 * peek(channel, after_id, max_messages, max_bytes) returns messages by
 * ascending id, and stops before the first unfinished publish, so that nothing
 * is skipped.
 */
MBUS_CHANNEL_FUNCTION(peek)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	int32		channel_id;
	int64		after = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	Wanted		left = {PG_ARGISNULL(2) ? 100 : PG_GETARG_INT32(2)};
	int64		limit;
	int64	   *read = NULL;
	int64	   *first_read = NULL;	/* what is recorded */
	const MbusChannel *channel;
	const MbusPolicy *policy;
	Snapshot	snapshot;
	MbusLeaf   *leaves;
	int			nleaves;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	if (left.messages < 1 || left.messages > MBUS_PEEK_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid max_messages: %d", left.messages),
				 errdetail("It is from 1 to %d.", MBUS_PEEK_MAX)));
	left.bytes = bytes_argument(fcinfo, 3);
	left.first = true;
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot peek during recovery"),
				 errdetail("A standby does not know which publishes are unfinished.")));
	channel = mbus_channel_open(schema, PG_GETARG_TEXT_PP(0), MBUS_CONSUME);
	channel_id = channel->channel_id;
	left.own = channel->by_subject && !mbus_channel_allows(channel, MBUS_CLAIM);
	if (channel->record_reads)
		read = first_read = palloc(left.messages * sizeof(int64));
	/* first the limit, then the snapshot: see the top of this file */
	limit = mbus_published_limit(mbus_database(), schema, channel_id);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	nleaves = mbus_leaves(schema, &leaves);
	for (int i = 0; i < nleaves && left.messages > 0; i++)
	{
		int64		from = after;
		Relation	leaf;

		policy = mbus_channel_policy(schema, channel_id);
		if (policy)
			from = Max(from, mbus_channel_purged_below(policy,
													   MbusFirstId(leaves[i].segment)));
		if (leaves[i].segment < (from >> MBUS_ROW_BITS) ||
			MbusFirstId(leaves[i].segment) >= limit)
			continue;
		leaf = mbus_leaf_open(schema, leaves[i].segment, MBUS_MESSAGE,
							  AccessShareLock);
		if (leaf == NULL)
			continue;
		peek_leaf(schema, leaf, channel_id, from, limit, &left, snapshot,
				  rsinfo, first_read ? &read : NULL);
		table_close(leaf, AccessShareLock);
	}
	UnregisterSnapshot(snapshot);
	if (first_read)
		mbus_access_record(schema, first_read, (int) (read - first_read));
	return (Datum) 0;
}

/* How many bytes of payloads are wanted: all, unless the argument says. */
static int64
bytes_argument(FunctionCallInfo fcinfo, int argno)
{
	int64		bytes = PG_ARGISNULL(argno) ? PG_INT64_MAX :
	PG_GETARG_INT64(argno);

	if (bytes < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid max_bytes: " INT64_FORMAT, bytes),
				 errdetail("It is 1 or more.")));
	return bytes;
}

/*
 * peek_leaf returns the messages of one segment with ids above "after" and
 * below "limit", at most *left, which it counts down.  Their ids are appended
 * to *read, unless that is NULL.
 */
static void
peek_leaf(Oid schema, Relation leaf, int32 channel_id, int64 after,
		  int64 limit, Wanted *left, Snapshot snapshot,
		  ReturnSetInfo *rsinfo, int64 **read)
{
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "message_bus peek",
											  ALLOCSET_DEFAULT_SIZES);
	MbusChannelScan rows;
	HeapTuple	tuple;

	mbus_channel_scan_open(&rows, leaf, channel_id);
	mbus_channel_scan_begin(&rows, after + 1, limit - 1, snapshot);
	while (left->messages > 0 && (tuple = mbus_channel_scan_next(&rows)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(row);
		MbusStored	message;
		Datum		values[MBUS_STORED_COLUMNS];
		bool		isnull[MBUS_STORED_COLUMNS];
		bool		visible;

		CHECK_FOR_INTERRUPTS();
		/* of others there may be many: they are not even copied */
		visible = row_readable(tuple, RelationGetDescr(leaf)) &&
			(!left->own ||
			 mbus_visible_row(schema, tuple, RelationGetDescr(leaf),
							  MBUS_COL_PUBLISHER_ID, MBUS_COL_SUBJECT,
							  MBUS_COL_RECIPIENT));
		if (visible)
			mbus_message_read(tuple, RelationGetDescr(leaf), &message);
		if (visible && message.expires_at > mbus_now() &&
			!mbus_message_purged(schema, channel_id, message.id) &&
			!mbus_message_deleted(schema, message.id) &&
			peek_fits(left, &message))
		{
			peek_values(schema, &message, values, isnull);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
			if (read)
				*(*read)++ = message.id;
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(row);
	}
	mbus_channel_scan_close(&rows);
	MemoryContextDelete(row);
}

/*
 * Whether a row can be taken apart.  One that cannot stops nobody from reading
 * on: the worker looks at it, and the view quarantined tells.
 */
static bool
row_readable(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	if (mbus_row_whole(tuple, desc, MBUS_COL_PAYLOAD, InvalidOid))
		return true;
	mbus_message_damaged(DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc,
													&isnull)), false);
	return false;
}

/*
 * peek_fits counts a message down; false, and nothing is left, if it is one
 * too large, which a first one never is.
 */
static bool
peek_fits(Wanted *left, const MbusStored *message)
{
	if (message->size > left->bytes && !left->first)
	{
		left->messages = 0;
		return false;
	}
	left->first = false;
	left->messages--;
	left->bytes = Max(left->bytes - message->size, 0);
	return true;
}

/*
 * peek_values fills in a row of peek.  A message whose bytes do not match is
 * there by reference, so that it stops nobody from reading on: get() tells.
 */
static void
peek_values(Oid schema, const MbusStored *message, Datum *values,
			bool *isnull)
{
	bool		inlined = mbus_message_columns(schema, message, false, values,
											   isnull);
	struct varlena *payload = inlined ? mbus_payload_read(schema, message) : NULL;

	if (inlined && payload == NULL)
		values[MBUS_STORED_COLUMNS - 2] = BoolGetDatum(true);
	values[MBUS_STORED_COLUMNS - 1] = PointerGetDatum(payload);
	isnull[MBUS_STORED_COLUMNS - 1] = payload == NULL;
}
