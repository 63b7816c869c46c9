/*
 * roles.c
 *		The worker marks roles that were dropped as missing.
 *
 * DROP ROLE may be run in any database, and looks for what belongs to the role
 * only in what the server knows to be a role's.  So owners and grantees
 * (base/role.c) are left behind.  Nobody has their rights, for their OIDs are
 * nobody's; and before an OID is given out again, which takes a turn of all
 * OIDs, or pg_resetwal, they are marked.  New names are written down, too: it is
 * by its last one that a missing role is told.
 *
 * Where they were written down (owner_at) is put right, too: pg_upgrade keeps OIDs
 * and gives the cluster another identifier.
 *
 * The server tells all backends when a role was dropped or altered.  The worker
 * looks then, and when it starts; a look that failed is done again.
 *
 * Locks: those of an UPDATE of the rows that change, mostly none.  They are
 * waited for 50 ms.
 */
#include "postgres.h"

#include "utils/inval.h"
#include "utils/syscache.h"

#include "worker/roles.h"
#include "worker/task.h"

static bool roles_changed = true;	/* since the last look */
static Oid	roles_schema = InvalidOid;	/* that this was at */

static void roles_invalidate(Datum arg, int cacheid, uint32 hashvalue);
static MbusOutcome roles_settle(MbusWork *work, void *arg);

/*
 * mbus_roles_init registers the invalidation; when the worker starts.
 */
void
mbus_roles_init(void)
{
	CacheRegisterSyscacheCallback(AUTHOID, roles_invalidate, (Datum) 0);
}

static void
roles_invalidate(Datum arg, int cacheid, uint32 hashvalue)
{
	roles_changed = true;
}

/*
 * mbus_roles_look writes down what has become of owners and grantees, if roles
 * have changed.
 */
void
mbus_roles_look(MbusWork *work)
{
	if ((!roles_changed && roles_schema == work->schema) ||
		!mbus_tasks_begin(work, MBUS_TASK_ROLES, false))
		return;
	/* what is invalidated while we look is looked at again */
	roles_changed = false;
	if (mbus_task_run(work, MBUS_TASK_ROLES, roles_settle, NULL,
					  "looking for roles that were dropped") == MBUS_DONE)
		roles_schema = work->schema;
	else
		roles_changed = true;
	mbus_tasks_end(work, MBUS_TASK_ROLES);
}

static MbusOutcome
roles_settle(MbusWork *work, void *arg)
{
	static const char *const column[][2] = {
		{"channel", "owner"},
		{"channel_grant", "grantee"},
		{"subscription", "owner"},
	};

	mbus_task_begin();
	mbus_task_hold_extension(work);
	/* on 15 and 16 triggers are off, see MBUS_NO_EVENT_TRIGGERS */
	mbus_sql("SET LOCAL session_replication_role = origin");
	mbus_task_become_owner(work);
	for (int i = 0; i < (int) lengthof(column); i++)
		mbus_sql("UPDATE message_bus.%s SET"
				 " %s = coalesce(message_bus.role_settled(%s), %s)"
				 " WHERE message_bus.role_settled(%s) IS NOT NULL"
				 " OR %s_at IS DISTINCT FROM message_bus.role_at(%s)",
				 column[i][0], column[i][1], column[i][1], column[i][1],
				 column[i][1], column[i][1], column[i][1]);
	mbus_task_commit();
	return MBUS_DONE;
}
