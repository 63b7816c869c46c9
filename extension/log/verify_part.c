/*
 * verify_part.c
 *		The rows of a part's entries, read and compared.
 *
 * The runs name them, and each is read by the index on its number, in its
 * order: mostly that of the table, too.  All of that is one subtransaction; an
 * error in it is about the row that was to come next.  That one is read alone,
 * and the others go on from there.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "log/verify.h"
#include "segment/leaf_scan.h"

/* The reading of a part; what it has open is of the subtransaction. */
typedef struct Reading
{
	MbusVerify *v;
	int			span;			/* where it is: in the spans, */
	int32		done;			/* and in this one */
	bool		alone;			/* one row, of which the payload is apart */
	Relation	rel;			/* NULL: none is open */
	MbusVerifySegment *segment;
	int			kind;
	MbusLeafScan rows;
} Reading;

/* A row whose payload is verified apart. */
typedef struct Payload
{
	Oid			schema;
	HeapTuple	tuple;
	TupleDesc	desc;
	bool		right;
} Payload;

static void rows_read(void *arg);
static void row_read_alone(void *arg);
static bool table_use(Reading *reading, const MbusVerifySpan *span);
static bool secret_use(MbusVerify *v, MbusVerifySegment *segment);
static void table_leave(Reading *reading);
static void span_read(Reading *reading, const MbusVerifySpan *span, int32 n);
static void row_removed(MbusVerify *v, const MbusVerifySpan *span,
						int64 index);
static void row_compare(Reading *reading, const MbusVerifySpan *span,
						int64 index, HeapTuple tuple, TupleDesc desc);
static bool payload_right(Reading *reading, HeapTuple tuple, TupleDesc desc);
static void payload_verify(void *arg);
static void hash_compare(MbusVerify *v, const MbusVerifySpan *span,
						 int64 index, const MbusHash *hash);

/*
 * mbus_verify_rows reads the rows of the part's spans and compares them.
 */
void
mbus_verify_rows(MbusVerify *v)
{
	Reading		reading = {.v = v};

	while (reading.span < v->nspans)
	{
		const MbusVerifySpan *span;
		int64		number;

		reading.rel = NULL;
		reading.alone = false;
		if (mbus_verify_try(rows_read, &reading))
			break;
		span = &v->span[reading.span];
		number = span->number + reading.done;
		reading.rel = NULL;
		reading.alone = true;
		if (!mbus_verify_try(row_read_alone, &reading))
		{
			mbus_verify_segment(v, span->segment)->found[span->kind]++;
			mbus_verify_fault(v, span->index + reading.done,
							  mbus_verify_kind(span->kind), number,
							  span->segment, "unreadable");
		}
		if (number == span->number + reading.done)
			reading.done++;
	}
}

/* Reads all that is left of the part. */
static void
rows_read(void *arg)
{
	Reading    *reading = arg;
	MbusVerify *v = reading->v;

	for (; reading->span < v->nspans; reading->span++, reading->done = 0)
	{
		const MbusVerifySpan *span = &v->span[reading->span];

		if (table_use(reading, span))
			span_read(reading, span, span->n);
	}
	table_leave(reading);
}

/* Reads one row. */
static void
row_read_alone(void *arg)
{
	Reading    *reading = arg;
	const MbusVerifySpan *span = &reading->v->span[reading->span];

	if (reading->done >= span->n)
		return;
	if (table_use(reading, span))
		span_read(reading, span, reading->done + 1);
	table_leave(reading);
}

/* Opens the table of a span; false if it is gone, which is seen to. */
static bool
table_use(Reading *reading, const MbusVerifySpan *span)
{
	MbusVerify *v = reading->v;
	MbusVerifySegment *segment;

	if (reading->rel && reading->segment->segment == span->segment &&
		reading->kind == span->kind)
		return true;
	segment = mbus_verify_segment(v, span->segment);
	if (segment->gone)
		return false;
	table_leave(reading);
	if (segment->there)
		reading->rel = mbus_verify_table(v, span->kind, span->segment);
	if (reading->rel && !secret_use(v, segment))
	{
		table_close(reading->rel, AccessShareLock);
		reading->rel = NULL;
	}
	if (reading->rel == NULL)
	{
		mbus_verify_gone(v, segment, span->index);
		return false;
	}
	reading->segment = segment;
	reading->kind = span->kind;
	mbus_leaf_scan_open(&reading->rows, reading->rel,
						mbus_row_number(span->kind), 0, false);
	return true;
}

/* Reads the secret of a segment, once; false if it is gone. */
static bool
secret_use(MbusVerify *v, MbusVerifySegment *segment)
{
	if (!segment->secret_known && segment->segment != 0)
		segment->secret_known = mbus_segment_secret(v->schema,
													segment->segment,
													v->snapshot,
													segment->secret);
	return segment->secret_known || segment->segment == 0;
}

static void
table_leave(Reading *reading)
{
	if (reading->rel == NULL)
		return;
	mbus_leaf_scan_close(&reading->rows);
	table_close(reading->rel, AccessShareLock);
	reading->rel = NULL;
}

/* Reads the rows of a span, up to but without the n-th. */
static void
span_read(Reading *reading, const MbusVerifySpan *span, int32 n)
{
	MbusVerify *v = reading->v;
	AttrNumber	column = mbus_row_number(span->kind);
	TupleDesc	desc = RelationGetDescr(reading->rel);
	HeapTuple	tuple;

	if (reading->done >= n)
		return;
	mbus_leaf_scan_int8(&reading->rows, column, span->number + reading->done,
						span->number + n - 1);
	mbus_leaf_scan_begin(&reading->rows, v->snapshot);
	while ((tuple = mbus_leaf_scan_next(&reading->rows)) != NULL)
	{
		bool		isnull;
		int64		number = DatumGetInt64(heap_getattr(tuple, column, desc,
														&isnull));
		int64		place = number - span->number;

		while (reading->done < place && reading->done < n)
			row_removed(v, span, span->index + reading->done++);
		if (place != reading->done)
		{
			/* twice, or the index has led to another row */
			mbus_verify_fault(v, -1, mbus_verify_kind(span->kind), number,
							  span->segment, "added");
			continue;
		}
		row_compare(reading, span, span->index + place, tuple, desc);
		reading->done++;
	}
	mbus_leaf_scan_end(&reading->rows);
	while (reading->done < n)
		row_removed(v, span, span->index + reading->done++);
}

/* A row that was logged is not there; actions are removed when they are old. */
static void
row_removed(MbusVerify *v, const MbusVerifySpan *span, int64 index)
{
	int			tile = (int) ((index >> MBUS_TILE_BITS) - v->first_tile);

	if (span->kind == MBUS_LOG_ACTION && mbus_verify_expired(v, index))
		return;
	if (v->tile[tile] == MBUS_TILE_MISSING)
		mbus_verify_tile_fault(v, 0, index >> MBUS_TILE_BITS);
	mbus_verify_fault(v, index, mbus_verify_kind(span->kind),
					  span->number + (index - span->index), span->segment,
					  "removed");
}

/* Compares a row with its checksum and its entry. */
static void
row_compare(Reading *reading, const MbusVerifySpan *span, int64 index,
			HeapTuple tuple, TupleDesc desc)
{
	MbusVerify *v = reading->v;
	MbusVerifySegment *segment = reading->segment;
	MemoryContext caller = MemoryContextSwitchTo(v->row);
	bool		right = true;
	MbusHash	hash;
	const char *wrong = mbus_verify_row(v, segment, span->kind, tuple, desc,
										&hash);

	if (wrong == NULL && span->kind == MBUS_MESSAGE)
		right = payload_right(reading, tuple, desc);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(v->row);
	segment->found[span->kind]++;
	if (!right)
		wrong = "payload";
	if (wrong)
		mbus_verify_fault(v, index, mbus_verify_kind(span->kind),
						  span->number + (index - span->index),
						  span->segment, wrong);
	if (wrong == NULL || !right)
		hash_compare(v, span, index, &hash);
}

/* Whether the payload is that of its checksum; alone, also if it errors. */
static bool
payload_right(Reading *reading, HeapTuple tuple, TupleDesc desc)
{
	Payload		payload = {reading->v->schema, tuple, desc};

	if (!reading->alone)
		payload_verify(&payload);
	else if (!mbus_verify_try(payload_verify, &payload))
		payload.right = false;
	return payload.right;
}

static void
payload_verify(void *arg)
{
	Payload    *payload = arg;

	payload->right = mbus_verify_payload(payload->schema, payload->tuple,
										 payload->desc);
}

/* Compares the hash of an entry with that of the tree. */
static void
hash_compare(MbusVerify *v, const MbusVerifySpan *span, int64 index,
			 const MbusHash *hash)
{
	int			place = (int) (index - (v->first_tile << MBUS_TILE_BITS));
	MbusTileState state = v->tile[place / MBUS_TILE_WIDTH];
	int64		number = span->number + (index - span->index);

	if (state == MBUS_TILE_MISSING)
		mbus_verify_tile_fault(v, 0, index >> MBUS_TILE_BITS);
	if (state == MBUS_TILE_MISSING || state == MBUS_TILE_BAD ||
		memcmp(hash, &v->hash[place], sizeof(*hash)) == 0)
		return;
	if (state == MBUS_TILE_EDGE && v->nedge < MBUS_TILE_WIDTH)
	{
		MbusEdgeDoubt *doubt = &v->edge[v->nedge++];

		doubt->index = index;
		doubt->segment = span->segment;
		doubt->kind = span->kind;
		doubt->number = number;
	}
	else
		mbus_verify_fault(v, index, mbus_verify_kind(span->kind), number,
						  span->segment, "changed");
}
