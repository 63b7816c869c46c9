/*
 * overdue.c
 *		Leases on messages whose segment is about to go.
 *
 * A lease may outlast its messages.  While their segment is there a failed one
 * still becomes a dead letter (fail.c), and an ack is recorded.  So before the
 * worker drops a segment it ends the leases in it of channels that have a
 * dead-letter channel to which dead letters may go: they have expired, and who
 * held one is told that he does not (55000).  What an open transaction holds
 * or has pinned is left to it, and the segment waits.  In other channels
 * nothing could be kept: there a lease goes on.
 *
 * Which channels these are is looked up between two looks under the delivery
 * lock; a lease that comes between is seen by the worker's next pass at the
 * latest: all in the segment has expired, so that no claim finds anything.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "channel/dead_letter_target.h"
#include "delivery/deadline.h"
#include "delivery/overdue.h"
#include "delivery/pool.h"
#include "state/clock.h"

static int	channels_holding(Oid schema, MbusDatabase *db, int32 segment,
							 int32 *channels);
static bool holds_any(const MbusSub *sub, int32 segment);
static int	leases_end(MbusSub *sub, int32 segment, TimestampTz now);
static bool has_channel(const int32 *channels, int n, int32 channel_id);

/*
 * mbus_overdue_end ends the leases on messages of a segment in which all has
 * expired, and returns how many messages are still held.  For the worker, which
 * records the failures next.  Takes the delivery lock.
 */
int
mbus_overdue_end(Oid schema, MbusDatabase *db, int32 segment)
{
	int32	   *channels = palloc(mbus_sub_slots() * sizeof(int32));
	int			n = channels_holding(schema, db, segment, channels);
	int			kept = 0;
	int			held = 0;

	for (int i = 0; i < n; i++)
	{
		const MbusChannel *target;

		if (mbus_target_find(schema, channels[i], &target) ==
			MBUS_TARGET_READY)
			channels[kept++] = channels[i];
	}
	if (kept > 0)
	{
		TimestampTz now = mbus_now();

		LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
		for (int s = 0; s < mbus_sub_slots(); s++)
		{
			MbusSub    *sub = mbus_sub(s);

			if (sub->database == db->database && sub->schema == schema &&
				has_channel(channels, kept, sub->channel_id))
				held += leases_end(sub, segment, now);
		}
		LWLockRelease(mbus_delivery_lock());
	}
	pfree(channels);
	return held;
}

/* Lists the channels of which something in the segment is held. */
static int
channels_holding(Oid schema, MbusDatabase *db, int32 segment, int32 *channels)
{
	int			n = 0;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		const MbusSub *sub = mbus_sub(s);

		if (sub->database == db->database && sub->schema == schema &&
			holds_any(sub, segment))
			channels[n++] = sub->channel_id;
	}
	LWLockRelease(mbus_delivery_lock());
	return n;
}

/* Caller holds the lock, as for what follows. */
static bool
holds_any(const MbusSub *sub, int32 segment)
{
	for (uint32 l = sub->leases; l != MBUS_NONE; l = mbus_lease(l)->next)
	{
		for (uint32 e = mbus_lease(l)->first; e != MBUS_NONE;
			 e = mbus_entry(e)->next)
		{
			if (MbusSegmentOf(mbus_entry(e)->id) == segment)
				return true;
		}
	}
	return false;
}

/* Ends what is neither pinned nor held; returns how many there are in all. */
static int
leases_end(MbusSub *sub, int32 segment, TimestampTz now)
{
	int			n = 0;

	for (uint32 l = sub->leases; l != MBUS_NONE; l = mbus_lease(l)->next)
	{
		bool		ended = false;

		for (uint32 i = mbus_lease(l)->first; i != MBUS_NONE;
			 i = mbus_entry(i)->next)
		{
			MbusEntry  *e = mbus_entry(i);

			if (MbusSegmentOf(e->id) != segment)
				continue;
			n++;
			if (e->pin != MBUS_PIN_NONE || e->state != MBUS_ENTRY_LEASED)
				continue;
			e->deadline = Min(e->deadline, now);
			ended = true;
		}
		if (ended)
			mbus_deadline_set(l, Min(mbus_lease(l)->deadline, now));
	}
	return n;
}

static bool
has_channel(const int32 *channels, int n, int32 channel_id)
{
	for (int i = 0; i < n; i++)
	{
		if (channels[i] == channel_id)
			return true;
	}
	return false;
}
