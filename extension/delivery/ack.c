/*
 * ack.c
 *		ack, nack and extend: what becomes of claimed messages.
 *
 * Each first takes hold of the entries in shared memory (hold.c), which pins
 * them to the transaction and checks whose the lease is (holder.c) and the
 * privilege to consume, and then
 * inserts the rows that say it (facts/fact_insert.c; for a nack by fail.c).  A
 * call does all it was asked to or, raising an error, nothing.
 *
 * An ack that is repeated finds its lease gone, or without these messages:
 * then the rows of acks are asked, which bear the lease.  So a client that
 * does not know whether its ack was committed may say it again.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/argument.h"
#include "base/compat.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "channel/subscription.h"
#include "delivery/ack.h"
#include "delivery/fail.h"
#include "delivery/hold.h"
#include "delivery/holder.h"
#include "delivery/pool.h"
#include "facts/facts.h"
#include "state/clock.h"
#include "state/fault.h"
#include "state/state.h"
#include "state/tally.h"

#define MBUS_DELAY_MAX_US	(INT64CONST(36525) * USECS_PER_DAY)
#define NAMED_IDS			5	/* in an error */

static int64 lease_argument(FunctionCallInfo fcinfo);
static int	repeated(Oid schema, int64 lease, int nids, const int64 *ids,
					 bool held);
pg_noreturn static void not_held(int64 lease, const int64 *ids, int nids,
								 bool gone);
static int64 delay_argument(FunctionCallInfo fcinfo, int argno);
static char *reason_argument(FunctionCallInfo fcinfo, int argno, int n);

/*
 * ack(lease, ids) says that messages are done with, all of the lease's if
 * ids is null, and returns how many.
 */
MBUS_FUNCTION(ack)
{
	int64		lease = lease_argument(fcinfo);
	int64	   *ids;
	int			nids = mbus_ids_argument(fcinfo, 1, &ids);
	Oid			schema = mbus_schema();

	mbus_write_check("message_bus.ack()");
	if (nids == 0)
		PG_RETURN_INT32(0);
	PG_RETURN_INT32(mbus_ack_lease(schema, lease, nids, ids));
}

/*
 * mbus_ack_lease acks messages of a lease, all of them (nids < 0) or those of
 * some ids, ascending and each once, and returns how many.  Errors: 42501
 * without the privilege to consume; 55000 if one is not held, and then nothing
 * is acked.
 */
int
mbus_ack_lease(Oid schema, int64 lease, int nids, const int64 *ids)
{
	MbusHolding holding;
	int			again = 0;
	int			total;

	if (!mbus_hold(schema, mbus_database(), lease, nids, ids, MBUS_PIN_ACK,
				   &holding))
		return repeated(schema, lease, nids, ids, false);
	/* all given back by this transaction; or what is left is corrupt */
	if (nids < 0 && holding.n == 0)
		return repeated(schema, lease, nids, ids, false);
	total = holding.n;
	if (nids > 0 && holding.nmissing > 0)
		total += repeated(schema, lease, holding.nmissing, holding.missing,
						  true);
	for (int i = 0; i < holding.n; i++)
		again += holding.held[i].again;
	mbus_ack_insert(schema, &holding, "acked");
	mbus_count(MBUS_C_ACKED, holding.n - again);
	mbus_tally(holding.channel_id, MBUS_T_ACKED, holding.n - again);
	mbus_latency(MBUS_L_ACK, mbus_now() - holding.claimed_at,
				 holding.n - again);
	return total;
}

/*
 * nack(lease, ids, delay, reason) gives messages back, all of the lease's if
 * ids is null, and returns how many.
 */
MBUS_FUNCTION(nack)
{
	int64		lease = lease_argument(fcinfo);
	int64	   *ids;
	int			nids = mbus_ids_argument(fcinfo, 1, &ids);
	int64		delay_us = delay_argument(fcinfo, 2);
	Oid			schema = mbus_schema();
	MbusDatabase *db;
	MbusHolding holding;

	mbus_write_check("message_bus.nack()");
	if (nids == 0)
		PG_RETURN_INT32(0);
	db = mbus_database();
	if (!mbus_hold(schema, db, lease, nids, ids, MBUS_PIN_NACK, &holding))
		not_held(lease, ids, nids, true);
	if (nids < 0 && holding.n == 0)
		not_held(lease, NULL, 0, true);
	if (nids > 0 && holding.nmissing > 0)
		not_held(lease, holding.missing, holding.nmissing, false);
	mbus_fail(schema, db, &holding, "nacked", delay_us,
			  reason_argument(fcinfo, 3, holding.n));
	mbus_count(MBUS_C_NACKED, holding.n);
	PG_RETURN_INT32(holding.n);
}

/*
 * release_lease(lease) gives all messages of a lease back, whose ever it is,
 * of a channel that the caller owns, and returns how many.
 */
MBUS_FUNCTION(release_lease)
{
	int64		lease = lease_argument(fcinfo);
	Oid			schema = mbus_schema();
	MbusDatabase *db;
	MbusHolding holding;

	mbus_write_check("message_bus.release_lease()");
	db = mbus_database();
	if (!mbus_hold_as_owner(schema, db, lease, &holding) || holding.n == 0)
		not_held(lease, NULL, 0, true);
	mbus_fail(schema, db, &holding, "released", 0, NULL);
	mbus_count(MBUS_C_NACKED, holding.n);
	PG_RETURN_INT32(holding.n);
}

/*
 * extend(lease, lease_for, ids) lets messages be held for lease_for from now
 * on, and returns until when.
 */
MBUS_FUNCTION(extend)
{
	int64		lease = lease_argument(fcinfo);
	int64	   *ids;
	int			nids = mbus_ids_argument(fcinfo, 2, &ids);
	int64		us;

	mbus_write_check("message_bus.extend()");
	mbus_required(fcinfo, 1, "lease_for");
	us = mbus_interval_us(PG_GETARG_INTERVAL_P(1));
	if (us <= 0 || us > MBUS_LEASE_MAX_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid lease_for: %.3f seconds", us / 1e6),
				 errdetail("It is positive and at most 7 days.")));
	PG_RETURN_TIMESTAMPTZ(mbus_lease_extend(lease, nids, ids, us));
}

static int64
lease_argument(FunctionCallInfo fcinfo)
{
	mbus_required(fcinfo, 0, "lease");
	return PG_GETARG_INT64(0);
}

/*
 * mbus_ids_argument reads an array of ids, ascending and each once; returns how
 * many, -1 if it is null.
 */
int
mbus_ids_argument(FunctionCallInfo fcinfo, int argno, int64 **ids)
{
	ArrayType  *array = mbus_array_argument(fcinfo, argno, "ids");
	int64	   *given;
	int			ngiven;
	int			n = 0;

	*ids = NULL;
	if (array == NULL)
		return -1;
	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("ids must not hold nulls")));
	ngiven = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	given = palloc(Max(ngiven, 1) * sizeof(int64));
	memcpy(given, ARR_DATA_PTR(array), ngiven * sizeof(int64));
	qsort(given, ngiven, sizeof(int64), mbus_int64_compare);
	for (int i = 0; i < ngiven; i++)
	{
		if (n == 0 || given[i] != given[n - 1])
			given[n++] = given[i];
	}
	if (n > MBUS_CLAIM_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many ids in one call: %d", n),
				 errdetail("The limit is %d.", MBUS_CLAIM_MAX)));
	*ids = given;
	return n;
}

/*
 * repeated returns how many messages were acked under the lease before: the
 * ids, or all (nids < 0), by the caller.  "held" tells that the lease is there
 * and does not hold the ids.  55000 if some were not; 42501 without the
 * privilege.
 */
static int
repeated(Oid schema, int64 lease, int nids, const int64 *ids, bool held)
{
	bool	   *found = palloc(Max(nids, 1) * sizeof(bool));
	int64	   *lacking = palloc(Max(nids, 1) * sizeof(int64));
	int			nlacking = 0;
	int32		subscription_id;
	const MbusSubscription *subscription;
	const MbusChannel *channel = NULL;
	int			total;

	total = mbus_ack_repeated(schema, lease, nids, ids, mbus_holder_named,
							  found, &subscription_id);
	subscription = mbus_subscription_by_id(schema, subscription_id);
	if (subscription)
		channel = mbus_channel_by_id(schema, subscription->channel_id);
	if (channel)
		mbus_channel_check(channel, MBUS_CONSUME);
	else
		total = 0;
	for (int i = 0; i < nids; i++)
	{
		if (channel == NULL || !found[i])
			lacking[nlacking++] = ids[i];
	}
	if (total == 0 || nlacking > 0)
		not_held(lease, lacking, nlacking, !held);
	pfree(found);
	pfree(lacking);
	return total;
}

/* Errors with 55000 and names the first few of the ids. */
static void
not_held(int64 lease, const int64 *ids, int nids, bool gone)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < Min(nids, NAMED_IDS); i++)
		appendStringInfo(&list, "%s" INT64_FORMAT, i > 0 ? ", " : "", ids[i]);
	if (nids > NAMED_IDS)
		appendStringInfo(&list, " and %d more", nids - NAMED_IDS);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 gone ? errmsg("lease " INT64_FORMAT " is not held", lease) :
			 errmsg("lease " INT64_FORMAT " does not hold message "
					INT64_FORMAT, lease, ids[0]),
			 nids > 0 ?
			 errdetail("It has expired, was given back, or is from before a restart of the server. Not held: %s.",
					   list.data) :
			 errdetail("It has expired, was given back, or is from before a restart of the server.")));
}

/* The delay in microseconds, -1 if it is null. */
static int64
delay_argument(FunctionCallInfo fcinfo, int argno)
{
	int64		us;

	if (PG_ARGISNULL(argno))
		return -1;
	us = mbus_interval_us(PG_GETARG_INTERVAL_P(argno));
	if (us < 0 || us > MBUS_DELAY_MAX_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid delay: %.3f seconds", us / 1e6),
				 errdetail("It is not negative and at most 100 years.")));
	return us;
}

/*
 * reason_argument returns why n messages are given back.  A long one is cut
 * between characters, and tells how long it was: it must not keep the nack
 * from happening.  It is kept with each message, so that of many it is less.
 */
static char *
reason_argument(FunctionCallInfo fcinfo, int argno, int n)
{
	int			most = Max(MBUS_REASON_LEAST, MBUS_REASONS_MAX / Max(n, 1));
	text	   *reason;
	char	   *tail;
	int			len;
	int			kept;

	if (PG_ARGISNULL(argno))
		return NULL;
	reason = PG_GETARG_TEXT_PP(argno);
	len = VARSIZE_ANY_EXHDR(reason);
	most = Min(most, MBUS_REASON_MAX);
	if (len <= most)
		return text_to_cstring(reason);
	tail = psprintf("... (%d bytes)", len);
	kept = pg_mbcliplen(VARDATA_ANY(reason), len,
						most - (int) strlen(tail));
	return psprintf("%.*s%s", kept, VARDATA_ANY(reason), tail);
}
