/*
 * url.c
 *		Links to messages: body_url(), and what references have.
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
#include "door/key.h"
#include "door/url.h"
#include "message/read.h"
#include "state/fault.h"

#define MINUTE			60
#define REFERENCE_SECS	3600	/* that a reference's link is good for */

static char *make_link(int64 id, int64 valid_us);
static bool sees_all(Oid schema, const MbusStored *message);
static int64 expiry_of(int64 us);

/*
 * body_url(id bigint, valid_for interval) returns a URL that whoever has it
 * can read the message with; NULL if there is no such message.
 */
MBUS_FUNCTION(body_url)
{
	char	   *link;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	link = make_link(PG_GETARG_INT64(0),
					 mbus_interval_us(PG_GETARG_INTERVAL_P(1)));
	if (link == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(link));
}

/*
 * mbus_body_link returns a link to a message for who is given a reference to
 * it; NULL if links have no prefix, there is no key, or no such message.
 */
char *
mbus_body_link(int64 id)
{
	if (mbus_body_url_prefix == NULL || mbus_body_url_prefix[0] == '\0' ||
		mbus_body_key_number() == 0)
		return NULL;
	return make_link(id, Min(REFERENCE_SECS, mbus_body_url_max) *
					 USECS_PER_SEC);
}

/*
 * make_link makes the current user's link to a message; NULL if there is no
 * such message.  42501 if he may not read it.
 */
static char *
make_link(int64 id, int64 valid_us)
{
	Oid			schema = mbus_schema();
	MbusCapability capability;
	MbusStored	message;
	StringInfoData url;

	capability.id = id;
	capability.expiry = expiry_of(valid_us);
	capability.role = GetUserId();
	if (!mbus_message_readable(schema, id, &message))
		return NULL;
	capability.own = !sees_all(schema, &message);
	initStringInfo(&url);
	appendStringInfo(&url, "%s/v1/messages/" INT64_FORMAT "?cap=",
					 mbus_body_url_prefix ? mbus_body_url_prefix : "", id);
	mbus_capability_append(&url, &capability);
	return url.data;
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
expiry_of(int64 us)
{
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
