/*
 * era.c
 *		Which segments may have a transaction id.
 *
 * The answer may name a segment that has not; it never lacks one that has.
 * It is made of two parts.
 *
 * Entered segments.  The worker enters the transaction ids of a segment that
 * is closed and in which no publish is unfinished into a table era_<n>: a
 * hash of channel and id, and the segment.  One era takes the segments that
 * were closed in about half of their messages' time to live, so that few
 * tables are looked into, however many segments there are.  A row of
 * segment_era says that all of a segment's ids are in its era; its leaf's OID
 * is there so that another table of that number (a restore) does not count.
 * A row of an era is read whatever became of its transaction: what is too
 * much does no harm.
 *
 * All others.  Those that are open know which channels have reserved in them
 * (mbus_segments_without()); the others are named without a look.
 *
 * The open ones are asked first, then the list of leaves is read, then the
 * eras: what a rival has reserved before the first of these is named, and one
 * who reserves later looks after we have reserved (message/transaction_id.c).
 * To have old news of segment_era is safe: it lacks a segment, which is named
 * then.
 *
 * The same row says whether a closed segment has messages with a delay, so
 * that a claim that looks for those whose time has come opens no other.
 *
 * None of it survives a crash or is there on a standby, where the tables are
 * empty or cannot be read: then all segments are named until the worker has
 * entered them anew.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/catalog_cache.h"
#include "base/columns.h"
#include "base/ids.h"
#include "segment/era.h"
#include "segment/leaf.h"
#include "segment/leaf_scan.h"
#include "state/state.h"
#include "state/unfinished.h"

/* A row of segment_era. */
typedef struct Entered
{
	int32		segment;		/* hash key */
	Oid			leaf;
	Oid			era;
	bool		delayed;
} Entered;

/* Segments, as they are found. */
typedef struct Segments
{
	int			n;
	int			room;
	int32	   *segment;
} Segments;

static void parts_find(Oid schema);
static void segment_sort(const MbusLeaf *leaf);
static void entered_fill(Oid schema);
static void era_read(Oid era, int32 hash, Segments *found);
static void segments_add(Segments *found, int32 segment);
static bool segment_among(const int32 *segments, int n, int32 segment);
static int	segment_compare(const void *a, const void *b);

static MbusCatalogCache cache = {
	"segment_era", "message_bus eras", entered_fill
};
static HTAB *entered = NULL;

/* made of the cache and the leaves */
static uint64 parts_version = 0;	/* of the leaves; 0: to be made */
static int32 *others = NULL;	/* not entered, ascending */
static int	nothers = 0;
static Oid *eras = NULL;
static int	neras = 0;

/*
 * mbus_era_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_era_init(void)
{
	mbus_catalog_cache_init(&cache);
}

/*
 * mbus_era_hash returns what an era has of a transaction id.
 */
int32
mbus_era_hash(int32 channel_id, const text *transaction_id)
{
	return (int32) hash_bytes_extended((const unsigned char *) VARDATA_ANY(transaction_id),
									   (int) VARSIZE_ANY_EXHDR(transaction_id),
									   (uint64) channel_id);
}

/*
 * mbus_segments_with sets *segments to those that may have a transaction id
 * of a channel, newest first, in the current memory context, and returns how
 * many they are.
 */
int
mbus_segments_with(Oid schema, int32 channel_id, const text *transaction_id,
				   int32 **segments)
{
	MbusDatabase *db = RecoveryInProgress() ? NULL : mbus_database_or_null();
	int32		hash = mbus_era_hash(channel_id, transaction_id);
	Segments	found = {0};
	int32		without[MBUS_MAX_SERIES];
	int			nwithout = 0;
	int			n = 0;

	if (db)
		nwithout = mbus_segments_without(db, schema, channel_id, without);
	parts_find(schema);
	for (int i = 0; i < nothers; i++)
	{
		if (!segment_among(without, nwithout, others[i]))
			segments_add(&found, others[i]);
	}
	for (int i = 0; i < neras; i++)
		era_read(eras[i], hash, &found);

	if (found.n > 1)
		qsort(found.segment, found.n, sizeof(int32), segment_compare);
	for (int i = 0; i < found.n; i++)
	{
		if (n == 0 || found.segment[i] != found.segment[n - 1])
			found.segment[n++] = found.segment[i];
	}
	*segments = found.segment;
	return n;
}

/*
 * mbus_segment_undelayed tells whether a segment surely has no message with a
 * delay.
 */
bool
mbus_segment_undelayed(Oid schema, const MbusLeaf *leaf)
{
	const Entered *e;

	if (RecoveryInProgress())
		return false;
	mbus_catalog_cache_look(&cache, schema);
	e = hash_search(entered, &leaf->segment, HASH_FIND, NULL);
	return e != NULL && e->leaf == leaf->relid[MBUS_MESSAGE] && !e->delayed;
}

/*
 * parts_find makes the lists of segments that are not entered, and of eras,
 * unless they are good.
 */
static void
parts_find(Oid schema)
{
	const MbusLeaf *leaves;
	uint64		version;
	int			nleaves;

	if (!RecoveryInProgress())
		mbus_catalog_cache_look(&cache, schema);
	leaves = mbus_leaves_borrow(schema, &nleaves, &version);
	if (parts_version == version)
		return;
	parts_version = 0;
	nothers = neras = 0;
	if (others)
		pfree(others);
	others = NULL;
	/* as long as it gets; the eras are behind the others */
	others = MemoryContextAlloc(TopMemoryContext, Max(nleaves, 1) *
								(sizeof(int32) + sizeof(Oid)));
	eras = (Oid *) (others + Max(nleaves, 1));
	for (int i = 0; i < nleaves; i++)
		segment_sort(&leaves[i]);
	parts_version = version;
}

/* Puts a segment among the others, or its era among the eras. */
static void
segment_sort(const MbusLeaf *leaf)
{
	const Entered *e = NULL;

	if (entered)
		e = hash_search(entered, &leaf->segment, HASH_FIND, NULL);
	if (e == NULL || e->leaf != leaf->relid[MBUS_MESSAGE])
	{
		others[nothers++] = leaf->segment;
		return;
	}
	for (int i = 0; i < neras; i++)
	{
		if (eras[i] == e->era)
			return;
	}
	if (OidIsValid(e->era))
		eras[neras++] = e->era;
}

/* Fills the cache: reads segment_era. */
static void
entered_fill(Oid schema)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	parts_version = 0;
	entered = NULL;
	entered = mbus_catalog_cache_hash(&cache, "message_bus entered segments",
									  sizeof(int32), sizeof(Entered),
									  HASH_BLOBS);
	rel = table_open(cache.relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		Entered    *e;
		int32		segment;
		bool		isnull;

		segment = DatumGetInt32(heap_getattr(tuple, MBUS_ENTERED_SEGMENT_NO, desc,
											 &isnull));
		e = hash_search(entered, &segment, HASH_ENTER, NULL);
		e->leaf = DatumGetObjectId(heap_getattr(tuple, MBUS_ENTERED_LEAF,
												desc, &isnull));
		e->era = DatumGetObjectId(heap_getattr(tuple, MBUS_ENTERED_ERA,
											   desc, &isnull));
		e->delayed = DatumGetBool(heap_getattr(tuple, MBUS_ENTERED_DELAYED,
											   desc, &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * era_read adds the segments that an era has for a hash.  One that is not
 * there is another extension's: its segments are gone.
 */
static void
era_read(Oid era, int32 hash, Segments *found)
{
	Relation	rel = try_table_open(era, AccessShareLock);
	MbusLeafScan rows;
	HeapTuple	tuple;

	if (rel == NULL)
		return;
	mbus_leaf_scan_open(&rows, rel, MBUS_ERA_HASH, 0, false);
	mbus_leaf_scan_int4(&rows, MBUS_ERA_HASH, hash);
	mbus_leaf_scan_begin(&rows, SnapshotAny);
	while ((tuple = mbus_leaf_scan_next(&rows)) != NULL)
	{
		bool		isnull;

		segments_add(found,
					 DatumGetInt32(heap_getattr(tuple, MBUS_ERA_SEGMENT,
												RelationGetDescr(rel),
												&isnull)));
	}
	mbus_leaf_scan_close(&rows);
	table_close(rel, AccessShareLock);
}

static void
segments_add(Segments *found, int32 segment)
{
	if (found->n >= found->room)
	{
		found->room = Max(16, found->room * 2);
		found->segment = found->segment ?
			repalloc(found->segment, found->room * sizeof(int32)) :
			palloc(found->room * sizeof(int32));
	}
	found->segment[found->n++] = segment;
}

static bool
segment_among(const int32 *segments, int n, int32 segment)
{
	for (int i = 0; i < n; i++)
	{
		if (segments[i] == segment)
			return true;
	}
	return false;
}

/* The newest first. */
static int
segment_compare(const void *a, const void *b)
{
	return mbus_order(*(const int32 *) b, *(const int32 *) a);
}
