/*
 * purge.c
 *		purge_channel: all that a channel holds now is gone.
 *
 * Nothing is deleted: the channel's row says up to which id its messages are
 * purged, and every reader takes these for deleted.  Their space comes back
 * with their segments.
 *
 * As with every look at a channel, first the registry is asked for the first
 * unreserved id and the unfinished ranges, in one step, and then comes the
 * snapshot.  What the ranges hold stays, also if its transaction has ended by
 * the time of the snapshot: the row names the ranges, as pairs of the first
 * id and the one behind the last, ascending.  A later purge names those that
 * are unfinished then, and takes what has ended since.
 *
 * The ranges also hold all ids between the segments that the purge has seen:
 * what a restore is filling, or brings some other day, is not purged.
 *
 * Purges of a channel come one after the other: each holds the channel's row
 * from its beginning to the end of its transaction.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "action/action.h"
#include "admin/channel_admin.h"
#include "base/argument.h"
#include "base/ids.h"
#include "base/owner.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/purged.h"
#include "message/stored.h"
#include "segment/leaf.h"
#include "segment/channel_scan.h"
#include "segment/published.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/range.h"
#include "state/state.h"
#include "state/store.h"

/* One call's work. */
typedef struct Purge
{
	Oid			schema;
	int32		channel_id;
	MbusPolicy	before;			/* as of the purge before this one */
	int64		limit;			/* ids from here on stay */
	MbusRange  *unfinished;		/* as do these */
	int			nunfinished;
	MbusLeaf   *leaves;			/* what it sees */
	int			nleaves;
	int64		count;
} Purge;

static void channel_hold(Purge *purge, text *name);
static void purge_count(Purge *purge);
static void purge_count_leaf(Purge *purge, int32 segment, Snapshot snapshot);
static void purge_write(const Purge *purge);
static void purge_tell(const Purge *purge);
static int	purge_kept(const Purge *purge, Datum **kept);
static int	kept_add(Datum *kept, int n, int64 lo, int64 hi);

/*
 * purge_channel(channel) hides all messages of a channel that the caller
 * owns, but for those of publishes that have not ended; returns how many it
 * has hidden.
 */
MBUS_CHANNEL_FUNCTION(purge_channel)
{
	Purge		purge = {0};
	MbusDatabase *db;

	mbus_write_check("message_bus.purge_channel()");
	purge.schema = mbus_schema();
	channel_hold(&purge, mbus_required_text(fcinfo, 0, "channel"));
	db = mbus_database();
	purge.limit = mbus_unfinished_wait(db, purge.schema, purge.channel_id,
									   &purge.unfinished, &purge.nunfinished);
	purge_count(&purge);
	purge_write(&purge);
	purge_tell(&purge);
	PG_RETURN_INT64(purge.count);
}

/*
 * channel_hold locks the channel's row, so that no other purge or change
 * comes between, and reads what the purge before it has left.
 */
static void
channel_hold(Purge *purge, text *name)
{
	const MbusChannel *channel = mbus_channel_owned(purge->schema, name);
	const MbusPolicy *policy;
	Datum		value[2];
	static const Oid types[2] = {INT4OID, OIDOID};

	purge->channel_id = channel->channel_id;
	value[0] = Int32GetDatum(channel->channel_id);
	value[1] = ObjectIdGetDatum(channel->owner);
	if (mbus_run_as_owner(purge->schema,
						  "SELECT FROM message_bus.channel"
						  " WHERE channel_id = $1 AND message_bus.role_live(owner) = $2"
						  " FOR NO KEY UPDATE", 2, types, value, NULL) == 0)
	{
		mbus_channel_owned(purge->schema, name);	/* dropped meanwhile? */
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to channel \"%s\"",
						text_to_cstring(name)),
				 errdetail("The channel is newer than the transaction's snapshot.")));
	}
	policy = mbus_channel_policy(purge->schema, purge->channel_id);
	if (policy == NULL)
		elog(ERROR, "channel %d is locked and not there", purge->channel_id);
	purge->before = *policy;
	if (policy->nkept > 0)
	{
		int64	   *kept = palloc(2 * policy->nkept * sizeof(int64));

		memcpy(kept, policy->kept, 2 * policy->nkept * sizeof(int64));
		purge->before.kept = kept;
	}
}

/*
 * purge_count counts the live messages that the purge takes.
 */
static void
purge_count(Purge *purge)
{
	/* the registry has been asked: see the top of this file */
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	purge->nleaves = mbus_leaves(purge->schema, &purge->leaves);
	for (int i = 0; i < purge->nleaves; i++)
	{
		if (MbusFirstId(purge->leaves[i].segment) < purge->limit)
			purge_count_leaf(purge, purge->leaves[i].segment, snapshot);
	}
	UnregisterSnapshot(snapshot);
}

/*
 * purge_count_leaf counts those of one segment.  Messages and unfinished
 * ranges both come by ascending id, so one walk along the ranges will do.
 */
static void
purge_count_leaf(Purge *purge, int32 segment, Snapshot snapshot)
{
	const MbusPolicy *before = &purge->before;
	int64		after = mbus_channel_purged_below(before, MbusFirstId(segment));
	Relation	leaf;
	Relation	events;
	MbusChannelScan rows;
	HeapTuple	tuple;
	int			range = 0;

	if (MbusFirstId((int64) segment + 1) <= after)
		return;
	leaf = mbus_leaf_open(purge->schema, segment, MBUS_MESSAGE,
						  AccessShareLock);
	if (leaf == NULL)
		return;
	events = mbus_leaf_open_written(purge->schema, segment, MBUS_EVENT);
	mbus_channel_scan_open(&rows, leaf, purge->channel_id);
	mbus_channel_scan_begin(&rows, after + 1, purge->limit - 1, snapshot);
	while ((tuple = mbus_channel_scan_next(&rows)) != NULL)
	{
		TupleDesc	desc = RelationGetDescr(leaf);
		TimestampTz expires_at;
		int64		id;
		bool		isnull;

		id = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc, &isnull));
		expires_at = DatumGetTimestampTz(heap_getattr(tuple,
													  MBUS_COL_EXPIRES_AT,
													  desc, &isnull));
		while (range < purge->nunfinished && purge->unfinished[range].hi <= id)
			range++;
		if (range < purge->nunfinished && purge->unfinished[range].lo <= id)
			continue;
		if (expires_at > mbus_now() &&
			!mbus_channel_purged(before, id) &&
			!(events && mbus_message_deleted(purge->schema, id)))
			purge->count++;
	}
	mbus_channel_scan_close(&rows);
	if (events)
		table_close(events, AccessShareLock);
	table_close(leaf, AccessShareLock);
}

/*
 * purge_write says it in the channel's row, which this transaction holds.
 */
static void
purge_write(const Purge *purge)
{
	Datum	   *kept;
	int			n = purge_kept(purge, &kept);
	Datum		value[3];
	char		nulls[4] = "   ";
	static const Oid types[3] = {INT4OID, INT8OID, INT8ARRAYOID};

	value[0] = Int32GetDatum(purge->channel_id);
	value[1] = Int64GetDatum(Max(purge->limit - 1, purge->before.purged_to));
	value[2] = PointerGetDatum(construct_array(kept, 2 * n, INT8OID,
											   sizeof(int64), FLOAT8PASSBYVAL,
											   TYPALIGN_DOUBLE));
	if (n == 0)
		nulls[2] = 'n';
	if (mbus_run_as_owner(purge->schema,
						  "UPDATE message_bus.channel SET purged_to = $2,"
						  " purge_kept = $3 WHERE channel_id = $1",
						  3, types, value, nulls) != 1)
		elog(ERROR, "channel %d is locked and was not updated",
			 purge->channel_id);
}

/* Records it, and lets bodies give their space back. */
static void
purge_tell(const Purge *purge)
{
	MbusAction	action;

	mbus_stores_look();
	mbus_action_begin(&action, "purge", purge->channel_id, "purged");
	mbus_action_number(&action, "messages", purge->count);
	mbus_action_row(&action, purge->schema, "channel", "channel_pkey",
					purge->channel_id);
	mbus_action_end(&action, purge->schema);
}

/*
 * purge_kept makes the ranges that stay: the unfinished ones, and those between
 * the segments that the purge has seen.  Returns how many, by ascending id and
 * apart from each other.
 */
static int
purge_kept(const Purge *purge, Datum **kept)
{
	int64		end = Max(purge->limit, purge->before.purged_to + 1);
	int64		lo = 0;			/* begin of the next that is between */
	int			leaf = 0;
	int			unfinished = 0;
	int			n = 0;

	*kept = palloc(2 * (purge->nunfinished + purge->nleaves + 1) *
				   sizeof(Datum));
	while (lo < end || unfinished < purge->nunfinished)
	{
		const MbusRange *range = unfinished < purge->nunfinished ?
		&purge->unfinished[unfinished] : NULL;

		if (range && (range->lo < lo || lo >= end))
		{
			n = kept_add(*kept, n, range->lo, range->hi);
			unfinished++;
			continue;
		}
		if (leaf == purge->nleaves)
		{
			n = kept_add(*kept, n, lo, end);
			lo = end;
			continue;
		}
		n = kept_add(*kept, n, lo,
					 Min(MbusFirstId(purge->leaves[leaf].segment), end));
		lo = MbusFirstId((int64) purge->leaves[leaf++].segment + 1);
	}
	return n;
}

/* Adds a range, which begins behind the begin of the last. */
static int
kept_add(Datum *kept, int n, int64 lo, int64 hi)
{
	if (lo >= hi)
		return n;
	if (n > 0 && lo <= DatumGetInt64(kept[2 * n - 1]))
	{
		kept[2 * n - 1] =
			Int64GetDatum(Max(DatumGetInt64(kept[2 * n - 1]), hi));
		return n;
	}
	kept[2 * n] = Int64GetDatum(lo);
	kept[2 * n + 1] = Int64GetDatum(hi);
	return n + 1;
}
