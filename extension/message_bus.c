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
 *	fault.c				failures: counted, kept, told
 *	relay.c				frames of a gateway, and the files named there
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "channel.h"
#include "leaf.h"
#include "relay.h"
#include "settings.h"
#include "state.h"
#include "worker.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	mbus_settings_init();
	mbus_channel_init();
	mbus_leaf_init();

	/*
	 * Loaded later than at server start there is no shared memory: functions
	 * that need it say so.
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;
	mbus_state_init();
	if (!IsBinaryUpgrade)
		mbus_launcher_init();
}
