/*
 * collect.c
 *		Rows that are to be logged, found and hashed.
 *
 * A cursor says which numbers are to be looked at: those from "to" on up to a
 * limit, and the pending ones, without those that are unfinished.  All of
 * these are settled under the active snapshot, which was taken after limit and
 * ranges were: a row is there, or never will be.  What is unfinished becomes
 * or stays pending.  So each number is looked at once, whatever ranges do
 * meanwhile, and a row is not logged twice.
 *
 * If there are more rows than a slice may have, the numbers are cut: only those
 * below the cut count, and the rest is as it was.  That works across tables,
 * which are read one after the other.  So it is when the slice's time is over:
 * the numbers are cut at the row that was read, what other tables have below
 * that is read too, and they are cut again if that takes long.
 *
 * What is being read is said to who has to know after an error (unread.c).
 *
 * Memory: entries are made in a context that is reset with each row; a row
 * that is found takes 48 bytes.
 */
#include "postgres.h"

#include "access/table.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/ids.h"
#include "log/collect.h"
#include "log/row.h"
#include "segment/leaf_scan.h"

#define SLICE_ROWS		8192
#define SLICE_US		50000
#define SLICE_MORE_US	5000	/* until it is cut again */
#define TIME_EVERY		16		/* rows */

/* One reading of tables. */
typedef struct Collection
{
	Oid			schema;
	MbusSpans	settled;
	int64		cut;			/* numbers below it are read */
	int			first;			/* row of this reading */
	const MbusSpans *logged;
	MbusRows   *rows;
	MbusEntry	entry;
	MemoryContext context;		/* for a row */
} Collection;

static uint64 clock_us(void);
static void segment_collect(Collection *collection, int32 segment,
							int kind_from, int kind_to);
static void table_collect(Collection *collection, Relation rel, int32 segment,
						  int kind, const uint8 *secret);
static bool span_collect(Collection *collection, MbusLeafScan *scan,
						 const MbusSpan *span, int32 segment, int kind,
						 const uint8 *secret);
static bool slice_late(MbusRows *rows);
static void row_add(Collection *collection, int32 segment, int kind,
					int64 number, HeapTuple tuple, TupleDesc desc,
					const uint8 *secret);
static void rows_cut(Collection *collection);
static int	number_compare(const void *a, const void *b);
static int	place_compare(const void *a, const void *b);

/*
 * mbus_rows_begin begins a slice.
 */
void
mbus_rows_begin(MbusRows *rows, MbusLog *log)
{
	memset(rows, 0, sizeof(*rows));
	rows->most = SLICE_ROWS;
	rows->end_us = clock_us() + SLICE_US;
	rows->reading = &log->reading;
	memset(rows->reading, 0, sizeof(*rows->reading));
}

static uint64
clock_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

/*
 * mbus_collect adds the rows of some kinds in some segments that are to be
 * logged, by segment, kind and number, and moves the cursor; false if the
 * slice has no room for all.
 */
bool
mbus_collect(Oid schema, const int32 *segments, int nsegments, int kind_from,
			 int kind_to, MbusCursor *cursor, int64 limit,
			 const MbusSpans *unfinished, MbusRows *rows)
{
	Collection	collection = {0};
	MbusSpans	window;
	MbusSpans	fresh = {0};
	int64		to;

	memset(&cursor->done, 0, sizeof(cursor->done));
	if (rows->n >= rows->most || rows->late)
		return false;
	mbus_spans_add(&fresh, cursor->to, limit);
	window = mbus_spans_union(&cursor->pending, &fresh);
	collection.schema = schema;
	collection.settled = mbus_spans_minus(&window, unfinished);
	collection.cut = PG_INT64_MAX;
	collection.first = rows->n;
	collection.logged = &cursor->logged;
	collection.rows = rows;
	collection.context = AllocSetContextCreate(CurrentMemoryContext,
											   "message_bus log row",
											   ALLOCSET_DEFAULT_SIZES);
	mbus_entry_init(&collection.entry, false);
	if (collection.settled.n > 0)
	{
		for (int i = 0; i < nsegments; i++)
			segment_collect(&collection, segments[i], kind_from, kind_to);
		memset(rows->reading, 0, sizeof(*rows->reading));
		rows_cut(&collection);
	}
	MemoryContextDelete(collection.context);

	to = Max(cursor->to, Min(limit, collection.cut));
	fresh.n = 0;
	mbus_spans_add(&fresh, cursor->to, to);
	window = mbus_spans_union(&cursor->pending, &fresh);
	cursor->done = mbus_spans_below(&collection.settled, collection.cut);
	cursor->pending = mbus_spans_minus(&window, &cursor->done);
	cursor->to = to;
	return collection.cut == PG_INT64_MAX;
}

/* Reads the tables of a segment; 0: actions, which have keys of their own. */
static void
segment_collect(Collection *collection, int32 segment, int kind_from,
				int kind_to)
{
	uint8		secret[MBUS_SECRET_BYTES] = {0};
	bool		known = segment == 0;

	collection->rows->reading->at = true;
	collection->rows->reading->segment = segment;
	if (segment == 0)
		kind_from = kind_to = MBUS_LOG_ACTION;
	for (int kind = kind_from; kind <= kind_to; kind++)
	{
		Relation	rel = mbus_row_table(collection->schema, kind, segment);

		if (rel == NULL)
			continue;
		collection->rows->reading->kind = kind;
		if (!known && !mbus_segment_secret(collection->schema, segment,
										   GetActiveSnapshot(), secret))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("segment %d of message_bus has lost its secret",
							segment)));
		known = true;
		table_collect(collection, rel, segment, kind, secret);
		table_close(rel, AccessShareLock);
	}
	explicit_bzero(secret, sizeof(secret));
}

/* Reads what is settled in one table, as far as that goes. */
static void
table_collect(Collection *collection, Relation rel, int32 segment, int kind,
			  const uint8 *secret)
{
	MbusLeafScan scan;

	mbus_leaf_scan_open(&scan, rel, mbus_row_number(kind), 0, false);
	for (int i = 0; i < collection->settled.n; i++)
	{
		MbusSpan	span = collection->settled.span[i];

		span.hi = Min(span.hi, collection->cut);
		if (span.lo >= span.hi ||
			!span_collect(collection, &scan, &span, segment, kind, secret))
			break;
	}
	mbus_leaf_scan_close(&scan);
	/* twice as many as may be taken: cut, so that memory is bounded */
	if (collection->rows->n > 2 * collection->rows->most)
		rows_cut(collection);
}

/* Reads a range; false if it alone has as many rows as a slice may have. */
static bool
span_collect(Collection *collection, MbusLeafScan *scan, const MbusSpan *span,
			 int32 segment, int kind, const uint8 *secret)
{
	TupleDesc	desc = RelationGetDescr(scan->leaf);
	MbusRows   *rows = collection->rows;
	int			end = rows->n + rows->most;
	int64		number = 0;
	bool		all = true;
	HeapTuple	tuple;

	mbus_leaf_scan_int8(scan, mbus_row_number(kind), span->lo, span->hi - 1);
	mbus_leaf_scan_begin(scan, GetActiveSnapshot());
	while (all && (tuple = mbus_leaf_scan_next(scan)) != NULL)
	{
		number = mbus_row_number_of(kind, tuple, desc);
		if (!mbus_spans_have(collection->logged, number))
			row_add(collection, segment, kind, number, tuple, desc, secret);
		all = rows->n < end && !slice_late(rows);
	}
	mbus_leaf_scan_end(scan);
	if (!all)
		collection->cut = Min(collection->cut, number + 1);
	return all;
}

/* Adds a row, hashed. */
static void
row_add(Collection *collection, int32 segment, int kind, int64 number,
		HeapTuple tuple, TupleDesc desc, const uint8 *secret)
{
	MbusRows   *rows = collection->rows;
	MemoryContext caller;
	MbusLogged *row;

	if (rows->n == rows->room)
	{
		rows->room = Max(2 * rows->room, 64);
		rows->row = rows->row ?
			repalloc(rows->row, rows->room * sizeof(MbusLogged)) :
			palloc(rows->room * sizeof(MbusLogged));
	}
	row = &rows->row[rows->n++];
	row->segment = segment;
	row->kind = kind;
	row->number = rows->reading->number = number;
	caller = MemoryContextSwitchTo(collection->context);
	(void) mbus_row_entry(&collection->entry, collection->schema, kind, tuple,
						  desc, secret);
	mbus_entry_hash(&collection->entry, &row->hash);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(collection->context);
	rows->reading->number = 0;
}

/* Whether the slice's time is over; if so there is some more for the rest. */
static bool
slice_late(MbusRows *rows)
{
	uint64		now;

	if (++rows->looked % TIME_EVERY != 0 || (now = clock_us()) < rows->end_us)
		return false;
	rows->end_us = now + SLICE_MORE_US;
	rows->late = true;
	return true;
}

/*
 * rows_cut leaves out the rows of this reading that are too many, and those
 * that are not below the cut; what is left is by segment, kind and number.
 */
static void
rows_cut(Collection *collection)
{
	MbusRows   *rows = collection->rows;
	MbusLogged *row = rows->row + collection->first;
	int			n = rows->n - collection->first;
	int			most = rows->most - collection->first;

	if (n == 0)
		return;
	qsort(row, n, sizeof(MbusLogged), number_compare);
	if (n > most)
		collection->cut = Min(collection->cut, row[most].number);
	while (n > 0 && row[n - 1].number >= collection->cut)
		n--;
	qsort(row, n, sizeof(MbusLogged), place_compare);
	rows->n = collection->first + n;
}

static int
number_compare(const void *a, const void *b)
{
	return mbus_order(((const MbusLogged *) a)->number,
					  ((const MbusLogged *) b)->number);
}

/* By segment, kind and number. */
static int
place_compare(const void *a, const void *b)
{
	const MbusLogged *x = a;
	const MbusLogged *y = b;

	if (x->segment != y->segment)
		return mbus_order(x->segment, y->segment);
	if (x->kind != y->kind)
		return mbus_order(x->kind, y->kind);
	return mbus_order(x->number, y->number);
}
