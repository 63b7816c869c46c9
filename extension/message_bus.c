/*
 * message_bus.c
 *		The library's entry: magic block and _PG_init.
 *
 * The sources lie in rooms (folders); README.md tells what is in each.  ROOMS
 * says which rooms a room may use, and tools/rooms checks it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/settings.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/effect.h"
#include "delivery/pool.h"
#include "delivery/scanner.h"
#include "identity/jwt_key.h"
#include "segment/leaf.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/waiter.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	mbus_settings_init();
	mbus_channel_init();
	mbus_jwt_key_init();
	mbus_leaf_init();
	mbus_subscription_init();

	/*
	 * Loaded later than at server start there is no shared memory: functions
	 * that need it say so.
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;
	mbus_delivery_init();
	mbus_wait_init();
	mbus_state_init();
	mbus_registry_init();
	/* the last one registered is called first: a seek before its slot goes */
	mbus_scanner_init();
	mbus_effect_init();
	if (!IsBinaryUpgrade)
		mbus_launcher_init();
}
