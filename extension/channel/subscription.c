/*
 * subscription.c
 *		Subscriptions as those who claim from them see them.
 *
 * A backend keeps the rows of message_bus.subscription it has seen in a cache
 * of its own, see base/catalog_cache.c: a trigger invalidates the relation cache
 * entry of message_bus.channel.  That there is no such subscription is not
 * kept: the next look-up reads again.
 *
 * Rows are read with the catalog snapshot, through the table's indexes, with
 * no right needed.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/catalog_cache.h"
#include "base/columns.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/role.h"
#include "base/schema.h"
#include "channel/subscription.h"

typedef struct MbusNameKey
{
	int32		channel_id;
	char		name[MBUS_CHANNEL_NAME_MAX + 1];	/* padded with zeros */
} MbusNameKey;

typedef struct MbusCachedSubscriptionName
{
	MbusNameKey key;			/* hash key */
	int32		subscription_id;
} MbusCachedSubscriptionName;

static HTAB *cache_by_id = NULL;	/* of MbusSubscription */
static HTAB *cache_by_name = NULL;

static void cache_fill(Oid schema);
static MbusSubscription *subscription_load(Oid schema, const char *index_name,
										   int nkeys, ScanKey keys);
static void subscription_read(HeapTuple tuple, TupleDesc desc,
							  MbusSubscription *subscription);
static bool made_here(Relation rel, HeapTuple tuple);

static MbusCatalogCache cache = {
	"channel", "message_bus subscriptions", cache_fill
};

/*
 * mbus_subscription_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_subscription_init(void)
{
	mbus_catalog_cache_init(&cache);
}

/*
 * mbus_subscription_by_name returns a channel's subscription or NULL; good
 * until the next look-up.
 */
const MbusSubscription *
mbus_subscription_by_name(Oid schema, int32 channel_id, const char *name)
{
	MbusNameKey key;
	MbusCachedSubscriptionName *cached;
	MbusSubscription *subscription;
	ScanKeyData keys[2];

	if (strlen(name) > MBUS_CHANNEL_NAME_MAX)
		return NULL;
	MemSet(&key, 0, sizeof(key));
	key.channel_id = channel_id;
	strcpy(key.name, name);

	mbus_catalog_cache_look(&cache, schema);
	cached = hash_search(cache_by_name, &key, HASH_FIND, NULL);
	if (cached)
		return mbus_subscription_by_id(schema, cached->subscription_id);
	ScanKeyInit(&keys[0], MBUS_SUBSCRIPTION_CHANNEL_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(channel_id));
	ScanKeyInit(&keys[1], MBUS_SUBSCRIPTION_NAME, BTEqualStrategyNumber,
				F_TEXTEQ, CStringGetTextDatum(name));
	subscription = subscription_load(schema,
									 "subscription_channel_id_name_key", 2,
									 keys);
	if (subscription)
	{
		cached = hash_search(cache_by_name, &key, HASH_ENTER, NULL);
		cached->subscription_id = subscription->subscription_id;
	}
	return subscription;
}

/*
 * mbus_subscription_by_id returns a subscription or NULL; good until the next
 * look-up.
 */
const MbusSubscription *
mbus_subscription_by_id(Oid schema, int32 subscription_id)
{
	MbusSubscription *cached;
	ScanKeyData key;

	mbus_catalog_cache_look(&cache, schema);
	cached = hash_search(cache_by_id, &subscription_id, HASH_FIND, NULL);
	if (cached)
		return cached;
	ScanKeyInit(&key, MBUS_SUBSCRIPTION_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(subscription_id));
	return subscription_load(schema, "subscription_pkey", 1, &key);
}

/*
 * mbus_subscription_remember keeps where a subscription was last seen in
 * shared memory, with its cached row.  It invalidates no pointer.
 */
void
mbus_subscription_remember(int32 subscription_id, uint32 slot)
{
	MbusSubscription *cached;

	if (!cache.filled)
		return;
	cached = hash_search(cache_by_id, &subscription_id, HASH_FIND, NULL);
	if (cached)
		cached->slot = slot;
}

/* Makes the tables of an empty cache. */
static void
cache_fill(Oid schema)
{
	cache_by_id = mbus_catalog_cache_hash(&cache,
										  "message_bus subscriptions by id",
										  sizeof(int32),
										  sizeof(MbusSubscription),
										  HASH_BLOBS);
	cache_by_name = mbus_catalog_cache_hash(&cache,
											"message_bus subscriptions by name",
											sizeof(MbusNameKey),
											sizeof(MbusCachedSubscriptionName),
											HASH_BLOBS);
}

/*
 * subscription_load reads one row through an index and remembers it, when it
 * is read to its end.
 */
static MbusSubscription *
subscription_load(Oid schema, const char *index_name, int nkeys, ScanKey keys)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	MbusSubscription subscription;
	MbusSubscription *cached;
	bool		found;

	rel = table_open(mbus_relation(schema, "subscription"), AccessShareLock);
	for (int i = 0; i < nkeys; i++)
		keys[i].sk_collation = TupleDescAttr(RelationGetDescr(rel),
											 keys[i].sk_attno - 1)->attcollation;
	scan = systable_beginscan(rel, mbus_relation(schema, index_name), true,
							  NULL, nkeys, keys);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		subscription_read(tuple, RelationGetDescr(rel), &subscription);
		subscription.uncommitted = made_here(rel, tuple);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!found)
		return NULL;
	cached = hash_search(cache_by_id, &subscription.subscription_id,
						 HASH_ENTER, NULL);
	*cached = subscription;
	return cached;
}

/* Reads a row.  Where its slot in shared memory is, is not known by it. */
static void
subscription_read(HeapTuple tuple, TupleDesc desc,
				  MbusSubscription *subscription)
{
	Datum		value;
	bool		isnull;

	MemSet(subscription, 0, sizeof(*subscription));
	subscription->subscription_id =
		DatumGetInt32(heap_getattr(tuple, MBUS_SUBSCRIPTION_ID, desc,
								   &isnull));
	subscription->channel_id =
		DatumGetInt32(heap_getattr(tuple, MBUS_SUBSCRIPTION_CHANNEL_ID, desc,
								   &isnull));
	value = heap_getattr(tuple, MBUS_SUBSCRIPTION_NAME, desc, &isnull);
	strlcpy(subscription->name, TextDatumGetCString(value),
			sizeof(subscription->name));
	subscription->owner =
		mbus_role_live(heap_getattr(tuple, MBUS_SUBSCRIPTION_OWNER, desc,
									&isnull));
	subscription->ordered =
		DatumGetBool(heap_getattr(tuple, MBUS_SUBSCRIPTION_ORDERED, desc,
								  &isnull));
	subscription->paused =
		DatumGetBool(heap_getattr(tuple, MBUS_SUBSCRIPTION_PAUSED, desc,
								  &isnull));
	subscription->start_id =
		DatumGetInt64(heap_getattr(tuple, MBUS_SUBSCRIPTION_START_ID, desc,
								   &isnull));
	value = heap_getattr(tuple, MBUS_SUBSCRIPTION_START_AT, desc, &isnull);
	subscription->start_at = isnull ? 0 : DatumGetTimestampTz(value);
	subscription->created_at =
		DatumGetTimestampTz(heap_getattr(tuple, MBUS_SUBSCRIPTION_CREATED_AT,
										 desc, &isnull));
	subscription->wanted_at =
		DatumGetTimestampTz(heap_getattr(tuple, MBUS_SUBSCRIPTION_WANTED_AT,
										 desc, &isnull));
	subscription->since_lease =
		DatumGetInt64(heap_getattr(tuple, MBUS_SUBSCRIPTION_SINCE_LEASE, desc,
								   &isnull));
	subscription->slot = MBUS_NONE;
}

/*
 * made_here tells whether the current transaction has made the subscription,
 * so that nobody else sees it: its row is of this transaction, and without
 * what this transaction has done there is none.
 */
static bool
made_here(Relation rel, HeapTuple tuple)
{
	Snapshot	snapshot;
	ScanKeyData key;
	SysScanDesc scan;
	bool		isnull;
	bool		before;

	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)))
		return false;
	if ((tuple->t_data->t_infomask & HEAP_UPDATED) == 0)
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	snapshot->curcid = FirstCommandId;
	ScanKeyInit(&key, MBUS_SUBSCRIPTION_ID, BTEqualStrategyNumber, F_INT4EQ,
				heap_getattr(tuple, MBUS_SUBSCRIPTION_ID,
							 RelationGetDescr(rel), &isnull));
	scan = systable_beginscan(rel, mbus_relation(RelationGetNamespace(rel),
												 "subscription_pkey"),
							  true, snapshot, 1, &key);
	before = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	return !before;
}
