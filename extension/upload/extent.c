/*
 * extent.c
 *		What of a body is there: its parts, without their bytes.
 *
 * A walk reads the parts in their order, some at a time, so that it neither
 * keeps a scan open nor needs more memory the larger the body is.
 *
 * How far the first parts go without a hole is asked by each append that did
 * not come in order.  So that this is not read from the beginning each time,
 * a backend remembers for one body how far that was.  Parts neither change nor
 * go while their store is there, so that it stays true; but for those of a
 * transaction that is rolled back: nothing is remembered once the transaction
 * may have written any.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "body/part.h"
#include "upload/extent.h"
#include "upload/upload.h"

#define PARTS_AT_ONCE	256

/* The first parts of a body, that many, are there and whole. */
static struct
{
	int64		body;
	Oid			relid;
	int32		parts;
}			known;

/*
 * mbus_walk_begin begins to walk through the parts from one on.
 */
void
mbus_walk_begin(MbusWalk *walk, const MbusBody *body, int32 from,
				Snapshot snapshot)
{
	walk->body = body;
	walk->snapshot = snapshot;
	walk->next = from;
	walk->n = walk->i = 0;
	walk->parts = palloc(PARTS_AT_ONCE * sizeof(MbusPart));
}

/*
 * mbus_walk_next returns the next part that is there, good until the call
 * after; NULL: there is none.
 */
const MbusPart *
mbus_walk_next(MbusWalk *walk)
{
	CHECK_FOR_INTERRUPTS();
	if (walk->i == walk->n)
	{
		walk->i = 0;
		walk->n = mbus_parts_list(walk->body, walk->next, walk->snapshot,
								  walk->parts, PARTS_AT_ONCE);
		if (walk->n == 0)
			return NULL;
	}
	walk->next = walk->parts[walk->i].n + 1;
	return &walk->parts[walk->i++];
}

/*
 * mbus_walk_end ends it.
 */
void
mbus_walk_end(MbusWalk *walk)
{
	pfree(walk->parts);
}

/*
 * mbus_extent_whole returns the first byte that is missing, if all parts below
 * one are there.
 */
int64
mbus_extent_whole(const MbusBody *body, int32 from, Snapshot snapshot)
{
	int64		bytes = (int64) from * MBUS_PART_BYTES;
	const MbusPart *part;
	MbusWalk	walk;

	mbus_walk_begin(&walk, body, from, snapshot);
	while ((part = mbus_walk_next(&walk)) != NULL && part->n == from++)
	{
		bytes += part->size;
		if (part->size < MBUS_PART_BYTES)
			break;
	}
	mbus_walk_end(&walk);
	return bytes;
}

/*
 * mbus_extent_known returns a number of parts that are there and whole at the
 * body's beginning: as many as there are.
 */
int32
mbus_extent_known(const MbusBody *body, Snapshot snapshot)
{
	bool		same = known.body == body->body && known.relid == body->relid;
	int32		parts = same ? known.parts : 0;

	parts = mbus_extent_whole(body, parts, snapshot) / MBUS_PART_BYTES;
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
	{
		known.body = body->body;
		known.relid = body->relid;
		known.parts = parts;
	}
	return parts;
}
