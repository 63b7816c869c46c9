/*
 * message_bus.c
 *		The library's entry: magic block and _PG_init.
 *
 * Each file is one subject:
 *
 *	settings.c			settings (GUCs)
 *	state.c				shared memory, registry of unfinished publishes
 *	launcher.c			starts one worker for each listed database
 *	worker.c			a worker's loop and its tasks
 *	worker_task.c		runs one task; worker_sql.c shows and asks from SQL
 *	segment_open.c		numbers, opens and rolls segments
 *	segment_close.c		closes them; segment_retire.c drops them
 *	leaf.c				finds the tables of a segment without their parents
 *	channel.c			channels as publishers and readers see them
 *	channel_admin.c		create, alter, drop, grant, revoke
 *	publish.c			publish functions
 *	insert.c			rows into the open segment
 *	transaction_id.c	the caller's own ids: once in a channel
 *	payload.c			checksum, compression, JSON check
 *	stored.c			stored messages: found, read, verified
 *	read.c				get, get_bytes, get_by_transaction, retrieve, delete
 *	peek.c				a channel's messages by id, with no gaps
 *	delivery.c			shared memory of deliveries: subscriptions, leases
 *	scanner.c, scan.c	the scan of a claim; scan_read.c reads for it
 *	claim.c				claim, claim_bytes
 *	effect.c			what an open transaction has claimed or acked
 *	hold.c				takes hold of a lease's entries for ack and nack
 *	ack.c				ack, nack, extend; dead_letter.c dead letters, redrive
 *	facts.c				acks and failures in the tables
 *	subscription.c		subscriptions as readers see them
 *	subscription_admin.c	create, drop, pause, resume, seek
 *	purge.c				purge_channel
 *	wait.c				sleeping until something may be there
 *	delivery_work.c		the worker's part, and the files named there
 *	fault.c				failures: counted, kept, told
 *	relay.c				frames of a gateway, and the files named there
 *	session.c			who its sockets speak for; control.c its control frames
 *	jwt.c				tokens; jwt_claims.c what they say, jwt_key.c their keys
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "base/settings.h"
#include "channel/channel.h"
#include "delivery/delivery.h"
#include "identity/jwt.h"
#include "segment/leaf.h"
#include "state/state.h"
#include "worker/task.h"

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
