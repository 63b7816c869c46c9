/*
 * store_open.c
 *		Numbers stores of large bodies, and opens those that are wanted.
 *
 * A store n is a table message_bus.part_<n> and a row of
 * message_bus.body_store.  Both are made in one transaction, made durable with
 * ForceSyncCommit(), and only then shown in shared memory (state/store.c).
 * body/README.md tells what a store is for, and how long it stays.
 *
 * Numbering.  A body's number must never come twice, so a store's does not:
 * they are numbered beside segments, when the worker finds no numbering in
 * shared memory, above what server_state says, every row of body_store and
 * every table part_<n>, and 256 ordinals further on a new timeline.  Each
 * opening looks whether its number is free, and goes above all there are if
 * not, further by RESTORE_SKIP ordinals while a restore is at work.
 *
 * Own stores come and go as clients like, so their numbers would not last.  The
 * number of one that has gone is used again, with the next number of a body in
 * it (body_number): as many are used up as there ever were at one time.  Not on
 * another timeline: that has used them, too.  MBUS_OWN_NUMBERS numbers of bodies
 * are kept for each making: who rolls back gives the store back with the next
 * of them (state/store.c).
 *
 * Nothing is made before somebody wants it: a restore into a new database
 * finds no tables of the names that it brings.  Own stores are made ahead as
 * long as they are asked for; those that nobody has taken READY_IDLE_MS later
 * are let go.
 *
 * Ends in the middle:
 *
 *	- before the commit: nothing happened
 *	- between the commit and shared memory: a shared store is closed by
 *	  mbus_stores_close_lost(), an own one is dropped (store_drop.c); neither
 *	  has a body
 *	- after shared memory has forgotten a shared store, before its row says
 *	  that it is closed: mbus_stores_close_lost() closes it, and it stays as
 *	  long as its row has promised when it was opened
 *
 * Locks: those of segment_open.c, without the parents.  The tables belong to
 * the parents' owner and depend on the extension, have row security and no
 * grants.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "channel/series.h"
#include "state/clock.h"
#include "state/state.h"
#include "state/store.h"
#include "worker/foreign.h"
#include "worker/numbers.h"
#include "worker/segment_catalog.h"
#include "worker/store_close.h"
#include "worker/store_open.h"
#include "worker/task.h"

#define RESTORE_SKIP		4096	/* ordinals left to one that is at work */
#define READY				4	/* own stores, while they are asked for */
#define READY_WANTED_MS		60000
#define READY_IDLE_MS		600000
#define EXPIRED_MS			15000	/* a store whose bodies all expired that
									 * long ago is closed, */
#define WORTH_PART			64	/* if it has this part of what one may hold */

/* What is done about the store of a series in this pass. */
typedef enum Need
{
	NEED_NOTHING,
	NEED_STORE,
	NEED_CLOSE
} Need;

/* What a store has on the disk. */
typedef struct Measure
{
	int32		store_no;
	int64		bytes;
} Measure;

/* Stores that are made. */
typedef struct Opening
{
	int32		series;			/* 0: for one body each */
	int			n;
	int32		next_store;		/* before */
	TimestampTz expires_at;		/* of the body that is waited with */
	TimestampTz closes_at;		/* out */
	TimestampTz promised;		/* out */
	MbusReadyStore made[MBUS_READY_STORES]; /* out */
	int64		own;			/* out: own stores there are */
} Opening;

static void store_measure(MbusWork *work, int32 series);
static MbusOutcome store_read_size(MbusWork *work, void *arg);
static Need store_need(MbusWork *work, int32 series, Opening *opening);
static bool store_full(const MbusOpenStore *store);
static bool store_over(const MbusOpenStore *store);
static MbusOutcome store_open(MbusWork *work, void *arg);
static void store_show(MbusWork *work, const Opening *opening);
static int64 store_window(int32 series, int64 ttl);
static void stores_ready(MbusWork *work);
static MbusOutcome stores_make(MbusWork *work, void *arg);
static void ready_show(MbusWork *work, const Opening *opening);
static MbusReadyStore store_make(MbusWork *work, const Opening *opening);
static int32 number_choose(MbusWork *work);
static bool number_again(MbusWork *work, MbusReadyStore *made);
static void numbers_return(MbusDatabase *db, const Opening *opening);
static bool number_used(MbusWork *work, int32 number);
static Oid	part_create(MbusWork *work, int32 number);
static char *tablespace(const char *before);

/* ------------------------------------------------------------------------
 * Numbering
 * ------------------------------------------------------------------------
 */

/*
 * mbus_stores_number returns from which number on stores are to be numbered,
 * and writes it down, in the transaction that numbers segments.
 */
int32
mbus_stores_number(int64 skip)
{
	bool		isnull;
	int64		next;

	next = mbus_sql_int64(&isnull, "SELECT next_store::int8"
						  " FROM message_bus.server_state");
	next = Max(Max(next, MBUS_NODES), mbus_highest_store() + 1) + skip;
	mbus_task_number_check(next, MBUS_SEGMENT_MAX, "store numbers");
	mbus_sql("UPDATE message_bus.server_state SET next_store = " INT64_FORMAT,
			 next);
	if (skip > 0)
		mbus_sql("DELETE FROM message_bus.body_number");
	return (int32) next;
}

/*
 * mbus_highest_store returns the highest number of a store in the catalog, as
 * row or as table; or 0.  It reads all of it.
 */
int64
mbus_highest_store(void)
{
	bool		isnull;

	return mbus_sql_int64(&isnull, "SELECT coalesce(greatest("
						  "(SELECT max(store_no) FROM message_bus.body_store),"
						  "(SELECT max(n) FROM (SELECT substring(relname"
						  "   FROM '^part_([0-9]{1,9})$')::int FROM pg_class"
						  "  WHERE relnamespace = 'message_bus'::regnamespace)"
						  " AS t (n) WHERE n <= %d)), 0)::int8",
						  MBUS_SEGMENT_MAX);
}

/* The number of the next store, in the transaction that makes it. */
static int32
number_choose(MbusWork *work)
{
	MbusStores *stores = &work->db->stores; /* nobody else writes next_store */
	int64		number = mbus_segment_above(stores->next_store, mbus_node);
	int64		least;

	if (number <= MBUS_SEGMENT_MAX && number_used(work, (int32) number))
	{
		least = Max(number, mbus_highest_store()) + 1;
		if (work->restore.pending > 0 || work->stores.unsettled > 0)
			least += MbusOrdinals(RESTORE_SKIP);
		number = mbus_segment_above(least, mbus_node);
	}
	mbus_task_number_check(number, MBUS_SEGMENT_MAX, "store numbers");
	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	stores->next_store = (int32) number + 1;
	LWLockRelease(&work->db->lock);
	mbus_sql("UPDATE message_bus.server_state SET next_store = %d",
			 (int32) number + 1);
	return (int32) number;
}

/*
 * number_again takes a number that an own store has had whose table is gone,
 * and the next of its bodies' numbers; false if there is none.
 */
static bool
number_again(MbusWork *work, MbusReadyStore *made)
{
	bool		none;
	int64		body;

	body = mbus_sql_int64(&none, "SELECT store_no::int8 << %d | used"
						  " FROM message_bus.body_number f"
						  " WHERE used + %d < %d AND (store_no & %d) = %d"
						  " AND NOT EXISTS (SELECT FROM message_bus.body_store s"
						  "  WHERE s.store_no = f.store_no)"
						  " AND to_regclass('message_bus.part_' || f.store_no) IS NULL"
						  " ORDER BY used, store_no LIMIT 1",
						  MBUS_BODY_BITS, MBUS_OWN_NUMBERS,
						  MBUS_BODIES_LIMIT - 1, MBUS_NODES - 1, mbus_node);
	if (none)
		return false;
	made->store_no = MbusStoreOf(body);
	made->n = (int32) (body & (MBUS_BODIES_LIMIT - 1)) + 1;
	return !OidIsValid(get_relname_relid(psprintf("part_%d", made->store_no),
										 work->schema));
}

/*
 * numbers_return gives back the numbers of stores that were not made; should a
 * table be there all the same, the next look at its number finds it.
 */
static void
numbers_return(MbusDatabase *db, const Opening *opening)
{
	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	db->stores.next_store = opening->next_store;
	LWLockRelease(&db->lock);
}

/* Whether a row or a table has a number. */
static bool
number_used(MbusWork *work, int32 number)
{
	char		name[NAMEDATALEN];
	bool		none;

	snprintf(name, sizeof(name), "part_%d", number);
	if (OidIsValid(get_relname_relid(name, work->schema)))
		return true;
	(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM message_bus.body_store"
						  " WHERE store_no >= %d LIMIT 1", number);
	return !none;
}

/* ------------------------------------------------------------------------
 * Opening
 * ------------------------------------------------------------------------
 */

/*
 * mbus_stores_open opens what is wanted, closes what is old or full, and makes
 * own stores ahead.  Cheap if there is nothing to do: other tasks call it in
 * between.
 */
void
mbus_stores_open(MbusWork *work)
{
	if (!mbus_tasks_begin(work, MBUS_TASK_BODY_OPEN, false))
		return;
	for (int32 series = 1; series <= MBUS_MAX_SERIES; series++)
	{
		Opening		opening = {
			.series = series,
			.n = 1,
			.next_store = work->db->stores.next_store
		};

		store_measure(work, series);
		switch (store_need(work, series, &opening))
		{
			case NEED_NOTHING:
				break;
			case NEED_CLOSE:
				mbus_store_close(work, series);
				break;
			case NEED_STORE:
				if (mbus_task_run(work, MBUS_TASK_BODY_OPEN, store_open,
								  &opening, "opening a store of series %d",
								  series) == MBUS_DONE)
					store_show(work, &opening);
				else
					numbers_return(work->db, &opening);
				break;
		}
	}
	stores_ready(work);
	mbus_tasks_end(work, MBUS_TASK_BODY_OPEN);
}

/* Decides what is to be done about the store of a series. */
static Need
store_need(MbusWork *work, int32 series, Opening *opening)
{
	MbusOpenStore *store = &work->db->stores.open[series];
	Need		need = NEED_NOTHING;

	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	if (work->disk.full || (store->store_no != 0 && !store_full(store)))
		store->wanted = 0;		/* who waits is refused, or served */
	if (store->wanted != 0)
		need = NEED_STORE;
	else if (store->store_no != 0 &&
			 (store_full(store) || store_over(store)))
		need = NEED_CLOSE;
	opening->expires_at = store->wanted;
	LWLockRelease(&work->db->lock);
	return need;
}

/*
 * store_measure has a store that seems to be full go on if half of it is still
 * empty: what was reserved was not written, or it was rolled back.  Else
 * whoever reserves much and writes nothing would use up numbers.
 */
static void
store_measure(MbusWork *work, int32 series)
{
	MbusOpenStore *store = &work->db->stores.open[series];
	int64		limit = (int64) mbus_store_max_mb * 1024 * 1024;
	Measure		measure = {0};

	LWLockAcquire(&work->db->lock, LW_SHARED);
	if (store->store_no != 0 && store->bytes >= limit &&
		store->next_n < MBUS_BODIES_LIMIT)
		measure.store_no = store->store_no;
	LWLockRelease(&work->db->lock);
	if (measure.store_no == 0 ||
		mbus_task_run(work, MBUS_TASK_BODY_OPEN, store_read_size, &measure,
					  "measuring store %d", measure.store_no) != MBUS_DONE ||
		measure.bytes >= limit / 2)
		return;
	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	if (store->store_no == measure.store_no)
		store->bytes = measure.bytes;
	LWLockRelease(&work->db->lock);
	ConditionVariableBroadcast(&work->db->changed);
}

static MbusOutcome
store_read_size(MbusWork *work, void *arg)
{
	Measure    *measure = arg;
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	measure->bytes = mbus_sql_int64(&isnull, "SELECT pg_table_size("
									"to_regclass('message_bus.part_%d'))",
									measure->store_no);
	mbus_task_commit();
	return MBUS_DONE;
}

/* Whether a store takes no more; under the lock. */
static bool
store_full(const MbusOpenStore *store)
{
	return store->next_n >= MBUS_BODIES_LIMIT ||
		store->bytes >= (int64) mbus_store_max_mb * 1024 * 1024;
}

/*
 * store_over tells whether a store's time is over, or all in it has expired
 * and its space is worth a number; under the lock.
 */
static bool
store_over(const MbusOpenStore *store)
{
	TimestampTz now = mbus_now();

	return now > store->closes_at ||
		(now - store->wanted_until > EXPIRED_MS * INT64CONST(1000) &&
		 store->bytes >
		 (int64) mbus_store_max_mb * 1024 * 1024 / WORTH_PART);
}

/* Makes the store of a series. */
static MbusOutcome
store_open(MbusWork *work, void *arg)
{
	Opening    *opening = arg;
	TimestampTz now = mbus_now();
	int64		window;

	opening->expires_at = Max(opening->expires_at, now);
	window = store_window(opening->series, opening->expires_at - now);
	opening->closes_at = now + window;
	opening->promised = opening->expires_at + window;
	mbus_task_begin();
	mbus_task_hold_extension(work);
	mbus_task_become_owner(work);
	opening->made[0] = store_make(work, opening);
	mbus_node_record();
	ForceSyncCommit();
	mbus_task_commit();
	work->stores.known++;
	return MBUS_DONE;
}

/*
 * store_window returns for how long a store takes bodies: as a segment takes
 * messages.  An own series' TTL is that of the first body.
 */
static int64
store_window(int32 series, int64 ttl)
{
	int64		window = mbus_series_window_us(series);

	if (series >= mbus_own_series())
		window = Max(window, mbus_series_window_us(mbus_series_for_ttl(ttl)));
	return Max(window, mbus_segment_interval * USECS_PER_SEC);
}

/* Shows a store that was made, and closes the one that it follows. */
static void
store_show(MbusWork *work, const Opening *opening)
{
	MbusDatabase *db = work->db;
	MbusOpenStore *store = &db->stores.open[opening->series];
	MbusOpenStore old;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	old = *store;
	MemSet(store, 0, sizeof(*store));
	store->store_no = opening->made[0].store_no;
	store->relid = opening->made[0].relid;
	store->next_n = 1;
	store->opened_at = mbus_now();
	store->closes_at = opening->closes_at;
	store->promised = opening->promised;
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
	if (old.store_no != 0)
		mbus_store_closed(work, &old);
}

/*
 * stores_ready makes own stores if somebody waits for one, or has asked
 * lately; those that nobody has asked for lately are let go.
 */
static void
stores_ready(MbusWork *work)
{
	MbusStores *stores = &work->db->stores;
	TimestampTz now = mbus_now();
	Opening		opening = {.next_store = stores->next_store};

	LWLockAcquire(&work->db->lock, LW_EXCLUSIVE);
	if (work->disk.full)
		stores->own_wanted = false;
	else if (stores->own_wanted ||
			 (stores->own < mbus_max_own_stores &&
			  !TimestampDifferenceExceeds(stores->own_at, now,
										  READY_WANTED_MS)))
		opening.n = Max(0, READY - stores->nready);
	if (stores->nready > 0 &&
		TimestampDifferenceExceeds(stores->own_at, now, READY_IDLE_MS))
		stores->nready = 0;
	LWLockRelease(&work->db->lock);
	if (opening.n == 0)
		return;
	if (mbus_task_run(work, MBUS_TASK_BODY_OPEN, stores_make, &opening,
					  "making stores for one body each") == MBUS_DONE)
		ready_show(work, &opening);
	else
		numbers_return(work->db, &opening);
}

/* Makes own stores, as many as there may be. */
static MbusOutcome
stores_make(MbusWork *work, void *arg)
{
	Opening    *opening = arg;
	bool		isnull;

	mbus_task_begin();
	mbus_task_hold_extension(work);
	opening->own = mbus_sql_int64(&isnull, "SELECT count(*)"
								  " FROM message_bus.body_store WHERE own");
	opening->n = (int) Max(0, Min(opening->n,
								  mbus_max_own_stores - opening->own));
	if (opening->n > 0)
		mbus_task_become_owner(work);
	for (int i = 0; i < opening->n; i++)
		opening->made[i] = store_make(work, opening);
	if (opening->n > 0)
	{
		mbus_node_record();
		ForceSyncCommit();
	}
	mbus_task_commit();
	opening->own += opening->n;
	work->stores.known += opening->n;
	return MBUS_DONE;
}

/*
 * ready_show shows own stores that were made.  Where there are none, since
 * there are as many as may be, who waits for one is told by their count.
 */
static void
ready_show(MbusWork *work, const Opening *opening)
{
	MbusDatabase *db = work->db;
	MbusStores *stores = &db->stores;

	LWLockAcquire(&db->lock, LW_EXCLUSIVE);
	for (int i = 0; i < opening->n; i++)
		stores->ready[stores->nready++] = opening->made[i];
	stores->own = (int32) opening->own;
	stores->own_wanted = false;
	LWLockRelease(&db->lock);
	ConditionVariableBroadcast(&db->changed);
}

/* Makes the table and the row of a store, in the caller's transaction. */
static MbusReadyStore
store_make(MbusWork *work, const Opening *opening)
{
	MbusReadyStore made;
	Oid			types[] = {INT4OID, INT4OID, BOOLOID, TIMESTAMPTZOID};
	Datum		values[4];

	if (opening->series != 0 || !number_again(work, &made))
	{
		made.store_no = number_choose(work);
		made.n = 1;
	}
	if (opening->series == 0)
		mbus_sql("INSERT INTO message_bus.body_number VALUES (%d, %d)"
				 " ON CONFLICT (store_no) DO UPDATE SET used = EXCLUDED.used",
				 made.store_no, made.n | (MBUS_OWN_NUMBERS - 1));
	made.relid = part_create(work, made.store_no);
	values[0] = Int32GetDatum(made.store_no);
	values[1] = Int32GetDatum(opening->series);
	values[2] = BoolGetDatum(opening->series == 0);
	values[3] = TimestampTzGetDatum(opening->promised);
	if (SPI_execute_with_args("INSERT INTO message_bus.body_store"
							  " (store_no, series, own, opened_at, expires_at)"
							  " VALUES ($1, $2, $3, message_bus.clock(), $4)",
							  4, types, values,
							  opening->series == 0 ? "   n" : NULL, false,
							  0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into message_bus.body_store");
	return made;
}

/*
 * part_create makes the table of a store, as the current user.  Nothing of it
 * is in statistics, as with segments.
 */
static Oid
part_create(MbusWork *work, int32 number)
{
	char	   *name = psprintf("part_%d", number);
	Oid			table;

	mbus_sql("CREATE TABLE message_bus.%s (body bigint NOT NULL,"
			 " n integer NOT NULL, size integer NOT NULL,"
			 " at timestamp with time zone NOT NULL,"
			 " encoding \"char\" NOT NULL, sha256 bytea NOT NULL,"
			 " state bytea, bytes bytea NOT NULL, CONSTRAINT %s"
			 " CHECK (body >= " INT64_FORMAT " AND body < " INT64_FORMAT "))"
			 " USING heap"
			 " WITH (autovacuum_vacuum_insert_threshold = -1,"
			 " toast.autovacuum_vacuum_insert_threshold = -1)%s",
			 name, mbus_bus_mark(), MbusBodyOf(number, 0),
			 MbusBodyOf(number + 1, 0), tablespace(" TABLESPACE "));
	table = get_relname_relid(name, work->schema);
	if (!OidIsValid(table))
		elog(ERROR, "table \"message_bus.%s\" was not created", name);
	mbus_sql("ALTER TABLE message_bus.%s"
			 " ADD CONSTRAINT %s_pkey PRIMARY KEY (body, n)%s,"
			 " ALTER bytes SET STORAGE EXTERNAL,"
			 " ALTER sha256 SET STORAGE PLAIN,"
			 " ALTER state SET STORAGE PLAIN,"
			 " ALTER sha256 SET STATISTICS 0, ALTER state SET STATISTICS 0,"
			 " ALTER bytes SET STATISTICS 0",
			 name, name, tablespace(" USING INDEX TABLESPACE "));
	mbus_segment_revoke(name, table);
	mbus_sql("ALTER TABLE message_bus.%s ENABLE ROW LEVEL SECURITY", name);
	mbus_segment_depend(table, work->extension);
	return table;
}

/* A clause for the tablespace that is set, or "". */
static char *
tablespace(const char *before)
{
	if (mbus_body_tablespace == NULL || mbus_body_tablespace[0] == '\0')
		return "";
	return psprintf("%s%s", before, quote_identifier(mbus_body_tablespace));
}
