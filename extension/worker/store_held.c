/*
 * store_held.c
 *		Whether a body of a store may still be wanted.
 *
 * A row of body_hold holds its store until a time, as long as its message may
 * be there: its segment's table is, and the message was neither deleted nor
 * purged.  A message that is not found in a table that is there may still come
 * with a restore; one whose row is damaged may be, too.  That a channel is not
 * there does not say that its messages are wanted by nobody: it may come with a
 * restore, and its bodies stay until they expire.
 *
 * An upload holds its store until it has ended, or its time is over: that is
 * message_bus.upload_ttl after its last part, and UPLOAD_MAX_DAYS after its
 * begin at the latest; in a store that it shares, whose other bodies it keeps,
 * upload_ttl after its begin.  No row says that it has expired.
 *
 * All of it is asked in the caller's transaction, whose statements each have
 * a new snapshot.  What is read is bounded: HOLDS_MAX messages; if none of
 * so many is there any more their rows are deleted, and the next look goes on
 * with others.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/ids.h"
#include "base/settings.h"
#include "body/body.h"
#include "body/part.h"
#include "message/quarantine.h"
#include "message/stored.h"
#include "state/clock.h"
#include "state/store.h"
#include "state/unfinished.h"
#include "worker/store_held.h"
#include "worker/task.h"

#define HOLDS_MAX		1000
#define UPLOADS_MAX		1000
#define UPLOAD_MAX_DAYS "30"

static int64 *holds_query(int32 store_no, int *n);
static int64 *numbers_query(const char *query, int *n);
static bool message_may_be(MbusWork *work, int64 id);
static bool message_may_be_caught(MbusWork *work, int64 id);
static void holds_delete(int32 store_no, const int64 *ids, int n);
static bool upload_goes_on(MbusWork *work, int64 number);

/*
 * mbus_store_held tells whether a message that may be there holds a store.
 */
bool
mbus_store_held(MbusWork *work, int32 store_no)
{
	int			n;
	int64	   *ids = holds_query(store_no, &n);

	for (int i = 0; i < n; i++)
	{
		if (message_may_be_caught(work, ids[i]))
			return true;
	}
	if (n < HOLDS_MAX)
		return false;
	holds_delete(store_no, ids, n);
	return true;
}

/*
 * mbus_store_holders returns the messages that may be there and hold a store,
 * and how many there are; -1 if these are too many.
 */
int
mbus_store_holders(MbusWork *work, int32 store_no, int64 **ids)
{
	int			n;
	int			left = 0;

	*ids = holds_query(store_no, &n);
	if (n == HOLDS_MAX)
		return -1;
	for (int i = 0; i < n; i++)
	{
		if (message_may_be_caught(work, (*ids)[i]))
			(*ids)[left++] = (*ids)[i];
	}
	return left;
}

/* The messages of rows that hold a store still, HOLDS_MAX at most. */
static int64 *
holds_query(int32 store_no, int *n)
{
	return numbers_query(psprintf("SELECT message_id FROM message_bus.body_hold"
								  " WHERE store_no = %d"
								  " AND until > message_bus.clock()"
								  " ORDER BY message_id DESC LIMIT %d",
								  store_no, HOLDS_MAX), n);
}

/* The bigints that a query finds. */
static int64 *
numbers_query(const char *query, int *n)
{
	int64	   *numbers;
	bool		isnull;

	if (SPI_execute(query, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", query);
	*n = (int) SPI_processed;
	numbers = palloc(Max(*n, 1) * sizeof(int64));
	for (int i = 0; i < *n; i++)
		numbers[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
												 SPI_tuptable->tupdesc, 1,
												 &isnull));
	SPI_freetuptable(SPI_tuptable);
	return numbers;
}

/* Whether a message may be there, or still come. */
static bool
message_may_be(MbusWork *work, int64 id)
{
	int32		segment = MbusSegmentOf(id);
	MbusStored	message;

	if (id <= 0 || (id >> MBUS_ROW_BITS) > MBUS_SEGMENT_MAX)
		return false;
	if (mbus_segment_hidden(work->db, segment))
		return true;
	if (!OidIsValid(get_relname_relid(psprintf("message_%d", segment),
									  work->schema)))
		return false;
	return mbus_message_fetch_stored(work->schema, id, &message) ||
		mbus_message_expiry(work->schema, id) == 0;
}

/* Also where what is stored is damaged: then it may be there. */
static bool
message_may_be_caught(MbusWork *work, int64 id)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool may_be = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		may_be = message_may_be(work, id);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (!mbus_damage_code(edata->sqlerrcode))
			ReThrowError(edata);
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return may_be;
}

static void
holds_delete(int32 store_no, const int64 *ids, int n)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < n; i++)
		appendStringInfo(&list, "%s" INT64_FORMAT, i > 0 ? "," : "", ids[i]);
	mbus_sql("DELETE FROM message_bus.body_hold WHERE store_no = %d"
			 " AND message_id = ANY ('{%s}')", store_no, list.data);
}

/*
 * mbus_store_uploading tells whether an upload into a store goes on.
 */
bool
mbus_store_uploading(MbusWork *work, int32 store_no)
{
	int			n;
	int64	   *bodies;

	bodies = numbers_query(psprintf("SELECT u.body FROM message_bus.upload u"
									" WHERE u.body >= " INT64_FORMAT
									" AND u.body < " INT64_FORMAT
									" AND u.begun_at > message_bus.clock()"
									"  - CASE WHEN u.own THEN interval '" UPLOAD_MAX_DAYS " days'"
									"  ELSE interval '%d s' END"
									" AND NOT EXISTS"
									" (SELECT FROM message_bus.upload_end e"
									"  WHERE e.body = u.body) LIMIT %d",
									MbusBodyOf(store_no, 0),
									MbusBodyOf(store_no + 1, 0),
									mbus_upload_ttl, UPLOADS_MAX), &n);
	for (int i = 0; i < n; i++)
	{
		if (upload_goes_on(work, bodies[i]))
			return true;
	}
	return n == UPLOADS_MAX;
}

/*
 * Whether the time of an upload is not over: it was begun lately, or a part
 * has come lately.
 */
static bool
upload_goes_on(MbusWork *work, int64 number)
{
	TimestampTz since = mbus_now() - mbus_upload_ttl * USECS_PER_SEC;
	MbusBody	body;
	bool		none;

	(void) mbus_sql_int64(&none, "SELECT 1::int8 FROM message_bus.upload"
						  " WHERE body = " INT64_FORMAT
						  " AND begun_at > message_bus.clock() - interval '%d s'",
						  number, mbus_upload_ttl);
	return !none ||
		(mbus_body_find(work->schema, number, AccessShareLock, &body) &&
		 mbus_parts_since(&body, since));
}
