/*
 * verify_state.c
 *		Whether channels are as they were last changed.
 *
 * What was last done to a channel is the row of log_action with the highest
 * number, which has the channel's row in its details.  A channel that is
 * another one, or is there though it was dropped, or is not there though it
 * was not, was changed by somebody who is no function of the bus.  Where a
 * restore has put a channel in the place of another one, its number has
 * changes of both: they are told apart by when the channel was made.
 *
 * Not compared is what changes by itself: who owns it and where that was
 * written down, after a restore; what a purge has removed; and the number of the
 * dead-letter channel.  A channel of which no action is left says nothing, nor one
 * that was changed where actions had no number yet.
 *
 * Memory: 32 bytes for a channel, and a row.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
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
	uint64		made;			/* a hash of when; 0: whichever */
	int64		no;				/* 0: none */
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
static void channels_read(StateWork *work);
static void changes_read(StateWork *work);
static void change_take(StateWork *work, HeapTuple tuple, TupleDesc desc);
static bool state_is_right(const StateWork *work, const LastChange *last);
static HeapTuple row_read(const StateWork *work, const char *table,
						  int64 number, TupleDesc *desc);
static char *member(Datum details, const char *name);
static uint64 made_hash(Datum details);
static Datum lasting_part(Datum details);
static Datum channel_details(HeapTuple tuple, TupleDesc desc);

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
	HASH_SEQ_STATUS status;
	LastChange *last;

	info.keysize = sizeof(int32);
	info.entrysize = sizeof(LastChange);
	info.hcxt = work->v->part;
	work->changes = hash_create("message_bus changes of channels", 64, &info,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	channels_read(work);
	changes_read(work);
	hash_seq_init(&status, work->changes);
	while ((last = hash_seq_search(&status)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(work->v->row);
		bool		right = state_is_right(work, last);

		MemoryContextSwitchTo(caller);
		MemoryContextReset(work->v->row);
		if (!right)
			mbus_verify_fault(work->v, -1, "channel", last->channel_id, 0,
							  "state");
		CHECK_FOR_INTERRUPTS();
	}
}

/* Finds which channels are there. */
static void
channels_read(StateWork *work)
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

		CHECK_FOR_INTERRUPTS();
		if (!mbus_sound(tuple, desc))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a row of message_bus.channel is damaged")));
		channel_id = DatumGetInt32(heap_getattr(tuple, MBUS_CHANNEL_ID, desc,
												&isnull));
		last = hash_search(work->changes, &channel_id, HASH_ENTER, NULL);
		last->there = true;
		last->unordered = false;
		last->no = 0;
		caller = MemoryContextSwitchTo(work->v->row);
		last->made = made_hash(channel_details(tuple, desc));
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work->v->row);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Finds the last change of each channel. */
static void
changes_read(StateWork *work)
{
	Relation	rel = mbus_verify_table(work->v, MBUS_LOG_ACTION, 0);
	TableScanDesc scan = table_beginscan(rel, work->v->snapshot, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(work->v->row);

		change_take(work, tuple, RelationGetDescr(rel));
		MemoryContextSwitchTo(caller);
		MemoryContextReset(work->v->row);
		CHECK_FOR_INTERRUPTS();
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Takes note of a change, if it is one of a channel. */
static void
change_take(StateWork *work, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull[MBUS_ACTION_DETAILS + 1];
	Datum		value[MBUS_ACTION_DETAILS + 1];
	LastChange *last;
	bool		found;
	int32		channel_id;
	int64		no;

	/* told as what it is */
	if (desc->natts != MBUS_ACTION_DETAILS || !mbus_sound(tuple, desc))
		return;
	heap_deform_tuple(tuple, desc, value + 1, isnull + 1);
	if (isnull[MBUS_ACTION_KIND] || isnull[MBUS_ACTION_CHANNEL_ID] ||
		isnull[MBUS_ACTION_DETAILS] || isnull[MBUS_ACTION_NO] ||
		strcmp(TextDatumGetCString(value[MBUS_ACTION_KIND]), "channel") != 0)
		return;
	channel_id = DatumGetInt32(value[MBUS_ACTION_CHANNEL_ID]);
	no = DatumGetInt64(value[MBUS_ACTION_NO]);
	last = hash_search(work->changes, &channel_id, HASH_ENTER, &found);
	if (!found)
	{
		last->there = last->unordered = false;
		last->made = 0;
		last->no = 0;
	}
	if (last->made != 0)
	{
		char	   *details = TextDatumGetCString(value[MBUS_ACTION_DETAILS]);

		if (made_hash(DirectFunctionCall1(jsonb_in,
										  CStringGetDatum(details))) != last->made)
			return;
	}
	last->unordered = last->unordered || no < 0;
	last->no = Max(last->no, no);
}

/* Whether a channel is as it was last changed, or not there and dropped. */
static bool
state_is_right(const StateWork *work, const LastChange *last)
{
	TupleDesc	desc;
	HeapTuple	tuple;
	Datum		details;
	bool		isnull;

	if (last->unordered || last->no == 0)
		return true;
	tuple = row_read(work, "log_action", last->no, &desc);
	if (tuple == NULL || !mbus_sound(tuple, desc))
		return true;			/* told as what it is */
	details = heap_getattr(tuple, MBUS_ACTION_DETAILS, desc, &isnull);
	if (isnull)
		return true;
	details = DirectFunctionCall1(jsonb_in,
								  CStringGetDatum(TextDatumGetCString(details)));
	if (strcmp(member(details, "change"), "dropped") == 0)
		return !last->there;
	if (!last->there)
		return false;
	tuple = row_read(work, "channel", last->channel_id, &desc);
	return tuple != NULL &&
		DatumGetBool(DirectFunctionCall2(jsonb_eq, lasting_part(details),
										 lasting_part(channel_details(tuple,
																	  desc))));
}

/* A copy of the row that a table has under a number, its first column. */
static HeapTuple
row_read(const StateWork *work, const char *table, int64 number,
		 TupleDesc *desc)
{
	Relation	rel = table_open(mbus_relation(work->v->schema, table),
								 AccessShareLock);
	MbusLeafScan rows;
	HeapTuple	tuple;

	*desc = CreateTupleDescCopy(RelationGetDescr(rel));
	mbus_leaf_scan_open(&rows, rel, 1, 0, false);
	if (TupleDescAttr(*desc, 0)->atttypid == INT4OID)
		mbus_leaf_scan_int4(&rows, 1, (int32) number);
	else
		mbus_leaf_scan_int8(&rows, 1, number, number);
	mbus_leaf_scan_begin(&rows, work->v->snapshot);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple)
		tuple = heap_copytuple(tuple);
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
	return tuple;
}

/* A member of an object, as text; "" if there is none. */
static char *
member(Datum details, const char *name)
{
	LOCAL_FCINFO(fcinfo, 2);
	Datum		value;

	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = details;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = CStringGetTextDatum(name);
	fcinfo->args[1].isnull = false;
	value = jsonb_object_field_text(fcinfo);
	return fcinfo->isnull ? pstrdup("") : TextDatumGetCString(value);
}

/* A hash of when a channel was made, not 0. */
static uint64
made_hash(Datum details)
{
	char	   *made = member(details, "created_at");

	return hash_bytes_extended((const unsigned char *) made,
							   (int) strlen(made), 0) | 1;
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
