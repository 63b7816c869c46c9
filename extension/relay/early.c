/*
 * early.c
 *		May a large frame be sent at all?  Before it is parsed.
 *
 * To parse 30 MB takes half a second, in which all others wait, so a role's
 * right is looked at first.  Of a request that publishes the method and the
 * channel are found by the scan that salvage.c makes of its first MiB, which
 * does not go by what the parser says of them later: nothing is allowed here
 * that is not looked at again.  Where they are not found, as in a JSON-RPC
 * batch, and for every other method, the role must have some privilege on
 * some channel.
 *
 * What that costs is bounded, however many channels there are and however often
 * they change: channel.c.
 *
 * Of a binary frame this is about its line of JSON; the bytes behind that are
 * not parsed.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/json_slice.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "relay/relay_internal.h"
#include "relay/rpc.h"

#define SMALL_MAX	(64 * 1024) /* bytes that anybody may have parsed */

static char *string_of(const MbusSlice *slice);

/*
 * mbus_early_check errors as the method would if the current user may not send
 * a frame.
 */
void
mbus_early_check(const MbusFrame *frame)
{
	MbusSalvaged found = {0};
	char	   *method;
	char	   *channel;

	mbus_salvage_about(frame->text, frame->text_len, &found);
	method = string_of(&found.method);
	channel = string_of(&found.channel);
	if (!found.batch && method && channel &&
		mbus_method_publishes(method))
	{
		/* bytes in base64 are for another function */
		if (mbus_function_open("publish_bytes", true) == NULL)
			mbus_function_open(method, false);
		mbus_channel_open(mbus_schema(), cstring_to_text(channel),
						  MBUS_PUBLISH);
	}
	else if (!mbus_channel_any(mbus_schema()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for a frame of %d bytes",
						frame->text_len),
				 errdetail("Role \"%s\" has no privilege on any channel. Without one a frame has at most %d bytes.",
						   GetUserNameFromId(GetUserId(), false), SMALL_MAX)));
}

/* mbus_early_needs tells whether a frame is one to look at. */
bool
mbus_early_needs(const MbusFrame *frame)
{
	return frame->text_len > SMALL_MAX;
}

/* A string that was found, decoded; NULL if there is none. */
static char *
string_of(const MbusSlice *slice)
{
	return slice->len > 0 ? mbus_json_string(slice, true) : NULL;
}
