/*
 * scan_facts.c
 *		What has become of messages that a scan may take.
 *
 * What comes from a time index, or from ids given out before the server
 * started, is only a candidate: it may be outstanding or done.  First it is
 * asked in memory whether it has an entry, and then, with a snapshot that is
 * newer than that answer, what the tables say: whose entry went before had
 * committed, and the tables tell.  Only the scanner gives entries, so none
 * comes meanwhile.  The other order, or an older snapshot, delivers twice.
 */
#include "postgres.h"

#include "storage/lwlock.h"
#include "utils/snapmgr.h"

#include "base/ids.h"
#include "delivery/pool.h"
#include "delivery/scan_facts.h"
#include "delivery/scanning.h"
#include "facts/facts.h"

#define ASKED_AT_A_TIME	256		/* the lock is held as long */

static int	not_busy(uint32 slot, MbusFacts *facts, int n);

/*
 * mbus_scan_facts drops, of candidates by ascending id, those that have an
 * entry, and fills in what the tables say of the others; returns how many they
 * are.
 */
int
mbus_scan_facts(MbusScan *scan, MbusFacts *facts, int n)
{
	Snapshot	snapshot;

	n = not_busy(scan->slot, facts, n);
	if (n == 0)
		return 0;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	/* as in mbus_scan: not what this transaction has written */
	snapshot->curcid = FirstCommandId;
	mbus_facts(scan->schema, scan->sub.subscription_id,
			   scan->sub.since_lease, facts, n, snapshot);
	UnregisterSnapshot(snapshot);
	return n;
}

/* Keeps those without an entry. */
static int
not_busy(uint32 slot, MbusFacts *facts, int n)
{
	int			left = 0;

	for (int i = 0; i < n;)
	{
		int			end = Min(n, i + ASKED_AT_A_TIME);

		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		for (; i < end; i++)
		{
			if (mbus_entry_find(slot, facts[i].id) == MBUS_NONE)
				facts[left++].id = facts[i].id;
		}
		LWLockRelease(mbus_delivery_lock());
	}
	return left;
}
