/*
 * message_bus.c
 *		The library's entry: magic block and _PG_init.
 *
 * _PG_init defines the settings and lets each part register what it needs.
 * Two orders matter.  Parts of shared memory are laid out as they register:
 * the clock before what reads it.  Callbacks of a transaction's
 * end run in the opposite order of registration: delivery/effect.c (what the
 * transaction has done to leases), then delivery/scanner.c (the scanner slots
 * it holds), then state/registry.c (the ids it has published), then
 * state/tally.c (what it has counted), then state/channel_slot.c (the channels
 * it has dropped, which then have no slot any more).
 *
 * The sources lie in rooms (folders).  README.md tells what each is; ROOMS
 * says which rooms a room may use, and tools/rooms checks it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/publication.h"
#include "audit/message_view.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "channel/publisher.h"
#include "channel/subscription.h"
#include "delivery/effect.h"
#include "delivery/pool.h"
#include "delivery/scanner.h"
#include "identity/ended.h"
#include "identity/jwt_key.h"
#include "segment/dump.h"
#include "segment/era.h"
#include "segment/fill.h"
#include "segment/leaf.h"
#include "state/channel_slot.h"
#include "state/clock.h"
#include "state/filter.h"
#include "state/read_ring.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/store.h"
#include "state/tally.h"
#include "state/verifying.h"
#include "state/waiter.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

/*
 * _PG_init runs once in each process that loads the library: in the postmaster
 * if it is preloaded, else in a backend at the first call of one of its
 * functions.
 */
void
_PG_init(void)
{
	mbus_settings_init();
	mbus_channel_init();
	mbus_publisher_init();
	mbus_jwt_key_init();
	mbus_ended_init();
	mbus_leaf_init();
	mbus_era_init();
	mbus_subscription_init();
	mbus_message_plan_init();

	/*
	 * Loaded later than at server start there is no shared memory: functions
	 * that need it say so.
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;
	mbus_publication_init();
	mbus_delivery_init();
	mbus_wait_init();
	mbus_filter_init();
	mbus_clock_init();
	mbus_channel_slot_init();
	mbus_tally_init();
	mbus_verifying_init();
	mbus_state_init();
	mbus_registry_init();
	mbus_store_init();
	mbus_dump_init();
	mbus_fill_init();
	mbus_read_ring_init();
	/* the last one registered is called first: a seek before its slot goes */
	mbus_scanner_init();
	mbus_effect_init();
	if (!IsBinaryUpgrade)
		mbus_launcher_init();
}
