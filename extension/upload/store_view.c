/*
 * store_view.c
 *		What is in a store, for the view body_stores.
 *
 * All rows of the table are looked at, without their bytes, and the rows of
 * body_hold: for who watches now and then, not for who asks all the time.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "funcapi.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/columns.h"
#include "base/schema.h"
#include "body/body.h"
#include "body/part.h"
#include "message/stored.h"
#include "segment/leaf_scan.h"
#include "state/fault.h"
#include "state/store.h"
#include "upload/upload.h"

/* A body that is held. */
typedef struct Held
{
	int64		body;
	int64		size;
} Held;

/* Bodies that are held, each as often as by messages. */
typedef struct HeldList
{
	int			n;
	int			room;
	Held	   *held;
} HeldList;

static void parts_count(Oid relid, int64 *parts, int64 *bytes);
static int64 held_bytes(Oid schema, int32 store_no);
static void held_read(Oid schema, int32 store_no, HeldList *list);
static void held_add(HeldList *list, int64 body, int64 size);
static int	held_compare(const void *a, const void *b);

/*
 * body_store_use(store_no) returns how many parts are in a store, their plain
 * bytes, and those of bodies that are held beyond its time; NULL if it has
 * gone.
 */
MBUS_FUNCTION(body_store_use)
{
	Oid			schema = mbus_schema();
	int32		store_no = PG_GETARG_INT32(0);
	int64		parts = 0;
	int64		bytes = 0;
	MbusBody	body;
	TupleDesc	desc;
	Datum		values[3];
	bool		isnull[3] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "body_store_use: not called for a row");
	if (!mbus_body_find(schema, MbusBodyOf(store_no, 0), AccessShareLock,
						&body))
		PG_RETURN_NULL();
	parts_count(body.relid, &parts, &bytes);
	values[0] = Int64GetDatum(parts);
	values[1] = Int64GetDatum(bytes);
	values[2] = Int64GetDatum(held_bytes(schema, store_no));
	/* the view asks of all stores: not a lock for each to its end */
	UnlockRelationOid(body.relid, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* Counts the parts of a store. */
static void
parts_count(Oid relid, int64 *parts, int64 *bytes)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc rows = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(rows, ForwardScanDirection)) != NULL)
	{
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		*parts += 1;
		*bytes += DatumGetInt32(heap_getattr(tuple, MBUS_PART_SIZE,
											 RelationGetDescr(rel), &isnull));
	}
	table_endscan(rows);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* Adds up the bodies of a store that messages hold which are there. */
static int64
held_bytes(Oid schema, int32 store_no)
{
	HeldList	list = {0};
	int64		bytes = 0;

	held_read(schema, store_no, &list);
	if (list.n == 0)
		return 0;
	qsort(list.held, list.n, sizeof(Held), held_compare);
	list.n = qunique(list.held, list.n, sizeof(Held), held_compare);
	for (int i = 0; i < list.n; i++)
		bytes += list.held[i].size;
	return bytes;
}

/* Reads who holds a body of a store now. */
static void
held_read(Oid schema, int32 store_no, HeldList *list)
{
	Relation	rel = table_open(mbus_relation(schema, "body_hold"),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller,
												  "message_bus holder",
												  ALLOCSET_DEFAULT_SIZES);
	MbusLeafScan rows;
	HeapTuple	tuple;
	MbusStored	message;

	mbus_leaf_scan_on(&rows, rel,
					  index_open(mbus_relation(schema, "body_hold_store_idx"),
								 AccessShareLock));
	mbus_leaf_scan_int4(&rows, MBUS_HOLD_STORE_NO, store_no);
	mbus_leaf_scan_begin(&rows, snapshot);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		bool		isnull;
		bool		found;
		int64		id = DatumGetInt64(heap_getattr(tuple, MBUS_HOLD_MESSAGE_ID,
													RelationGetDescr(rel),
													&isnull));

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		found = mbus_message_fetch_latest(schema, id, &message);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
		if (found)
			held_add(list, message.body, message.size);
	}
	mbus_leaf_scan_close(&rows);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	MemoryContextDelete(context);
}

static void
held_add(HeldList *list, int64 body, int64 size)
{
	if (list->n == list->room)
	{
		list->room = Max(64, list->room * 2);
		list->held = list->held ?
			repalloc(list->held, list->room * sizeof(Held)) :
			palloc(list->room * sizeof(Held));
	}
	list->held[list->n].body = body;
	list->held[list->n++].size = size;
}

static int
held_compare(const void *a, const void *b)
{
	int64		one = ((const Held *) a)->body;
	int64		other = ((const Held *) b)->body;

	return one < other ? -1 : one > other;
}
