/*
 * catalog_cache.c
 *		What a backend remembers of one of the tables, until it changes.
 *
 * Triggers on the table invalidate a relation cache entry; the callback here
 * only marks the cache stale, and the next look-up empties it and fills it
 * anew.  Pointers into a cache are therefore good until the next look-up.
 * What is invalidated while it is filled is stale again at once; what errs on
 * the way leaves it not filled.
 *
 * A process has room for ten such callbacks of all extensions: all caches
 * share one.
 */
#include "postgres.h"

#include "utils/inval.h"
#include "utils/memutils.h"

#include "base/catalog_cache.h"
#include "base/schema.h"

static MbusCatalogCache *caches = NULL;

static void caches_invalidate(Datum arg, Oid relid);

/*
 * mbus_catalog_cache_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_catalog_cache_init(MbusCatalogCache *cache)
{
	if (caches == NULL)
		CacheRegisterRelcacheCallback(caches_invalidate, (Datum) 0);
	cache->next = caches;
	caches = cache;
}

/* Marks the cache of a relation as stale, or all. */
static void
caches_invalidate(Datum arg, Oid relid)
{
	for (MbusCatalogCache *cache = caches; cache; cache = cache->next)
	{
		if (relid == InvalidOid || relid == cache->relid)
			cache->stale = true;
	}
}

/*
 * mbus_catalog_cache_look begins a look-up: a cache that is stale, or of
 * another extension, is emptied and filled.
 */
void
mbus_catalog_cache_look(MbusCatalogCache *cache, Oid schema)
{
	AcceptInvalidationMessages();
	if (cache->filled && !cache->stale && cache->schema == schema)
		return;

	cache->filled = false;
	cache->schema = schema;
	cache->relid = mbus_relation(schema, cache->relation);
	cache->stale = false;
	if (cache->context)
		MemoryContextReset(cache->context);
	else
		cache->context = AllocSetContextCreateInternal(CacheMemoryContext,
													   cache->name,
													   ALLOCSET_DEFAULT_SIZES);
	cache->fill(schema);
	cache->filled = true;
}

/*
 * mbus_catalog_cache_hash makes a table that lives until the cache is emptied;
 * flags: HASH_BLOBS or HASH_STRINGS.
 */
HTAB *
mbus_catalog_cache_hash(MbusCatalogCache *cache, const char *name, Size key,
						Size entry, int flags)
{
	HASHCTL		ctl;

	MemSet(&ctl, 0, sizeof(ctl));
	ctl.hcxt = cache->context;
	ctl.keysize = key;
	ctl.entrysize = entry;
	return hash_create(name, 64, &ctl, HASH_ELEM | HASH_CONTEXT | flags);
}
