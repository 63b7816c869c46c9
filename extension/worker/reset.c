/*
 * reset.c
 *		A database's part of shared memory begins anew, or is let go.
 *
 * The worker does it when the extension has gone or is another one, the
 * launcher when the database was dropped.
 */
#include "postgres.h"

#include "storage/lwlock.h"

#include "delivery/pool.h"
#include "delivery/sub.h"
#include "state/registry.h"
#include "state/scrub_state.h"
#include "state/state.h"
#include "worker/reset.h"

/*
 * mbus_database_reset makes the slot that of a new extension (or of none):
 * nothing is open, nothing is delivered, and publishers wait until the worker
 * sets "ready".  Takes the delivery lock and the state lock; hold none.
 */
void
mbus_database_reset(MbusDatabase *db, Oid schema)
{
	Oid			old;

	LWLockAcquire(mbus_delivery_lock(), LW_EXCLUSIVE);
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	old = db->schema;
	db->schema = schema;
	db->delivery.lease_epoch = 0;
	db->delivery.lease_next = 0;
	db->delivery.ndefault_wanted = 0;
	db->delivery.nsub_wanted = 0;
	db->delivery.subs_full = false;
	db->numbering.ready = false;
	db->numbering.refused = false;
	db->numbering.next_segment = 0;
	db->numbering.opening = 0;
	db->numbering.nrestoring = 0;
	db->numbering.crowd_hi = 0;
	db->numbering.gap = 0;
	db->numbering.roll_below = 0;
	pg_atomic_write_u32(&db->numbering.known, 0);
	pg_atomic_write_u32(&db->numbering.hiding, 0);
	pg_atomic_write_u64(&db->numbering.filled_at, 0);
	pg_atomic_write_u64(&db->numbering.bodies_filled_at, 0);
	MemSet(db->series, 0, sizeof(db->series));
	MemSet(&db->stores, 0, sizeof(db->stores));
	MemSet(&db->facts, 0, sizeof(db->facts));
	db->faults.ring.tail = db->faults.ring.head;
	MemSet(db->faults.share, 0, sizeof(db->faults.share));
	db->reads.ring.tail = db->reads.ring.head;
	MemSet(&db->scrub.status, 0, sizeof(db->scrub.status));
	mbus_quarantine_unknown(db);
	db->disk.full_since = 0;
	db->disk.told = false;
	pg_atomic_write_u32(&db->disk.full, 0);
	LWLockRelease(&db->lock);
	LWLockRelease(mbus_delivery_lock());
	mbus_registry_forget(db);
	if (OidIsValid(old))
		mbus_subs_forget(db->database, old);
}
