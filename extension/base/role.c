/*
 * role.c
 *		Roles as the catalog's tables have them: the type message_bus.role.
 *
 * A grant belongs to a role, not to a name: it stays when the role is renamed,
 * and nobody has it when the role is gone.  So what counts is the OID.  But in
 * a dump an OID would mean whoever has it where that is restored, and the type
 * regrole fails there for a name that is not known.
 *
 * Here the OID and the last known name are stored.  Text is made when it is
 * asked for, by pg_dump too: the name that the role has then, as regrole has
 * it, or "(missing) name".  Text is read as
 *
 *	name			the role of that name, or one that is missing
 *	digits			an OID (as those have who write by hand)
 *	(missing) name	one that is missing, whatever roles there are
 *
 * One that is missing stays so: a role of its name that is made later has
 * nothing of it.
 *
 * A name is all that another cluster can go by.  In the same one a role may
 * have been dropped and made again since the dump.  So beside each such column
 * is one that says where it was written, "system identifier/OID"; a trigger
 * compares (mbus_role_restored).  Both must fit: clusters that were copied have
 * the same identifier, and give the same OID to other roles.
 *
 * The worker marks those missing whose role was dropped, and takes note of new
 * names (worker/roles.c).
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "base/role.h"

#define MISSING	"(missing) "

static MbusRole *role_of(Oid oid);
static MbusRole *role_missing(Oid oid, const char *name);
static char *role_name(const MbusRole *role);
static int	role_compare(const MbusRole *a, const MbusRole *b);

PG_FUNCTION_INFO_V1(mbus_role_in);
PG_FUNCTION_INFO_V1(mbus_role_out);
PG_FUNCTION_INFO_V1(mbus_role_cmp);
PG_FUNCTION_INFO_V1(mbus_role_lt);
PG_FUNCTION_INFO_V1(mbus_role_le);
PG_FUNCTION_INFO_V1(mbus_role_eq);
PG_FUNCTION_INFO_V1(mbus_role_ge);
PG_FUNCTION_INFO_V1(mbus_role_gt);
PG_FUNCTION_INFO_V1(mbus_role_from_oid);
PG_FUNCTION_INFO_V1(mbus_role_oid);
PG_FUNCTION_INFO_V1(mbus_role_number);
PG_FUNCTION_INFO_V1(mbus_role_missing);
PG_FUNCTION_INFO_V1(mbus_role_at);
PG_FUNCTION_INFO_V1(mbus_role_restored);
PG_FUNCTION_INFO_V1(mbus_role_settled);

/*
 * mbus_role_live returns the OID of a role that a table's column has; InvalidOid,
 * which is nobody, for one that is missing.
 */
Oid
mbus_role_live(Datum role)
{
	const MbusRole *stored = DatumGetMbusRole(role);

	return stored->missing ? InvalidOid : stored->role;
}

/*
 * mbus_role_hold errors with 42704 if a role is not there, and keeps it from
 * being dropped until the transaction ends, which stores it: the worker looks for
 * those that were dropped when they are.
 */
void
mbus_role_hold(Oid role)
{
	LockSharedObject(AuthIdRelationId, role, 0, AccessShareLock);
	(void) GetUserNameFromId(role, false);
}

/* A role by its OID; missing if there is none. */
static MbusRole *
role_of(Oid oid)
{
	char	   *name = OidIsValid(oid) ? GetUserNameFromId(oid, true) : NULL;
	MbusRole   *role;

	if (name == NULL)
		return role_missing(oid, psprintf("%u", oid));
	role = palloc0(sizeof(MbusRole));
	role->role = oid;
	namestrcpy(&role->name, name);
	return role;
}

/* One that is missing, which had that OID here, or InvalidOid. */
static MbusRole *
role_missing(Oid oid, const char *name)
{
	MbusRole   *role = palloc0(sizeof(MbusRole));

	role->role = oid;
	role->missing = 1;
	namestrcpy(&role->name, name);
	return role;
}

/* The name that a role has now; NULL if it is missing. */
static char *
role_name(const MbusRole *role)
{
	return role->missing ? NULL : GetUserNameFromId(role->role, true);
}

/*
 * mbus_role_in reads a role's text.
 */
Datum
mbus_role_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);
	size_t		len = strlen(text);
	List	   *names;
	Oid			oid;

	if (strncmp(text, MISSING, strlen(MISSING)) == 0)
		PG_RETURN_POINTER(role_missing(InvalidOid, text +strlen(MISSING)));
	if (len > 0 && strspn(text, "0123456789") == len)
		PG_RETURN_POINTER(role_of(DatumGetObjectId(DirectFunctionCall1(oidin,
																	   CStringGetDatum(text)))));
	if (!SplitIdentifierString(pstrdup(text), '.', &names) ||
		list_length(names) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid name of a role: \"%s\"", text)));
	oid = get_role_oid(linitial(names), true);
	if (!OidIsValid(oid))
		PG_RETURN_POINTER(role_missing(InvalidOid, linitial(names)));
	PG_RETURN_POINTER(role_of(oid));
}

/*
 * mbus_role_out writes the name that it has now.
 */
Datum
mbus_role_out(PG_FUNCTION_ARGS)
{
	const MbusRole *role = DatumGetMbusRole(PG_GETARG_DATUM(0));
	char	   *name = role_name(role);

	if (name == NULL)
		PG_RETURN_CSTRING(psprintf(MISSING "%s", NameStr(role->name)));
	PG_RETURN_CSTRING(pstrdup(quote_identifier(name)));
}

/*
 * role_compare orders roles by OID; those that are missing come last, by name:
 * they may have no OID.
 */
static int
role_compare(const MbusRole *a, const MbusRole *b)
{
	int			order;

	if ((a->missing != 0) != (b->missing != 0))
		return a->missing ? 1 : -1;
	if (a->missing)
	{
		order = strncmp(NameStr(a->name), NameStr(b->name), NAMEDATALEN);
		if (order != 0)
			return order;
	}
	return a->role < b->role ? -1 : a->role > b->role;
}

#define COMPARED() \
	role_compare(DatumGetMbusRole(PG_GETARG_DATUM(0)), \
				 DatumGetMbusRole(PG_GETARG_DATUM(1)))

/* mbus_role_cmp is the order of an index. */
Datum
mbus_role_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(COMPARED());
}

/* mbus_role_lt and the following are its operators. */
Datum
mbus_role_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(COMPARED() < 0);
}

Datum
mbus_role_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(COMPARED() <= 0);
}

Datum
mbus_role_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(COMPARED() == 0);
}

Datum
mbus_role_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(COMPARED() >= 0);
}

Datum
mbus_role_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(COMPARED() > 0);
}

/*
 * mbus_role_from_oid is the cast of an OID.
 */
Datum
mbus_role_from_oid(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(role_of(PG_GETARG_OID(0)));
}

/*
 * mbus_role_oid (SQL: role_live) is mbus_role_live().
 */
Datum
mbus_role_oid(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(mbus_role_live(PG_GETARG_DATUM(0)));
}

/*
 * mbus_role_number (SQL: role_number) is what views show: the OID, also of one
 * that is missing, unless another role has it by now.
 */
Datum
mbus_role_number(PG_FUNCTION_ARGS)
{
	const MbusRole *role = DatumGetMbusRole(PG_GETARG_DATUM(0));

	if (role->missing && OidIsValid(role->role) &&
		GetUserNameFromId(role->role, true) != NULL)
		PG_RETURN_OID(InvalidOid);
	PG_RETURN_OID(role->role);
}

/*
 * mbus_role_missing (SQL: role_missing) returns the name of a role that is
 * missing, NULL for one that is there.
 */
Datum
mbus_role_missing(PG_FUNCTION_ARGS)
{
	const MbusRole *role = DatumGetMbusRole(PG_GETARG_DATUM(0));

	if (role_name(role) != NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(NameStr(role->name)));
}

/*
 * mbus_role_at (SQL: role_at) says where a role was written down; NULL for one
 * that is missing.
 */
Datum
mbus_role_at(PG_FUNCTION_ARGS)
{
	Oid			role = mbus_role_live(PG_GETARG_DATUM(0));

	if (!OidIsValid(role))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf(UINT64_FORMAT "/%u",
											  GetSystemIdentifier(), role)));
}

/*
 * mbus_role_restored (SQL: role_restored) takes a role that was read from a
 * dump, and where it was written down, or NULL.  If that was in this cluster
 * under another OID, the role of that name is another one.
 */
Datum
mbus_role_restored(PG_FUNCTION_ARGS)
{
	const MbusRole *role;
	char	   *at;
	char	   *system;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	role = DatumGetMbusRole(PG_GETARG_DATUM(0));
	if (role->missing || PG_ARGISNULL(1))
		PG_RETURN_POINTER(role);
	at = text_to_cstring(PG_GETARG_TEXT_PP(1));
	system = psprintf(UINT64_FORMAT "/", GetSystemIdentifier());
	if (strncmp(at, system, strlen(system)) == 0 &&
		strcmp(at + strlen(system), psprintf("%u", role->role)) != 0)
		PG_RETURN_POINTER(role_missing(InvalidOid, NameStr(role->name)));
	PG_RETURN_POINTER(role);
}

/*
 * mbus_role_settled (SQL: role_settled) is a role as it is to be stored from
 * now on: missing if it was dropped, or with its new name; NULL if nothing has
 * changed.
 */
Datum
mbus_role_settled(PG_FUNCTION_ARGS)
{
	const MbusRole *role = DatumGetMbusRole(PG_GETARG_DATUM(0));
	char	   *name = role_name(role);

	if (role->missing ||
		(name && strncmp(name, NameStr(role->name), NAMEDATALEN) == 0))
		PG_RETURN_NULL();
	if (name == NULL)
		PG_RETURN_POINTER(role_missing(role->role, NameStr(role->name)));
	PG_RETURN_POINTER(role_of(role->role));
}
