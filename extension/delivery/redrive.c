/*
 * redrive.c
 *		redrive: gives back messages that used up their attempts.
 *
 * A dead letter is redriven in one of two ways.  While the message itself
 * lives, a row of kind 'redriven' lets its one subscription get it again, with
 * all its attempts; no other subscription sees anything.  The row's lease is
 * taken after the snapshot that shows the dead letters, so it is above that of
 * the ack that closed them.  Where the message or the subscription is gone, a
 * copy is published to the channel it came from: that of the number in the
 * dead letter's header, and of its name, too, since a number means nothing in
 * another bus.  One that was made later under that name is not taken for it.
 * The dead letter is then marked as deleted.  A message that was kept in its
 * place (dead_letter.c) is redriven in the first way.
 *
 * With ids only those are redriven, of dead letters or of messages that were
 * kept; what is not dead (any more) is left out.
 *
 * Two redrives of one channel come one after the other: a lock on the
 * channel's id is held to the end of the transaction.  A lock on the segment,
 * shared, keeps the worker from letting it go meanwhile.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "segment/row_whole.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/columns.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/ack.h"
#include "delivery/dead_letter.h"
#include "delivery/deaths.h"
#include "delivery/effect.h"
#include "delivery/lease.h"
#include "delivery/pool.h"
#include "delivery/slot.h"
#include "facts/facts.h"
#include "message/draft.h"
#include "message/insert.h"
#include "message/publish.h"
#include "message/scrub.h"
#include "message/stored.h"
#include "segment/channel_scan.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"

/* One call of redrive. */
typedef struct Redrive
{
	Oid			schema;
	MbusDatabase *db;
	MbusChannel channel;
	Snapshot	snapshot;
	TimestampTz now;
	int64		lease;			/* of its rows; 0: not taken yet */
	List	   *woken;			/* subscriptions that have been told */
	MemoryContext context;		/* of the call */
	MemoryContext each;			/* of one message */
	int			nids;			/* < 0: whatever is there */
	int64	   *ids;			/* ascending */
	int			left;
	int			done;
} Redrive;

/* Where a dead letter came from, as its header says. */
typedef struct Origin
{
	char	   *channel;
	int32		channel_id;
	char	   *subscription;
	int64		id;
} Origin;

/* The newest failure of a message. */
typedef struct Last
{
	int64		id;				/* 0: none */
	int64		lease;
	int16		attempt;
	bool		kept;			/* given up, and no copy was made */
	bool		corrupt;
} Last;

static void letters_redrive(Redrive *redrive);
static void letters_of_leaf(Redrive *redrive, Relation leaf, int32 segment);
static void letters_of_range(Redrive *redrive, Relation leaf,
							 MbusChannelScan *rows, int64 lo, int64 hi);
static bool segment_wanted(const Redrive *redrive, int32 segment);
static bool id_wanted(const Redrive *redrive, int64 id);
static Datum headers_back(const MbusStored *letter);
static bool letter_redrive(Redrive *redrive, const MbusStored *letter);
static bool origin_read(const struct varlena *headers, Origin *origin);
static int64 number_read(JsonbContainer *object, const char *name,
						 int64 most);
static bool copy_back(Redrive *redrive, const MbusChannel *channel,
					  const MbusStored *letter);
static void message_redrive(Redrive *redrive, const MbusSubscription *found,
							int64 id);
static bool segment_stays(Redrive *redrive, int32 segment);
static void redrive_lease(Redrive *redrive);
static void kept_redrive(Redrive *redrive);
static void kept_of_leaf(Redrive *redrive, Relation leaf,
						 int32 subscription_id, int64 since_lease);
static void last_read(HeapTuple tuple, TupleDesc desc, Last *last);
static void kept_one(Redrive *redrive, int32 subscription_id,
					 const Last *last);

/*
 * redrive(dead_letter, max_messages, ids) gives dead messages back, and returns
 * how many: those whose dead letters are in the channel, and those of the
 * channel itself that lie in place; of these the ids, if they are not null.
 */
MBUS_CHANNEL_FUNCTION(redrive)
{
	Redrive		redrive;

	mbus_write_check("message_bus.redrive()");
	mbus_required(fcinfo, 0, "dead_letter");
	MemSet(&redrive, 0, sizeof(redrive));
	redrive.left = PG_ARGISNULL(1) ? PG_INT32_MAX : PG_GETARG_INT32(1);
	if (redrive.left < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid max_messages: %d", redrive.left),
				 errdetail("It is at least 1.")));
	redrive.nids = mbus_ids_argument(fcinfo, 2, &redrive.ids);
	redrive.schema = mbus_schema();
	redrive.db = mbus_database();
	redrive.channel = *mbus_channel_open(redrive.schema,
										 PG_GETARG_TEXT_PP(0), MBUS_CLAIM);
	LockDatabaseObject(mbus_relation(redrive.schema, "channel"),
					   redrive.channel.channel_id, 0, ExclusiveLock);

	redrive.context = CurrentMemoryContext;
	redrive.each = AllocSetContextCreate(CurrentMemoryContext,
										 "message_bus redrive",
										 ALLOCSET_DEFAULT_SIZES);
	redrive.now = mbus_now();
	redrive.snapshot = RegisterSnapshot(GetLatestSnapshot());
	letters_redrive(&redrive);
	kept_redrive(&redrive);
	UnregisterSnapshot(redrive.snapshot);
	MemoryContextDelete(redrive.each);
	mbus_count(MBUS_C_REDRIVEN, redrive.done);
	PG_RETURN_INT32(redrive.done);
}

/* The channel's dead letters, the oldest first. */
static void
letters_redrive(Redrive *redrive)
{
	MbusLeaf   *leaves;
	int			nleaves = mbus_leaves(redrive->schema, &leaves);

	for (int i = 0; i < nleaves && redrive->left > 0; i++)
	{
		int32		segment = leaves[i].segment;
		Relation	leaf = segment_wanted(redrive, segment) ?
		mbus_leaf_open_written(redrive->schema, segment, MBUS_MESSAGE) :
		NULL;

		if (leaf == NULL)
			continue;
		letters_of_leaf(redrive, leaf, segment);
		/* payloads may have come from its TOAST table: it stays locked */
		table_close(leaf, NoLock);
	}
	pfree(leaves);
}

/*
 * letters_of_leaf redrives the dead letters in one segment, by ascending id.
 */
static void
letters_of_leaf(Redrive *redrive, Relation leaf, int32 segment)
{
	MbusChannelScan rows;

	mbus_channel_scan_open(&rows, leaf, redrive->channel.channel_id);
	if (redrive->nids < 0)
		letters_of_range(redrive, leaf, &rows, 0, PG_INT64_MAX);
	for (int i = 0; i < redrive->nids; i++)
	{
		int64		id = redrive->ids[i];

		if (id > 0 && id >> MBUS_ROW_BITS == segment)
			letters_of_range(redrive, leaf, &rows, id, id);
	}
	mbus_channel_scan_close(&rows);
}

/*
 * letters_of_range redrives those with ids from lo to hi.  What one needs of
 * memory is given back behind it.
 */
static void
letters_of_range(Redrive *redrive, Relation leaf, MbusChannelScan *rows,
				 int64 lo, int64 hi)
{
	HeapTuple	tuple;

	mbus_channel_scan_begin(rows, lo, hi, redrive->snapshot);
	while (redrive->left > 0 &&
		   (tuple = mbus_channel_scan_next(rows)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(redrive->each);
		MbusStored	letter;

		if (!heap_attisnull(tuple, MBUS_COL_HEADERS, RelationGetDescr(leaf)) &&
			mbus_row_whole(tuple, RelationGetDescr(leaf), MBUS_COL_PAYLOAD, InvalidOid))
		{
			mbus_message_read(tuple, RelationGetDescr(leaf), &letter);
			if (letter_redrive(redrive, &letter))
			{
				redrive->left--;
				redrive->done++;
			}
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(redrive->each);
	}
	mbus_channel_scan_end(rows);
}

/* Whether one of the ids may lie in a segment. */
static bool
segment_wanted(const Redrive *redrive, int32 segment)
{
	for (int i = 0; i < redrive->nids; i++)
	{
		if (redrive->ids[i] > 0 &&
			redrive->ids[i] >> MBUS_ROW_BITS == segment)
			return true;
	}
	return redrive->nids < 0;
}

static bool
id_wanted(const Redrive *redrive, int64 id)
{
	return redrive->nids < 0 ||
		(redrive->nids > 0 &&
		 bsearch(&id, redrive->ids, redrive->nids, sizeof(int64),
				 mbus_int64_compare) != NULL);
}

/*
 * letter_redrive redrives one dead letter; false if it is none, is no longer
 * there, or there is nowhere to bring it.  42501 without the privilege to
 * publish where it came from: a header can be made by anybody who may publish
 * dead letters.
 */
static bool
letter_redrive(Redrive *redrive, const MbusStored *letter)
{
	Oid			schema = redrive->schema;
	const MbusChannel *found;
	const MbusSubscription *subscription;
	MbusChannel channel;
	Origin		origin;
	MbusStored	message;

	if (!origin_read(letter->headers, &origin) ||
		letter->expires_at <= mbus_now() ||
		mbus_message_purged(schema, letter->channel_id, letter->id) ||
		mbus_message_deleted(schema, letter->id))
		return false;
	found = mbus_channel_by_id(schema, origin.channel_id);
	if (found == NULL || strcmp(found->name, origin.channel) != 0)
		return false;
	if (!mbus_channel_allows(found, MBUS_PUBLISH))
	{
		/* its headers may be forged: it must not stop the others */
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("dead letter " INT64_FORMAT " is not redriven",
						letter->id),
				 errdetail("Role \"%s\" has no privilege to publish where it says it came from.",
						   GetUserNameFromId(GetUserId(), false))));
		return false;
	}
	channel = *found;
	if (mbus_message_fetch_latest(schema, origin.id, &message) &&
		message.channel_id == channel.channel_id &&
		(subscription = mbus_subscription_by_name(schema, channel.channel_id,
												  origin.subscription)) != NULL &&
		origin.id >= subscription->start_id &&
		message.created_at >= subscription->start_at &&
		segment_stays(redrive, MbusSegmentOf(origin.id)))
		message_redrive(redrive, subscription, origin.id);
	else if (!copy_back(redrive, &channel, letter))
		return false;
	mbus_insert_event(schema, letter->id, "deleted", mbus_now());
	return true;
}

/*
 * Reads the header of a dead letter; false if there is none that makes sense.
 */
static bool
origin_read(const struct varlena *headers, Origin *origin)
{
	JsonbContainer *root = &((Jsonb *) unconstify(struct varlena *, headers))->root;
	JsonbValue	object;
	JsonbValue	channel;
	JsonbValue	subscription;
	int64		channel_id;

	if (!JsonContainerIsObject(root) ||
		getKeyJsonValueFromContainer(root, MBUS_DEAD_LETTER_HEADER,
									 strlen(MBUS_DEAD_LETTER_HEADER),
									 &object) == NULL ||
		object.type != jbvBinary ||
		!JsonContainerIsObject(object.val.binary.data))
		return false;
	root = object.val.binary.data;
	if (getKeyJsonValueFromContainer(root, "channel", 7, &channel) == NULL ||
		getKeyJsonValueFromContainer(root, "subscription", 12,
									 &subscription) == NULL ||
		channel.type != jbvString || subscription.type != jbvString)
		return false;
	origin->channel = pnstrdup(channel.val.string.val, channel.val.string.len);
	origin->subscription = pnstrdup(subscription.val.string.val,
									subscription.val.string.len);
	origin->id = number_read(root, "id", PG_INT64_MAX);
	channel_id = number_read(root, "channel_id", PG_INT32_MAX);
	origin->channel_id = (int32) channel_id;
	return origin->id >= 0 && channel_id >= 0;
}

/* A member that is a whole number from 0 to "most"; -1 if it is none. */
static int64
number_read(JsonbContainer *object, const char *name, int64 most)
{
	JsonbValue	value;
	char	   *digits;
	int64		number;

	if (getKeyJsonValueFromContainer(object, name, strlen(name),
									 &value) == NULL ||
		value.type != jbvNumeric)
		return -1;
	digits = DatumGetCString(DirectFunctionCall1(numeric_out,
												 NumericGetDatum(value.val.numeric)));
	/* digits only, and not more than an id has */
	if (strlen(digits) > 16 ||
		strspn(digits, "0123456789") != strlen(digits))
		return -1;
	number = strtoll(digits, NULL, 10);
	return number <= most ? number : -1;
}

/*
 * copy_back publishes a dead letter to the channel it came from; false if its
 * bytes do not match.
 */
static bool
copy_back(Redrive *redrive, const MbusChannel *channel,
		  const MbusStored *letter)
{
	MbusDraft	draft;

	if (mbus_copy_draft(redrive->schema, letter,
						channel->by_subject || redrive->channel.by_subject,
						&draft) != MBUS_COPIED)
		return false;
	draft.headers = headers_back(letter);
	(void) mbus_publish_waived(redrive->schema, channel, &draft);
	return true;
}

/*
 * headers_back returns the headers of a copy that is redriven: those of the
 * dead letter, but that it is none; its deaths are kept.
 */
static Datum
headers_back(const MbusStored *letter)
{
	JsonbParseState *state = NULL;
	MbusDeaths	deaths = {0};
	JsonbValue	key;
	Datum		headers = mbus_headers_without(letter->headers);
	Datum		header;

	mbus_deaths_read(&deaths, letter->headers);
	key.type = jbvString;
	key.val.string.val = MBUS_DEATHS_HEADER;
	key.val.string.len = strlen(MBUS_DEATHS_HEADER);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&state, WJB_KEY, &key);
	mbus_deaths_push(&deaths, &state);
	header = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&state,
															 WJB_END_OBJECT,
															 NULL)));
	if (headers == (Datum) 0)
		return header;
	return DirectFunctionCall2(jsonb_concat, headers, header);
}

/*
 * message_redrive lets a subscription get a message again.  Its slot must be
 * there to be told of it at the commit: one that is loaded later may have
 * read the rows before that.
 */
static void
message_redrive(Redrive *redrive, const MbusSubscription *found, int64 id)
{
	MbusSubscription subscription = *found; /* that of the cache may go */
	int32		subscription_id = subscription.subscription_id;
	MbusHolding holding;
	MbusHeld	held;

	if (!list_member_int(redrive->woken, subscription_id))
	{
		MemoryContext caller = MemoryContextSwitchTo(redrive->context);
		uint32		slot;

		do
			slot = mbus_slot_open(redrive->schema, redrive->db,
								  &subscription);
		while (!mbus_effect_redrive(slot, redrive->schema, subscription_id,
									redrive->now));
		redrive->woken = lappend_int(redrive->woken, subscription_id);
		MemoryContextSwitchTo(caller);
	}
	redrive_lease(redrive);
	MemSet(&holding, 0, sizeof(holding));
	MemSet(&held, 0, sizeof(held));
	holding.lease = redrive->lease;
	holding.subscription_id = subscription_id;
	held.id = id;
	mbus_failure_insert(redrive->schema, &holding, &held, "redriven",
						redrive->now, 0, NULL);
}

/*
 * segment_stays tells whether a message's segment has not been let go: what
 * lies in it would be lost.  The lock, which is held to the end of the
 * transaction, keeps worker/acked.c from letting it go meanwhile.
 */
static bool
segment_stays(Redrive *redrive, int32 segment)
{
	Oid			relid = mbus_relation(redrive->schema, "segment");
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		stays = false;

	LockDatabaseObject(relid, segment, 0, ShareLock);
	rel = table_open(relid, AccessShareLock);
	ScanKeyInit(&key, MBUS_SEGMENT_NO, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(segment));
	/* as it is now, whatever the transaction's snapshot */
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		at = heap_getattr(tuple, MBUS_SEGMENT_EXPIRES_AT,
									  RelationGetDescr(rel), &isnull);

		stays = isnull || DatumGetTimestampTz(at) > mbus_now();
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return stays;
}

/* Takes the number of this call's rows; 55000 if there is none just now. */
static void
redrive_lease(Redrive *redrive)
{
	if (redrive->lease != 0)
		return;
	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	redrive->lease = mbus_lease_number(redrive->db);
	LWLockRelease(mbus_delivery_lock());
	if (redrive->lease != 0)
		return;
	mbus_wake_worker(redrive->db);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("message_bus has no lease numbers left at the moment"),
			 errhint("Try again; the worker makes new ones.")));
}

/* The channel's own messages that died and were kept. */
static void
kept_redrive(Redrive *redrive)
{
	Oid			schema = redrive->schema;
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	rel = table_open(mbus_relation(schema, "subscription"), AccessShareLock);
	ScanKeyInit(&key, MBUS_SUBSCRIPTION_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(redrive->channel.channel_id));
	scan = systable_beginscan(rel,
							  mbus_relation(schema,
											"subscription_channel_id_name_key"),
							  true, redrive->snapshot, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		int32		id;
		int64		since;
		MbusLeaf   *leaves;
		int			nleaves = mbus_leaves(schema, &leaves);

		id = DatumGetInt32(heap_getattr(tuple, MBUS_SUBSCRIPTION_ID, desc,
										&isnull));
		since = DatumGetInt64(heap_getattr(tuple,
										   MBUS_SUBSCRIPTION_SINCE_LEASE,
										   desc, &isnull));
		for (int i = 0; i < nleaves && redrive->left > 0; i++)
		{
			int32		segment = leaves[i].segment;
			Relation	leaf = segment_wanted(redrive, segment) ?
			mbus_leaf_open_written(schema, segment, MBUS_FAILURE) : NULL;

			if (leaf == NULL)
				continue;
			kept_of_leaf(redrive, leaf, id, since);
			table_close(leaf, AccessShareLock);
		}
		pfree(leaves);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Failures of one message follow each other; the newest of them counts. */
static void
kept_of_leaf(Redrive *redrive, Relation leaf, int32 subscription_id,
			 int64 since_lease)
{
	Last		last = {0};
	MbusLeafScan rows;
	HeapTuple	tuple;

	mbus_leaf_scan_open(&rows, leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID, subscription_id);
	mbus_leaf_scan_begin(&rows, redrive->snapshot);
	while (redrive->left > 0 && (tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		Last		next;

		last_read(tuple, RelationGetDescr(leaf), &next);
		if (next.lease < since_lease)
			continue;
		if (next.id != last.id)
			kept_one(redrive, subscription_id, &last);
		else if (next.lease < last.lease ||
				 (next.lease == last.lease && next.attempt < last.attempt))
			continue;
		last = next;
	}
	if (redrive->left > 0)
		kept_one(redrive, subscription_id, &last);
	mbus_leaf_scan_close(&rows);
}

/* Reads a row of failures. */
static void
last_read(HeapTuple tuple, TupleDesc desc, Last *last)
{
	bool		isnull;
	text	   *kind;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	last->id = DatumGetInt64(READ(MBUS_FAILURE_MESSAGE_ID));
	last->lease = DatumGetInt64(READ(MBUS_FAILURE_LEASE));
	last->attempt = DatumGetInt16(READ(MBUS_FAILURE_ATTEMPT));
	kind = DatumGetTextPP(READ(MBUS_FAILURE_KIND));
#undef READ
	last->corrupt = VARSIZE_ANY_EXHDR(kind) == strlen("corrupt") &&
		memcmp(VARDATA_ANY(kind), "corrupt", strlen("corrupt")) == 0;
	last->kept = heap_attisnull(tuple, MBUS_FAILURE_RETRY_AT, desc) &&
		heap_attisnull(tuple, MBUS_FAILURE_DEAD_LETTER_ID, desc);
}

/*
 * kept_one redrives a message that was kept, if it still lives; one that was
 * corrupt only if its bytes match by now.
 */
static void
kept_one(Redrive *redrive, int32 subscription_id, const Last *last)
{
	Oid			schema = redrive->schema;
	const MbusChannel *channel;
	const MbusSubscription *subscription;
	MemoryContext caller;
	MbusStored	message;

	if (last->id == 0 || !last->kept || !id_wanted(redrive, last->id))
		return;
	/* its grants are not in our copy */
	channel = mbus_channel_by_id(schema, redrive->channel.channel_id);
	if (channel == NULL)
		return;
	mbus_channel_check(channel, MBUS_PUBLISH);
	caller = MemoryContextSwitchTo(redrive->each);
	/* a row that is damaged must not be taken apart */
	if ((!last->corrupt || mbus_scrub_sound(schema, last->id)) &&
		mbus_message_fetch_latest(schema, last->id, &message) &&
		(subscription = mbus_subscription_by_id(schema,
												subscription_id)) != NULL)
	{
		message_redrive(redrive, subscription, last->id);
		redrive->left--;
		redrive->done++;
	}
	MemoryContextSwitchTo(caller);
	MemoryContextReset(redrive->each);
}
