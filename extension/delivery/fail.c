/*
 * fail.c
 *		Deliveries that failed: when they come again, or that they are dead.
 *
 * A failed delivery, by nack, an expired lease or a crash, is one row, and
 * the message comes again at its time.  The last attempt that the channel
 * allows closes it: failure, dead letter and ack are one transaction.
 */
#include "postgres.h"

#include <math.h>
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "channel/channel.h"
#include "delivery/dead_letter.h"
#include "delivery/fail.h"
#include "delivery/hold.h"
#include "facts/facts.h"
#include "state/clock.h"
#include "state/state.h"

/* Failures of one holding on their way into the tables. */
typedef struct Failing
{
	Oid			schema;
	MbusHolding *holding;
	const char *kind;
	const char *reason;
	int64		delay_us;		/* before the next attempt; < 0: backoff */
	TimestampTz now;
	bool		policed;		/* the channel exists, policy is its */
	MbusPolicy	policy;
	int			n;
	MbusFailure *failure;
	const char **outcome;		/* of its ack; NULL: there is none */
} Failing;

static void failing_one(Failing *failing, const MbusHeld *held);
static bool is_kind(const Failing *failing, const char *kind);
static TimestampTz retry_time(const Failing *failing, const MbusHeld *held);
static TimestampTz retry_wanted(const Failing *failing, int attempt);
static void failing_close(Failing *failing, const char *outcome);

/*
 * mbus_fail records that the deliveries held, which are pinned by a nack,
 * have failed, and when the messages come again: after delay_us, or (< 0)
 * after the channel's backoff.  kind: nacked, released, expired, disconnected, crash,
 * corrupt; what
 * expired or was cut off by a crash comes again at once, what is corrupt
 * never.  It asks for no privilege.  Errors: as mbus_publish_waived.
 */
void
mbus_fail(Oid schema, MbusDatabase *db, MbusHolding *holding,
		  const char *kind, int64 delay_us, const char *reason)
{
	const MbusPolicy *policy;
	Failing		failing;

	MemSet(&failing, 0, sizeof(failing));
	failing.schema = schema;
	failing.holding = holding;
	failing.kind = kind;
	failing.reason = reason;
	failing.delay_us = delay_us;
	failing.now = mbus_now();
	policy = mbus_channel_policy(schema, holding->channel_id);
	failing.policed = policy != NULL;
	if (policy)
		failing.policy = *policy;
	failing.failure = palloc(Max(holding->n, 1) * sizeof(MbusFailure));
	failing.outcome = palloc(Max(holding->n, 1) * sizeof(char *));

	for (int i = 0; i < holding->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!holding->held[i].again)
			failing_one(&failing, &holding->held[i]);
	}
	mbus_failures_insert(schema, holding, failing.failure, failing.n);
	failing_close(&failing, "dead");
	failing_close(&failing, "kept");
	failing_close(&failing, "corrupt");
	for (int i = 0; i < failing.n; i++)
		mbus_hold_retry(failing.failure[i].held->entry,
						failing.failure[i].retry_at);
	pfree(failing.failure);
	pfree(failing.outcome);
}

/* Decides what becomes of one. */
static void
failing_one(Failing *failing, const MbusHeld *held)
{
	MbusFailure *failure = &failing->failure[failing->n];
	const char **outcome = &failing->outcome[failing->n];

	failing->n++;
	MemSet(failure, 0, sizeof(*failure));
	failure->held = held;
	failure->kind = failing->kind;
	failure->reason = failing->reason;
	*outcome = NULL;
	if (is_kind(failing, "corrupt"))
		*outcome = "corrupt";
	else if (!failing->policed)
		 /* the channel was dropped: nobody waits for it any more */ ;
	else if (held->attempt >= failing->policy.max_attempts)
	{
		*outcome = mbus_dead_letter(failing->schema, failing->holding,
									failing->policy.dead_letter, failure);
		mbus_count(MBUS_C_DEAD_LETTERED, 1);
	}
	else
		failure->retry_at = retry_time(failing, held);
}

static bool
is_kind(const Failing *failing, const char *kind)
{
	return strcmp(failing->kind, kind) == 0;
}

/*
 * retry_time returns when a message is looked at again.  That of a key is when
 * it expires at the latest: then the key goes on.
 */
static TimestampTz
retry_time(const Failing *failing, const MbusHeld *held)
{
	TimestampTz at = retry_wanted(failing, held->attempt);

	return held->expires_at == 0 ? at :
		Max(Min(at, held->expires_at), failing->now);
}

/*
 * retry_wanted returns when a message comes again: the backoff doubles with
 * each attempt, and half of it is random, so that what failed together does
 * not come together.
 */
static TimestampTz
retry_wanted(const Failing *failing, int attempt)
{
	double		us;

	if (is_kind(failing, "expired") || is_kind(failing, "crash"))
		return failing->now;
	if (failing->delay_us >= 0)
		return failing->now + failing->delay_us;
	us = Min(ldexp((double) failing->policy.backoff_us, attempt - 1),
			 (double) failing->policy.backoff_max_us);
	us *= 0.5 + pg_prng_double(&pg_global_prng_state) / 2;
	return failing->now + (int64) us;
}

/* Inserts the acks of those with one outcome. */
static void
failing_close(Failing *failing, const char *outcome)
{
	MbusHolding closed = *failing->holding;

	closed.held = palloc(Max(failing->n, 1) * sizeof(MbusHeld));
	closed.n = 0;
	for (int i = 0; i < failing->n; i++)
	{
		if (failing->outcome[i] && strcmp(failing->outcome[i], outcome) == 0)
			closed.held[closed.n++] = *failing->failure[i].held;
	}
	if (closed.n > 0)
		mbus_ack_insert(failing->schema, &closed, outcome);
	pfree(closed.held);
}
