/*
 * dead_letter.c
 *		Dead letters: copies of messages that used up their attempts.
 *
 * A copy is published to the dead-letter channel of the message's channel,
 * with the same bytes, key and content type, and a header "dead_letter" that
 * tells where it came from and why.  The one whose nack was the last, or the
 * worker, needs no privilege for it.  Without a dead-letter channel the
 * message stays where it is, with an ack of outcome 'kept'.  redrive.c undoes
 * both.
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
#include "base/payload.h"
#include "channel/channel.h"
#include "channel/publisher.h"
#include "channel/subscription.h"
#include "delivery/dead_letter.h"
#include "facts/facts.h"
#include "message/draft.h"
#include "message/publish.h"
#include "message/stored.h"
#include "state/clock.h"
#include "state/fault.h"

static Datum dead_headers(Oid schema, const MbusStored *message, const char *channel,
						  const char *subscription,
						  const MbusFailure *failure);
static void member_text(JsonbParseState **state, const char *name,
						const char *value, int len);
static void member_number(JsonbParseState **state, const char *name,
						  int64 value);
static void member_time(JsonbParseState **state, const char *name,
						TimestampTz value);
static void member_name(JsonbParseState **state, const char *name);

/*
 * mbus_dead_letter publishes a copy of a message that failed for the last
 * time to the channel of that name, and sets failure->dead_letter_id.  It
 * returns the outcome of the ack that closes the message: "dead", also if
 * there is nothing left to copy; "kept" if there is no such channel (or it is
 * the message's own); "corrupt" if its bytes do not match.
 */
const char *
mbus_dead_letter(Oid schema, const MbusHolding *holding,
				 const char *dead_letter, MbusFailure *failure)
{
	const MbusChannel *channel;
	const MbusSubscription *subscription;
	MbusChannel target;
	MemoryContext each;
	MemoryContext caller;
	MbusStored	message;
	MbusDraft	draft;
	const char *outcome = "dead";
	struct varlena *payload;

	channel = dead_letter[0] ?
		mbus_channel_by_name(schema, dead_letter) : NULL;
	if (channel == NULL || channel->channel_id == holding->channel_id)
		return "kept";
	target = *channel;

	each = AllocSetContextCreate(CurrentMemoryContext,
								 "message_bus dead letter",
								 ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(each);
	if (!mbus_message_fetch_latest(schema, failure->held->id, &message))
		 /* expired, deleted or purged meanwhile */ ;
	else if ((payload = mbus_sound_payload(&message)) == NULL)
		outcome = "corrupt";
	else
	{
		char	   *name;

		channel = mbus_channel_by_id(schema, holding->channel_id);
		name = channel ? pstrdup(channel->name) : NULL;
		subscription = mbus_subscription_by_id(schema,
											   holding->subscription_id);
		mbus_draft_init(&draft, payload, message.content_type, false);
		draft.key = message.key;
		draft.headers = dead_headers(schema, &message, name,
									 subscription ? subscription->name : NULL,
									 failure);
		failure->dead_letter_id = mbus_publish_waived(schema, &target, &draft);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(each);
	return outcome;
}

/*
 * mbus_sound_payload returns a message's bytes, NULL (and that is recorded) if
 * they are not those published.  It always looks: the copy gets a checksum of
 * its own.
 */
struct varlena *
mbus_sound_payload(const MbusStored *message)
{
	struct varlena *payload = mbus_payload_read(message);
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
 * tells of its death.
 */
static Datum
dead_headers(Oid schema, const MbusStored *message, const char *channel,
			 const char *subscription, const MbusFailure *failure)
{
	text	   *publisher = mbus_publisher_name(schema,
												message->publisher_id);
	JsonbParseState *state = NULL;
	JsonbValue *object;
	Datum		header;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	member_name(&state, MBUS_DEAD_LETTER_HEADER);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	member_text(&state, "channel", channel, -1);
	member_text(&state, "subscription", subscription, -1);
	member_number(&state, "id", message->id);
	member_number(&state, "attempts", failure->held->attempt);
	member_text(&state, "reason", failure->reason, -1);
	member_text(&state, "kind", failure->kind, -1);
	member_time(&state, "created_at", message->created_at);
	member_time(&state, "failed_at", mbus_now());
	member_text(&state, "transaction_id", message->transaction_id ?
				VARDATA_ANY(message->transaction_id) : NULL,
				message->transaction_id ?
				VARSIZE_ANY_EXHDR(message->transaction_id) : 0);
	member_text(&state, "publisher", publisher ? VARDATA_ANY(publisher) : NULL,
				publisher ? VARSIZE_ANY_EXHDR(publisher) : 0);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	header = JsonbPGetDatum(JsonbValueToJsonb(object));
	if (message->headers == NULL)
		return header;
	return DirectFunctionCall2(jsonb_concat,
							   PointerGetDatum(message->headers), header);
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
