/*
 * channel.c
 *		Channels as publishers and readers see them.
 *
 * A backend keeps the rows of message_bus.channel and the grants it has seen
 * in a cache of its own, see base/catalog_cache.c.  Triggers on both tables
 * invalidate the relation cache entry of message_bus.channel.
 *
 * Whether a role has a privilege on any channel at all is kept by role until
 * channels, grants or roles change.  Somebody may change them all the time, so
 * that is cheap to find out anew: a channel where the role had one the last
 * time is looked at first, and else the rows are only passed through, none of
 * them is loaded (channel_any).
 *
 * Rows are read with the catalog snapshot, through the tables' indexes, with
 * no right needed: the privilege that counts is the channel's own.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/about.h"
#include "base/argument.h"
#include "base/catalog_cache.h"
#include "base/columns.h"
#include "base/limits.h"
#include "base/payload.h"
#include "base/role.h"
#include "base/schema.h"
#include "channel/channel.h"

typedef struct MbusCachedChannel
{
	int32		channel_id;		/* hash key */
	MbusChannel channel;
	MbusPolicy	policy;
} MbusCachedChannel;

typedef struct MbusCachedName
{
	char		name[MBUS_CHANNEL_NAME_MAX + 1];	/* hash key */
	int32		channel_id;
} MbusCachedName;

typedef struct MbusCachedAny
{
	Oid			role;			/* hash key */
	bool		any;			/* it has a privilege on a channel */
} MbusCachedAny;

#define ANY_SLOTS	64			/* roles whose channel is remembered */

static HTAB *cache_by_id = NULL;
static HTAB *cache_any = NULL;
static bool roles_changed = false;

/* Where a role had a privilege once; outlives the cache. */
static struct
{
	Oid			role;
	int32		channel_id;
}			any_at[ANY_SLOTS];

static HTAB *cache_by_name = NULL;

static void cache_fill(Oid schema);
static MbusCachedChannel *cached_by_id(Oid schema, int32 channel_id);
static MbusCachedChannel *channel_load(Oid schema, const char *index_name,
									   AttrNumber column, RegProcedure equals,
									   Datum value);
static void channel_read(HeapTuple tuple, TupleDesc desc,
						 MbusChannel *channel);
static void policy_read(HeapTuple tuple, TupleDesc desc, MbusPolicy *policy);
static void purge_read(HeapTuple tuple, TupleDesc desc, MbusPolicy *policy);
static bool role_allowed(const MbusChannel *channel, Oid user,
						 MbusPrivilege privilege);
static void grants_load(Oid schema, MbusChannel *channel);
static int	grant_privileges(HeapTuple tuple, TupleDesc desc);
static void roles_invalidate(Datum arg, int cacheid, uint32 hashvalue);
static bool channel_any(Oid schema);
static int32 owned_any(Oid schema);
static int32 granted_any(Oid schema);

static MbusCatalogCache cache = {"channel", "message_bus channels", cache_fill};

PG_FUNCTION_INFO_V1(mbus_channel_changed);
PG_FUNCTION_INFO_V1(mbus_may);

/*
 * mbus_channel_init registers the cache's invalidation; from _PG_init.
 */
void
mbus_channel_init(void)
{
	mbus_catalog_cache_init(&cache);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_invalidate, 0);
	CacheRegisterSyscacheCallback(AUTHOID, roles_invalidate, 0);
}

static void
roles_invalidate(Datum arg, int cacheid, uint32 hashvalue)
{
	roles_changed = true;
}

/*
 * mbus_channel_changed (trigger) tells all backends that channels
 * or grants have changed, at commit.
 */
Datum
mbus_channel_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "mbus_channel_changed: not called as a trigger");
	CacheInvalidateRelcacheByRelid(mbus_relation(mbus_schema(), "channel"));
	return PointerGetDatum(NULL);
}

/*
 * mbus_channel_open returns the channel of that name if the current user has
 * the privilege; 42P01 if there is no such channel, 42501 without privilege.
 */
const MbusChannel *
mbus_channel_open(Oid schema, text *name, MbusPrivilege privilege)
{
	const MbusChannel *channel;

	mbus_about_channel_text(name);
	channel = mbus_channel_named(schema, name);
	mbus_channel_check(channel, privilege);
	return channel;
}

/*
 * mbus_channel_named returns the channel of that name; 42P01 if there is none.
 */
const MbusChannel *
mbus_channel_named(Oid schema, text *name)
{
	char	   *cname = text_to_cstring(name);
	const MbusChannel *channel = mbus_channel_by_name(schema, cname);

	if (channel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("channel \"%s\" does not exist", cname)));
	return channel;
}

/*
 * mbus_channel_check errors with 42501 if the current user may not.
 */
void
mbus_channel_check(const MbusChannel *channel, MbusPrivilege privilege)
{
	const char *verb = privilege == MBUS_PUBLISH ? "publish" : "consume";

	if (privilege == MBUS_CLAIM && mbus_channel_allows(channel, MBUS_CONSUME))
		verb = "consume the messages of all subjects (all_subjects)";
	if (!mbus_channel_allows(channel, privilege))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for channel \"%s\"", channel->name),
				 errdetail("Role \"%s\" has no privilege to %s.",
						   GetUserNameFromId(GetUserId(), false), verb),
				 privilege == MBUS_CLAIM && mbus_channel_allows(channel, MBUS_CONSUME) ?
				 errhint("Users of a channel with visibility \"subject\" read their messages with peek and get; who claims gets everybody's.") :
				 errhint("The channel's owner can grant it with message_bus.grant_channel().")));
}

/*
 * mbus_monitors tells whether the current user is a member of pg_monitor, who
 * sees the figures of all channels.
 */
bool
mbus_monitors(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

/*
 * mbus_channel_allows tells whether the current user has the privilege, or one
 * of several; with MBUS_WHOLE only if no message is hidden from him.
 */
bool
mbus_channel_allows(const MbusChannel *channel, MbusPrivilege privilege)
{
	return role_allowed(channel, GetUserId(), privilege);
}

/*
 * mbus_channel_allows_role tells that of a role; false of one that is not there
 * (any more), whatever it had.
 */
bool
mbus_channel_allows_role(const MbusChannel *channel, Oid role,
						 MbusPrivilege privilege)
{
	return OidIsValid(role) &&
		SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)) &&
		role_allowed(channel, role, privilege);
}

/* Whether a role that is there has the privilege. */
static bool
role_allowed(const MbusChannel *channel, Oid user, MbusPrivilege privilege)
{
	if (has_privs_of_role(user, channel->owner))
		return true;
	if ((privilege & MBUS_WHOLE) != 0 && channel->by_subject &&
		!role_allowed(channel, user, MBUS_ALL_SUBJECTS))
		return false;
	for (int i = 0; i < channel->ngrants; i++)
	{
		if ((channel->grant[i].privileges & privilege) != 0 &&
			has_privs_of_role(user, channel->grant[i].grantee))
			return true;
	}
	return false;
}

/*
 * mbus_channel_any tells whether there is a channel on which the current user
 * may publish, or see something.  Of a role it is found out once, until
 * channels or roles change.
 */
bool
mbus_channel_any(Oid schema)
{
	Oid			role = GetUserId();
	MbusCachedAny *cached;
	bool		any;

	mbus_catalog_cache_look(&cache, schema);
	if (roles_changed || cache_any == NULL)
	{
		roles_changed = false;
		if (cache_any)
			hash_destroy(cache_any);
		cache_any = NULL;
		cache_any = mbus_catalog_cache_hash(&cache,
											"message_bus roles with a channel",
											sizeof(Oid),
											sizeof(MbusCachedAny),
											HASH_BLOBS);
	}
	cached = hash_search(cache_any, &role, HASH_FIND, NULL);
	if (cached)
		return cached->any;
	any = channel_any(schema);
	/* what has changed meanwhile is looked at next time */
	if (cache_any && !cache.stale && !roles_changed)
	{
		cached = hash_search(cache_any, &role, HASH_ENTER, NULL);
		cached->any = any;
	}
	return any;
}

/* Looks where the role had a privilege the last time, and then at all. */
static bool
channel_any(Oid schema)
{
	Oid			role = GetUserId();
	int			slot = role % ANY_SLOTS;
	int32		found = 0;

	if (any_at[slot].role == role)
	{
		const MbusChannel *channel =
		mbus_channel_by_id(schema, any_at[slot].channel_id);

		if (channel && mbus_channel_allows(channel, MBUS_PUBLISH | MBUS_SEE))
			return true;
	}
	found = granted_any(schema);
	if (found == 0)
		found = owned_any(schema);
	if (found == 0)
		return false;
	any_at[slot].role = role;
	any_at[slot].channel_id = found;
	return true;
}

/* A channel that the current user owns; 0: none. */
static int32
owned_any(Oid schema)
{
	Relation	rel = table_open(mbus_relation(schema, "channel"),
								 AccessShareLock);
	SysScanDesc rows = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;
	Oid			user = GetUserId();
	Oid			last = InvalidOid;
	int32		found = 0;

	while (found == 0 && HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		Oid			owner = mbus_role_live(heap_getattr(tuple,
														MBUS_CHANNEL_OWNER,
														desc, &isnull));

		CHECK_FOR_INTERRUPTS();
		/* mostly it is the same again */
		if (owner == last)
			continue;
		last = owner;
		if (has_privs_of_role(user, owner))
			found = DatumGetInt32(heap_getattr(tuple, MBUS_CHANNEL_ID, desc,
											   &isnull));
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	return found;
}

/* A channel on which the current user was granted something; 0: none. */
static int32
granted_any(Oid schema)
{
	Relation	rel = table_open(mbus_relation(schema, "channel_grant"),
								 AccessShareLock);
	SysScanDesc rows = systable_beginscan(rel, InvalidOid, false, NULL, 0,
										  NULL);
	HeapTuple	tuple;
	Oid			user = GetUserId();
	Oid			last = InvalidOid;
	int32		found = 0;

	while (found == 0 && HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		bool		isnull;
		Oid			grantee = mbus_role_live(heap_getattr(tuple,
														  MBUS_GRANT_GRANTEE,
														  desc, &isnull));

		CHECK_FOR_INTERRUPTS();
		if (grantee == last ||
			(grant_privileges(tuple, desc) & (MBUS_PUBLISH | MBUS_SEE)) == 0)
			continue;
		last = grantee;
		if (has_privs_of_role(user, grantee))
			found = DatumGetInt32(heap_getattr(tuple, MBUS_GRANT_CHANNEL_ID,
											   desc, &isnull));
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * mbus_may (SQL: message_bus.may(channel_id integer, privilege text)) is what
 * the views filter by.
 */
Datum
mbus_may(PG_FUNCTION_ARGS)
{
	const MbusChannel *channel;
	char	   *privilege = text_to_cstring(PG_GETARG_TEXT_PP(1));

	channel = mbus_channel_by_id(mbus_schema(), PG_GETARG_INT32(0));
	if (channel == NULL)
		PG_RETURN_BOOL(false);
	if (strcmp(privilege, "consume") == 0)
		PG_RETURN_BOOL(mbus_channel_allows(channel, MBUS_CONSUME));
	if (strcmp(privilege, "publish") == 0)
		PG_RETURN_BOOL(mbus_channel_allows(channel, MBUS_PUBLISH));
	if (strcmp(privilege, "audit") == 0)
		PG_RETURN_BOOL(mbus_channel_allows(channel, MBUS_SEE));
	if (strcmp(privilege, "all_subjects") == 0)
		PG_RETURN_BOOL(mbus_channel_allows(channel, MBUS_ALL_SUBJECTS));
	PG_RETURN_BOOL(has_privs_of_role(GetUserId(), channel->owner));
}

/*
 * mbus_channel_by_name returns a channel or NULL; good until the next look-up.
 */
const MbusChannel *
mbus_channel_by_name(Oid schema, const char *name)
{
	MbusCachedName *named;
	MbusCachedChannel *cached;

	if (strlen(name) > MBUS_CHANNEL_NAME_MAX)
		return NULL;
	mbus_catalog_cache_look(&cache, schema);
	named = hash_search(cache_by_name, name, HASH_FIND, NULL);
	if (named)
		return mbus_channel_by_id(schema, named->channel_id);
	cached = channel_load(schema, "channel_name_key", MBUS_CHANNEL_NAME,
						  F_TEXTEQ, CStringGetTextDatum(name));
	if (cached == NULL)
		return NULL;
	named = hash_search(cache_by_name, cached->channel.name, HASH_ENTER, NULL);
	named->channel_id = cached->channel_id;
	return &cached->channel;
}

/*
 * mbus_channel_by_id returns a channel or NULL; good until the next look-up.
 */
const MbusChannel *
mbus_channel_by_id(Oid schema, int32 channel_id)
{
	MbusCachedChannel *cached = cached_by_id(schema, channel_id);

	return cached ? &cached->channel : NULL;
}

/*
 * mbus_channel_policy returns a channel's policy or NULL; good until the next
 * look-up.
 */
const MbusPolicy *
mbus_channel_policy(Oid schema, int32 channel_id)
{
	MbusCachedChannel *cached = cached_by_id(schema, channel_id);

	return cached ? &cached->policy : NULL;
}

/*
 * mbus_channel_lease_check errors with 22023 if no lease may be as long in a
 * channel.
 */
void
mbus_channel_lease_check(Oid schema, int32 channel_id, int64 lease_us)
{
	const MbusCachedChannel *cached = cached_by_id(schema, channel_id);
	int64		most = cached ? cached->policy.max_lease_us : MBUS_LEASE_MAX_US;

	if (lease_us >= 1 && lease_us <= most)
		return;
	if (most == MBUS_LEASE_MAX_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease_for must be longer than 0 and at most 7 days")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("lease_for must be longer than 0 and at most %.3f seconds",
					most / 1e6),
			 errdetail("That is max_lease of channel \"%s\".",
					   cached->channel.name)));
}

/* The cached row of a channel, which is read if it is not there yet. */
static MbusCachedChannel *
cached_by_id(Oid schema, int32 channel_id)
{
	MbusCachedChannel *cached;

	mbus_catalog_cache_look(&cache, schema);
	cached = hash_search(cache_by_id, &channel_id, HASH_FIND, NULL);
	if (cached)
		return cached;
	return channel_load(schema, "channel_pkey", MBUS_CHANNEL_ID, F_INT4EQ,
						Int32GetDatum(channel_id));
}

/* Makes the tables of an empty cache. */
static void
cache_fill(Oid schema)
{
	cache_any = NULL;
	cache_by_id = mbus_catalog_cache_hash(&cache,
										  "message_bus channels by id",
										  sizeof(int32),
										  sizeof(MbusCachedChannel),
										  HASH_BLOBS);
	cache_by_name = mbus_catalog_cache_hash(&cache,
											"message_bus channels by name",
											MBUS_CHANNEL_NAME_MAX + 1,
											sizeof(MbusCachedName),
											HASH_STRINGS);
}

/*
 * channel_load reads one row through an index and remembers it, when it is
 * read to its end: what errs leaves no half of it.
 */
static MbusCachedChannel *
channel_load(Oid schema, const char *index_name, AttrNumber column,
			 RegProcedure equals, Datum value)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	MbusChannel channel;
	MbusPolicy	policy;
	MbusCachedChannel *cached;
	bool		found;

	rel = table_open(cache.relid, AccessShareLock);
	ScanKeyInit(&key, column, BTEqualStrategyNumber, equals, value);
	if (equals == F_TEXTEQ)
		key.sk_collation = TupleDescAttr(RelationGetDescr(rel),
										 column - 1)->attcollation;
	scan = systable_beginscan(rel, mbus_relation(schema, index_name), true,
							  NULL, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		channel_read(tuple, RelationGetDescr(rel), &channel);
		policy_read(tuple, RelationGetDescr(rel), &policy);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!found)
		return NULL;
	grants_load(schema, &channel);
	cached = hash_search(cache_by_id, &channel.channel_id, HASH_ENTER, NULL);
	cached->channel = channel;
	cached->policy = policy;
	return cached;
}

/* Reads what publishers and readers see of a row. */
static void
channel_read(HeapTuple tuple, TupleDesc desc, MbusChannel *channel)
{
	Datum		value;
	bool		isnull;

	MemSet(channel, 0, sizeof(*channel));
	channel->channel_id =
		DatumGetInt32(heap_getattr(tuple, MBUS_CHANNEL_ID, desc, &isnull));
	value = heap_getattr(tuple, MBUS_CHANNEL_NAME, desc, &isnull);
	strlcpy(channel->name, TextDatumGetCString(value), sizeof(channel->name));
	channel->owner =
		mbus_role_live(heap_getattr(tuple, MBUS_CHANNEL_OWNER, desc,
									&isnull));
	channel->series =
		DatumGetInt32(heap_getattr(tuple, MBUS_CHANNEL_SERIES, desc, &isnull));
	value = heap_getattr(tuple, MBUS_CHANNEL_TTL, desc, &isnull);
	channel->ttl_us = mbus_interval_us(DatumGetIntervalP(value));
	value = heap_getattr(tuple, MBUS_CHANNEL_MAX_PAYLOAD, desc, &isnull);
	channel->max_payload = isnull ? 0 : DatumGetInt64(value);
	value = heap_getattr(tuple, MBUS_CHANNEL_COMPRESSION, desc, &isnull);
	channel->compression = mbus_compression_parse(TextDatumGetCString(value));
	channel->record_reads =
		DatumGetBool(heap_getattr(tuple, MBUS_CHANNEL_RECORD_READS, desc,
								  &isnull));
	value = heap_getattr(tuple, MBUS_CHANNEL_VISIBILITY, desc, &isnull);
	channel->by_subject = strcmp(TextDatumGetCString(value), "channel") != 0;
}

/* Reads what deliveries go by of a row. */
static void
policy_read(HeapTuple tuple, TupleDesc desc, MbusPolicy *policy)
{
	Datum		value;
	bool		isnull;

	MemSet(policy, 0, sizeof(*policy));
	policy->max_attempts =
		DatumGetInt32(heap_getattr(tuple, MBUS_CHANNEL_MAX_ATTEMPTS, desc,
								   &isnull));
	value = heap_getattr(tuple, MBUS_CHANNEL_LEASE, desc, &isnull);
	policy->lease_us = mbus_interval_us(DatumGetIntervalP(value));
	value = heap_getattr(tuple, MBUS_CHANNEL_MAX_LEASE, desc, &isnull);
	policy->max_lease_us = isnull ? MBUS_LEASE_MAX_US :
		mbus_interval_us(DatumGetIntervalP(value));
	policy->lease_us = Min(policy->lease_us, policy->max_lease_us);
	value = heap_getattr(tuple, MBUS_CHANNEL_BACKOFF, desc, &isnull);
	policy->backoff_us = mbus_interval_us(DatumGetIntervalP(value));
	value = heap_getattr(tuple, MBUS_CHANNEL_BACKOFF_MAX, desc, &isnull);
	policy->backoff_max_us = mbus_interval_us(DatumGetIntervalP(value));
	value = heap_getattr(tuple, MBUS_CHANNEL_DEAD_LETTER_ID, desc, &isnull);
	policy->dead_letters = !isnull;
	policy->dead_letter_id = isnull ? 0 : DatumGetInt32(value);
	value = heap_getattr(tuple, MBUS_CHANNEL_RETENTION, desc, &isnull);
	policy->acked = strcmp(TextDatumGetCString(value), "acked") == 0;
	purge_read(tuple, desc, policy);
}

/* Reads what purge_channel() wrote; the ranges live in the cache. */
static void
purge_read(HeapTuple tuple, TupleDesc desc, MbusPolicy *policy)
{
	Datum		value;
	bool		isnull;
	ArrayType  *kept;
	int			n;
	int64	   *copy;

	policy->purged_to =
		DatumGetInt64(heap_getattr(tuple, MBUS_CHANNEL_PURGED_TO, desc,
								   &isnull));
	value = heap_getattr(tuple, MBUS_CHANNEL_PURGE_KEPT, desc, &isnull);
	if (isnull)
		return;
	kept = DatumGetArrayTypeP(value);
	n = ArrayGetNItems(ARR_NDIM(kept), ARR_DIMS(kept));
	if (n == 0 || n % 2 != 0 || ARR_HASNULL(kept) ||
		ARR_ELEMTYPE(kept) != INT8OID)
		return;
	copy = MemoryContextAlloc(cache.context, n * sizeof(int64));
	memcpy(copy, ARR_DATA_PTR(kept), n * sizeof(int64));
	policy->kept = copy;
	policy->nkept = n / 2;
}

/*
 * grants_load fills in who may use the channel.
 */
static void
grants_load(Oid schema, MbusChannel *channel)
{
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	int			room = 0;

	rel = table_open(mbus_relation(schema, "channel_grant"), AccessShareLock);
	ScanKeyInit(&key, MBUS_GRANT_CHANNEL_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(channel->channel_id));
	scan = systable_beginscan(rel, mbus_relation(schema, "channel_grant_pkey"),
							  true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		TupleDesc	desc = RelationGetDescr(rel);
		MbusGrant  *grant;
		bool		isnull;

		if (channel->ngrants >= room)
		{
			room = room ? room * 2 : 4;
			channel->grant = channel->grant ?
				repalloc(channel->grant, room * sizeof(MbusGrant)) :
				MemoryContextAlloc(cache.context, room * sizeof(MbusGrant));
		}
		grant = &channel->grant[channel->ngrants++];
		grant->grantee =
			mbus_role_live(heap_getattr(tuple, MBUS_GRANT_GRANTEE, desc,
										&isnull));
		grant->privileges = grant_privileges(tuple, desc);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* What a row of grants gives. */
static int
grant_privileges(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	return (DatumGetBool(heap_getattr(tuple, MBUS_GRANT_MAY_PUBLISH, desc,
									  &isnull)) ? MBUS_PUBLISH : 0) |
		(DatumGetBool(heap_getattr(tuple, MBUS_GRANT_MAY_CONSUME, desc,
								   &isnull)) ? MBUS_CONSUME : 0) |
		(DatumGetBool(heap_getattr(tuple, MBUS_GRANT_MAY_AUDIT, desc,
								   &isnull)) ? MBUS_AUDIT : 0) |
		(DatumGetBool(heap_getattr(tuple, MBUS_GRANT_ALL_SUBJECTS, desc,
								   &isnull)) ? MBUS_ALL_SUBJECTS : 0);
}
