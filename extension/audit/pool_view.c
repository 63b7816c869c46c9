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

#define COLUMNS		5

/* Who holds how much of what. */
typedef struct Holder
{
	bool		slots;			/* of subscriptions; else messages */
	Oid			database;		/* InvalidOid: all */
	int32		subscription_id;	/* 0: all of the database */
	int			held;
	int			most;
} Holder;

static int	holders_copy(Holder *holder, Oid database, Oid schema);
static int	shares_copy(Holder *holder);
static void holder_put(ReturnSetInfo *rsinfo, const Holder *holder);

/*
 * pool_rows() returns who holds the pools: all together, each database, and
 * the subscriptions of this one.
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
	holder = palloc((mbus_sub_slots() + 2 * MBUS_MAX_DATABASES + 2) *
					sizeof(Holder));
	LWLockAcquire(mbus_delivery_lock(), LW_SHARED);
	n = holders_copy(holder, MyDatabaseId, schema);
	LWLockRelease(mbus_delivery_lock());
	for (int i = 0; i < n; i++)
		holder_put(rsinfo, &holder[i]);
	pfree(holder);
	return (Datum) 0;
}

/* There is room for all that there may be; caller holds the lock. */
static int
holders_copy(Holder *holder, Oid database, Oid schema)
{
	int			n = 2 + shares_copy(holder + 2);

	MemSet(holder, 0, 2 * sizeof(Holder));
	holder[0].most = mbus_max_leases;
	holder[1].slots = true;
	holder[1].most = mbus_max_subscriptions;
	for (int i = 2; i < n; i++)
		holder[holder[i].slots ? 1 : 0].held += holder[i].held;
	for (int s = 0; s < mbus_sub_slots(); s++)
	{
		const MbusSub *sub = mbus_sub(s);
		MbusQuota	quota;

		if (sub->database != database || sub->schema != schema ||
			sub->dropped || sub->charged == 0)
			continue;
		mbus_quota_of(s, &quota);
		MemSet(&holder[n], 0, sizeof(Holder));
		holder[n].database = database;
		holder[n].subscription_id = sub->subscription_id;
		holder[n].held = quota.held;
		holder[n].most = quota.most;
		n++;
	}
	return n;
}

/* What databases hold. */
static int
shares_copy(Holder *holder)
{
	int			n = 0;

	for (int i = 0; i < MBUS_MAX_DATABASES; i++)
	{
		Holder		entries = {0};
		Holder		slots = {.slots = true};

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

static void
holder_put(ReturnSetInfo *rsinfo, const Holder *holder)
{
	Datum		values[COLUMNS];
	bool		isnull[COLUMNS] = {false};

	values[0] = CStringGetTextDatum(holder->slots ? "subscriptions" :
									"messages");
	values[1] = ObjectIdGetDatum(holder->database);
	isnull[1] = !OidIsValid(holder->database);
	values[2] = Int32GetDatum(holder->subscription_id);
	isnull[2] = holder->subscription_id == 0;
	values[3] = Int32GetDatum(holder->held);
	values[4] = Int32GetDatum(holder->most);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, isnull);
}
