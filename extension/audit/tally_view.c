/*
 * tally_view.c
 *		What happened in each channel, and how long it took, for the views
 *		channel_metrics and latency.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/schema.h"
#include "channel/channel.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/tally.h"

static const char *const latency_names[MBUS_LATENCIES] = {
	[MBUS_L_PUBLISH] = "publish_seconds",
	[MBUS_L_CLAIM] = "publish_to_claim_seconds",
	[MBUS_L_ACK] = "claim_to_ack_seconds",
};

static bool channel_seen(int32 channel_id);

/*
 * channel_counters(channel_id) returns what was counted of a channel since
 * "since", of which the current user may see all messages, or which he may
 * monitor; 0: of all others together.
 */
MBUS_FUNCTION(channel_counters)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusDatabase *db = mbus_database_or_null();
	MbusTallies tallies;
	Datum		values[MBUS_TALLIES + 1];
	bool		isnull[MBUS_TALLIES + 1] = {false};
	bool		known;

	InitMaterializedSRF(fcinfo, 0);
	if (db == NULL || !channel_seen(PG_GETARG_INT32(0)))
		return (Datum) 0;
	known = mbus_tallies_read(db, PG_GETARG_INT32(0), &tallies);
	for (int t = 0; t < MBUS_TALLIES; t++)
	{
		values[t] = Int64GetDatum((int64) tallies.n[t]);
		isnull[t] = !known;
	}
	values[MBUS_TALLIES] = TimestampTzGetDatum(mbus_state_made_at());
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
	return (Datum) 0;
}

/* Whether the current user may see what is counted of a channel. */
static bool
channel_seen(int32 channel_id)
{
	const MbusChannel *channel;

	if (mbus_monitors())
		return true;
	channel = mbus_channel_by_id(mbus_schema(), channel_id);
	return channel != NULL && mbus_channel_allows(channel, MBUS_SEE_WHOLE);
}

/*
 * latency_rows() returns the histograms of this database: of each bucket its
 * upper bound, and how many lie in it or below; and the sum of all.
 */
MBUS_FUNCTION(latency_rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MbusDatabase *db = mbus_database_or_null();

	InitMaterializedSRF(fcinfo, 0);
	for (int l = 0; db && l < MBUS_LATENCIES; l++)
	{
		MbusSpread *spread = &db->latency[l];
		double		sum = pg_atomic_read_u64(&spread->us) / 1e6;
		uint64		below = 0;

		for (int i = 0; i < MBUS_LATENCY_BUCKETS; i++)
		{
			Datum		values[4];
			bool		isnull[4] = {false};

			below += pg_atomic_read_u64(&spread->bucket[i]);
			values[0] = CStringGetTextDatum(latency_names[l]);
			values[1] = Float8GetDatum(mbus_latency_bound(i));
			values[2] = Int64GetDatum((int64) below);
			values[3] = Float8GetDatum(sum);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
		}
	}
	return (Datum) 0;
}
