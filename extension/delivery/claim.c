/*
 * claim.c
 *		claim and claim_bytes: taking messages to work on.
 *
 * A claim finds its subscription's slot (the worker loads it), becomes its
 * scanner, scans (scan.c), lets the next one scan, and only then reads the
 * payloads of what it got: copies of the rows are all it needs.  Its leases
 * are the transaction's until that commits (effect.c).
 *
 * With "ack" it first acks what the caller has claimed before, by the rules of
 * ack(): both commit together, and where the ack is refused the scan is not
 * begun.  Such a call does not wait.  An ack that is not committed keeps its
 * messages from everybody, of an ordered subscription also what follows them
 * in their keys; and work that is done would come again if the wait were cut
 * off.
 *
 * If there is nothing and the caller waits, it sleeps until a publish or
 * something else wakes its channel's waiters, or until the time the scan has
 * said that something is due.  It enters itself as a waiter before it scans.
 * A gateway's session may be ended meanwhile: the claim looks once a second,
 * and before it returns what was published to somebody who has left.
 *
 * A message whose bytes do not match its checksum is left out of the result;
 * the worker gives it up when the claim has committed.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "segment/row_whole.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
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
#include "channel/owned.h"
#include "channel/subscription.h"
#include "delivery/ack.h"
#include "delivery/claim.h"
#include "delivery/holder.h"
#include "delivery/hold.h"
#include "delivery/pool.h"
#include "delivery/scan.h"
#include "delivery/scanner.h"
#include "delivery/scanning.h"
#include "delivery/slot.h"
#include "message/payload_read.h"
#include "message/quarantine.h"
#include "message/stored.h"
#include "segment/leaf.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/tally.h"
#include "state/waiter.h"

#define WAIT_MAX_US		USECS_PER_DAY
#define COLUMNS			12
#define SIZE_AT			8		/* column of them */
#define WORK_KEPT		(128 * 1024)

typedef struct Claim
{
	Oid			schema;
	MbusDatabase *db;
	int32		channel_id;
	int32		subscription_id;
	char	   *subscription;
	uint32		slot;
	TimestampTz until;			/* of the wait; 0: do not */
	int64		ack;			/* lease to be acked; 0: none */
	bool		bytes;			/* payload as bytes */
	MbusScan	scan;
} Claim;

/*
 * Where claims keep what they find until they return it.  It stays, and keeps
 * WORK_KEPT bytes: memory that is given back to the kernel at the end of each
 * claim is dear.  An error leaves it for the next claim to reset.
 */
static MemoryContext claim_context = NULL;

static Datum claim_run(FunctionCallInfo fcinfo, bool bytes);
static void claim_arguments(FunctionCallInfo fcinfo, Claim *claim);
static int64 wait_argument(FunctionCallInfo fcinfo, int argno);
static int64 ack_argument(FunctionCallInfo fcinfo, int argno);
static int64 lease_argument(FunctionCallInfo fcinfo, int argno,
							const Claim *claim);
static void claim_sleep(const Claim *claim, TimestampTz until);
static void consume_check(const Claim *claim);
static bool claim_once(Claim *claim);
static const MbusSubscription *claim_subscription(Claim *claim);
static void claim_result(Claim *claim, ReturnSetInfo *rsinfo);
static bool delivery_values(Claim *claim, MbusFound *found, TupleDesc desc,
							Datum *values, bool *isnull);

/*
 * claim(channel, subscription, batch, lease_for, wait, max_bytes, ack, keep)
 */
MBUS_CHANNEL_FUNCTION(claim)
{
	return claim_run(fcinfo, false);
}

/*
 * claim_bytes: the same with payload as bytea.
 */
MBUS_CHANNEL_FUNCTION(claim_bytes)
{
	return claim_run(fcinfo, true);
}

/*
 * claim_run is both functions: it acks if it is to, scans, and sleeps in
 * between, until something is found or the time of the wait is over, and
 * returns what was found.
 */
static Datum
claim_run(FunctionCallInfo fcinfo, bool bytes)
{
	Claim		claim;
	bool		waiting;
	MemoryContext caller;

	MemSet(&claim, 0, sizeof(claim));
	claim.bytes = bytes;
	if (claim_context == NULL)
		claim_context = AllocSetContextCreate(TopMemoryContext,
											  "message_bus scan",
											  WORK_KEPT,
											  ALLOCSET_DEFAULT_INITSIZE,
											  ALLOCSET_DEFAULT_MAXSIZE);
	InitMaterializedSRF(fcinfo, 0);
	claim_arguments(fcinfo, &claim);
	if (claim.ack != 0)
	{
		(void) mbus_ack_lease(claim.schema, claim.ack, -1, NULL);
		mbus_about_channel_text(PG_GETARG_TEXT_PP(0));
	}
	waiting = claim.until != 0;
	if (waiting)
		mbus_wait_begin(claim.db, &claim.channel_id, 1);
	for (;;)
	{
		TimestampTz now;
		bool		found;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(claim_context);
		caller = MemoryContextSwitchTo(claim_context);
		found = claim_once(&claim);
		MemoryContextSwitchTo(caller);
		if (found)
		{
			if (waiting)
				mbus_caller_check();
			break;
		}
		now = mbus_now();
		if (!waiting || now >= claim.until)
			break;
		if (claim.scan.next > now)
			claim_sleep(&claim, Min(claim.until, claim.scan.next));
	}
	if (waiting)
		mbus_wait_end();
	claim_result(&claim, (ReturnSetInfo *) fcinfo->resultinfo);
	MemoryContextReset(claim_context);
	return (Datum) 0;
}

/*
 * claim_arguments checks the arguments and finds the channel, its lease time
 * and the end of the wait.  Errors: 22004, 22023, 25001, 25006, 42P01, 42501,
 * 55000.
 */
static void
claim_arguments(FunctionCallInfo fcinfo, Claim *claim)
{
	MbusScan   *scan = &claim->scan;
	int64		wait_us;

	mbus_write_check("message_bus.claim()");
	mbus_required(fcinfo, 0, "channel");
	mbus_required(fcinfo, 1, "subscription");
	scan->batch = PG_ARGISNULL(2) ? 1 : PG_GETARG_INT32(2);
	if (scan->batch < 1 || scan->batch > MBUS_CLAIM_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid batch: %d", scan->batch),
				 errdetail("It is from 1 to %d.", MBUS_CLAIM_MAX)));
	scan->max_bytes = PG_ARGISNULL(5) ? PG_INT64_MAX : PG_GETARG_INT64(5);
	if (scan->max_bytes < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid max_bytes: " INT64_FORMAT, scan->max_bytes),
				 errdetail("It is 1 or more.")));
	scan->subject = mbus_holder_subject();
	scan->keep = !PG_ARGISNULL(7) && PG_GETARG_BOOL(7);
	wait_us = wait_argument(fcinfo, 4);
	claim->ack = ack_argument(fcinfo, 6);

	claim->schema = scan->schema = mbus_schema();
	claim->channel_id = scan->channel_id =
		mbus_channel_open(claim->schema, PG_GETARG_TEXT_PP(0),
						  MBUS_CLAIM)->channel_id;
	claim->db = scan->db = mbus_database();
	claim->subscription = text_to_cstring(PG_GETARG_TEXT_PP(1));
	scan->lease_us = lease_argument(fcinfo, 3, claim);
	if (wait_us > 0 && claim->ack == 0)
		claim->until = mbus_now() + wait_us;
}

/* How long to wait for messages: 0 is not at all. */
static int64
wait_argument(FunctionCallInfo fcinfo, int argno)
{
	int64		wait_us = 0;

	if (!PG_ARGISNULL(argno))
		wait_us = mbus_interval_us(PG_GETARG_INTERVAL_P(argno));
	if (wait_us < 0 || wait_us > WAIT_MAX_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("wait must be from 0 to one day")));
	if (mbus_claim_wait_max >= 0)
		wait_us = Min(wait_us, (int64) mbus_claim_wait_max * 1000);
	if (wait_us > 0 && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for messages in a REPEATABLE READ or SERIALIZABLE transaction"),
				 errhint("Use READ COMMITTED, or a claim without wait.")));
	return wait_us;
}

/* The lease to be acked; 0: none.  No lease has a number below 1. */
static int64
ack_argument(FunctionCallInfo fcinfo, int argno)
{
	int64		lease = 0;

	if (PG_ARGISNULL(argno))
		return 0;
	lease = PG_GETARG_INT64(argno);
	if (lease < 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lease " INT64_FORMAT " is not held", lease)));
	return lease;
}

/*
 * How long messages are leased; the channel says so where the call does not.
 */
static int64
lease_argument(FunctionCallInfo fcinfo, int argno, const Claim *claim)
{
	int64		lease_us;

	if (PG_ARGISNULL(argno))
	{
		const MbusPolicy *policy = mbus_channel_policy(claim->schema,
													   claim->channel_id);

		if (policy == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("channel \"%s\" does not exist",
							text_to_cstring(PG_GETARG_TEXT_PP(0)))));
		lease_us = policy->lease_us;
	}
	else
		lease_us = mbus_interval_us(PG_GETARG_INTERVAL_P(argno));
	mbus_channel_lease_check(claim->schema, claim->channel_id, lease_us);
	return lease_us;
}

/* Sleeps until something has happened, or a time; looks at the caller. */
static void
claim_sleep(const Claim *claim, TimestampTz until)
{
	TimestampTz look;

	do
	{
		look = until;
		if (mbus_caller.check)
			look = Min(until, mbus_now() + USECS_PER_SEC);
		mbus_wait_sleep(look);
		consume_check(claim);
	} while (look < until && mbus_now() >= look);
}

/* After a sleep: the channel may be gone, or the privilege, or the session. */
static void
consume_check(const Claim *claim)
{
	const MbusChannel *channel;

	AcceptInvalidationMessages();
	channel = mbus_channel_by_id(claim->schema, claim->channel_id);
	if (channel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("channel %d does not exist", claim->channel_id),
				 errdetail("It was dropped meanwhile.")));
	mbus_channel_check(channel, MBUS_CLAIM);
	mbus_caller_check();
}

/*
 * claim_once scans once; true if something was found.
 */
static bool
claim_once(Claim *claim)
{
	TimestampTz started = 0;

	claim->scan.nfound = 0;
	claim->scan.next = PG_INT64_MAX;
	for (;;)
	{
		const MbusSubscription *subscription;
		bool		recorded;

		CHECK_FOR_INTERRUPTS();
		subscription = claim_subscription(claim);

		if (subscription->paused)
		{
			/* resume wakes before it sends what makes our cache stale */
			claim->scan.next = mbus_now() + USECS_PER_SEC / 4;
			return false;
		}
		claim->subscription_id = subscription->subscription_id;
		claim->slot = mbus_slot_open(claim->schema, claim->db, subscription);
		claim->scan.slot = claim->slot;
		if (!mbus_scanner_acquire(claim->slot, claim->schema,
								  claim->subscription_id, false))
			continue;
		recorded = mbus_scan(&claim->scan);
		mbus_scanner_release();
		if (recorded && claim->scan.lease == 0 && !claim->scan.probe &&
			(claim->scan.full || claim->scan.next == PG_INT64_MIN))
			continue;			/* only what has to wait was found so far */
		if (recorded)
			break;
		mbus_worker_wait(claim->db, &started, "get ready");
		AcceptInvalidationMessages();
	}
	return claim->scan.lease != 0;
}

/*
 * claim_subscription finds the subscription; "default" is made at the first
 * claim, by the worker, so that it is there for everybody.
 */
static const MbusSubscription *
claim_subscription(Claim *claim)
{
	TimestampTz started = 0;

	for (;;)
	{
		const MbusSubscription *subscription;
		const MbusChannel *channel;

		subscription = mbus_subscription_by_name(claim->schema,
												 claim->channel_id,
												 claim->subscription);
		if (subscription)
			return subscription;
		channel = mbus_channel_by_id(claim->schema, claim->channel_id);
		if (strcmp(claim->subscription, "default") != 0 || channel == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("subscription \"%s\" does not exist",
							claim->subscription)));
		if (started == 0)
			mbus_owned_check(claim->schema, MBUS_OWNED_SUBSCRIPTIONS,
							 channel->owner);
		mbus_slot_want_default(claim->db, claim->channel_id);
		mbus_worker_wait(claim->db, &started, "make the subscription");
		AcceptInvalidationMessages();
	}
}

/*
 * mbus_claim_probe tells whether a claim would find something, and sets *next
 * to when to look again at the latest.
 */
bool
mbus_claim_probe(Oid schema, MbusDatabase *db, const MbusChannel *channel,
				 const MbusSubscription *subscription, TimestampTz *next)
{
	Claim		claim;

	MemSet(&claim, 0, sizeof(claim));
	claim.schema = claim.scan.schema = schema;
	claim.db = claim.scan.db = db;
	claim.channel_id = claim.scan.channel_id = channel->channel_id;
	claim.subscription = pstrdup(subscription->name);
	claim.scan.batch = 1;
	claim.scan.max_bytes = PG_INT64_MAX;
	claim.scan.probe = true;
	(void) claim_once(&claim);
	*next = claim.scan.next;
	return claim.scan.nfound > 0;
}

/*
 * claim_result returns what was found.
 */
static void
claim_result(Claim *claim, ReturnSetInfo *rsinfo)
{
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "message_bus claim",
											  ALLOCSET_DEFAULT_SIZES);
	int64	   *corrupt = NULL;
	int			ncorrupt = 0;
	int			claimed = 0;
	int			again = 0;
	int64		bytes = 0;
	TimestampTz now = mbus_now();
	Relation	leaf = NULL;
	int32		segment = 0;

	for (int i = 0; i < claim->scan.nfound; i++)
	{
		MbusFound  *found = &claim->scan.found[i];
		MemoryContext caller;
		Datum		values[COLUMNS];
		bool		isnull[COLUMNS];

		if (found->next)
			continue;
		if (leaf == NULL || segment != MbusSegmentOf(found->id))
		{
			if (leaf)
				table_close(leaf, NoLock);
			segment = MbusSegmentOf(found->id);
			leaf = mbus_leaf_open(claim->schema, segment, MBUS_MESSAGE,
								  AccessShareLock);
			if (leaf == NULL)
				continue;		/* cannot be: the scan has it locked */
		}
		CHECK_FOR_INTERRUPTS();
		caller = MemoryContextSwitchTo(row);
		if (delivery_values(claim, found, RelationGetDescr(leaf), values,
							isnull))
		{
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values,
								 isnull);
			claimed++;
			bytes += DatumGetInt64(values[SIZE_AT]);
			if (found->attempt > 1)
				again++;
			else if (!found->failed)
				mbus_latency(MBUS_L_CLAIM, now - found->since, 1);
		}
		else
		{
			MemoryContextSwitchTo(caller);
			if (corrupt == NULL)
				corrupt = palloc(claim->scan.nfound * sizeof(int64));
			corrupt[ncorrupt++] = found->id;
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(row);
	}
	if (leaf)
		table_close(leaf, NoLock);
	if (ncorrupt > 0)
		mbus_hold_mark_corrupt(corrupt, ncorrupt);
	MemoryContextDelete(row);
	mbus_count(MBUS_C_CLAIMED, claimed);
	mbus_count(MBUS_C_REDELIVERED, again);
	mbus_count(MBUS_C_CORRUPT_SKIPPED, ncorrupt);
	mbus_tally(claim->channel_id, MBUS_T_DELIVERED, claimed);
	mbus_tally(claim->channel_id, MBUS_T_DELIVERED_BYTES, bytes);
}

/*
 * delivery_values fills in a row of message_bus.delivery; false if the bytes
 * do not match, or it is in quarantine.
 */
static bool
delivery_values(Claim *claim, MbusFound *found, TupleDesc desc,
				Datum *values, bool *isnull)
{
	Datum		column[MBUS_MESSAGE_COLUMNS];
	bool		null[MBUS_MESSAGE_COLUMNS];
	MbusStored	message;
	bytea	   *digest;
	struct varlena *payload = NULL;
	bool		json;
	bool		known;

	/* what it points to must not even be read */
	known = mbus_quarantined(found->id);
	if (known || !mbus_row_whole(found->tuple, desc, MBUS_COL_PAYLOAD, InvalidOid))
	{
		mbus_message_damaged(found->id, known);
		return false;
	}
#define COLUMN(c) (column[(c) - 1])
	mbus_leaf_deform(found->tuple, desc, MBUS_MESSAGE_COLUMNS, column, null);
	MemSet(isnull, 0, COLUMNS * sizeof(bool));
	MemSet(&message, 0, sizeof(message));
	message.id = found->id;
	message.channel_id = DatumGetInt32(COLUMN(MBUS_COL_CHANNEL_ID));
	message.expires_at = DatumGetTimestampTz(COLUMN(MBUS_COL_EXPIRES_AT));
	message.size = DatumGetInt64(COLUMN(MBUS_COL_SIZE));
	if (!null[MBUS_COL_BODY - 1])
		message.body = DatumGetInt64(COLUMN(MBUS_COL_BODY));
	message.json = MbusEncodingJson(DatumGetChar(COLUMN(MBUS_COL_ENCODING)));
	message.compression =
		mbus_compression_of(DatumGetChar(COLUMN(MBUS_COL_ENCODING)));
	message.stored = (struct varlena *) DatumGetPointer(COLUMN(MBUS_COL_PAYLOAD));
	digest = DatumGetByteaPP(COLUMN(MBUS_COL_SHA256));
	memcpy(message.sha256, VARDATA_ANY(digest),
		   Min(VARSIZE_ANY_EXHDR(digest), MBUS_SHA256_BYTES));
	if (null[MBUS_COL_CONTENT_TYPE - 1])
		COLUMN(MBUS_COL_CONTENT_TYPE) = CStringGetTextDatum(MBUS_CONTENT_JSON);
	message.content_type = TextDatumGetCString(COLUMN(MBUS_COL_CONTENT_TYPE));
	json = mbus_content_is_json(message.content_type) ||
		mbus_caller.raw_payload;
	if (message.size <= mbus_inline_max &&
		(claim->bytes || !mbus_message_unchecked(&message)))
	{
		payload = mbus_payload_read(claim->schema, &message);
		if (payload == NULL)
			return false;
	}

	values[0] = Int64GetDatum(found->id);
	values[1] = Int64GetDatum(claim->scan.lease);
	values[2] = Int32GetDatum(found->attempt);
	values[3] = COLUMN(MBUS_COL_CREATED_AT);
	found->since = DatumGetTimestampTz(null[MBUS_COL_AVAILABLE_AT - 1] ?
									   values[3] :
									   COLUMN(MBUS_COL_AVAILABLE_AT));
	values[4] = COLUMN(MBUS_COL_EXPIRES_AT);
	values[5] = COLUMN(MBUS_COL_KEY);
	isnull[5] = null[MBUS_COL_KEY - 1];
	values[6] = COLUMN(MBUS_COL_HEADERS);
	isnull[6] = null[MBUS_COL_HEADERS - 1];
	if (!isnull[6])
		values[6] = PointerGetDatum(PG_DETOAST_DATUM(values[6]));
	values[7] = COLUMN(MBUS_COL_CONTENT_TYPE);
	values[SIZE_AT] = Int64GetDatum(message.size);
	values[9] = COLUMN(MBUS_COL_SHA256);
	values[10] = BoolGetDatum(payload == NULL);
	isnull[11] = payload == NULL || (!claim->bytes && !json);
	values[11] = PointerGetDatum(payload);
#undef COLUMN
	return true;
}
