/*
 * pool_view.c
 *		Who holds the pools of shared memory: the function behind the view
 *		pools.
 *
 * What there is is copied under the delivery lock, into memory that was
 * allocated before.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"

#include "base/ids.h"
#include "base/schema.h"
#include "base/settings.h"
#include "delivery/pool.h"
#include "delivery/quota.h"
#include "state/fault.h"
#include "state/state.h"

#define COLUMNS		9
#define PARTIES			4096	/* looked at with the lock held */

/* What is held; names in pool_names. */
typedef enum Pool
{
	POOL_MESSAGES,
	POOL_SUBSCRIPTIONS,
	POOL_SKIPPED
} Pool;

static const char *const pool_names[] = {
	[POOL_MESSAGES] = "messages",
	[POOL_SUBSCRIPTIONS] = "subscriptions",
	[POOL_SKIPPED] = "skipped ranges",
};

/* Who holds how much of what. */
typedef struct Holder
{
	Pool		pool;
	Oid			database;		/* InvalidOid: all */
	int32		channel_id;		/* 0: of all */
	int32		subscription_id;	/* 0: of all */
	Oid			role;			/* that has claimed; InvalidOid: of all */
	uint64		subject;		/* a hash of its subject; 0: of none */
	int64		session;		/* a gateway's; 0: of all */
	int			held;
	int			most;
} Holder;

static int	holders_copy(Holder *holder, Oid database, Oid schema);
static int	sub_put(Holder *holder, const MbusSub *sub, Pool pool, int held,
					int most);
static int	shares_copy(Holder *holder);
static void parties_put(ReturnSetInfo *rsinfo, Oid schema);
static int	parties_copy(Holder *holder, int first, Oid schema);
static void party_put(Holder *holder, const MbusPartyQuota *quota);
static void holder_put(ReturnSetInfo *rsinfo, const Holder *holder);
static Datum subject_datum(uint64 subject);

/*
 * pool_rows() returns who holds the pools: all together, each database, and
 * the subscriptions, channels, roles and sessions of this one.
 */
MBUS_FUNCTION(pool_rows)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			schema = mbus_schema();
	Holder	   *holder;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	if (mbus_database_or_null() == NULL)
		return (Datum) 0;
	holder = palloc((2 * mbus_sub_slots() + 2 * MBUS_MAX_DATABASES + 2) *
					sizeof(Holder));
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	n = holders_copy(holder, MyDatabaseId, schema);
	LWLockRelease(mbus_delivery_lock());
	for (int i = 0; i < n; i++)
		holder_put(rsinfo, &holder[i]);
	pfree(holder);
	parties_put(rsinfo, schema);
	return (Datum) 0;
}

/* There is room for all that there may be; caller holds the lock. */
static int
holders_copy(Holder *holder, Oid database, Oid schema)
{
	int			n = 2 + shares_copy(holder + 2);

	MemSet(holder, 0, 2 * sizeof(Holder));
	holder[0].most = mbus_max_leases;
	holder[1].pool = POOL_SUBSCRIPTIONS;
	holder[1].most = mbus_max_subscriptions;
	for (int i = 2; i < n; i++)
		holder[holder[i].pool == POOL_SUBSCRIPTIONS ? 1 : 0].held +=
			holder[i].held;
	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		const MbusSub *sub = mbus_sub(s);
		MbusQuota	quota;

		if (sub->database != database || sub->schema != schema ||
			sub->dropped)
			continue;
		mbus_quota_of(s, &quota);
		n += sub_put(&holder[n], sub, POOL_MESSAGES, quota.held, quota.most);
		n += sub_put(&holder[n], sub, POOL_SKIPPED, sub->skip_nodes,
					 mbus_quota_skips(s));
	}
	return n;
}

/* Puts what a subscription holds of a pool, if that is anything; how many. */
static int
sub_put(Holder *holder, const MbusSub *sub, Pool pool, int held, int most)
{
	if (held == 0)
		return 0;
	MemSet(holder, 0, sizeof(*holder));
	holder->pool = pool;
	holder->database = sub->database;
	holder->channel_id = sub->channel_id;
	holder->subscription_id = sub->subscription_id;
	holder->held = held;
	holder->most = most;
	return 1;
}

/* What databases hold. */
static int
shares_copy(Holder *holder)
{
	int			n = 0;

	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		Holder		entries = {0};
		Holder		slots = {.pool = POOL_SUBSCRIPTIONS};

		if (!mbus_quota_share(i, &entries.database, &entries.held,
							  &entries.most))
			continue;
		slots.database = entries.database;
		slots.most = mbus_quota_slots(slots.database, &slots.held);
		holder[n++] = entries;
		holder[n++] = slots;
	}
	return n;
}

/*
 * What channels, roles and sessions hold, some of them at a time: there may be
 * many, and claims wait for the lock.
 */
static void
parties_put(ReturnSetInfo *rsinfo, Oid schema)
{
	Holder	   *holder = palloc(PARTIES * sizeof(Holder));

	for (int first = 0; first < mbus_parties(); first += PARTIES)
	{
		int			n;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
		n = parties_copy(holder, first, schema);
		LWLockRelease(mbus_delivery_lock());
		for (int i = 0; i < n; i++)
			holder_put(rsinfo, &holder[i]);
	}
	pfree(holder);
}

/* Those from "first" on that are of this database; caller holds the lock. */
static int
parties_copy(Holder *holder, int first, Oid schema)
{
	int			n = 0;

	for (int i = first; i < Min(first + PARTIES, mbus_parties()); i++)
	{
		MbusPartyQuota quota;

		if (!mbus_quota_party(i, &quota) ||
			quota.key.database != MyDatabaseId ||
			(quota.key.kind == MBUS_PARTY_CHANNEL && quota.key.role != schema))
			continue;
		party_put(&holder[n++], &quota);
	}
	return n;
}

static void
party_put(Holder *holder, const MbusPartyQuota *quota)
{
	MemSet(holder, 0, sizeof(*holder));
	holder->pool = POOL_MESSAGES;
	holder->database = quota->key.database;
	holder->held = quota->held;
	holder->most = quota->most;
	if (quota->key.kind == MBUS_PARTY_CHANNEL)
	{
		holder->channel_id = (int32) quota->key.number;
		return;
	}
	holder->role = quota->key.role;
	holder->subject = quota->subject;
	if (quota->key.kind == MBUS_PARTY_SOCKET)
		holder->session = (int64) quota->key.number;
}

static void
holder_put(ReturnSetInfo *rsinfo, const Holder *holder)
{
	Datum		values[COLUMNS];
	bool		isnull[COLUMNS] = {false};

	values[0] = CStringGetTextDatum(pool_names[holder->pool]);
	values[1] = ObjectIdGetDatum(holder->database);
	isnull[1] = !OidIsValid(holder->database);
	values[2] = Int32GetDatum(holder->channel_id);
	isnull[2] = holder->channel_id == 0;
	values[3] = Int32GetDatum(holder->subscription_id);
	isnull[3] = holder->subscription_id == 0;
	values[4] = ObjectIdGetDatum(holder->role);
	isnull[4] = !OidIsValid(holder->role);
	values[5] = subject_datum(holder->subject);
	isnull[5] = holder->subject == 0;
	values[6] = Int64GetDatum(holder->session);
	isnull[6] = holder->session == 0;
	values[7] = Int32GetDatum(holder->held);
	values[8] = Int32GetDatum(holder->most);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
}

/* The first 16 digits of the subject's SHA-256, as a gateway's log has it. */
static Datum
subject_datum(uint64 subject)
{
	char		digits[17] = "";

	(void) hex_encode((const char *) &subject, sizeof(subject), digits);
	return CStringGetTextDatum(digits);
}
