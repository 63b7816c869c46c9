/*
 * verify_state.c
 *		Whether channels are as they were last changed.
 *
 * What was last done to a channel is the row of log_action with the highest
 * number, which has the channel's row in its details.  A channel that is
 * another one, or is there though it was dropped, or is not there though it
 * was not, was changed by somebody who is no function of the bus.
 *
 * Not compared is what changes by itself: who owns it and where that was
 * written down, after a restore; what a purge has removed; and the number of the
 * dead-letter channel.  A channel of which no action is left says nothing, nor one
 * that was changed where actions had no number yet.
 *
 * Memory: 24 bytes for a channel that was changed, and a row.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "action/action.h"
#include "base/columns.h"
#include "base/schema.h"
#include "log/sound.h"
#include "log/verify.h"
#include "segment/leaf_scan.h"

/* What was last done to a channel; in a hash table. */
typedef struct LastChange
{
	int32		channel_id;		/* key */
	bool		there;			/* the channel */
	bool		unordered;		/* one of its changes has no number yet */
	int64		no;
} LastChange;

typedef struct StateWork
{
	MbusVerify *v;
	HTAB	   *changes;
} StateWork;

/* What is in details and not compared. */
static const char *const passing[] = {"change", "owner", "owner_at", "buses",
"dead_letter_id", "purged_to", "purge_kept"};

static void state_work(void *arg);
static void changes_read(StateWork *work);
static void channels_compare(StateWork *work);
static void missing_tell(StateWork *work);
static Datum details_read(const StateWork *work, const LastChange *last);
static bool is_dropped(Datum details);
static Datum lasting_part(Datum details);
static Datum channel_details(HeapTuple tuple, TupleDesc desc);
static void state_fault(const StateWork *work, int32 channel_id);

/*
 * mbus_verify_state tells of channels that are not as they were last changed.
 */
void
mbus_verify_state(MbusVerify *v)
{
	MemoryContext caller = MemoryContextSwitchTo(v->part);
	StateWork	work = {.v = v};

	if (!mbus_verify_try(state_work, &work))
		mbus_verify_fault(v, -1, "channel", -1, 0, "unreadable");
	MemoryContextSwitchTo(caller);
	MemoryContextReset(v->part);
}

static void
state_work(void *arg)
{
	StateWork  *work = arg;
	HASHCTL		info = {0};

	info.keysize = sizeof(int32);
	info.entrysize = sizeof(LastChange);
	info.hcxt = work->v->part;
	work->changes = hash_create("message_bus changes of channels", 64, &info,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	changes_read(work);
	channels_compare(work);
	missing_tell(work);
}

/* Finds the last change of each channel. */
static void
changes_read(StateWork *work)
{
	Relation	rel = mbus_verify_table(work->v, MBUS_LOG_ACTION, 0);
	TupleDesc	desc = RelationGetDescr(rel);
	TableScanDesc scan = table_beginscan(rel, work->v->snapshot, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		bool		found;
		text	   *kind;
		int32		channel_id;
		int64		no;
		LastChange *last;

		CHECK_FOR_INTERRUPTS();
		if (!mbus_sound_row(MBUS_LOG_ACTION, tuple, desc))
			continue;			/* told as what it is */
		kind = DatumGetTextPP(heap_getattr(tuple, MBUS_ACTION_KIND, desc,
										   &isnull));
		channel_id = DatumGetInt32(heap_getattr(tuple,
												MBUS_ACTION_CHANNEL_ID, desc,
												&isnull));
		if (isnull || VARSIZE_ANY_EXHDR(kind) != strlen("channel") ||
			memcmp(VARDATA_ANY(kind), "channel", strlen("channel")) != 0)
			continue;
		no = DatumGetInt64(heap_getattr(tuple, MBUS_ACTION_NO, desc,
										&isnull));
		last = hash_search(work->changes, &channel_id, HASH_ENTER, &found);
		if (!found)
		{
			last->there = last->unordered = false;
			last->no = no;
		}
		last->unordered = last->unordered || no < 0;
		last->no = Max(last->no, no);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Compares the channels that are there. */
static void
channels_compare(StateWork *work)
{
	Relation	rel = table_open(mbus_relation(work->v->schema, "channel"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	TableScanDesc scan = table_beginscan(rel, work->v->snapshot, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		MemoryContext caller;
		LastChange *last;
		bool		isnull;
		int32		channel_id;
		Datum		details;

		CHECK_FOR_INTERRUPTS();
		if (!mbus_sound(tuple, desc))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a row of message_bus.channel is damaged")));
		channel_id = DatumGetInt32(heap_getattr(tuple, MBUS_CHANNEL_ID, desc,
												&isnull));
		last = hash_search(work->changes, &channel_id, HASH_FIND, NULL);
		if (last == NULL)
			continue;
		last->there = true;
		if (last->unordered)
			continue;
		caller = MemoryContextSwitchTo(work->v->row);
		details = details_read(work, last);
		if (details != (Datum) 0 &&
			(is_dropped(details) ||
			 !DatumGetBool(DirectFunctionCall2(jsonb_eq,
											   lasting_part(details),
											   lasting_part(channel_details(tuple, desc))))))
			state_fault(work, channel_id);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work->v->row);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Tells which are not there, and were not dropped. */
static void
missing_tell(StateWork *work)
{
	HASH_SEQ_STATUS status;
	LastChange *last;

	hash_seq_init(&status, work->changes);
	while ((last = hash_seq_search(&status)) != NULL)
	{
		MemoryContext caller;
		Datum		details;

		CHECK_FOR_INTERRUPTS();
		if (last->there || last->unordered)
			continue;
		caller = MemoryContextSwitchTo(work->v->row);
		details = details_read(work, last);
		if (details != (Datum) 0 && !is_dropped(details))
			state_fault(work, last->channel_id);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work->v->row);
	}
}

/* The details of a change, as jsonb; 0 if they are gone. */
static Datum
details_read(const StateWork *work, const LastChange *last)
{
	Relation	rel = mbus_verify_table(work->v, MBUS_LOG_ACTION, 0);
	MbusLeafScan rows;
	HeapTuple	tuple;
	Datum		details = (Datum) 0;

	mbus_leaf_scan_open(&rows, rel, MBUS_ACTION_NO, 0, false);
	mbus_leaf_scan_int8(&rows, MBUS_ACTION_NO, last->no, last->no);
	mbus_leaf_scan_begin(&rows, work->v->snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple && mbus_sound(tuple, RelationGetDescr(rel)))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, MBUS_ACTION_DETAILS,
										 RelationGetDescr(rel), &isnull);

		if (!isnull)
			details = DirectFunctionCall1(jsonb_in,
										  CStringGetDatum(TextDatumGetCString(value)));
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return details;
}

/* Whether that was a drop. */
static bool
is_dropped(Datum details)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		change;

	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = details;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = CStringGetTextDatum("change");
	fcinfo->args[1].isnull = false;
	change = jsonb_object_field_text(fcinfo);
	return !fcinfo->isnull &&
		strcmp(TextDatumGetCString(change), "dropped") == 0;
}

/* Without what is not compared. */
static Datum
lasting_part(Datum details)
{
	for (int i = 0; i < (int) lengthof(passing); i++)
		details = DirectFunctionCall2(jsonb_delete, details,
									  CStringGetTextDatum(passing[i]));
	return details;
}

/* A channel's row as details have it. */
static Datum
channel_details(HeapTuple tuple, TupleDesc desc)
{
	MbusAction	action;

	mbus_action_begin(&action, "channel", 0, "");
	mbus_action_tuple(&action, tuple, desc);
	appendStringInfoChar(&action.details, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(action.details.data));
}

/* Adds the fault, whose memory is not a row's. */
static void
state_fault(const StateWork *work, int32 channel_id)
{
	MemoryContext caller = MemoryContextSwitchTo(work->v->part);

	mbus_verify_fault(work->v, -1, "channel", channel_id, 0, "state");
	MemoryContextSwitchTo(caller);
}
