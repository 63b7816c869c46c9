/*
 * url.c
 *		body_url(): a link to one message.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/schema.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "door/capability.h"
#include "message/read.h"
#include "state/fault.h"

#define MINUTE	60

static bool sees_all(Oid schema, const MbusStored *message);
static int64 expiry_of(const Interval *valid_for);

/*
 * body_url(id bigint, valid_for interval) returns a URL that whoever has it
 * can read the message with; NULL if there is no such message.
 */
MBUS_FUNCTION(body_url)
{
	Oid			schema = mbus_schema();
	MbusCapability capability;
	MbusStored	message;
	StringInfoData url;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	capability.id = PG_GETARG_INT64(0);
	capability.expiry = expiry_of(PG_GETARG_INTERVAL_P(1));
	capability.role = GetUserId();
	if (!mbus_message_readable(schema, capability.id, &message))
		PG_RETURN_NULL();
	capability.own = !sees_all(schema, &message);
	initStringInfo(&url);
	appendStringInfo(&url, "%s/v1/messages/" INT64_FORMAT "?cap=",
					 mbus_body_url_prefix ? mbus_body_url_prefix : "",
					 capability.id);
	mbus_capability_append(&url, &capability);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(url.data, url.len));
}

/* Whether the current user sees all messages of that one's channel. */
static bool
sees_all(Oid schema, const MbusStored *message)
{
	const MbusChannel *channel = mbus_channel_by_id(schema,
													message->channel_id);

	return channel == NULL || !channel->by_subject ||
		mbus_channel_allows(channel, MBUS_CLAIM);
}

/*
 * expiry_of returns when a link ends, in seconds since 1970, rounded up to a
 * minute: links of one minute are one URL.  22023 if that is too late.
 */
static int64
expiry_of(const Interval *valid_for)
{
	int64		us = mbus_interval_us(valid_for);
	int64		expiry;

	if (us <= 0 || us > mbus_body_url_max * USECS_PER_SEC)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("valid_for must be above 0 and at most %d seconds",
						mbus_body_url_max),
				 errdetail("That is the setting message_bus.body_url_max.")));
	expiry = timestamptz_to_time_t(GetCurrentTimestamp() + us);
	return (expiry + MINUTE - 1) / MINUTE * MINUTE;
}
