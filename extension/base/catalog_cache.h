/*
 * catalog_cache.h
 *		What a backend remembers of one of the tables.
 */
#ifndef MBUS_CATALOG_CACHE_H
#define MBUS_CATALOG_CACHE_H

#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/palloc.h"

/* Static, in the file that reads the table. */
typedef struct MbusCatalogCache
{
	const char *relation;		/* whose invalidation empties it */
	const char *name;			/* of its memory */
	void		(*fill) (Oid schema);	/* of what has been emptied */

	/* set by catalog_cache.c */
	struct MbusCatalogCache *next;
	MemoryContext context;
	Oid			schema;
	Oid			relid;
	bool		filled;
	bool		stale;
} MbusCatalogCache;

extern void mbus_catalog_cache_init(MbusCatalogCache *cache);
extern void mbus_catalog_cache_look(MbusCatalogCache *cache, Oid schema);
extern HTAB *mbus_catalog_cache_hash(MbusCatalogCache *cache,
									 const char *name, Size key, Size entry,
									 int flags);

#endif							/* MBUS_CATALOG_CACHE_H */
