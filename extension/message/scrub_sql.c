/*
 * scrub_sql.c
 *		Looks at messages that a session asks for: scrub, scrub_message.
 *
 * They read in slices, as the worker does (scrub.c), in the caller's
 * transaction, and put what they find into quarantine there: others see that
 * when it commits.  Where it cannot write they only count.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/schema.h"
#include "channel/channel.h"
#include "message/scrub.h"
#include "state/fault.h"

#define SLICE_BYTES	(16 * 1024 * 1024)
#define SLICE_MS	50

static int32 channel_argument(FunctionCallInfo fcinfo, Oid schema);
static bool seen_by_caller(Oid schema, const MbusScrub *scrub, int64 id);

/*
 * scrub(channel text) looks at all messages of a channel, or of all, and
 * returns how many, how many bytes, how many are damaged, and how many of
 * these were not in quarantine before.
 */
MBUS_FUNCTION(scrub)
{
	Oid			schema = mbus_schema();
	MbusScrub	scrub = {.next = 1,.last = PG_INT64_MAX,.bytes_max = SLICE_BYTES,
	.ms_max = SLICE_MS};
	int64		total[5] = {0};
	TupleDesc	desc;
	Datum		values[5];
	bool		isnull[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	scrub.channel_id = channel_argument(fcinfo, schema);
	while (!scrub.ended)
	{
		mbus_scrub_slice(schema, &scrub);
		total[0] += scrub.messages;
		total[1] += scrub.bytes;
		total[2] += scrub.bad;
		total[3] += mbus_quarantine_settle(schema, scrub.found, scrub.n);
		total[4] += scrub.unread;
	}
	for (int i = 0; i < 5; i++)
		values[i] = Int64GetDatum(total[i]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* The channel that is named, 0: all; errors for who may not see it whole. */
static int32
channel_argument(FunctionCallInfo fcinfo, Oid schema)
{
	if (PG_ARGISNULL(0))
	{
		if (!mbus_monitors())
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to look at all channels"),
					 errdetail("Only members of pg_monitor may."),
					 errhint("Name a channel.")));
		return 0;
	}
	if (mbus_monitors())
		return mbus_channel_named(schema, PG_GETARG_TEXT_PP(0))->channel_id;
	return mbus_channel_open(schema, PG_GETARG_TEXT_PP(0),
							 MBUS_SEE_WHOLE)->channel_id;
}

/*
 * scrub_message(id) looks at one message and returns what is damaged, "sound",
 * or NULL where there is none, or the caller may not see it.  Before it reads
 * the payload it knows that he may: else he could tell from the time.
 */
MBUS_FUNCTION(scrub_message)
{
	Oid			schema = mbus_schema();
	int64		id = PG_GETARG_INT64(0);
	MbusScrub	scrub;

	mbus_scrub_one(schema, &scrub, id, true);
	if (!seen_by_caller(schema, &scrub, id))
		PG_RETURN_NULL();
	mbus_scrub_one(schema, &scrub, id, false);
	if (scrub.bad == 0 && scrub.messages == 0)
		PG_RETURN_NULL();
	(void) mbus_quarantine_settle(schema, scrub.found, scrub.n);
	PG_RETURN_TEXT_P(cstring_to_text(scrub.bad == 0 ? "sound" : scrub.kind));
}

/* Whether there is a message, and the caller may see all of its channel. */
static bool
seen_by_caller(Oid schema, const MbusScrub *scrub, int64 id)
{
	int32		channel_id = scrub->channel_seen;
	const MbusChannel *channel;

	if (scrub->bad == 0 && scrub->messages == 0)
		return false;
	if (mbus_monitors())
		return true;
	if (channel_id == 0)
		(void) mbus_quarantine_channel(schema, id, &channel_id);
	channel = mbus_channel_by_id(schema, channel_id);
	return channel != NULL && mbus_channel_allows(channel, MBUS_SEE_WHOLE);
}
