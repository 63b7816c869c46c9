/*
 * publisher.c
 *		Names of publishers, by number.
 *
 * A message has the number of its publisher's name, which is shorter.  It is
 * the name at the time, and stays when the role is renamed or dropped; so the
 * number is not the role's OID, which another role may have later, or in the
 * cluster that a dump is restored into.
 *
 * Who publishes under a name that has no number yet adds it, in its own
 * transaction: if that is rolled back the messages and the name go together.
 * Until it has committed others do not see the name, and add it again under
 * another number.  So nobody waits for another's transaction, and a name may
 * have several numbers; a number has one name, for good.
 *
 * Numbers are drawn at random.  Two that are added at once, or in two
 * databases of which one is restored into the other, are not the same but by
 * a chance of one in two thousand million; then the primary key refuses.
 *
 * A backend remembers what has committed (base/catalog_cache.c), up to
 * PUBLISHERS_MAX names and numbers; then it forgets all and begins anew.  What
 * its own transaction has added it looks up each time.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/rel.h"

#include "base/catalog_cache.h"
#include "base/columns.h"
#include "base/random.h"
#include "base/schema.h"
#include "channel/publisher.h"

#define PUBLISHERS_MAX	4096	/* that a backend remembers */

typedef struct PublisherName
{
	NameData	name;			/* hash key */
	int32		publisher_id;
} PublisherName;

typedef struct PublisherId
{
	int32		publisher_id;	/* hash key */
	NameData	name;
} PublisherId;

static HTAB *cache_by_name = NULL;
static HTAB *cache_by_id = NULL;

static void cache_fill(Oid schema);
static bool publisher_find(Oid schema, const char *index_name,
						   AttrNumber column, RegProcedure equals, Datum value,
						   PublisherId *publisher);
static void publisher_remember(const PublisherId *publisher);
static int32 publisher_add(Oid schema, NameData *name);

static MbusCatalogCache cache = {"publisher", "message_bus publishers", cache_fill};

/*
 * mbus_publisher_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_publisher_init(void)
{
	mbus_catalog_cache_init(&cache);
}

/*
 * mbus_publisher_id returns the number of the current user's name, which it
 * adds if need be.  The table stays locked (RowExclusive) then until the
 * transaction ends.
 */
int32
mbus_publisher_id(Oid schema)
{
	const PublisherName *named;
	PublisherId publisher;
	NameData	name;

	namestrcpy(&name, GetUserNameFromId(GetUserId(), false));
	mbus_catalog_cache_look(&cache, schema);
	named = hash_search(cache_by_name, NameStr(name), HASH_FIND, NULL);
	if (named)
		return named->publisher_id;
	if (publisher_find(schema, "publisher_name_idx", MBUS_PUBLISHER_NAME,
					   F_NAMEEQ, NameGetDatum(&name), &publisher))
		return publisher.publisher_id;
	return publisher_add(schema, &name);
}

/*
 * mbus_publisher_name returns the name that has a number; NULL if there is
 * none.
 */
text *
mbus_publisher_name(Oid schema, int32 publisher_id)
{
	const PublisherId *known;
	PublisherId publisher;

	mbus_catalog_cache_look(&cache, schema);
	known = hash_search(cache_by_id, &publisher_id, HASH_FIND, NULL);
	if (known)
		return cstring_to_text(NameStr(known->name));
	if (publisher_find(schema, "publisher_pkey", MBUS_PUBLISHER_ID, F_INT4EQ,
					   Int32GetDatum(publisher_id), &publisher))
		return cstring_to_text(NameStr(publisher.name));
	return NULL;
}

/* Makes the tables of an empty cache. */
static void
cache_fill(Oid schema)
{
	cache_by_name = mbus_catalog_cache_hash(&cache,
											"message_bus publishers by name",
											NAMEDATALEN,
											sizeof(PublisherName),
											HASH_STRINGS);
	cache_by_id = mbus_catalog_cache_hash(&cache,
										  "message_bus publishers by number",
										  sizeof(int32), sizeof(PublisherId),
										  HASH_BLOBS);
}

/*
 * publisher_find reads a publisher's row through an index; false if there is
 * none.  It is remembered unless it may still be rolled back.
 */
static bool
publisher_find(Oid schema, const char *index_name, AttrNumber column,
			   RegProcedure equals, Datum value, PublisherId *publisher)
{
	Relation	rel = table_open(cache.relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	bool		committed = false;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, equals, value);
	scan = systable_beginscan(rel, mbus_relation(schema, index_name), true,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;

		publisher->publisher_id =
			DatumGetInt32(heap_getattr(tuple, MBUS_PUBLISHER_ID, desc,
									   &isnull));
		namestrcpy(&publisher->name,
				   NameStr(*DatumGetName(heap_getattr(tuple,
													  MBUS_PUBLISHER_NAME,
													  desc, &isnull))));
		committed = !TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (committed)
		publisher_remember(publisher);
	return HeapTupleIsValid(tuple);
}

static void
publisher_remember(const PublisherId *publisher)
{
	PublisherName *named;
	PublisherId *known;

	if (hash_get_num_entries(cache_by_name) >= PUBLISHERS_MAX ||
		hash_get_num_entries(cache_by_id) >= PUBLISHERS_MAX)
	{
		cache.stale = true;		/* for the next look-up */
		return;
	}
	named = hash_search(cache_by_name, NameStr(publisher->name), HASH_ENTER,
						NULL);
	named->publisher_id = publisher->publisher_id;
	known = hash_search(cache_by_id, &publisher->publisher_id, HASH_ENTER,
						NULL);
	known->name = publisher->name;
}

/*
 * publisher_add gives a name a number, for as long as the transaction is not
 * rolled back.
 */
static int32
publisher_add(Oid schema, NameData *name)
{
	Relation	rel;
	PublisherId taken;
	uint32		number;
	Datum		values[2];
	bool		isnull[2] = {false, false};

	do
	{
		mbus_random(&number, sizeof(number));
		number &= PG_INT32_MAX;
	} while (publisher_find(schema, "publisher_pkey", MBUS_PUBLISHER_ID,
							F_INT4EQ, Int32GetDatum(number), &taken));

	values[MBUS_PUBLISHER_ID - 1] = Int32GetDatum(number);
	values[MBUS_PUBLISHER_NAME - 1] = NameGetDatum(name);
	rel = table_open(cache.relid, RowExclusiveLock);
	CatalogTupleInsert(rel, heap_form_tuple(RelationGetDescr(rel), values,
											isnull));
	table_close(rel, NoLock);
	CommandCounterIncrement();
	return (int32) number;
}
