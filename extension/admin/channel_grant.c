/*
 * channel_grant.c
 *		grant_channel and revoke_channel.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "action/action.h"
#include "admin/channel_admin.h"
#include "base/argument.h"
#include "base/columns.h"
#include "base/owner.h"
#include "base/role.h"
#include "base/schema.h"
#include "channel/channel.h"
#include "state/fault.h"
#include "state/state.h"

#define GRANT_PARAMS		6

static const Oid grant_types[GRANT_PARAMS] = {
	INT4OID, OIDOID, BOOLOID, BOOLOID, BOOLOID, BOOLOID
};

static void grant_read(FunctionCallInfo fcinfo, Oid schema, text *name,
					   int all, Datum *value);
static int	privileges_parse(text *privileges, int all);
static void grant_tell(FunctionCallInfo fcinfo, Oid schema, int32 channel_id,
					   const char *change);
static void grant_tuple(MbusAction *action, Oid schema, Oid grantee);

/*
 * grant_channel(channel, grantee regrole, privileges) lets a role publish,
 * consume, or all.
 */
MBUS_CHANNEL_FUNCTION(grant_channel)
{
	Oid			schema = mbus_schema();
	text	   *name = mbus_required_text(fcinfo, 0, "channel");
	Datum		value[GRANT_PARAMS];

	mbus_write_check("message_bus.grant_channel()");
	if (PG_ARGISNULL(1) || !OidIsValid(PG_GETARG_OID(1)))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("grantee must be a role")));
	mbus_role_hold(PG_GETARG_OID(1));
	grant_read(fcinfo, schema, name, MBUS_PUBLISH | MBUS_CONSUME, value);
	if (mbus_run_as_owner(schema,
						  "INSERT INTO message_bus.channel_grant AS g"
						  " (channel_id, grantee, may_publish, may_consume,"
						  " may_audit, all_subjects)"
						  " SELECT c.channel_id, $2, $3, $4, $5, $6"
						  " FROM message_bus.channel c WHERE c.channel_id = $1"
						  " FOR KEY SHARE OF c"
						  " ON CONFLICT (channel_id, grantee) DO UPDATE SET"
						  " may_publish = g.may_publish OR $3,"
						  " may_consume = g.may_consume OR $4,"
						  " may_audit = g.may_audit OR $5,"
						  " all_subjects = g.all_subjects OR $6",
						  GRANT_PARAMS, grant_types, value, NULL) == 0)
		mbus_channel_unseen(schema, name);
	grant_tell(fcinfo, schema, DatumGetInt32(value[0]), "granted");
	PG_RETURN_VOID();
}

/*
 * revoke_channel(channel, grantee regrole, privileges) takes that back; of a
 * grantee 0, which is '-', from all that are missing.
 */
MBUS_CHANNEL_FUNCTION(revoke_channel)
{
	Oid			schema = mbus_schema();
	text	   *name = mbus_required_text(fcinfo, 0, "channel");
	Datum		value[GRANT_PARAMS];
	bool		changed;

	mbus_write_check("message_bus.revoke_channel()");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("grantee must be a role")));
	grant_read(fcinfo, schema, name,
			   MBUS_PUBLISH | MBUS_CONSUME | MBUS_AUDIT | MBUS_ALL_SUBJECTS,
			   value);
	changed = mbus_run_as_owner(schema,
								"UPDATE message_bus.channel_grant SET"
								" may_publish = may_publish AND NOT $3,"
								" may_consume = may_consume AND NOT $4,"
								" may_audit = may_audit AND NOT $5,"
								" all_subjects = all_subjects AND NOT $6"
								" WHERE channel_id = $1 AND ($2 = 0 AND"
								" message_bus.role_missing(grantee) IS NOT NULL"
								" OR message_bus.role_number(grantee) = $2)",
								GRANT_PARAMS, grant_types, value, NULL) > 0;
	(void) mbus_run_as_owner(schema,
							 "DELETE FROM message_bus.channel_grant WHERE channel_id = $1"
							 " AND NOT may_publish AND NOT may_consume"
							 " AND NOT may_audit AND NOT all_subjects",
							 1, grant_types, value, NULL);
	if (changed)
		grant_tell(fcinfo, schema, DatumGetInt32(value[0]), "revoked");
	PG_RETURN_VOID();
}

/*
 * grant_tell records what was granted or revoked by these arguments, and what
 * the grantee has now.
 */
static void
grant_tell(FunctionCallInfo fcinfo, Oid schema, int32 channel_id,
		   const char *change)
{
	Oid			grantee = PG_GETARG_OID(1);
	MbusAction	action;

	mbus_action_begin(&action, "grant", channel_id, change);
	mbus_action_text(&action, "privileges",
					 text_to_cstring(PG_GETARG_TEXT_PP(2)));
	/* of those that are missing there is no one name */
	mbus_action_text(&action, "to", OidIsValid(grantee) ?
					 GetUserNameFromId(grantee, true) : "-");
	if (OidIsValid(grantee))
		grant_tuple(&action, schema, grantee);
	mbus_action_end(&action, schema);
}

/* Adds the row of a grantee, if he has one. */
static void
grant_tuple(MbusAction *action, Oid schema, Oid grantee)
{
	Relation	rel = table_open(mbus_relation(schema, "channel_grant"),
								 AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	ScanKeyData key;
	SysScanDesc rows;
	HeapTuple	tuple;
	bool		found = false;

	CommandCounterIncrement();
	ScanKeyInit(&key, MBUS_GRANT_CHANNEL_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(action->channel_id));
	rows = systable_beginscan(rel, mbus_relation(schema, "channel_grant_pkey"),
							  true, NULL, 1, &key);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(rows)))
	{
		bool		isnull;

		found = mbus_role_live(heap_getattr(tuple, MBUS_GRANT_GRANTEE, desc,
											&isnull)) == grantee;
		if (found)
			mbus_action_tuple(action, tuple, desc);
	}
	systable_endscan(rows);
	table_close(rel, AccessShareLock);
}

/*
 * The statements' parameters; the channel must be the caller's.  "all" is what
 * that name stands for.
 */
static void
grant_read(FunctionCallInfo fcinfo, Oid schema, text *name, int all,
		   Datum *value)
{
	int			privileges;

	privileges = privileges_parse(mbus_required_text(fcinfo, 2, "privileges"),
								  all);
	value[0] = Int32GetDatum(mbus_channel_owned(schema, name)->channel_id);
	value[1] = ObjectIdGetDatum(PG_GETARG_OID(1));
	value[2] = BoolGetDatum(privileges & MBUS_PUBLISH);
	value[3] = BoolGetDatum(privileges & MBUS_CONSUME);
	value[4] = BoolGetDatum(privileges & MBUS_AUDIT);
	value[5] = BoolGetDatum(privileges & MBUS_ALL_SUBJECTS);
}

/* Reads the name of a privilege; 22023 if there is no such one. */
static int
privileges_parse(text *privileges, int all)
{
	char	   *name = text_to_cstring(privileges);

	if (strcmp(name, "publish") == 0)
		return MBUS_PUBLISH;
	if (strcmp(name, "consume") == 0)
		return MBUS_CONSUME;
	if (strcmp(name, "audit") == 0)
		return MBUS_AUDIT;
	if (strcmp(name, "all_subjects") == 0)
		return MBUS_ALL_SUBJECTS;
	if (strcmp(name, "all") == 0)
		return all;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown privilege \"%s\"", name),
			 errdetail("Privileges are publish, consume, audit, all_subjects and all.")));
}
