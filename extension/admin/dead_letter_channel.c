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
 * A channel is named, and may be dropped and made again: so a new one is looked
 * at as one that is changed.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"

#include "admin/dead_letter_channel.h"
#include "base/schema.h"
#include "channel/channel.h"

static bool leads_to(Oid schema, const char *from, const char *channel);

/*
 * mbus_dead_letter_channel_check errors unless a channel may have the other
 * one for its dead letters ('' is none): 42P01 if that is not there, 42501 if
 * the current user may not publish there, 22023 if it is the channel itself or
 * leads back to it.
 */
void
mbus_dead_letter_channel_check(Oid schema, const char *channel,
							   const char *dead_letter)
{
	const MbusChannel *target;

	if (strcmp(dead_letter, channel) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel \"%s\" cannot be its own dead-letter channel",
						channel)));
	if (dead_letter[0] == '\0')
		return;
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
	/* names between the two are not for everybody */
	if (leads_to(schema, dead_letter, channel))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel \"%s\" cannot be the dead-letter channel of \"%s\"",
						dead_letter, channel),
				 errdetail("Its own dead letters would come back there.")));
}

/*
 * leads_to tells whether what dies in a channel may get to another one.  A
 * restore may have brought a circle: a channel that is met twice ends the way.
 */
static bool
leads_to(Oid schema, const char *from, const char *channel)
{
	List	   *passed = NIL;
	char	   *at = pstrdup(from);

	for (;;)
	{
		const MbusChannel *found = mbus_channel_by_name(schema, at);
		const MbusPolicy *policy;

		CHECK_FOR_INTERRUPTS();
		if (found == NULL || list_member_int(passed, found->channel_id))
			return false;
		passed = lappend_int(passed, found->channel_id);
		policy = mbus_channel_policy(schema, found->channel_id);
		if (policy == NULL || policy->dead_letter[0] == '\0')
			return false;
		if (strcmp(policy->dead_letter, channel) == 0)
			return true;
		at = pstrdup(policy->dead_letter);
	}
}
