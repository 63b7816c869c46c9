/*
 * owned.c
 *		How many channels and subscriptions a role may own.
 *
 * Shared memory knows the newest id of so many channels, and has slots for so
 * many subscriptions, of all databases.  So that nobody uses them up for
 * others a role may own message_bus.max_channels_per_role of the one, and
 * message_bus.max_subscriptions_per_role of the other; superusers, who can set
 * these, any number.
 *
 * Who makes one, or is about to own one, holds a lock until the transaction
 * ends that others wait for who do so for the same role, and for nobody else:
 * so that they count what he has made.  A subscription "default" is made by
 * the worker, which waits for nobody; the claim that asks for it only counts,
 * and so a few more may come about than a role may own, one for each claim
 * that is at it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/rel.h"

#include "base/columns.h"
#include "base/role.h"
#include "base/schema.h"
#include "base/settings.h"
#include "channel/owned.h"

static int	owned_count(Oid schema, MbusOwned what, Oid owner, int most);

/*
 * mbus_owned_lock makes those wait who let the role own one more, and checks
 * that it may; 53400.
 */
void
mbus_owned_lock(Oid schema, MbusOwned what, Oid owner)
{
	if (superuser_arg(owner))
		return;
	/* first, as who chooses a series has it: see admin/channel_admin.c */
	LockRelationOid(mbus_relation(schema, "channel"), RowExclusiveLock);
	/* others have locks on channels, with 0 */
	LockDatabaseObject(mbus_relation(schema, "channel"), owner,
					   (uint16) what + 1, ExclusiveLock);
	mbus_owned_check(schema, what, owner);
}

/*
 * mbus_owned_check errors with 53400 if a role owns all that it may.
 */
void
mbus_owned_check(Oid schema, MbusOwned what, Oid owner)
{
	bool		channels = what == MBUS_OWNED_CHANNELS;
	int			most = channels ? mbus_max_channels_per_role :
	mbus_max_subscriptions_per_role;

	if (superuser_arg(owner))
		return;
	if (owned_count(schema, what, owner, most) < most)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("role \"%s\" owns too many %s",
					GetUserNameFromId(owner, false),
					channels ? "channels" : "subscriptions"),
			 errdetail("It owns %d and may not own more, as \"message_bus.%s\" says.",
					   most, channels ? "max_channels_per_role" :
					   "max_subscriptions_per_role"),
			 errhint("Drop some, or have an administrator raise the setting.")));
}

/*
 * owned_count counts what a role owns, as it is committed or own by now, up to
 * "most".  It locks nothing for longer than it looks: a claim that waits calls
 * it, too.
 */
static int
owned_count(Oid schema, MbusOwned what, Oid owner, int most)
{
	bool		channels = what == MBUS_OWNED_CHANNELS;
	AttrNumber	column = channels ? MBUS_CHANNEL_OWNER :
	MBUS_SUBSCRIPTION_OWNER;
	Relation	rel = table_open(mbus_relation(schema, channels ? "channel" :
											   "subscription"),
								 AccessShareLock);
	SysScanDesc rows;
	HeapTuple	tuple;
	int			n = 0;

	rows = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (n < most && HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (mbus_role_live(heap_getattr(tuple, column, RelationGetDescr(rel),
										&isnull)) == owner)
			n++;
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	return n;
}
