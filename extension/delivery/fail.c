/*
 * fail.c
 *		Deliveries that failed: when they come again, or that they are dead.
 *
 * A failed delivery, by nack, an expired lease or a crash, is one row, and
 * the message comes again at its time.  The last attempt that the channel
 * allows closes it: failure, dead letter and ack are one transaction.  So does
 * one whose next attempt would come when the message has expired: nobody would
 * ever get it.
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
#include "message/stored.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/tally.h"

#define LATE_REASON	"no retry: the message would have expired by then"

/* Failures of one holding on their way into the tables. */
typedef struct Failing
{
	Oid			schema;
	MbusHolding *holding;
	const char *kind;
	const char *reason;
	int64		delay_us;		/* before the next attempt; < 0: backoff */
	bool		unclaimed;		/* they were delivered to nobody, and expire */
	TimestampTz now;
	bool		policed;		/* the channel exists, policy is its */
	MbusPolicy	policy;
	int			n;
	MbusFailure *failure;
	const char **outcome;		/* of its ack; NULL: there is none */
} Failing;

static void failing_all(Failing *failing);
static void failing_one(Failing *failing, const MbusHeld *held);
static bool is_kind(const Failing *failing, const char *kind);
static bool too_late(const Failing *failing, const MbusHeld *held,
					 TimestampTz retry_at);
static const char *late_reason(const char *reason);
static TimestampTz retry_wanted(const Failing *failing, int attempt);
static void failing_close(Failing *failing, const char *outcome);
static void failing_tally(const Failing *failing);

/*
 * mbus_fail records that the deliveries held, which are pinned by a nack,
 * have failed, and when the messages come again: after delay_us, or (< 0)
 * after the channel's backoff.  kind: nacked, released, expired, disconnected, crash,
 * corrupt; what
 * expired or was cut off by a crash comes again at once, what is corrupt, or
 * has expired by then, never.  It asks for no privilege.  Errors: as mbus_publish_waived.
 */
void
mbus_fail(Oid schema, MbusDatabase *db, MbusHolding *holding,
		  const char *kind, int64 delay_us, const char *reason)
{
	Failing		failing = {0};

	failing.schema = schema;
	failing.holding = holding;
	failing.kind = kind;
	failing.reason = reason;
	failing.delay_us = delay_us;
	failing_all(&failing);
}

/*
 * mbus_fail_unclaimed records that messages, which are pinned by a nack, die
 * because they expire before they were delivered, or delivered again: kind and
 * reason are "expired".
 */
void
mbus_fail_unclaimed(Oid schema, MbusDatabase *db, MbusHolding *holding)
{
	Failing		failing = {0};

	failing.schema = schema;
	failing.holding = holding;
	failing.kind = failing.reason = "expired";
	failing.unclaimed = true;
	failing_all(&failing);
}

/* Decides for all, and inserts the rows. */
static void
failing_all(Failing *failing)
{
	MbusHolding *holding = failing->holding;
	const MbusPolicy *policy = mbus_channel_policy(failing->schema,
												   holding->channel_id);

	failing->now = mbus_now();
	failing->policed = policy != NULL;
	if (policy)
		failing->policy = *policy;
	failing->failure = palloc(Max(holding->n, 1) * sizeof(MbusFailure));
	failing->outcome = palloc(Max(holding->n, 1) * sizeof(char *));

	for (int i = 0; i < holding->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!holding->held[i].again)
			failing_one(failing, &holding->held[i]);
	}
	mbus_failures_insert(failing->schema, holding, failing->failure,
						 failing->n);
	failing_close(failing, "dead");
	failing_close(failing, "kept");
	failing_close(failing, "corrupt");
	for (int i = 0; i < failing->n; i++)
		mbus_hold_retry(failing->failure[i].held->entry,
						failing->failure[i].retry_at);
	failing_tally(failing);
	pfree(failing->failure);
	pfree(failing->outcome);
}

/* Decides what becomes of one. */
static void
failing_one(Failing *failing, const MbusHeld *held)
{
	MbusFailure *failure = &failing->failure[failing->n];
	const char **outcome = &failing->outcome[failing->n];
	TimestampTz retry_at;

	failing->n++;
	MemSet(failure, 0, sizeof(*failure));
	failure->held = held;
	failure->kind = failing->kind;
	failure->reason = failing->reason;
	failure->unclaimed = failing->unclaimed;
	*outcome = NULL;
	if (is_kind(failing, "corrupt"))
		*outcome = "corrupt";
	else if (!failing->policed)
		 /* the channel was dropped: nobody waits for it any more */ ;
	else
	{
		if (!failing->unclaimed &&
			held->attempt < failing->policy.max_attempts)
		{
			retry_at = retry_wanted(failing, held->attempt);
			if (!too_late(failing, held, retry_at))
			{
				failure->retry_at = retry_at;
				return;
			}
			failure->reason = late_reason(failing->reason);
		}
		*outcome = mbus_dead_letter(failing->schema, failing->holding,
									failure);
		mbus_count(MBUS_C_DEAD_LETTERED, 1);
		if (failure->not_moved)
			mbus_count(MBUS_C_NOT_MOVED, 1);
	}
}

static bool
is_kind(const Failing *failing, const char *kind)
{
	return strcmp(failing->kind, kind) == 0;
}

/*
 * too_late tells whether a message will have expired when it is to come again.
 * Its expiry is looked up where memory does not know it: after a crash.
 */
static bool
too_late(const Failing *failing, const MbusHeld *held, TimestampTz retry_at)
{
	TimestampTz expires_at = held->expires_at;

	if (expires_at == 0)
		expires_at = mbus_message_expiry(failing->schema, held->id);
	return expires_at != 0 && retry_at >= expires_at;
}

/* Why a message is not delivered again although it has attempts left. */
static const char *
late_reason(const char *reason)
{
	if (reason == NULL)
		return LATE_REASON;
	return psprintf("%s (" LATE_REASON ")", reason);
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

/* Counts them, of their channel. */
static void
failing_tally(const Failing *failing)
{
	int32		channel_id = failing->holding->channel_id;
	int			dead = 0;

	for (int i = 0; i < failing->n; i++)
		dead += failing->outcome[i] != NULL;
	mbus_tally(channel_id, MBUS_T_DEAD, dead);
	if (is_kind(failing, "nacked") || is_kind(failing, "released"))
		mbus_tally(channel_id, MBUS_T_NACKED, failing->n);
	else if (!is_kind(failing, "corrupt") && !failing->unclaimed)
		mbus_tally(channel_id, MBUS_T_LAPSED, failing->n);
}
