/*
 * insert.c
 *		Messages into the open segment, and events beside them.
 *
 * What has no transaction id goes in by table_multi_insert, many rows at a
 * time; what leaks meanwhile goes into a context that is reset with each
 * batch.  The ids of such a batch that follow one another without a gap are a
 * run: only its first row is in the index by channel, and says how many follow
 * (segment/channel_scan.c).  What has one is inserted alone and speculatively, so that it can be
 * taken back: transaction_id.c decides.
 *
 * segment/inserter.c tells what takes the place of the checks of an INSERT.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/caller.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/payload.h"
#include "message/draft.h"
#include "message/insert.h"
#include "segment/inserter.h"
#include "segment/leaf.h"
#include "state/ahead.h"
#include "state/fact_number.h"
#include "state/registry.h"

#define MBUS_BATCH_ROWS		1000	/* a run is a smallint */
#define MBUS_BATCH_BYTES	(4 * 1024 * 1024)

static int	insert_batch(MbusInserter *inserter, TupleTableSlot **slots,
						 int32 series, int32 channel_id, MbusDraft **drafts,
						 int ndrafts, const char *subject);
static int	run_length(MbusDraft **drafts, int ndrafts);
static void fill_slot(TupleTableSlot *slot, int32 channel_id,
					  const MbusDraft *draft, int run, const char *subject);
static int64 key_hash(const text *key);
static void event_put(MbusInserter *inserter, Oid schema, int64 message_id,
					  const char *kind, const MbusEventBy *by);

/*
 * mbus_insert_run inserts drafts without a transaction id, which have ids of
 * the reservation.
 */
void
mbus_insert_run(const MbusReservation *run, int32 channel_id,
				MbusDraft **drafts, int ndrafts)
{
	MbusInserter *inserter;
	TupleTableSlot **slots;
	int			nslots = Min(ndrafts, MBUS_BATCH_ROWS);
	const char *subject = mbus_subject();

	inserter = mbus_inserter_open(run->leaf[MBUS_MESSAGE],
								  MBUS_MESSAGE_COLUMNS, false);
	slots = palloc(nslots * sizeof(TupleTableSlot *));
	for (int i = 0; i < nslots; i++)
		slots[i] = mbus_inserter_slot_make(inserter);
	while (ndrafts > 0)
	{
		int			done = insert_batch(inserter, slots, run->series,
										channel_id, drafts, ndrafts, subject);

		drafts += done;
		ndrafts -= done;
	}
	for (int i = 0; i < nslots; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	mbus_inserter_close(inserter);
}

/*
 * insert_batch inserts the first drafts, as many as make a batch, and returns
 * how many they were.
 */
static int
insert_batch(MbusInserter *inserter, TupleTableSlot **slots,
			 int32 series, int32 channel_id, MbusDraft **drafts, int ndrafts,
			 const char *subject)
{
	MemoryContext batch = GetPerTupleMemoryContext(inserter->estate);
	MemoryContext caller = MemoryContextSwitchTo(batch);
	Size		bytes = 0;
	int			run_end = 0;
	int			n = 0;

	while (n < ndrafts && n < MBUS_BATCH_ROWS && bytes < MBUS_BATCH_BYTES)
	{
		bytes += VARSIZE_ANY(drafts[n]->stored);
		n++;
	}
	for (int i = 0; i < n; i++)
	{
		int			run = i == run_end ? run_length(&drafts[i], n - i) : 0;

		run_end += run;
		fill_slot(slots[i], channel_id, drafts[i], run, subject);
		mbus_inserter_store(inserter, slots[i]);
	}
	if (n == 1)
		table_tuple_insert(inserter->rel, slots[0], GetCurrentCommandId(true),
						   0, NULL);
	else
		table_multi_insert(inserter->rel, slots, n, GetCurrentCommandId(true),
						   0, NULL);
	mbus_ahead_used(mbus_database(), series,
					ItemPointerGetBlockNumber(&slots[n - 1]->tts_tid));
	mbus_inserter_index(inserter, slots, n);
	for (int i = 0; i < n; i++)
		ExecClearTuple(slots[i]);
	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(inserter->estate);
	return n;
}

/* How many of the drafts, from the first on, have ids without a gap. */
static int
run_length(MbusDraft **drafts, int ndrafts)
{
	int			n = 1;

	while (n < ndrafts && drafts[n]->id == drafts[0]->id + n)
		n++;
	return n;
}

/*
 * fill_slot makes the values of a draft that has its id.  They are borrowed.
 */
static void
fill_slot(TupleTableSlot *slot, int32 channel_id, const MbusDraft *draft,
		  int run, const char *subject)
{
	bytea	   *digest = palloc(VARHDRSZ + MBUS_SHA256_BYTES);
	Datum	   *values = slot->tts_values - 1;	/* columns count from 1 */
	bool	   *isnull = slot->tts_isnull - 1;
	TimestampTz available_at;

	if (MbusDraftLarge(draft) && draft->body == NULL)
		elog(ERROR, "the bytes of message " INT64_FORMAT " are not stored",
			 draft->id);
	ExecClearTuple(slot);
	memset(slot->tts_isnull, false, MBUS_MESSAGE_COLUMNS * sizeof(bool));
	SET_VARSIZE(digest, VARHDRSZ + MBUS_SHA256_BYTES);
	memcpy(VARDATA(digest), draft->sha256, MBUS_SHA256_BYTES);

	values[MBUS_COL_ID] = Int64GetDatum(draft->id);
	values[MBUS_COL_CREATED_AT] = TimestampTzGetDatum(draft->created_at);
	values[MBUS_COL_EXPIRES_AT] = TimestampTzGetDatum(draft->created_at +
													  draft->ttl_us);
	values[MBUS_COL_CHANNEL_ID] = Int32GetDatum(channel_id);
	values[MBUS_COL_SIZE] = Int64GetDatum(draft->size);
	values[MBUS_COL_PUBLISHER_ID] = Int32GetDatum(draft->publisher_id);
	values[MBUS_COL_RUN] = Int16GetDatum(run);
	values[MBUS_COL_ENCODING] =
		CharGetDatum(draft->body ? MbusBodyEncoding(draft->body_json) :
					 mbus_compression_code(draft->compression));
	values[MBUS_COL_SHA256] = PointerGetDatum(digest);
	values[MBUS_COL_PAYLOAD] = PointerGetDatum(draft->stored);
	mbus_slot_text(slot, MBUS_COL_CONTENT_TYPE,
				   strcmp(draft->content_type, MBUS_CONTENT_JSON) == 0 ?
				   NULL : draft->content_type);
	values[MBUS_COL_SESSION] = Int64GetDatum(mbus_caller.session);
	isnull[MBUS_COL_SESSION] = mbus_caller.session == 0;
	if (draft->copied)
	{
		values[MBUS_COL_SUBJECT] = PointerGetDatum(draft->subject);
		isnull[MBUS_COL_SUBJECT] = draft->subject == NULL;
	}
	else
		mbus_slot_text(slot, MBUS_COL_SUBJECT, subject);
	values[MBUS_COL_KEY] = PointerGetDatum(draft->key);
	isnull[MBUS_COL_KEY] = draft->key == NULL;
	values[MBUS_COL_KEY_HASH] = draft->key ?
		Int64GetDatum(key_hash(draft->key)) : (Datum) 0;
	isnull[MBUS_COL_KEY_HASH] = draft->key == NULL;
	available_at = draft->available_at != 0 ? draft->available_at :
		draft->created_at + draft->delay_us;
	values[MBUS_COL_AVAILABLE_AT] = TimestampTzGetDatum(available_at);
	isnull[MBUS_COL_AVAILABLE_AT] = available_at <= draft->created_at;
	values[MBUS_COL_TRANSACTION_ID] = PointerGetDatum(draft->transaction_id);
	isnull[MBUS_COL_TRANSACTION_ID] = draft->transaction_id == NULL;
	values[MBUS_COL_HEADERS] = draft->headers;
	isnull[MBUS_COL_HEADERS] = draft->headers == (Datum) 0;
	values[MBUS_COL_RECIPIENT] = PointerGetDatum(draft->recipient);
	isnull[MBUS_COL_RECIPIENT] = draft->recipient == NULL;
	values[MBUS_COL_BODY] = Int64GetDatum(draft->body ? draft->body->body : 0);
	isnull[MBUS_COL_BODY] = draft->body == NULL;
}

/*
 * key_hash returns what is stored of a key as key_hash; never 0.
 */
static int64
key_hash(const text *key)
{
	int64		hash = (int64) hash_bytes_extended((const unsigned char *) VARDATA_ANY(key),
												   (int) VARSIZE_ANY_EXHDR(key),
												   0);

	return hash != 0 ? hash : 1;
}

/*
 * mbus_insert_speculative inserts one draft so that it can be taken back;
 * returns whether its transaction id is new in this leaf.  The caller ends it
 * with mbus_insert_speculative_end in either case.
 */
bool
mbus_insert_speculative(MbusInserter *inserter, int32 channel_id,
						MbusDraft *draft, uint32 *token)
{
	MemoryContext caller;
	bool		conflict = false;

	caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(inserter->estate));
	fill_slot(inserter->slot, channel_id, draft, 1, mbus_subject());
	mbus_inserter_store(inserter, inserter->slot);

	*token = SpeculativeInsertionLockAcquire(GetCurrentTransactionId());
	inserter->slot->tts_tableOid = RelationGetRelid(inserter->rel);
	table_tuple_insert_speculative(inserter->rel, inserter->slot,
								   GetCurrentCommandId(true), 0, NULL,
								   *token);
	list_free(MbusInsertIndexTuples(inserter->rri, inserter->slot,
									inserter->estate, true, &conflict,
									inserter->arbiters));
	MemoryContextSwitchTo(caller);
	return !conflict;
}

/*
 * mbus_insert_speculative_end keeps the row or takes it back, and lets those
 * go on that wait to know.
 */
void
mbus_insert_speculative_end(MbusInserter *inserter, uint32 token, bool keep)
{
	table_tuple_complete_speculative(inserter->rel, inserter->slot, token,
									 keep);
	SpeculativeInsertionLockRelease(GetCurrentTransactionId());
	ExecClearTuple(inserter->slot);
	ResetPerTupleExprContext(inserter->estate);
}

/*
 * mbus_insert_event records a fact about a message, beside it: that the caller
 * has done something.
 */
void
mbus_insert_event(Oid schema, int64 message_id, const char *kind,
				  TimestampTz at)
{
	MbusEventBy by = {0};

	by.at = at;
	by.session = mbus_caller.session;
	by.role = GetUserNameFromId(GetUserId(), false);
	by.subject = mbus_subject();
	mbus_insert_events(schema, &message_id, 1, kind, &by);
}

/*
 * mbus_insert_events records the same fact about messages, beside each.
 */
void
mbus_insert_events(Oid schema, const int64 *ids, int n, const char *kind,
				   const MbusEventBy *by)
{
	int			next;

	for (int first = 0; first < n; first = next)
	{
		int32		segment = MbusSegmentOf(ids[first]);
		Relation	leaf = mbus_leaf_open(schema, segment, MBUS_EVENT,
										  RowExclusiveLock);
		MbusInserter *inserter;

		for (next = first; next < n && MbusSegmentOf(ids[next]) == segment;)
			next++;
		if (leaf == NULL)
			continue;			/* it was retired: nothing to say */
		inserter = mbus_inserter_open(RelationGetRelid(leaf),
									  MBUS_EVENT_COLUMNS, false);
		table_close(leaf, NoLock);
		for (int i = first; i < next; i++)
			event_put(inserter, schema, ids[i], kind, by);
		mbus_inserter_close(inserter);
	}
	CommandCounterIncrement();
}

static void
event_put(MbusInserter *inserter, Oid schema, int64 message_id,
		  const char *kind, const MbusEventBy *by)
{
	TupleTableSlot *slot = mbus_inserter_slot(inserter);
	Datum	   *values = slot->tts_values - 1;

	values[MBUS_EVENT_MESSAGE_ID] = Int64GetDatum(message_id);
	values[MBUS_EVENT_AT] = TimestampTzGetDatum(by->at);
	values[MBUS_EVENT_NO] =
		Int64GetDatum(mbus_fact_number(mbus_database(), schema,
									   MbusSegmentOf(message_id)));
	values[MBUS_EVENT_SESSION] = Int64GetDatum(by->session);
	slot->tts_isnull[MBUS_EVENT_SESSION - 1] = by->session == 0;
	mbus_slot_text(slot, MBUS_EVENT_KIND, kind);
	mbus_slot_text(slot, MBUS_EVENT_ROLE, by->role);
	mbus_slot_text(slot, MBUS_EVENT_SUBJECT, by->subject);
	mbus_inserter_put(inserter);
}
