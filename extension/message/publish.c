/*
 * publish.c
 *		The publish functions.
 *
 * All come down to publish_drafts: check the privilege and every limit,
 * compute checksums and compress (draft.c); store the bytes of what is large
 * (large.c); reserve ids, which registers the publish as unfinished
 * (state/registry.c); insert (insert.c, and for messages with a transaction id
 * transaction_id.c).  What can fail comes before the
 * reservation where it can, so that ids are not used up by bad input.  A call
 * stores all of its messages or, raising an error, none.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/argument.h"
#include "base/caller.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/payload.h"
#include "base/schema.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "channel/publisher.h"
#include "message/batch.h"
#include "message/draft.h"
#include "message/insert.h"
#include "message/large.h"
#include "message/publish.h"
#include "message/transaction_id.h"
#include "state/disk.h"
#include "state/fault.h"
#include "state/registry.h"
#include "state/state.h"
#include "state/tally.h"

/* What a call's drafts have in common. */
typedef struct Sum
{
	int64		bytes;			/* as stored */
	int64		longest_ttl;
	bool		ordered;		/* one has a key */
} Sum;

static void publish_drafts(text *channel_name, MbusDraft *drafts, int ndrafts);
static void publish_allowed(void);
static void drafts_store(Oid schema, const MbusChannel *channel,
						 MbusDraft *drafts, int ndrafts, const Sum *sum);
static void drafts_check(Oid schema, const MbusChannel *channel,
						 MbusDraft *drafts, int ndrafts, Sum *sum);
static void draft_add(const MbusDraft *draft, Sum *sum);
static void drafts_count(int32 channel_id, const MbusDraft *drafts,
						 int ndrafts);
static void draft_context(void *arg);
static void insert_reserved(Oid schema, MbusDatabase *db,
							const MbusChannel *channel,
							const MbusReservation *run, MbusDraft *drafts);
static void array_arguments(FunctionCallInfo fcinfo, int argno,
							const char *name, Oid type, int expected,
							Datum **values, bool **isnull, int *count);
static void publish_json(FunctionCallInfo fcinfo, MbusDraft *draft);
static void about_argument(FunctionCallInfo fcinfo, int argno);
static void draft_arguments(FunctionCallInfo fcinfo, int argno,
							MbusDraft *draft);
static ArrayType *ids_array(const MbusDraft *drafts, int ndrafts);

/*
 * publish_drafts stores the drafts in a channel and sets their ids.
 * Errors: 42P01, 42501, 22023, 22P02, 23505, 25006, 53100, 54000, 55000,
 * 57000.
 */
static void
publish_drafts(text *channel_name, MbusDraft *drafts, int ndrafts)
{
	Oid			schema = mbus_schema();
	MbusChannel channel;
	Sum			sum = {0};
	instr_time	started;
	instr_time	took;

	INSTR_TIME_SET_CURRENT(started);
	publish_allowed();
	if (ndrafts > MBUS_CALL_MAX)
		mbus_call_too_large(ndrafts);
	channel = *mbus_channel_open(schema, channel_name, MBUS_PUBLISH);
	drafts_check(schema, &channel, drafts, ndrafts, &sum);
	drafts_store(schema, &channel, drafts, ndrafts, &sum);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, started);
	mbus_latency(MBUS_L_PUBLISH, (int64) INSTR_TIME_GET_MICROSEC(took), 1);
}

/* Errors unless messages can be published here and now. */
static void
publish_allowed(void)
{
	mbus_write_check("message_bus.publish()");
	if (!mbus_enabled)
		ereport(ERROR,
				(errcode(ERRCODE_OPERATOR_INTERVENTION),
				 errmsg("publishing is disabled"),
				 errhint("It is allowed again when \"message_bus.enabled\" is on.")));
}

/* Stores drafts that are ready, what is large of them first. */
static void
drafts_store(Oid schema, const MbusChannel *channel, MbusDraft *drafts,
			 int ndrafts, const Sum *sum)
{
	MbusDatabase *db = mbus_database();

	mbus_disk_check(db);
	for (int i = 0; i < ndrafts; i++)
		mbus_large_write(schema, db, channel, &drafts[i]);
	for (int done = 0; done < ndrafts;)
	{
		MbusReservation run;

		mbus_reserve(db, schema, channel->series, channel->channel_id,
					 ndrafts - done, done == 0 ? sum->bytes : 0,
					 sum->longest_ttl, sum->ordered, &run);
		insert_reserved(schema, db, channel, &run, &drafts[done]);
		done += run.rows;
	}
	CommandCounterIncrement();
	drafts_count(channel->channel_id, drafts, ndrafts);
}

/*
 * drafts_check checks them all, makes them ready to be stored and adds them up.
 */
static void
drafts_check(Oid schema, const MbusChannel *channel, MbusDraft *drafts,
			 int ndrafts, Sum *sum)
{
	int32		publisher_id = mbus_publisher_id(schema);
	int			checked;
	ErrorContextCallback where;

	where.callback = draft_context;
	where.arg = &checked;
	where.previous = error_context_stack;
	if (ndrafts > 1)
		error_context_stack = &where;
	for (checked = 0; checked < ndrafts; checked++)
	{
		MbusDraft  *draft = &drafts[checked];

		CHECK_FOR_INTERRUPTS();
		mbus_about_transaction(draft->transaction_id);
		mbus_draft_check(channel, draft);
		draft->publisher_id = publisher_id;
		draft_add(draft, sum);
	}
	error_context_stack = where.previous;
	/* what comes is about all of them */
	if (ndrafts > 1)
		mbus_about_transaction(NULL);
}

/* Adds a draft that is ready to what they have in common. */
static void
draft_add(const MbusDraft *draft, Sum *sum)
{
	sum->bytes += VARSIZE_ANY_EXHDR(draft->stored);
	sum->longest_ttl = Max(sum->longest_ttl, draft->ttl_us);
	sum->ordered |= draft->key != NULL;
}

/* Counts what was stored, and what was there before, and tells who asks. */
static void
drafts_count(int32 channel_id, const MbusDraft *drafts, int ndrafts)
{
	int			published = 0;
	int64		bytes = 0;

	for (int i = 0; i < ndrafts; i++)
	{
		mbus_receipt_add(drafts[i].duplicate);
		if (drafts[i].duplicate)
			continue;
		published++;
		bytes += drafts[i].size;
	}
	mbus_count(MBUS_C_PUBLISHED, published);
	mbus_count(MBUS_C_PUBLISHED_BYTES, bytes);
	mbus_count(MBUS_C_DUPLICATES, ndrafts - published);
	mbus_tally(channel_id, MBUS_T_PUBLISHED, published);
	mbus_tally(channel_id, MBUS_T_PUBLISHED_BYTES, bytes);
}

/* Tells which message of a call an error is about, counted from 0. */
static void
draft_context(void *arg)
{
	errcontext("message_bus messages[%d]", *(int *) arg);
}

/*
 * mbus_draft_copy lets a copy have what its original says of whom it is for, and
 * with "publisher" whom it is from.  It borrows.
 */
void
mbus_draft_copy(MbusDraft *draft, const MbusStored *original, bool publisher)
{
	draft->key = original->key;
	draft->recipient = original->recipient;
	draft->copied = publisher;
	draft->publisher_id = original->publisher_id;
	draft->subject = original->subject;
}

/*
 * mbus_publish_body stores a message whose bytes are in a body that is there,
 * and sets its id, or that of the message that it duplicates.  Of the draft the
 * payload is what the body begins with; the caller sets its size, checksum and
 * whether it was checked to be JSON, has the body's table locked to the end of
 * the transaction, and answers for the size.  With no body the payload is the
 * whole, as for publish.  Errors: 42501, 22023, 23505, 25006, 53100, 54000,
 * 55000, 57000.
 */
void
mbus_publish_body(Oid schema, const MbusChannel *channel, MbusDraft *draft,
				  const MbusBody *body)
{
	MbusChannel copy = *channel;	/* that of the cache may go */
	Sum			sum = {0};

	publish_allowed();
	mbus_channel_check(channel, MBUS_PUBLISH);
	if (body)
	{
		mbus_draft_check_head(&copy, draft);
		mbus_large_refer(draft, body);
	}
	else
		mbus_draft_check(&copy, draft);
	draft->publisher_id = mbus_publisher_id(schema);
	draft_add(draft, &sum);
	drafts_store(schema, &copy, draft, 1, &sum);
}

/*
 * mbus_publish_waived stores what the extension itself moves, a dead letter or
 * one that is redriven, and returns its id.  Neither the channel's privileges
 * and limits nor message_bus.enabled stop it, and the channel's time to live
 * is its own.  A key gives it no place among the publishes of others, so that
 * it takes its ids as if it had none.  A draft that refers to a body
 * (mbus_large_refer) is complete; else its payload is the whole.
 * Errors: 55000.
 */
int64
mbus_publish_waived(Oid schema, const MbusChannel *channel, MbusDraft *draft)
{
	MbusDatabase *db = mbus_database();
	MbusReservation run;

	draft->ttl_us = channel->ttl_us;
	if (!draft->copied)
		draft->publisher_id = mbus_publisher_id(schema);
	if (!draft->refers)
	{
		mbus_sha256(VARDATA_ANY(draft->payload), draft->size, draft->sha256);
		draft->stored = mbus_payload_encode(channel->compression,
											draft->payload,
											&draft->compression);
	}
	mbus_reserve(db, schema, channel->series, channel->channel_id, 1,
				 VARSIZE_ANY_EXHDR(draft->stored), draft->ttl_us, false,
				 &run);
	insert_reserved(schema, db, channel, &run, draft);
	CommandCounterIncrement();
	mbus_count(MBUS_C_PUBLISHED, 1);
	mbus_count(MBUS_C_PUBLISHED_BYTES, draft->size);
	mbus_tally(channel->channel_id, MBUS_T_PUBLISHED, 1);
	mbus_tally(channel->channel_id, MBUS_T_PUBLISHED_BYTES, draft->size);
	return draft->id;
}

/*
 * insert_reserved gives the first drafts the reserved ids and inserts them.
 * Ids of duplicates behind the last message that is new are left for the next.
 */
static void
insert_reserved(Oid schema, MbusDatabase *db, const MbusChannel *channel,
				const MbusReservation *run, MbusDraft *drafts)
{
	MbusDraft **plain = palloc(run->rows * sizeof(MbusDraft *));
	MbusDraft **unique = palloc(run->rows * sizeof(MbusDraft *));
	int			nplain = 0;
	int			nunique = 0;
	int32		used;

	/* what the leaf's CHECK would find: see mbus_row_check */
	if (MbusSegmentOf(run->first_id) != run->segment ||
		MbusSegmentOf(run->first_id + run->rows - 1) != run->segment)
		elog(ERROR, "reserved ids are not of segment %d", run->segment);

	for (int i = 0; i < run->rows; i++)
	{
		drafts[i].id = run->first_id + i;
		drafts[i].created_at = run->created_at;
		if (drafts[i].transaction_id)
			unique[nunique++] = &drafts[i];
		else
			plain[nplain++] = &drafts[i];
	}
	if (nplain > 0)
		mbus_insert_run(run, channel->channel_id, plain, nplain);
	if (nunique > 0)
		mbus_insert_unique(schema, db, run, channel, unique, nunique);
	for (int i = 0; i < run->rows; i++)
		mbus_large_keep(schema, db, &drafts[i]);
	used = run->rows;
	while (used > 0 && drafts[used - 1].duplicate)
		used--;
	mbus_reserve_undo(db, channel->channel_id, run, used);
	pfree(plain);
	pfree(unique);
}

/*
 * publish(channel, payload json, headers, key, transaction_id, ttl, delay,
 * sha256, available_at, recipient) returns the message's id.
 */
MBUS_CHANNEL_FUNCTION(publish)
{
	MbusDraft	draft;

	publish_json(fcinfo, &draft);
	PG_RETURN_INT64(draft.id);
}

/*
 * publish_once(channel, payload json, headers, key, transaction_id, ttl,
 * delay, sha256, available_at, recipient) returns the message's id, and whether
 * its transaction id repeats: then nothing was stored.
 */
MBUS_CHANNEL_FUNCTION(publish_once)
{
	MbusDraft	draft;
	TupleDesc	desc;
	Datum		values[2];
	bool		isnull[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "publish_once: not called for a row");
	publish_json(fcinfo, &draft);
	values[0] = Int64GetDatum(draft.id);
	values[1] = BoolGetDatum(draft.duplicate);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, isnull)));
}

/* Publishes what the arguments of both say. */
static void
publish_json(FunctionCallInfo fcinfo, MbusDraft *draft)
{
	about_argument(fcinfo, 4);
	mbus_required(fcinfo, 0, "channel");
	mbus_required(fcinfo, 1, "payload");
	mbus_draft_init(draft, (struct varlena *) PG_GETARG_POINTER(1),
					"application/json", false);
	draft_arguments(fcinfo, 2, draft);
	publish_drafts(PG_GETARG_TEXT_PP(0), draft, 1);
}

/*
 * publish_text(channel, payload text, content_type, ...) returns the
 * message's id; text of a JSON content type must be JSON.
 */
MBUS_CHANNEL_FUNCTION(publish_text)
{
	MbusDraft	draft;
	char	   *content_type;

	about_argument(fcinfo, 5);
	mbus_required(fcinfo, 0, "channel");
	mbus_required(fcinfo, 1, "payload");
	mbus_required(fcinfo, 2, "content_type");
	content_type = text_to_cstring(PG_GETARG_TEXT_PP(2));
	mbus_draft_init(&draft, (struct varlena *) PG_GETARG_POINTER(1),
					content_type, mbus_content_is_json(content_type));
	draft_arguments(fcinfo, 3, &draft);
	publish_drafts(PG_GETARG_TEXT_PP(0), &draft, 1);
	PG_RETURN_INT64(draft.id);
}

/*
 * publish_bytes(channel, payload bytea, content_type, ...) returns the
 * message's id; bytes of a JSON content type must be JSON.
 */
PG_FUNCTION_INFO_V1(mbus_publish_bytes);
Datum
mbus_publish_bytes(PG_FUNCTION_ARGS)
{
	return mbus_channel_call(publish_text_body, "publish_bytes", fcinfo);
}

/*
 * publish_batch(channel, messages json) returns the ids, in the order of the
 * array's objects.
 */
MBUS_CHANNEL_FUNCTION(publish_batch)
{
	MbusDraft  *drafts;
	int			ndrafts;

	mbus_required(fcinfo, 0, "channel");
	mbus_required(fcinfo, 1, "messages");
	drafts = mbus_batch_parse(PG_GETARG_TEXT_PP(1), &ndrafts);
	publish_drafts(PG_GETARG_TEXT_PP(0), drafts, ndrafts);
	PG_RETURN_ARRAYTYPE_P(ids_array(drafts, ndrafts));
}

/*
 * publish_batch_bytes(channel, payloads bytea[], content_type, headers
 * jsonb[], keys text[], transaction_ids text[], recipients text[]) returns the
 * ids.
 */
MBUS_CHANNEL_FUNCTION(publish_batch_bytes)
{
	MbusDraft  *drafts;
	char	   *content_type;
	bool		check_json;
	Datum	   *payloads;
	Datum	   *headers;
	Datum	   *keys;
	Datum	   *transaction_ids;
	Datum	   *recipients;
	bool	   *null_payload;
	bool	   *null_header;
	bool	   *null_key;
	bool	   *null_transaction_id;
	bool	   *null_recipient;
	int			n = 0;

	mbus_required(fcinfo, 0, "channel");
	mbus_required(fcinfo, 1, "payloads");
	mbus_required(fcinfo, 2, "content_type");
	content_type = text_to_cstring(PG_GETARG_TEXT_PP(2));
	check_json = mbus_content_is_json(content_type);
	array_arguments(fcinfo, 1, "payloads", BYTEAOID, -1, &payloads,
					&null_payload, &n);
	array_arguments(fcinfo, 3, "headers", JSONBOID, n, &headers,
					&null_header, NULL);
	array_arguments(fcinfo, 4, "keys", TEXTOID, n, &keys, &null_key, NULL);
	array_arguments(fcinfo, 5, "transaction_ids", TEXTOID, n,
					&transaction_ids, &null_transaction_id, NULL);
	array_arguments(fcinfo, 6, "recipients", TEXTOID, n, &recipients,
					&null_recipient, NULL);

	drafts = palloc(Max(n, 1) * sizeof(MbusDraft));
	for (int i = 0; i < n; i++)
	{
		if (null_payload[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("payloads[%d] must not be null", i + 1)));
		mbus_draft_init(&drafts[i],
						(struct varlena *) DatumGetPointer(payloads[i]),
						content_type, check_json);
		if (headers && !null_header[i])
			drafts[i].headers = headers[i];
		if (keys && !null_key[i])
			drafts[i].key = DatumGetTextPP(keys[i]);
		if (transaction_ids && !null_transaction_id[i])
			drafts[i].transaction_id = DatumGetTextPP(transaction_ids[i]);
		if (recipients && !null_recipient[i])
			drafts[i].recipient = DatumGetTextPP(recipients[i]);
	}
	publish_drafts(PG_GETARG_TEXT_PP(0), drafts, n);
	PG_RETURN_ARRAYTYPE_P(ids_array(drafts, n));
}

/* Takes an array argument apart; NULL for an argument that is null. */
static void
array_arguments(FunctionCallInfo fcinfo, int argno, const char *name,
				Oid type, int expected, Datum **values, bool **isnull,
				int *count)
{
	ArrayType  *array = mbus_array_argument(fcinfo, argno, name);
	int			n;

	*values = NULL;
	*isnull = NULL;
	if (array == NULL)
		return;
	deconstruct_array(array, type, -1, false, TYPALIGN_INT, values, isnull,
					  &n);
	if (expected >= 0 && n != expected)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has %d elements, payloads has %d", name, n,
						expected)));
	if (count)
		*count = n;
}

/* Notes the transaction id, before anything is found wrong. */
static void
about_argument(FunctionCallInfo fcinfo, int argno)
{
	if (!PG_ARGISNULL(argno))
		mbus_about_transaction(PG_GETARG_TEXT_PP(argno));
}

/* The arguments that the publish functions have in common, from argno on. */
static void
draft_arguments(FunctionCallInfo fcinfo, int argno, MbusDraft *draft)
{
	TimestampTz available_at = 0;

#define ARG(n, get) (PG_ARGISNULL(argno + (n)) ? NULL : get(argno + (n)))
	if (!PG_ARGISNULL(argno))
		draft->headers = PointerGetDatum(PG_DETOAST_DATUM(PG_GETARG_DATUM(argno)));
	if (!PG_ARGISNULL(argno + 6))
		available_at = PG_GETARG_TIMESTAMPTZ(argno + 6);
	mbus_draft_options(draft, ARG(1, PG_GETARG_TEXT_PP),
					   ARG(2, PG_GETARG_TEXT_PP),
					   ARG(3, PG_GETARG_INTERVAL_P),
					   ARG(4, PG_GETARG_INTERVAL_P),
					   PG_ARGISNULL(argno + 6) ? NULL : &available_at,
					   ARG(5, PG_GETARG_BYTEA_PP));
	draft->recipient = ARG(7, PG_GETARG_TEXT_PP);
#undef ARG
}

/* The drafts' ids as an array. */
static ArrayType *
ids_array(const MbusDraft *drafts, int ndrafts)
{
	Datum	   *ids = palloc(Max(ndrafts, 1) * sizeof(Datum));

	for (int i = 0; i < ndrafts; i++)
		ids[i] = Int64GetDatum(drafts[i].id);
	return construct_array(ids, ndrafts, INT8OID, 8, FLOAT8PASSBYVAL,
						   TYPALIGN_DOUBLE);
}
