/*
 * channel_admin.c
 *		create_channel, alter_channel and drop_channel.
 *
 * These functions check what the caller may do, then run their one statement
 * as the owner of the tables (base/owner.c), and record what they have done
 * (action/action.c).  What a channel has goes with it, and is not told row by row.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "action/action.h"
#include "admin/channel_admin.h"
#include "admin/dead_letter_channel.h"
#include "admin/own_series.h"
#include "admin/subscription_admin.h"
#include "base/argument.h"
#include "base/compat.h"
#include "base/limits.h"
#include "base/owner.h"
#include "base/payload.h"
#include "base/role.h"
#include "base/schema.h"
#include "base/settings.h"
#include "channel/channel.h"
#include "channel/owned.h"
#include "channel/series.h"
#include "state/channel_slot.h"
#include "state/fault.h"
#include "state/state.h"

/* The policy arguments that create_channel and alter_channel share. */
enum
{
	POLICY_TTL,
	POLICY_MAX_ATTEMPTS,
	POLICY_LEASE,
	POLICY_BACKOFF,
	POLICY_BACKOFF_MAX,
	POLICY_DEAD_LETTER,			/* its number, behind policy_check() */
	POLICY_RETENTION,
	POLICY_MAX_PAYLOAD,
	POLICY_COMPRESSION,
	POLICIES,
	/* the statements' further parameters */
	PARAM_SERIES = POLICIES,
	PARAM_CHANNEL,
	PARAM_OWNER,
	PARAM_DEAD_LETTER_EXPIRED,
	PARAM_RECORD_READS,
	PARAM_NEW_OWNER,			/* of alter_channel */
	PARAM_VISIBILITY,
	PARAM_MAX_LEASE,
	PARAMS
};

#define MBUS_ATTEMPTS_MAX	1000
#define ARG_VISIBILITY	13		/* of create_channel and alter_channel */
#define ARG_NEW_OWNER		(POLICIES + 3)	/* of alter_channel */
#define ARG_MAX_LEASE		(POLICIES + 5)	/* of both */

static const Oid param_types[PARAMS] = {
	INTERVALOID, INT4OID, INTERVALOID, INTERVALOID, INTERVALOID, INT4OID,
	TEXTOID, INT8OID, TEXTOID, INT4OID, TEXTOID, OIDOID, BOOLOID, BOOLOID,
	OIDOID, TEXTOID, INTERVALOID
};

typedef struct NewPolicy
{
	Datum		value[PARAMS];
	char		null[PARAMS];	/* as SPI wants it: 'n' or ' ' */
} NewPolicy;

static void channel_tell(Oid schema, const char *name, const char *change);
static Oid	owner_read(FunctionCallInfo fcinfo, Oid schema, text *name,
					   NewPolicy *policy);
static void series_alter(Oid schema, text *name, NewPolicy *policy);
static void policy_read(FunctionCallInfo fcinfo, NewPolicy *policy);
static void record_reads_read(FunctionCallInfo fcinfo, int argno,
							  NewPolicy *policy);
static void visibility_read(FunctionCallInfo fcinfo, NewPolicy *policy);
static void policy_default(NewPolicy *policy, int which, Datum value);
static void policy_check(Oid schema, const char *channel, Oid owner,
						 NewPolicy *policy);
static void policy_check_attempts(NewPolicy *policy);
static void policy_check_lease(NewPolicy *policy);
static void policy_check_backoff(NewPolicy *policy);
static void policy_check_retention(NewPolicy *policy);
static int64 policy_interval(NewPolicy *policy, int which, const char *name,
							 int64 most);
static bool policy_retention(NewPolicy *policy, const char *retention);

/*
 * create_channel(channel, <policy>, if_not_exists) makes a channel that
 * belongs to the current user.
 */
MBUS_CHANNEL_FUNCTION(create_channel)
{
	Oid			schema = mbus_schema();
	char	   *name = text_to_cstring(mbus_required_text(fcinfo, 0, "channel"));
	bool		if_not_exists = !PG_ARGISNULL(10) && PG_GETARG_BOOL(10);
	NewPolicy	policy;
	int			rows;

	mbus_preload_check();		/* CREATE EXTENSION makes a channel */
	mbus_write_check("message_bus.create_channel()");
	mbus_name_check("channel", name);
	policy_read(fcinfo, &policy);
	record_reads_read(fcinfo, 12, &policy);
	if (policy.null[POLICY_TTL] == 'n')
		policy_default(&policy, POLICY_TTL,
					   DirectFunctionCall3(interval_in,
										   CStringGetDatum(mbus_default_ttl),
										   ObjectIdGetDatum(InvalidOid),
										   Int32GetDatum(-1)));
	if (policy.null[POLICY_COMPRESSION] == 'n')
		policy_default(&policy, POLICY_COMPRESSION,
					   CStringGetTextDatum(mbus_default_compression));
	/* locks in this order, the last in policy_check() */
	if (policy_retention(&policy, "acked"))
		mbus_own_series_lock(schema);
	if (mbus_channel_by_name(schema, name) == NULL)
		mbus_owned_lock(schema, MBUS_OWNED_CHANNELS, GetUserId());
	policy_check(schema, name, GetUserId(), &policy);
	if (policy_retention(&policy, "acked") &&
		mbus_channel_by_name(schema, name) == NULL)
		policy_default(&policy, PARAM_SERIES,
					   Int32GetDatum(mbus_own_series_choose(schema)));
	policy_default(&policy, PARAM_CHANNEL, CStringGetTextDatum(name));
	mbus_role_hold(GetUserId());
	policy_default(&policy, PARAM_OWNER, ObjectIdGetDatum(GetUserId()));
	if (!PG_ARGISNULL(11))
		policy_default(&policy, PARAM_DEAD_LETTER_EXPIRED, PG_GETARG_DATUM(11));

	rows = mbus_run_as_owner(schema,
							 "WITH made AS (INSERT INTO message_bus.channel (ttl, max_attempts, lease,"
							 " backoff, backoff_max, dead_letter_id, retention, max_payload,"
							 " compression, series, name, owner,"
							 " dead_letter_expired, record_reads, visibility,"
							 " max_lease) SELECT $1,"
							 " COALESCE($2, 5), COALESCE($3, '30 seconds'),"
							 " COALESCE($4, '1 second'), COALESCE($5, '10 minutes'),"
							 " NULLIF($6, -1), COALESCE($7, 'ttl'), NULLIF($8, 0), $9,"
							 " $10, $11, $12, COALESCE($13, false),"
							 " COALESCE($14, false), COALESCE($16, 'channel'),"
							 " NULLIF($17, '0')"
							 " WHERE NOT EXISTS (SELECT FROM message_bus.channel"
							 " WHERE name = $11)"
							 " ON CONFLICT (name) DO NOTHING RETURNING channel_id),"
	/* what a restore has left of another channel */
							 " grants AS (DELETE FROM message_bus.channel_grant g"
							 " USING made WHERE g.channel_id = made.channel_id),"
							 " subscriptions AS"
							 " (DELETE FROM message_bus.subscription s"
							 " USING made WHERE s.channel_id = made.channel_id)"
							 " SELECT FROM made",
							 PARAMS, param_types, policy.value, policy.null);
	if (rows == 0 && !if_not_exists)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("channel \"%s\" already exists", name)));
	if (rows == 0)
		ereport(NOTICE,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("channel \"%s\" already exists, skipping", name)));
	else
		channel_tell(schema, name, "created");
	PG_RETURN_VOID();
}

/*
 * alter_channel(channel, <policy>, owner) changes what is not null; the caller
 * must own the channel, or be an administrator who gives it away.
 */
MBUS_CHANNEL_FUNCTION(alter_channel)
{
	Oid			schema = mbus_schema();
	text	   *name = mbus_required_text(fcinfo, 0, "channel");
	NewPolicy	policy;
	Oid			owner;
	int			rows;

	mbus_write_check("message_bus.alter_channel()");
	policy_read(fcinfo, &policy);
	record_reads_read(fcinfo, 11, &policy);
	owner = owner_read(fcinfo, schema, name, &policy);
	policy_default(&policy, PARAM_OWNER, ObjectIdGetDatum(owner));
	if (policy.null[PARAM_NEW_OWNER] == ' ')
		owner = DatumGetObjectId(policy.value[PARAM_NEW_OWNER]);
	/* locks in the order of create_channel() */
	if (policy.null[POLICY_RETENTION] == ' ')
		mbus_own_series_lock(schema);
	if (policy.null[PARAM_NEW_OWNER] == ' ' &&
		policy.value[PARAM_NEW_OWNER] != policy.value[PARAM_OWNER])
		mbus_owned_lock(schema, MBUS_OWNED_CHANNELS,
						DatumGetObjectId(policy.value[PARAM_NEW_OWNER]));
	policy_check(schema, text_to_cstring(name), owner, &policy);
	if (policy.null[POLICY_RETENTION] == ' ')
		series_alter(schema, name, &policy);
	policy_default(&policy, PARAM_CHANNEL, PointerGetDatum(name));
	if (!PG_ARGISNULL(10))
		policy_default(&policy, PARAM_DEAD_LETTER_EXPIRED, PG_GETARG_DATUM(10));
	rows = mbus_run_as_owner(schema,
							 "UPDATE message_bus.channel SET ttl = COALESCE($1, ttl),"
							 " max_attempts = COALESCE($2, max_attempts),"
							 " lease = COALESCE($3, lease),"
							 " backoff = COALESCE($4, backoff),"
							 " backoff_max = COALESCE($5, backoff_max),"
							 " dead_letter_id = NULLIF(COALESCE($6, dead_letter_id), -1),"
							 " retention = COALESCE($7, retention),"
							 " max_payload = NULLIF(COALESCE($8, max_payload), 0),"
							 " compression = COALESCE($9, compression),"
							 " dead_letter_expired = COALESCE($13, dead_letter_expired),"
							 " record_reads = COALESCE($14, record_reads),"
							 " visibility = COALESCE($16, visibility),"
							 " max_lease = NULLIF(COALESCE($17, max_lease), '0'),"
							 " series = CASE WHEN $7 IS NULL AND retention = 'acked'"
							 " THEN series ELSE COALESCE($10, series) END,"
							 " owner = CASE WHEN $15 IS NULL THEN owner"
							 " ELSE message_bus.role_of($15) END"
							 " WHERE name = $11 AND"
							 " message_bus.role_live(owner) = $12 AND"
							 " COALESCE($4, backoff) <= COALESCE($5, backoff_max)",
							 PARAMS, param_types, policy.value, policy.null);
	if (rows == 0)
	{
		/* dropped meanwhile, or another's */
		(void) owner_read(fcinfo, schema, name, &policy);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("backoff is longer than backoff_max")));
	}
	channel_tell(schema, text_to_cstring(name), "altered");
	PG_RETURN_VOID();
}

/* Records what was done to a channel. */
static void
channel_tell(Oid schema, const char *name, const char *change)
{
	const MbusChannel *channel;

	CommandCounterIncrement();
	channel = mbus_channel_by_name(schema, name);
	if (channel == NULL)
		elog(ERROR, "channel was changed and is not there");
	mbus_action_channel(schema, channel->channel_id, change);
}

/*
 * owner_read returns the owner of a channel that is to be changed, and reads the
 * new one, if there is one.  42501 unless the current user owns the channel and
 * may set that role; who has the rights of the extension's owner may give any
 * channel to anybody, for its owner may be missing.
 */
static Oid
owner_read(FunctionCallInfo fcinfo, Oid schema, text *name, NewPolicy *policy)
{
	Oid			user = GetUserId();
	Oid			role;
	const MbusChannel *channel;

	if (PG_ARGISNULL(ARG_NEW_OWNER))
		return mbus_channel_owned(schema, name)->owner;
	role = PG_GETARG_OID(ARG_NEW_OWNER);
	channel = has_privs_of_role(user, mbus_tables_owner(schema)) ?
		mbus_channel_named(schema, name) : mbus_channel_owned(schema, name);
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("owner must be a role")));
	mbus_role_hold(role);
	if (!MbusMaySetRole(user, role) &&
		!has_privs_of_role(user, mbus_tables_owner(schema)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be able to SET ROLE \"%s\"",
						GetUserNameFromId(role, false))));
	policy_default(policy, PARAM_NEW_OWNER, ObjectIdGetDatum(role));
	return channel->owner;
}

/*
 * series_alter sets the series of a channel whose retention is given: a
 * channel's own series stays what it is, else it is that of the TTL.  Caller
 * holds the lock of own series.
 */
static void
series_alter(Oid schema, text *name, NewPolicy *policy)
{
	const MbusChannel *channel;
	int64		ttl_us;
	bool		was_acked;

	channel = mbus_channel_owned(schema, name);
	ttl_us = channel->ttl_us;
	was_acked = channel->series >= mbus_own_series();
	if (policy_retention(policy, "acked"))
	{
		policy->null[PARAM_SERIES] = 'n';
		if (!was_acked)
			policy_default(policy, PARAM_SERIES,
						   Int32GetDatum(mbus_own_series_choose(schema)));
	}
	else if (was_acked && policy->null[PARAM_SERIES] == 'n')
		policy_default(policy, PARAM_SERIES,
					   Int32GetDatum(mbus_series_for_ttl(ttl_us)));
}

/*
 * drop_channel(channel, if_exists) removes a channel the caller owns: its
 * messages can no longer be reached, their space is returned by their TTL.
 */
MBUS_CHANNEL_FUNCTION(drop_channel)
{
	Oid			schema = mbus_schema();
	text	   *name = mbus_required_text(fcinfo, 0, "channel");
	const MbusChannel *channel;
	int32		channel_id;
	MbusAction	action;
	Datum		value[2];
	static const Oid types[2] = {INT4OID, OIDOID};
	static const char *const belonging[] = {
		"DELETE FROM message_bus.channel_grant WHERE channel_id = $1",
		"DELETE FROM message_bus.subscription_made"
		" WHERE subscription_id IN (SELECT s.subscription_id"
		" FROM message_bus.subscription s WHERE s.channel_id = $1)",
		"DELETE FROM message_bus.checkpoint"
		" WHERE subscription_id IN (SELECT s.subscription_id"
		" FROM message_bus.subscription s WHERE s.channel_id = $1)",
		"DELETE FROM message_bus.subscription WHERE channel_id = $1"
	};

	mbus_write_check("message_bus.drop_channel()");
	if (!PG_ARGISNULL(1) && PG_GETARG_BOOL(1) &&
		mbus_channel_by_name(schema, text_to_cstring(name)) == NULL)
	{
		ereport(NOTICE,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("channel \"%s\" does not exist, skipping",
						text_to_cstring(name))));
		PG_RETURN_VOID();
	}
	channel = mbus_channel_owned(schema, name);
	channel_id = channel->channel_id;
	value[0] = Int32GetDatum(channel_id);
	value[1] = ObjectIdGetDatum(channel->owner);
	mbus_action_begin(&action, "channel", channel_id, "dropped");
	mbus_action_row(&action, schema, "channel", "channel_pkey", channel_id);
	if (mbus_run_as_owner(schema,
						  "DELETE FROM message_bus.channel WHERE channel_id = $1"
						  " AND message_bus.role_live(owner) = $2",
						  2, types, value, NULL) == 0)
		mbus_channel_unseen(schema, name);
	(void) mbus_run_as_owner(schema,
							 "INSERT INTO message_bus.channel_dropped"
							 " VALUES ($1) ON CONFLICT DO NOTHING",
							 1, types, value, NULL);
	/* also what is newer than the transaction's snapshot */
	for (int i = 0; i < lengthof(belonging); i++)
		(void) mbus_run_as_owner_latest(schema, belonging[i], 1, types, value);
	mbus_subscriptions_drop(schema, channel_id);
	mbus_channel_dropped(channel_id);
	mbus_action_end(&action, schema);
	PG_RETURN_VOID();
}

/*
 * mbus_channel_unseen errors for a channel that a statement has not found: it was
 * dropped meanwhile, is another's, or newer than the snapshot.
 */
void
mbus_channel_unseen(Oid schema, text *name)
{
	mbus_channel_owned(schema, name);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access to channel \"%s\"",
					text_to_cstring(name)),
			 errdetail("The channel is newer than the transaction's snapshot.")));
}

/* Reads arguments 1 to 9, visibility and max_lease, as they are. */
static void
policy_read(FunctionCallInfo fcinfo, NewPolicy *policy)
{
	memset(policy->null, 'n', sizeof(policy->null));
	for (int i = 0; i < POLICIES; i++)
	{
		if (PG_ARGISNULL(i + 1))
			continue;
		policy->value[i] = PG_GETARG_DATUM(i + 1);
		policy->null[i] = ' ';
	}
	visibility_read(fcinfo, policy);
	if (!PG_ARGISNULL(ARG_MAX_LEASE))
		policy_default(policy, PARAM_MAX_LEASE,
					   PG_GETARG_DATUM(ARG_MAX_LEASE));
}

/* Reads the argument record_reads, which comes last. */
static void
record_reads_read(FunctionCallInfo fcinfo, int argno, NewPolicy *policy)
{
	if (!PG_ARGISNULL(argno))
		policy_default(policy, PARAM_RECORD_READS, PG_GETARG_DATUM(argno));
}

/* Reads the argument visibility; 22023 if it is not known. */
static void
visibility_read(FunctionCallInfo fcinfo, NewPolicy *policy)
{
	char	   *visibility;

	if (PG_ARGISNULL(ARG_VISIBILITY))
		return;
	visibility = text_to_cstring(PG_GETARG_TEXT_PP(ARG_VISIBILITY));
	if (strcmp(visibility, "channel") != 0 &&
		strcmp(visibility, "subject") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown visibility \"%s\"", visibility),
				 errdetail("Visibility is channel or subject.")));
	policy_default(policy, PARAM_VISIBILITY, CStringGetTextDatum(visibility));
}

static void
policy_default(NewPolicy *policy, int which, Datum value)
{
	policy->value[which] = value;
	policy->null[which] = ' ';
}

/*
 * policy_check errors with 22023 for what no channel can have, or none of that
 * owner, and sets the series that belongs to the TTL and the number of the
 * dead-letter channel.
 */
static void
policy_check(Oid schema, const char *channel, Oid owner, NewPolicy *policy)
{
	if (policy->null[POLICY_TTL] == ' ')
	{
		Interval   *ttl = DatumGetIntervalP(policy->value[POLICY_TTL]);

		policy_default(policy, PARAM_SERIES,
					   Int32GetDatum(mbus_series_for_ttl(mbus_ttl_check(ttl))));
	}
	policy_check_attempts(policy);
	policy_check_lease(policy);
	policy_check_backoff(policy);
	if (policy->null[POLICY_DEAD_LETTER] == ' ')
		policy->value[POLICY_DEAD_LETTER] =
			Int32GetDatum(mbus_dead_letter_channel(schema, channel, owner,
												   TextDatumGetCString(policy->value[POLICY_DEAD_LETTER])));
	policy_check_retention(policy);
	if (policy->null[POLICY_MAX_PAYLOAD] == ' ' &&
		DatumGetInt64(policy->value[POLICY_MAX_PAYLOAD]) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_payload must not be negative")));
	if (policy->null[POLICY_COMPRESSION] == ' ')
		(void) mbus_compression_parse(TextDatumGetCString(policy->value[POLICY_COMPRESSION]));
}

/* 22023 for a number of attempts that cannot be. */
static void
policy_check_attempts(NewPolicy *policy)
{
	int32		attempts;

	if (policy->null[POLICY_MAX_ATTEMPTS] != ' ')
		return;
	attempts = DatumGetInt32(policy->value[POLICY_MAX_ATTEMPTS]);
	if (attempts < 1 || attempts > MBUS_ATTEMPTS_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid max_attempts: %d", attempts),
				 errdetail("It is from 1 to %d.", MBUS_ATTEMPTS_MAX)));
}

/* 22023 for the time of a lease that cannot be. */
static void
policy_check_lease(NewPolicy *policy)
{
	int64		lease = policy_interval(policy, POLICY_LEASE, "lease",
										MBUS_LEASE_MAX_US);

	(void) policy_interval(policy, PARAM_MAX_LEASE, "max_lease",
						   MBUS_LEASE_MAX_US);
	if (lease == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be longer than zero")));
}

/* 22023 for a pause between attempts that cannot be. */
static void
policy_check_backoff(NewPolicy *policy)
{
	int64		backoff;
	int64		backoff_max;

	backoff = policy_interval(policy, POLICY_BACKOFF, "backoff",
							  365 * USECS_PER_DAY);
	backoff_max = policy_interval(policy, POLICY_BACKOFF_MAX, "backoff_max",
								  365 * USECS_PER_DAY);
	if (backoff >= 0 && backoff_max >= 0 && backoff > backoff_max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("backoff is longer than backoff_max")));
}

/* 22023 for a retention that is not known. */
static void
policy_check_retention(NewPolicy *policy)
{
	char	   *retention;

	if (policy->null[POLICY_RETENTION] != ' ')
		return;
	retention = TextDatumGetCString(policy->value[POLICY_RETENTION]);
	if (strcmp(retention, "acked") != 0 && strcmp(retention, "ttl") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown retention \"%s\"", retention),
				 errdetail("Retention is ttl or acked.")));
}

/* An interval from zero to "most" in microseconds; -1 where it is null. */
static int64
policy_interval(NewPolicy *policy, int which, const char *name, int64 most)
{
	int64		us;

	if (policy->null[which] != ' ')
		return -1;
	us = mbus_interval_us(DatumGetIntervalP(policy->value[which]));
	if (us < 0 || us > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s: %.3f seconds", name, us / 1e6),
				 errdetail("It is from 0 to %.0f seconds.", most / 1e6)));
	return us;
}

static bool
policy_retention(NewPolicy *policy, const char *retention)
{
	return policy->null[POLICY_RETENTION] == ' ' &&
		strcmp(TextDatumGetCString(policy->value[POLICY_RETENTION]),
			   retention) == 0;
}

/*
 * mbus_channel_owned returns the channel of that name if the current user
 * owns it; 42P01 or 42501 else.
 */
const MbusChannel *
mbus_channel_owned(Oid schema, text *name)
{
	const MbusChannel *channel = mbus_channel_named(schema, name);

	if (!has_privs_of_role(GetUserId(), channel->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of channel \"%s\"",
						channel->name)));
	return channel;
}
