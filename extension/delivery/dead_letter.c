/*
 * dead_letter.c
 *		Dead letters: copies of messages that used up their attempts.
 *
 * A copy is published to the dead-letter channel of the message's channel,
 * with the same bytes (of a large one the same body), key and content type, and
 * a header "dead_letter" that tells where it came from and why, and of all its deaths (deaths.c).  Those
 * that a redrive in place has undone are found in the table of failures.
 *
 * The one whose nack was the last, or the worker, needs no privilege for it:
 * the channel's owner does (channel/dead_letter_target.c).  Without a
 * dead-letter channel, or that right, the message stays where it is, with an
 * ack of outcome 'kept'.  redrive.c undoes both.  Limits of the dead-letter
 * channel do not stop a copy, which would have nowhere else to go.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/compat.h"
#include "base/ids.h"
#include "base/payload.h"
#include "body/part.h"
#include "channel/channel.h"
#include "channel/dead_letter_target.h"
#include "channel/publisher.h"
#include "channel/subscription.h"
#include "delivery/dead_letter.h"
#include "delivery/deaths.h"
#include "facts/facts.h"
#include "message/draft.h"
#include "message/large.h"
#include "message/payload_read.h"
#include "message/publish.h"
#include "message/quarantine.h"
#include "message/stored.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/clock.h"
#include "state/fault.h"

/* One death of a message. */
typedef struct Death
{
	int64		lease;
	int64		attempts;
	const char *reason;			/* or NULL */
	const char *kind;
	TimestampTz at;
} Death;

/* What its deaths have in common. */
typedef struct Mortal
{
	const MbusStored *message;
	text	   *publisher;		/* or NULL */
	int32		channel_id;
	const char *channel;		/* or NULL */
	const char *subscription;	/* or NULL */
} Mortal;

static MbusCopied message_copy(Oid schema, int32 channel_id,
							   const MbusStored *message,
							   const MbusChannel *target, MbusDraft *draft);
static MbusBody *body_to_share(Oid schema, const MbusStored *message);
static struct varlena *sound_payload(Oid schema, const MbusStored *message);
static Datum dead_headers(Oid schema, const MbusStored *message,
						  int32 channel_id, const char *channel,
						  int32 subscription_id, const char *subscription,
						  const MbusFailure *failure);
static int	deaths_before(Oid schema, int32 subscription_id, int64 id,
						  Death **before);
static bool death_read(HeapTuple tuple, TupleDesc desc, Death *death);
static int	death_compare(const void *a, const void *b);
static Jsonb *death_object(const Mortal *mortal, const Death *death);
static void death_members(JsonbParseState **state, const Mortal *mortal,
						  const Death *death);
static void member_text(JsonbParseState **state, const char *name,
						const char *value, int len);
static void member_number(JsonbParseState **state, const char *name,
						  int64 value);
static void member_time(JsonbParseState **state, const char *name,
						TimestampTz value);
static void member_name(JsonbParseState **state, const char *name);

/*
 * mbus_dead_letter publishes a copy of a message that failed for the last
 * time to the dead-letter channel, and sets failure->dead_letter_id.  It
 * returns the outcome of the ack that closes the message: "dead", also if
 * there is nothing left to copy; "kept" if there is no dead-letter channel, or
 * it does not take the copy, which failure->not_moved tells; "corrupt" if its
 * bytes do not match.
 */
const char *
mbus_dead_letter(Oid schema, const MbusHolding *holding,
				 MbusFailure *failure)
{
	const MbusChannel *channel;
	MbusTarget	goes;
	const MbusSubscription *subscription;
	MbusChannel target;
	MemoryContext each;
	MemoryContext caller;
	MbusStored	message;
	MbusDraft	draft;
	const char *outcome = "dead";
	MbusCopied	copied;

	goes = mbus_target_find(schema, holding->channel_id, &channel);
	if (goes != MBUS_TARGET_READY)
	{
		failure->not_moved = mbus_target_name(goes);
		return "kept";
	}
	target = *channel;

	each = AllocSetContextCreate(CurrentMemoryContext,
								 "message_bus dead letter",
								 ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(each);
	/* of what is in quarantine the row may be damaged */
	if (mbus_quarantined(failure->held->id))
		outcome = "corrupt";
	/* it may just have expired */
	else if (!mbus_message_fetch_stored(schema, failure->held->id, &message))
		 /* deleted or purged meanwhile */ ;
	else if ((copied = message_copy(schema, holding->channel_id, &message,
									&target, &draft)) != MBUS_COPIED)
		outcome = copied == MBUS_COPY_GONE ? "dead" : "corrupt";
	else
	{
		char	   *name;

		channel = mbus_channel_by_id(schema, holding->channel_id);
		name = channel ? pstrdup(channel->name) : NULL;
		subscription = mbus_subscription_by_id(schema,
											   holding->subscription_id);
		draft.headers = dead_headers(schema, &message, holding->channel_id, name,
									 holding->subscription_id,
									 subscription ?
									 pstrdup(subscription->name) : NULL,
									 failure);
		failure->dead_letter_id = mbus_publish_waived(schema, &target, &draft);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(each);
	return outcome;
}

/* Makes the copy of a message of a channel that goes to another. */
static MbusCopied
message_copy(Oid schema, int32 channel_id, const MbusStored *message,
			 const MbusChannel *target, MbusDraft *draft)
{
	const MbusChannel *channel = mbus_channel_by_id(schema, channel_id);

	return mbus_copy_draft(schema, message, target->by_subject ||
						   (channel && channel->by_subject), draft);
}

/*
 * mbus_copy_draft makes a draft of a copy of a message, with "publisher" from
 * whom that is; its headers are the caller's to give.
 */
MbusCopied
mbus_copy_draft(Oid schema, const MbusStored *message, bool publisher,
				MbusDraft *draft)
{
	struct varlena *payload = message->stored;
	MbusBody   *body = NULL;

	if (message->body != 0)
	{
		body = body_to_share(schema, message);
		if (body == NULL)
			return !mbus_quarantined(message->id) &&
				mbus_message_left(schema, message) ? MBUS_COPY_GONE :
				MBUS_COPY_CORRUPT;
	}
	else if ((payload = sound_payload(schema, message)) == NULL)
		return MBUS_COPY_CORRUPT;
	mbus_draft_init(draft, payload, message->content_type, false);
	if (body)
	{
		draft->size = message->size;
		memcpy(draft->sha256, message->sha256, MBUS_SHA256_BYTES);
		draft->body_json = message->json;
		mbus_large_refer(draft, body);
	}
	mbus_draft_copy(draft, message, publisher);
	return MBUS_COPIED;
}

/*
 * body_to_share returns the body of a message, its table locked to the end of
 * the transaction; NULL if it is not there, or in quarantine.  None of its
 * bytes are read.
 */
static MbusBody *
body_to_share(Oid schema, const MbusStored *message)
{
	MbusBody   *body = palloc(sizeof(MbusBody));
	bool		known = mbus_quarantined(message->id);
	bool		found = !known &&
	mbus_body_find(schema, message->body, RowShareLock, body);
	Snapshot	snapshot;
	MbusPart	part;

	if (found)
	{
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		found = mbus_part_find(body, 0, snapshot, &part);
		UnregisterSnapshot(snapshot);
	}
	if (found)
		return body;
	if (known || !mbus_message_left(schema, message))
		mbus_message_damaged(message->id, known);
	return NULL;
}

/*
 * sound_payload returns the bytes of a message that are in its row, NULL (and
 * that is recorded) if they are not those published, or it is in quarantine.
 * It always looks: the copy gets a checksum of its own.
 */
static struct varlena *
sound_payload(Oid schema, const MbusStored *message)
{
	struct varlena *payload = mbus_quarantined(message->id) ? NULL :
	mbus_payload_read(schema, message);
	uint8		sha256[MBUS_SHA256_BYTES];

	if (payload == NULL)
		return NULL;
	mbus_sha256(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), sha256);
	if (memcmp(sha256, message->sha256, MBUS_SHA256_BYTES) == 0)
		return payload;
	mbus_fault_checksum(message->id, "stored bytes do not match their checksum");
	return NULL;
}

/*
 * dead_headers returns the message's headers with one more, an object that
 * tells of this death and lists all.
 */
static Datum
dead_headers(Oid schema, const MbusStored *message, int32 channel_id,
			 const char *channel, int32 subscription_id, const char *subscription,
			 const MbusFailure *failure)
{
	Mortal		mortal = {message, NULL, channel_id, channel, subscription};
	Death		death = {0, failure->held->attempt - failure->unclaimed,
	failure->reason, failure->kind, mbus_now()};
	MbusDeaths	deaths = {0};
	Death	   *before;
	int			nbefore = deaths_before(schema, subscription_id, message->id,
										&before);
	JsonbParseState *state = NULL;
	JsonbValue *object;
	Datum		header;
	Datum		others = mbus_headers_without(message->headers);

	mortal.publisher = mbus_publisher_name(schema, message->publisher_id);
	mbus_deaths_read(&deaths, message->headers);
	for (int i = 0; i < nbefore; i++)
		mbus_deaths_add(&deaths, death_object(&mortal, &before[i]));
	mbus_deaths_add(&deaths, death_object(&mortal, &death));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	member_name(&state, MBUS_DEAD_LETTER_HEADER);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	death_members(&state, &mortal, &death);
	member_name(&state, "deaths");
	mbus_deaths_push(&deaths, &state);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	header = JsonbPGetDatum(JsonbValueToJsonb(object));
	if (others == (Datum) 0)
		return header;
	return DirectFunctionCall2(jsonb_concat, others, header);
}

/*
 * deaths_before reads the deaths of a message for the subscription that were
 * undone by a redrive; returns how many, the oldest first.
 */
static int
deaths_before(Oid schema, int32 subscription_id, int64 id, Death **before)
{
	Relation	leaf = mbus_leaf_open_written(schema, MbusSegmentOf(id),
											  MBUS_FAILURE);
	Snapshot	snapshot;
	MbusLeafScan rows;
	HeapTuple	tuple;
	int			room = 8;
	int			n = 0;

	*before = NULL;
	if (leaf == NULL)
		return 0;
	*before = palloc(room * sizeof(Death));
	mbus_leaf_scan_open(&rows, leaf, MBUS_FAILURE_SUBSCRIPTION_ID,
						MBUS_FAILURE_MESSAGE_ID, false);
	mbus_leaf_scan_int4(&rows, MBUS_FAILURE_SUBSCRIPTION_ID, subscription_id);
	mbus_leaf_scan_int8(&rows, MBUS_FAILURE_MESSAGE_ID, id, id);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	mbus_leaf_scan_begin(&rows, snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		if (n >= room)
			*before = repalloc(*before, (room *= 2) * sizeof(Death));
		n += death_read(tuple, RelationGetDescr(leaf), &(*before)[n]);
	}
	mbus_leaf_scan_close(&rows);
	UnregisterSnapshot(snapshot);
	table_close(leaf, AccessShareLock);
	qsort(*before, n, sizeof(Death), death_compare);
	return n;
}

/* Reads a row of failures; false if it was not the last. */
static bool
death_read(HeapTuple tuple, TupleDesc desc, Death *death)
{
	bool		isnull;
	Datum		reason;

#define READ(column) heap_getattr(tuple, column, desc, &isnull)
	if (!heap_attisnull(tuple, MBUS_FAILURE_RETRY_AT, desc))
		return false;
	death->lease = DatumGetInt64(READ(MBUS_FAILURE_LEASE));
	death->attempts = DatumGetInt16(READ(MBUS_FAILURE_ATTEMPT));
	death->at = DatumGetTimestampTz(READ(MBUS_FAILURE_AT));
	death->kind = TextDatumGetCString(READ(MBUS_FAILURE_KIND));
	reason = READ(MBUS_FAILURE_REASON);
	death->reason = isnull ? NULL : TextDatumGetCString(reason);
#undef READ
	return true;
}

static int
death_compare(const void *a, const void *b)
{
	return mbus_order(((const Death *) a)->lease, ((const Death *) b)->lease);
}

static Jsonb *
death_object(const Mortal *mortal, const Death *death)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	death_members(&state, mortal, death);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Adds what is told of a death to an object. */
static void
death_members(JsonbParseState **state, const Mortal *mortal,
			  const Death *death)
{
	const MbusStored *message = mortal->message;
	text	   *publisher = mortal->publisher;

	member_text(state, "channel", mortal->channel, -1);
	member_number(state, "channel_id", mortal->channel_id);
	member_text(state, "subscription", mortal->subscription, -1);
	member_number(state, "id", message->id);
	member_number(state, "attempts", death->attempts);
	member_text(state, "reason", death->reason, -1);
	member_text(state, "kind", death->kind, -1);
	member_time(state, "created_at", message->created_at);
	member_time(state, "failed_at", death->at);
	member_text(state, "transaction_id", message->transaction_id ?
				VARDATA_ANY(message->transaction_id) : NULL,
				message->transaction_id ?
				VARSIZE_ANY_EXHDR(message->transaction_id) : 0);
	member_text(state, "publisher", publisher ? VARDATA_ANY(publisher) : NULL,
				publisher ? VARSIZE_ANY_EXHDR(publisher) : 0);
}

/* Adds a text of len bytes (< 0: to its end); NULL is null. */
static void
member_text(JsonbParseState **state, const char *name, const char *value,
			int len)
{
	JsonbValue	v;

	member_name(state, name);
	v.type = value ? jbvString : jbvNull;
	if (value)
	{
		v.val.string.val = unconstify(char *, value);
		v.val.string.len = len < 0 ? strlen(value) : len;
	}
	pushJsonbValue(state, WJB_VALUE, &v);
}

static void
member_number(JsonbParseState **state, const char *name, int64 value)
{
	JsonbValue	v;

	member_name(state, name);
	v.type = jbvNumeric;
	v.val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric,
														Int64GetDatum(value)));
	pushJsonbValue(state, WJB_VALUE, &v);
}

/* Adds a time as RFC 3339 has it, in UTC. */
static void
member_time(JsonbParseState **state, const char *name, TimestampTz value)
{
	static const int utc = 0;
	char		buffer[MAXDATELEN + 1];

	JsonEncodeDateTime(buffer, TimestampTzGetDatum(value), TIMESTAMPTZOID,
					   &utc);
	member_text(state, name, pstrdup(buffer), -1);
}

static void
member_name(JsonbParseState **state, const char *name)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
}
