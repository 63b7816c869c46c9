/*
 * dead_letter_target.c
 *		Where a channel's dead letters go, and whether they may.
 *
 * A channel has the number of its dead-letter channel, not its name: one that
 * is made later under the name of one that was dropped is another channel.
 * A channel that is dropped leaves its number where it is: nobody waits, and
 * no number comes twice.  A restore may bring it again, or another bus's of
 * that number; a trigger (channel_restored) tells them apart by the buses that
 * know both channels, and writes 0, which is no channel's number.
 *
 * What counts is the right of the channel's owner to publish there, as it is
 * when it is asked for: not that of who has set it, nor of who ends the last
 * attempt, which may be the worker.  An owner that is missing has none.
 */
#include "postgres.h"

#include "channel/channel.h"
#include "channel/dead_letter_target.h"

/*
 * mbus_target_find tells whether dead letters of a channel go anywhere;
 * *target is the dead-letter channel, good until the next look-up, if it is
 * there, else NULL.  One that is the channel itself, as only rows made by hand
 * have it, is none.
 */
MbusTarget
mbus_target_find(Oid schema, int32 channel_id,
				 const MbusChannel **target)
{
	const MbusPolicy *policy = mbus_channel_policy(schema, channel_id);
	const MbusChannel *channel;
	int32		target_id;
	Oid			owner;

	*target = NULL;
	if (policy == NULL || !policy->dead_letters ||
		policy->dead_letter_id == channel_id)
		return MBUS_TARGET_NONE;
	target_id = policy->dead_letter_id;
	channel = mbus_channel_by_id(schema, channel_id);
	if (channel == NULL)
		return MBUS_TARGET_NONE;
	owner = channel->owner;
	*target = mbus_channel_by_id(schema, target_id);
	if (*target == NULL)
		return MBUS_TARGET_DROPPED;
	return mbus_channel_allows_role(*target, owner, MBUS_PUBLISH) ?
		MBUS_TARGET_READY : MBUS_TARGET_DENIED;
}

/* mbus_target_name returns what views call it; NULL: there is none. */
const char *
mbus_target_name(MbusTarget target)
{
	switch (target)
	{
		case MBUS_TARGET_NONE:
			return NULL;
		case MBUS_TARGET_READY:
			return "ready";
		case MBUS_TARGET_DROPPED:
			return "dropped";
		case MBUS_TARGET_DENIED:
			return "denied";
	}
	return NULL;
}
