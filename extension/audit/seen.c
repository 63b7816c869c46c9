/*
 * seen.c
 *		The channels whose messages the current user may see.
 *
 * What is kept of a channel is a copy: what the backend's cache has is good only
 * until the next look-up.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "audit/seen.h"
#include "base/columns.h"
#include "base/ids.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/visibility.h"
#include "segment/leaf.h"

static int	channels_list(Oid schema, Snapshot snapshot, int32 **ids);
static bool seen_read(Oid schema, const MbusChannel *channel, MbusSeen *seen);
static int	id_compare(const void *a, const void *b);

/*
 * mbus_seen_list sets *seen to the channels whose messages the current user may
 * see, by ascending id, of that name if one is given, and returns how many they
 * are.  *all is set if there are no others.
 */
int
mbus_seen_list(Oid schema, Snapshot snapshot, text *name, MbusSeen **seen,
			   bool *all)
{
	int32	   *ids;
	int			channels;
	int			n = 0;

	*all = false;
	if (name)
	{
		*seen = palloc(sizeof(MbusSeen));
		return seen_read(schema,
						 mbus_channel_by_name(schema, text_to_cstring(name)),
						 *seen);
	}
	channels = channels_list(schema, snapshot, &ids);
	*seen = palloc_extended(Max(channels, 1) * sizeof(MbusSeen),
							MCXT_ALLOC_HUGE);
	for (int i = 0; i < channels; i++)
	{
		CHECK_FOR_INTERRUPTS();
		n += seen_read(schema, mbus_channel_by_id(schema, ids[i]),
					   &(*seen)[n]);
	}
	*all = n == channels;
	pfree(ids);
	return n;
}

/* Reads the ids of all channels, ascending. */
static int
channels_list(Oid schema, Snapshot snapshot, int32 **ids)
{
	Relation	rel = table_open(mbus_relation(schema, "channel"),
								 AccessShareLock);
	int			room = 64;
	int			n = 0;
	SysScanDesc rows;
	HeapTuple	tuple;

	*ids = palloc(room * sizeof(int32));
	rows = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		bool		isnull;

		if (n == room)
		{
			room *= 2;
			*ids = repalloc_huge(*ids, room * sizeof(int32));
		}
		(*ids)[n++] = DatumGetInt32(heap_getattr(tuple, MBUS_CHANNEL_ID,
												 RelationGetDescr(rel),
												 &isnull));
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	qsort(*ids, n, sizeof(int32), id_compare);
	return n;
}

/* Copies a channel, if there is one and it may be seen. */
static bool
seen_read(Oid schema, const MbusChannel *channel, MbusSeen *seen)
{
	const MbusPolicy *policy;
	int64	   *kept;

	if (channel == NULL || !mbus_channel_allows(channel, MBUS_SEE))
		return false;
	seen->channel_id = channel->channel_id;
	seen->payload = mbus_channel_allows(channel, MBUS_CONSUME);
	seen->own = !mbus_channel_allows(channel, MBUS_SEE_WHOLE);
	seen->name = cstring_to_text(channel->name);
	policy = mbus_channel_policy(schema, seen->channel_id);
	if (policy == NULL)
		return false;
	seen->policy = *policy;
	if (policy->nkept > 0)
	{
		kept = palloc(policy->nkept * 2 * sizeof(int64));
		memcpy(kept, policy->kept, policy->nkept * 2 * sizeof(int64));
		seen->policy.kept = kept;
	}
	return true;
}

/*
 * mbus_row_visible tells whether a row of messages is from the current user or
 * for him, see channel/visibility.c.
 */
bool
mbus_row_visible(Oid schema, HeapTuple tuple, TupleDesc desc)
{
	return mbus_visible_row(schema, tuple, desc, MBUS_COL_PUBLISHER_ID,
							MBUS_COL_SUBJECT, MBUS_COL_RECIPIENT);
}

static int
id_compare(const void *a, const void *b)
{
	return mbus_order(*(const int32 *) a, *(const int32 *) b);
}

/*
 * mbus_seen_find returns a channel of the list, or NULL.
 */
const MbusSeen *
mbus_seen_find(const MbusSeen *seen, int n, int32 channel_id)
{
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			middle = lo + (hi - lo) / 2;

		if (seen[middle].channel_id < channel_id)
			lo = middle + 1;
		else
			hi = middle;
	}
	return lo < n && seen[lo].channel_id == channel_id ? &seen[lo] : NULL;
}
