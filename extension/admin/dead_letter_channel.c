/*
 * dead_letter_channel.c
 *		Which channel may be another one's for dead letters.
 *
 * Dead letters may die in their turn, so that dead-letter channels make a
 * chain.  It must not lead back: what fails everywhere would go round for
 * ever.  Whoever gives a channel a dead-letter channel holds a lock until his
 * transaction ends, so that two do not close a circle between them, and looks
 * at the table as it is then, whatever his snapshot.  Who gives none does not
 * wait: he adds nothing to a chain.
 *
 * The interface goes by names, the table by numbers: a channel that is made
 * anew, whatever its name, is in no chain yet.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"

#include "admin/dead_letter_channel.h"
#include "base/schema.h"
#include "channel/channel.h"

static bool leads_to(Oid schema, int32 from, int32 channel_id);

/*
 * mbus_dead_letter_channel returns the number of the channel that another one
 * is to have for its dead letters, -1 for '', which is none.  Errors: 42P01 if
 * it is not there, 42501 if the current user may not publish there, nor the
 * owner that the channel is to have, 22023 if it is the channel itself or leads
 * back to it.  Of an owner that is missing nothing is asked: the channel
 * will get another one.
 */
int32
mbus_dead_letter_channel(Oid schema, const char *channel, Oid owner,
						 const char *dead_letter)
{
	const MbusChannel *target;
	const MbusChannel *found;
	int32		target_id;
	char	   *owner_name;

	if (strcmp(dead_letter, channel) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel \"%s\" cannot be its own dead-letter channel",
						channel)));
	if (dead_letter[0] == '\0')
		return -1;
	/* no channel has that number; redrive locks those of channels */
	LockDatabaseObject(mbus_relation(schema, "channel"), 0, 0, ExclusiveLock);
	target = mbus_channel_by_name(schema, dead_letter);
	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("channel \"%s\" does not exist", dead_letter),
				 errdetail("It was to be the dead-letter channel of \"%s\".",
						   channel)));
	mbus_channel_check(target, MBUS_PUBLISH);
	/* a superuser may alter the channel of one who may not */
	owner_name = GetUserNameFromId(owner, true);
	if (owner_name &&
		!mbus_channel_allows_role(target, owner, MBUS_PUBLISH))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("channel \"%s\" cannot be the dead-letter channel of \"%s\"",
						dead_letter, channel),
				 errdetail("Role \"%s\", who is to own the channel, has no privilege to publish there.",
						   owner_name)));
	target_id = target->channel_id;
	found = mbus_channel_by_name(schema, channel);
	/* names between the two are not for everybody */
	if (found && leads_to(schema, target_id, found->channel_id))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel \"%s\" cannot be the dead-letter channel of \"%s\"",
						dead_letter, channel),
				 errdetail("Its own dead letters would come back there.")));
	return target_id;
}

/*
 * leads_to tells whether what dies in a channel may get to another one.  A
 * restore may have brought a circle: a channel that is met twice ends the way.
 */
static bool
leads_to(Oid schema, int32 from, int32 channel_id)
{
	List	   *passed = NIL;
	int32		at = from;

	while (at != channel_id)
	{
		const MbusPolicy *policy = mbus_channel_policy(schema, at);

		CHECK_FOR_INTERRUPTS();
		if (policy == NULL || !policy->dead_letters ||
			list_member_int(passed, at))
			return false;
		passed = lappend_int(passed, at);
		at = policy->dead_letter_id;
	}
	return true;
}
