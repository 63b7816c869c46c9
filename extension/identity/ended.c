/*
 * ended.c
 *		Sessions that were ended before their time.
 *
 * end_sessions() notes in message_bus.session_end that what was issued until
 * now to a subject, a role, or a subject with a role, is good no more: tokens
 * by their "iat" (one without was issued before everything), sessions without
 * a token by when they were opened first, on whatever connection: the gateway
 * tells the others.  Each frame is compared with that, and each token that is
 * shown, so the end holds on every connection and for whoever connects again
 * with the same token.
 *
 * "iat" is in whole seconds: a token that is issued in the second of the end,
 * but after it, is refused, too.
 *
 * Only who issues tokens knows how long they last.  So a row stays until one
 * that says as much for more (its subject whatever the role, its role whatever
 * the subject) takes its place.  With message_bus.token_max_age nobody comes any
 * more with what was issued that long ago, nor goes on: what was ended before
 * is removed by the next end_sessions().  A backend keeps them in a cache of its own, see
 * base/catalog_cache.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "action/action.h"
#include "base/argument.h"
#include "base/caller.h"
#include "base/catalog_cache.h"
#include "base/columns.h"
#include "base/owner.h"
#include "base/schema.h"
#include "base/settings.h"
#include "identity/ended.h"
#include "state/fault.h"

#define SKEW_MAX	300			/* seconds, that clocks may differ */

typedef struct Ended
{
	char	   *subject;		/* NULL: any */
	char	   *role;			/* NULL: any */
	TimestampTz at;
	struct Ended *next;
} Ended;

static Ended *ends = NULL;		/* in the cache's memory */
static TimestampTz newest = DT_NOBEGIN;

static char *text_argument(FunctionCallInfo fcinfo, int arg);
static void ends_load(Oid schema);
static char *ended_text(HeapTuple tuple, TupleDesc desc, AttrNumber column);

static MbusCatalogCache cache = {
	"session_end", "message_bus ended sessions", ends_load
};

PG_FUNCTION_INFO_V1(mbus_session_end_changed);

/*
 * mbus_ended_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_ended_init(void)
{
	mbus_catalog_cache_init(&cache);
}

/*
 * end_sessions(subject text, role text) ends what is open for them, and what
 * their tokens would open.
 */
MBUS_FUNCTION(end_sessions)
{
	static const Oid types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID,
	TIMESTAMPTZOID};
	Oid			schema = mbus_schema();
	char	   *subject = text_argument(fcinfo, 0);
	char	   *role = text_argument(fcinfo, 1);
	TimestampTz now = GetCurrentTimestamp();
	MbusAction	action;
	Datum		values[4] = {0};
	char		nulls[] = "nn  ";

	mbus_write_check("message_bus.end_sessions()");
	if (subject == NULL && role == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments \"subject\" and \"role\" are both NULL"),
				 errhint("Say whose sessions are to end.")));
	if (subject)
	{
		mbus_subject_cut(subject);
		values[0] = CStringGetTextDatum(subject);
		nulls[0] = ' ';
	}
	if (role)
	{
		(void) get_role_oid(role, false);
		values[1] = CStringGetTextDatum(role);
		nulls[1] = ' ';
	}
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(mbus_token_max_age == 0 ? DT_NOBEGIN :
									now - (mbus_token_max_age + (int64) SKEW_MAX) *
									USECS_PER_SEC);
	LockRelationOid(mbus_relation(schema, "session_end"),
					ShareRowExclusiveLock);
	mbus_run_as_owner(schema,
					  "DELETE FROM message_bus.session_end WHERE"
					  " (($1 IS NULL OR subject OPERATOR(pg_catalog.=) $1)"
					  " AND ($2 IS NULL OR role OPERATOR(pg_catalog.=) $2))"
					  " OR ended_at OPERATOR(pg_catalog.<) $4",
					  lengthof(types), types, values, nulls);
	mbus_run_as_owner(schema,
					  "INSERT INTO message_bus.session_end (subject, role,"
					  " ended_at) VALUES ($1, $2, $3)",
					  3, types, values, nulls);
	mbus_action_begin(&action, "keys", 0, "sessions ended");
	mbus_action_text(&action, "subject", subject);
	mbus_action_text(&action, "role", role);
	mbus_action_end(&action, schema);
	PG_RETURN_VOID();
}

static char *
text_argument(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

/*
 * mbus_session_end_changed (trigger) tells all backends, at commit.
 */
Datum
mbus_session_end_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mbus_session_end_changed: not called as a trigger");
	CacheInvalidateRelcacheByRelid(mbus_relation(mbus_schema(),
												 "session_end"));
	return PointerGetDatum(NULL);
}

/*
 * mbus_too_old tells whether what was issued at a time is older than anything
 * may be, give or take the seconds that clocks may differ.
 */
bool
mbus_too_old(TimestampTz since, int skew)
{
	return mbus_token_max_age > 0 &&
		since < GetCurrentTimestamp() -
		(mbus_token_max_age + (int64) skew) * USECS_PER_SEC;
}

/*
 * mbus_ended tells whether what was issued to a role, and a subject (or NULL),
 * at a time has been ended since.
 */
bool
mbus_ended(Oid role, const char *subject, TimestampTz since)
{
	char	   *name = NULL;

	mbus_catalog_cache_look(&cache, mbus_schema());
	if (since >= newest)
		return false;
	for (const Ended *ended = ends; ended; ended = ended->next)
	{
		if (since >= ended->at ||
			(ended->subject &&
			 (subject == NULL || strcmp(ended->subject, subject) != 0)))
			continue;
		if (ended->role && name == NULL)
			name = GetUserNameFromId(role, true);
		if (ended->role == NULL || (name && strcmp(ended->role, name) == 0))
			return true;
	}
	return false;
}

/* Reads all rows. */
static void
ends_load(Oid schema)
{
	Relation	rel = table_open(cache.relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;

	ends = NULL;
	newest = DT_NOBEGIN;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		Ended	   *ended = MemoryContextAlloc(cache.context, sizeof(Ended));
		bool		isnull;

		ended->subject = ended_text(tuple, desc, MBUS_SESSION_END_SUBJECT);
		ended->role = ended_text(tuple, desc, MBUS_SESSION_END_ROLE);
		ended->at = DatumGetTimestampTz(heap_getattr(tuple,
													 MBUS_SESSION_END_ENDED_AT,
													 desc, &isnull));
		ended->next = ends;
		ends = ended;
		newest = Max(newest, ended->at);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static char *
ended_text(HeapTuple tuple, TupleDesc desc, AttrNumber column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, desc, &isnull);

	return isnull ? NULL : MemoryContextStrdup(cache.context,
											   TextDatumGetCString(value));
}
