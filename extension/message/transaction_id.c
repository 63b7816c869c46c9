/*
 * transaction_id.c
 *		The caller's own ids: each is used once in a channel.
 *
 * A transaction id (the publisher's idempotency key) is unique in its channel
 * across all segments that exist.  Each leaf has a unique index; what spans
 * leaves is done here, for all drafts of a call that have one, in the order
 * of the ids, so that two batches do not wait for each other in a circle:
 *
 *	1. The ids of the rows are reserved and registered (by the caller).  From
 *	   now on every new publish to the channel goes into this segment or a
 *	   later one.
 *	2. Ask the registry whether another publish to the channel is unfinished
 *	   in another segment ("elsewhere").  What has finished is visible to 3.
 *	3. Look with a dirty snapshot into every leaf that may have the id
 *	   (segment/era.c names them: this segment, and few others).  A row that is
 *	   there: the same bytes give its id, other bytes are an error.  A row
 *	   whose transaction is open: wait for its end, and again.
 *	4. Insert speculatively.  The leaf's own index finds a rival in this
 *	   segment: take the row back, and again from 3.
 *	5. If "elsewhere", or if ids of the channel have been reserved in a later
 *	   segment by now: look into the other leaves again, named anew.  Both
 *	   rivals insert before they look, so at least one sees the other.  If both have only
 *	   speculative rows, the older transaction keeps its row and waits for the
 *	   other to decide; the younger takes its row back and waits for the
 *	   older to end.
 *	6. Keep the row.
 *
 * Of the leaves only that of this segment stays open.  Others are opened one
 * after the other and locked no longer than it takes: a row that is not found
 * needs no lock, and who inserts later looks after us.
 *
 * The waits are heavyweight locks, so the deadlock detector sees them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/caller.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/payload.h"
#include "channel/channel.h"
#include "channel/visibility.h"
#include "message/draft.h"
#include "message/insert.h"
#include "message/large.h"
#include "message/stored.h"
#include "message/transaction_id.h"
#include "segment/era.h"
#include "segment/inserter.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/clock.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/unfinished.h"

typedef enum Finding
{
	FOUND_NONE,
	FOUND_ROW,					/* the draft is a duplicate, or it errored */
	FOUND_WAITED,				/* somebody's transaction ended: look again */
	FOUND_RIVAL					/* an unfinished one, not waited for */
} Finding;

/* A row that has the transaction id. */
typedef struct Holder
{
	int64		id;
	TimestampTz expires_at;
	int64		size;
	uint8		sha256[MBUS_SHA256_BYTES];
	bool		visible;		/* to whom publishes */
	TransactionId xmin;			/* valid: its transaction is open */
	uint32		token;			/* not 0: its row is speculative */
	ItemPointerData tid;
} Holder;

/* A leaf that is looked into. */
typedef struct OpenLeaf
{
	Relation	rel;
	Relation	index;
} OpenLeaf;

/* One call's work. */
typedef struct Search
{
	Oid			schema;
	MbusDatabase *db;
	const MbusChannel *channel;
	MbusInserter *inserter;
	int32		segment;		/* that the rows go into */
	OpenLeaf	own;			/* of it */
	bool		elsewhere;
} Search;

static int	draft_compare(const void *a, const void *b);
static void insert_one(Search *search, MbusDraft *draft);
static Finding search_look(Search *search, MbusDraft *draft, int32 except,
						   bool inserted);
static Finding segment_look(Search *search, int32 segment, MbusDraft *draft,
							bool inserted);
static Finding leaf_look(Search *search, const OpenLeaf *leaf,
						 MbusDraft *draft, bool inserted);
static Finding search_settle(Search *search, MbusDraft *draft,
							 const OpenLeaf *leaf, const Holder *holder,
							 bool inserted);
static void holder_wait(Relation leaf, const Holder *holder);
static bool holder_find(Search *search, const OpenLeaf *leaf,
						const MbusDraft *draft, Holder *holder);
static void holder_read(HeapTuple tuple, TupleDesc desc, Holder *holder);
static bool holder_visible(Search *search, HeapTuple tuple, TupleDesc desc);
static void use_holder(Oid schema, const MbusChannel *channel,
					   MbusDraft *draft, const Holder *holder);

/*
 * mbus_insert_unique inserts drafts that have transaction ids, and ids of the
 * reservation; those that duplicate a message get its id instead.  It sorts
 * the array.
 */
void
mbus_insert_unique(Oid schema, MbusDatabase *db, const MbusReservation *run,
				   const MbusChannel *channel, MbusDraft **drafts,
				   int ndrafts)
{
	Search		search;

	qsort(drafts, ndrafts, sizeof(MbusDraft *), draft_compare);
	MemSet(&search, 0, sizeof(search));
	search.schema = schema;
	search.db = db;
	search.channel = channel;
	search.segment = run->segment;
	search.elsewhere = mbus_unfinished_elsewhere(db, channel->channel_id,
												 run->segment);
	search.inserter = mbus_inserter_open(run->leaf[MBUS_MESSAGE],
										 MBUS_MESSAGE_COLUMNS, true);
	search.own.rel = search.inserter->rel;
	search.own.index = mbus_leaf_index(search.own.rel, MBUS_COL_CHANNEL_ID,
									   MBUS_COL_TRANSACTION_ID, true);
	for (int i = 0; i < ndrafts; i++)
	{
		CHECK_FOR_INTERRUPTS();
		mbus_about_transaction(drafts[i]->transaction_id);
		insert_one(&search, drafts[i]);
	}
	index_close(search.own.index, AccessShareLock);
	mbus_inserter_close(search.inserter);
}

/* By transaction id; of one id the first given comes first. */
static int
draft_compare(const void *a, const void *b)
{
	const MbusDraft *x = *(MbusDraft *const *) a;
	const MbusDraft *y = *(MbusDraft *const *) b;
	size_t		xlen = VARSIZE_ANY_EXHDR(x->transaction_id);
	size_t		ylen = VARSIZE_ANY_EXHDR(y->transaction_id);
	int			order = memcmp(VARDATA_ANY(x->transaction_id),
							   VARDATA_ANY(y->transaction_id),
							   Min(xlen, ylen));

	if (order != 0)
		return order;
	if (xlen != ylen)
		return xlen < ylen ? -1 : 1;
	/* the first of a batch is the one that is stored */
	return x < y ? -1 : x > y;
}

/*
 * insert_one takes one draft through steps 3 to 6.
 */
static void
insert_one(Search *search, MbusDraft *draft)
{
	int32		channel_id = search->channel->channel_id;

	for (;;)
	{
		Finding		found;
		uint32		token;
		bool		unique;

		CHECK_FOR_INTERRUPTS();
		found = search_look(search, draft, 0, false);
		if (found == FOUND_ROW)
			return;
		if (found == FOUND_WAITED)
			continue;

		mbus_large_write_new(search->schema, search->db, search->channel,
							 draft);
		unique = mbus_insert_speculative(search->inserter, channel_id, draft,
										 &token);
		if (unique &&
			(search->elsewhere ||
			 mbus_reserved_above(search->db, channel_id, search->segment)))
		{
			while ((found = search_look(search, draft, search->segment,
										true)) == FOUND_WAITED)
				CHECK_FOR_INTERRUPTS();
			unique = (found == FOUND_NONE);
		}
		mbus_insert_speculative_end(search->inserter, token, unique);
		if (unique)
			return;
	}
}

/*
 * search_look looks for the draft's transaction id in all leaves that may have
 * it but one.  "inserted": our own speculative row is there.
 */
static Finding
search_look(Search *search, MbusDraft *draft, int32 except, bool inserted)
{
	int32	   *segments;
	int			n = mbus_segments_with(search->schema,
									   search->channel->channel_id,
									   draft->transaction_id, &segments);
	Finding		found = FOUND_NONE;

	for (int i = 0; i < n && found == FOUND_NONE; i++)
	{
		if (segments[i] == except)
			continue;
		if (segments[i] == search->segment)
			found = leaf_look(search, &search->own, draft, inserted);
		else
			found = segment_look(search, segments[i], draft, inserted);
	}
	if (segments)
		pfree(segments);
	return found;
}

/* Looks into a leaf that is opened for it; one that is gone has nothing. */
static Finding
segment_look(Search *search, int32 segment, MbusDraft *draft, bool inserted)
{
	OpenLeaf	leaf;
	Finding		found;

	leaf.rel = mbus_leaf_open(search->schema, segment, MBUS_MESSAGE,
							  AccessShareLock);
	if (leaf.rel == NULL)
		return FOUND_NONE;
	leaf.index = mbus_leaf_index(leaf.rel, MBUS_COL_CHANNEL_ID,
								 MBUS_COL_TRANSACTION_ID, true);
	found = leaf_look(search, &leaf, draft, inserted);
	index_close(leaf.index, AccessShareLock);
	table_close(leaf.rel, AccessShareLock);
	return found;
}

static Finding
leaf_look(Search *search, const OpenLeaf *leaf, MbusDraft *draft,
		  bool inserted)
{
	Holder		holder;

	if (!holder_find(search, leaf, draft, &holder))
		return FOUND_NONE;
	return search_settle(search, draft, leaf, &holder, inserted);
}

/*
 * search_settle decides what a row that has the transaction id means for us.
 */
static Finding
search_settle(Search *search, MbusDraft *draft, const OpenLeaf *leaf,
			  const Holder *holder, bool inserted)
{
	if (!TransactionIdIsValid(holder->xmin))
	{
		if (!inserted)
			use_holder(search->schema, search->channel, draft, holder);
		return FOUND_ROW;
	}
	if (inserted &&
		(holder->token == 0 ||
		 TransactionIdPrecedes(holder->xmin, GetCurrentTransactionId())))
		return FOUND_RIVAL;
	holder_wait(leaf->rel, holder);
	return FOUND_WAITED;
}

static void
holder_wait(Relation leaf, const Holder *holder)
{
	ItemPointerData tid = holder->tid;

	if (mbus_caller.no_wait)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another transaction publishes with this transaction id")));
	if (holder->token != 0)
		SpeculativeInsertionWait(holder->xmin, holder->token);
	else
		XactLockTableWait(holder->xmin, leaf, &tid, XLTW_InsertIndex);
}

/*
 * holder_find finds the row with the transaction id in a leaf, committed or
 * not.
 */
static bool
holder_find(Search *search, const OpenLeaf *leaf, const MbusDraft *draft,
			Holder *holder)
{
	SnapshotData dirty;
	MbusLeafScan rows;
	HeapTuple	tuple;

	InitDirtySnapshot(dirty);
	mbus_leaf_scan_on(&rows, leaf->rel, leaf->index);
	mbus_leaf_scan_int4(&rows, MBUS_COL_CHANNEL_ID,
						search->channel->channel_id);
	mbus_leaf_scan_text(&rows, MBUS_COL_TRANSACTION_ID,
						draft->transaction_id);
	mbus_leaf_scan_begin(&rows, &dirty);
	tuple = mbus_leaf_scan_next(&rows);
	if (tuple)
	{
		holder->xmin = dirty.xmin;
		holder->token = dirty.speculativeToken;
		holder->tid = tuple->t_self;
		holder_read(tuple, RelationGetDescr(leaf->rel), holder);
		holder->visible = holder_visible(search, tuple,
										 RelationGetDescr(leaf->rel));
	}
	mbus_leaf_scan_end(&rows);
	return tuple != NULL;
}

/* Reads what decides of the row that has the transaction id. */
static void
holder_read(HeapTuple tuple, TupleDesc desc, Holder *holder)
{
	bool		isnull;
	bytea	   *digest;

	holder->id = DatumGetInt64(heap_getattr(tuple, MBUS_COL_ID, desc,
											&isnull));
	holder->expires_at =
		DatumGetTimestampTz(heap_getattr(tuple, MBUS_COL_EXPIRES_AT, desc,
										 &isnull));
	holder->size = DatumGetInt64(heap_getattr(tuple, MBUS_COL_SIZE, desc,
											  &isnull));
	digest = DatumGetByteaPP(heap_getattr(tuple, MBUS_COL_SHA256, desc,
										  &isnull));
	MemSet(holder->sha256, 0, sizeof(holder->sha256));
	memcpy(holder->sha256, VARDATA_ANY(digest),
		   Min(VARSIZE_ANY_EXHDR(digest), MBUS_SHA256_BYTES));
}

/*
 * holder_visible tells whether the publisher of a draft may know of the row.
 * Where a channel keeps subjects apart its transaction ids are one space all
 * the same: to somebody else one is taken, and no more is said.
 */
static bool
holder_visible(Search *search, HeapTuple tuple, TupleDesc desc)
{
	const MbusChannel *channel;

	/* its grants are not in our copy */
	channel = mbus_channel_by_id(search->schema, search->channel->channel_id);
	if (channel == NULL || !channel->by_subject ||
		mbus_channel_allows(channel, MBUS_CLAIM))
		return true;
	return mbus_visible_row(search->schema, tuple, desc,
							MBUS_COL_PUBLISHER_ID, MBUS_COL_SUBJECT,
							MBUS_COL_RECIPIENT);
}

/*
 * use_holder makes the draft a duplicate of a message, or errors with 23505
 * where that cannot be.
 */
static void
use_holder(Oid schema, const MbusChannel *channel, MbusDraft *draft,
		   const Holder *holder)
{
	const char *why = NULL;

	if (!holder->visible)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("transaction id \"%s\" was used before in channel \"%s\"",
						text_to_cstring(draft->transaction_id),
						channel->name)));
	if (holder->expires_at <= mbus_now())
		why = "has expired";
	else if (mbus_message_deleted(schema, holder->id))
		why = "was deleted";
	else if (mbus_message_purged(schema, channel->channel_id, holder->id))
		why = "was purged";
	else if (holder->size != draft->size ||
			 memcmp(holder->sha256, draft->sha256, MBUS_SHA256_BYTES) != 0)
		why = "has other bytes";
	if (why)
		mbus_draft_id_used(channel, draft, holder->id, why);
	draft->id = holder->id;
	draft->duplicate = true;
}
