/*
 * prune.c
 *		What the log has of segments that are gone, removed.
 *
 * A tile of level 0 goes when all its entries are of segments that were
 * dropped message_bus.log_keep ago, or of actions older than
 * message_bus.log_action_ttl; a run goes with the last tile that it is in.  So
 * what is left of a dropped segment is 0.4 %, the levels above, which stay.  The
 * tile of an entry that is there is whole: it can be proved.
 *
 * A tile that a checkpoint ends in stays as long as the checkpoint does, or
 * nothing could be shown to be consistent with that.  Checkpoints are thinned:
 * all of the last hour stay, of a day the last of each hour, of older ones the
 * last of each day, and always those that a witness' newest line is of.
 *
 * Nothing is searched for.  What may have become free says so: log_gone has
 * the segments whose runs were not looked through since they were dropped,
 * log_tile_look tiles whose checkpoint or action has gone, or that were not full
 * yet.  A tile that somebody else still needs is looked at again when that one
 * goes, so each is looked at once for each segment in it.
 *
 * Only the worker does this, each slice in a transaction of its own with SPI,
 * of SLICE_TILES tiles; a crash leaves what was committed.  Readers have
 * snapshots; one whose tile has gone is told so (55000, table.c).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/timestamp.h"

#include "base/settings.h"
#include "log/prune.h"
#include "log/store.h"
#include "state/clock.h"

#define SLICE_TILES		256
#define SLICE_ACTIONS	200

/* A run of which tile t.n has entries. */
#define RUN_IN_TILE \
	" r.first_index >= coalesce((SELECT max(p.first_index)" \
	"  FROM message_bus.log_run AS p" \
	"  WHERE p.first_index <= t.n << 8), 0)" \
	" AND r.first_index < (t.n + 1) << 8" \
	" AND r.first_index + r.n > t.n << 8"

/* Whether run r has number a.no. */
#define RUN_HAS_ACTION \
	" a.no >= r.lo AND CASE WHEN r.runs IS NULL THEN a.no < r.lo + r.n" \
	" ELSE EXISTS (SELECT FROM generate_series(1, cardinality(r.runs), 2) AS i" \
	"  WHERE a.no - r.lo >= r.runs[i]" \
	"  AND a.no - r.lo < r.runs[i] + r.runs[i + 1]) END"

static bool gone_prune(void);
static bool looks_prune(void);
static Datum tiles_read(int *n);
static void tiles_prune(Datum tiles, int32 segment);
static bool actions_expire(void);

/*
 * mbus_log_gone notes that a segment is dropped, in the transaction that does
 * it.
 */
void
mbus_log_gone(int32 segment)
{
	static const Oid types[] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[] = {Int32GetDatum(segment),
	TimestampTzGetDatum(mbus_now())};

	mbus_log_execute("INSERT INTO message_bus.log_gone (segment_no, at)"
					 " VALUES ($1, $2) ON CONFLICT DO NOTHING",
					 lengthof(types), types, values);
}

/*
 * mbus_log_thin removes checkpoints of which a later one of the same hour, or
 * day, is kept.
 */
void
mbus_log_thin(void)
{
	static const Oid types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(mbus_now())};

	mbus_log_execute("WITH thinned AS ("
					 " DELETE FROM message_bus.log_checkpoint AS c USING"
					 "  (SELECT size, at AT TIME ZONE 'UTC' AS at,"
					 "   lead(at) OVER (ORDER BY size) AT TIME ZONE 'UTC' AS next"
					 "   FROM message_bus.log_checkpoint) AS o"
					 " WHERE c.size = o.size"
					 "  AND (c.at < $1 - interval '1 hour'"
					 "   AND date_trunc('hour', o.at) = date_trunc('hour', o.next)"
					 "   OR c.at < $1 - interval '1 day'"
					 "   AND date_trunc('day', o.at) = date_trunc('day', o.next))"
					 "  AND c.size <> ALL (SELECT max(s.size)"
					 "   FROM message_bus.log_cosignature AS s GROUP BY s.name)"
					 " RETURNING c.size)"
					 " INSERT INTO message_bus.log_tile_look (n)"
					 " SELECT DISTINCT size >> 8 FROM thinned WHERE size & 255 <> 0"
					 " ON CONFLICT DO NOTHING", lengthof(types), types, values);
	mbus_log_execute("DELETE FROM message_bus.log_cosignature AS s"
					 " WHERE NOT EXISTS (SELECT FROM message_bus.log_checkpoint AS c"
					 "  WHERE c.size = s.size)"
					 " AND s.size < (SELECT max(n.size)"
					 "  FROM message_bus.log_cosignature AS n"
					 "  WHERE n.name = s.name)", 0, NULL, NULL);
}

/*
 * mbus_log_prune does a slice; true if there may be more to do at once.
 */
bool
mbus_log_prune(void)
{
	return gone_prune() || looks_prune() || actions_expire();
}

/* Looks through tiles of a segment that has gone; false if there is none. */
static bool
gone_prune(void)
{
	static const Oid types[] = {INT4OID, INT8OID, TIMESTAMPTZOID};
	Datum		values[lengthof(types)];
	bool		isnull;
	Datum		tiles;
	int			n;

	values[2] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(mbus_now(),
																-1000 * (int64) mbus_log_keep));
	mbus_log_execute("SELECT segment_no, tiles_to FROM message_bus.log_gone"
					 " WHERE at <= $3 ORDER BY at, segment_no LIMIT 1",
					 lengthof(types), types, values);
	if (SPI_processed == 0)
		return false;
	for (int i = 0; i < 2; i++)
		values[i] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
								  i + 1, &isnull);
	mbus_log_execute("SELECT DISTINCT t.n FROM message_bus.log_run AS r,"
					 " generate_series(greatest(r.first_index >> 8, $2),"
					 "  (r.first_index + r.n - 1) >> 8) AS t (n)"
					 " WHERE r.segment_no = $1 ORDER BY t.n LIMIT "
					 CppAsString2(SLICE_TILES), 2, types, values);
	tiles = tiles_read(&n);
	tiles_prune(tiles, DatumGetInt32(values[0]));
	if (n < SLICE_TILES)
		mbus_log_execute("DELETE FROM message_bus.log_gone"
						 " WHERE segment_no = $1", 1, types, values);
	else
	{
		values[1] = Int64GetDatum(((int64 *) ARR_DATA_PTR(DatumGetArrayTypeP(tiles)))[n - 1] + 1);
		mbus_log_execute("UPDATE message_bus.log_gone SET tiles_to = $2"
						 " WHERE segment_no = $1", 2, types, values);
	}
	return true;
}

/* Looks at tiles that are to be looked at and full; false if there is none. */
static bool
looks_prune(void)
{
	Datum		tiles;
	int			n;

	mbus_log_execute("DELETE FROM message_bus.log_tile_look WHERE n IN"
					 " (SELECT n FROM message_bus.log_tile_look WHERE n <"
					 "  (SELECT size >> 8 FROM message_bus.log_state)"
					 "  ORDER BY n LIMIT " CppAsString2(SLICE_TILES) ")"
					 " RETURNING n", 0, NULL, NULL);
	tiles = tiles_read(&n);
	if (n == 0)
		return false;
	tiles_prune(tiles, 0);
	return true;
}

/* The numbers of tiles in the last result, as an array. */
static Datum
tiles_read(int *n)
{
	Datum	   *tiles = palloc(Max(SPI_processed, 1) * sizeof(Datum));

	*n = (int) SPI_processed;
	for (int i = 0; i < *n; i++)
	{
		bool		isnull;

		tiles[i] = Int64GetDatum(DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
															 SPI_tuptable->tupdesc,
															 1, &isnull)));
	}
	return PointerGetDatum(construct_array(tiles, *n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * tiles_prune removes those of some tiles that nobody needs any more, and the
 * runs that are in no other.  The segment, if it is not 0, is among those
 * that are done with.
 */
static void
tiles_prune(Datum tiles, int32 segment)
{
	static const Oid types[] = {INT8ARRAYOID, INT4OID};
	Datum		values[] = {tiles, Int32GetDatum(segment)};
	int			n;

	/* not full yet: later */
	mbus_log_execute("INSERT INTO message_bus.log_tile_look (n)"
					 " SELECT t.n FROM unnest($1) AS t (n) WHERE t.n >="
					 " (SELECT size >> 8 FROM message_bus.log_state)"
					 " ON CONFLICT DO NOTHING", 1, types, values);
	mbus_log_execute("SELECT t.n FROM unnest($1) AS t (n) WHERE t.n <"
					 "  (SELECT size >> 8 FROM message_bus.log_state)"
					 " AND NOT EXISTS (SELECT FROM message_bus.log_checkpoint AS c"
					 "  WHERE c.size > t.n << 8 AND c.size < (t.n + 1) << 8)"
					 " AND NOT EXISTS (SELECT FROM message_bus.log_run AS r"
					 "  WHERE " RUN_IN_TILE
					 "  AND CASE WHEN r.segment_no <> 0 THEN"
					 "   EXISTS (SELECT FROM message_bus.segment AS s"
					 "    WHERE s.segment_no = r.segment_no)"
					 "   OR EXISTS (SELECT FROM message_bus.log_gone AS g"
					 "    WHERE g.segment_no = r.segment_no AND g.segment_no <> $2)"
					 "  ELSE EXISTS (SELECT FROM message_bus.log_action AS a"
					 "   WHERE " RUN_HAS_ACTION ") END)",
					 lengthof(types), types, values);
	values[0] = tiles_read(&n);
	if (n == 0)
		return;
	mbus_log_execute("DELETE FROM message_bus.log_tile"
					 " WHERE level = 0 AND n = ANY ($1)", 1, types, values);
	mbus_log_execute("DELETE FROM message_bus.log_run AS r"
					 " USING unnest($1) AS t (n) WHERE " RUN_IN_TILE
					 " AND NOT EXISTS (SELECT FROM message_bus.log_tile AS o"
					 "  WHERE o.level = 0 AND o.n >= r.first_index >> 8"
					 "  AND o.n <= (r.first_index + r.n - 1) >> 8)",
					 1, types, values);
}

/*
 * actions_expire removes actions whose time is over, but for what the log says
 * of itself; false if there is none.
 */
static bool
actions_expire(void)
{
	static const Oid types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(TimestampTzPlusMilliseconds(mbus_now(),
																			-1000 * (int64) mbus_log_action_ttl))};

	mbus_log_execute("WITH a AS (DELETE FROM message_bus.log_action WHERE no IN"
					 "  (SELECT no FROM message_bus.log_action"
					 "   WHERE at < $1 AND kind <> 'log'"
					 "   AND (no >= 0 OR kind <> 'gap')"
					 "   ORDER BY at LIMIT " CppAsString2(SLICE_ACTIONS) ")"
					 "  RETURNING no),"
					 " looks AS (INSERT INTO message_bus.log_tile_look (n)"
					 "  SELECT DISTINCT t.n FROM a CROSS JOIN LATERAL"
					 "   (SELECT r.first_index, r.n FROM message_bus.log_run AS r"
					 "    WHERE r.segment_no = 0 AND r.kind = 4 AND r.lo <= a.no"
	/* what is not logged is not looked for */
					 "    AND a.no < (SELECT facts_to FROM message_bus.log_state) AND"
					 RUN_HAS_ACTION " ORDER BY r.lo DESC LIMIT 1) AS r,"
					 "   generate_series(r.first_index >> 8,"
					 "    (r.first_index + r.n - 1) >> 8) AS t (n)"
					 "  ON CONFLICT DO NOTHING)"
					 " SELECT FROM a", lengthof(types), types, values);
	return SPI_processed > 0;
}
