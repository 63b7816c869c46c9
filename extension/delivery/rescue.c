/*
 * rescue.c
 *		Messages that become dead letters before they expire.
 *
 * Of a channel with dead_letter_expired, what a subscription has not got is
 * moved to the dead-letter channel before it expires; what was missed then,
 * because the server was down or the worker busy, afterwards, as long as its
 * segment is there.  The worker does this as a consumer that claims just these
 * messages and gives them back for good, in one transaction: the scan is an
 * ordinary one (scan.c), but that it reads the rows of all segments and leaves
 * the positions where they are.
 *
 * An id above the cursor is then done although no scan has come to it.  So
 * check_below is raised above it in the step that gives it an entry: a scan
 * that comes there asks memory, and then the tables.
 *
 * What is out is left alone: if it fails too late it becomes a dead letter then
 * (fail.c).  Keys do not matter: what expires has no place behind another.
 *
 * Where dead letters do not go, because the dead-letter channel was dropped or
 * the channel's owner may not publish there, nothing is moved: in its place it
 * would only lie until it expires, and a consumer may still get it until then.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lwlock.h"

#include "base/ids.h"
#include "channel/dead_letter_target.h"
#include "channel/subscription.h"
#include "delivery/fail.h"
#include "delivery/hold.h"
#include "delivery/pool.h"
#include "delivery/rescue.h"
#include "delivery/scan.h"
#include "delivery/scanner.h"
#include "delivery/scanning.h"
#include "delivery/slot.h"
#include "delivery/sub.h"

#define BATCH		1000
#define LEASE_US	(60 * USECS_PER_SEC)	/* the transaction ends it */

/*
 * mbus_rescue moves messages of a subscription that expire by a time, or have
 * expired; *moved is how many.  For the worker, in a transaction of its own.
 * Errors: as mbus_publish_waived, 53400.
 */
MbusRescued
mbus_rescue(Oid schema, MbusDatabase *db, int32 subscription_id,
			TimestampTz until, int *moved)
{
	const MbusSubscription *subscription;
	const MbusChannel *target;
	MbusScan	scan = {0};
	MbusHolding holding;
	bool		recorded;

	*moved = 0;
	subscription = mbus_subscription_by_id(schema, subscription_id);
	if (subscription == NULL)
		return MBUS_RESCUE_DONE;
	scan.schema = schema;
	scan.db = db;
	scan.channel_id = subscription->channel_id;
	scan.wanted_at = subscription->wanted_at;
	if (mbus_target_find(schema, scan.channel_id, &target) !=
		MBUS_TARGET_READY)
		return MBUS_RESCUE_DONE;
	scan.batch = BATCH;
	scan.max_bytes = PG_INT64_MAX;
	scan.lease_us = LEASE_US;
	scan.until = until;

	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	scan.slot = mbus_sub_find(db->database, schema, subscription_id);
	LWLockRelease(mbus_delivery_lock());
	if (scan.slot == MBUS_NONE)
		(void) mbus_slot_want(db, subscription_id);
	if (scan.slot == MBUS_NONE ||
		!mbus_scanner_try(scan.slot, schema, subscription_id))
		return MBUS_RESCUE_LATER;
	recorded = mbus_scan(&scan);
	mbus_scanner_release();
	if (!recorded)
		return MBUS_RESCUE_LATER;
	if (scan.lease == 0)
		return MBUS_RESCUE_DONE;

	if (!mbus_hold(schema, db, scan.lease, -1, NULL, MBUS_PIN_NACK, &holding))
		elog(ERROR, "lease " INT64_FORMAT " is not held", scan.lease);
	mbus_fail_unclaimed(schema, db, &holding);
	*moved = holding.n;
	return scan.full ? MBUS_RESCUE_MORE : MBUS_RESCUE_DONE;
}
