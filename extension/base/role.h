/*
 * role.h
 *		Roles as the catalog's tables have them: the type message_bus.role.
 */
#ifndef MBUS_ROLE_H
#define MBUS_ROLE_H

#include "postgres.h"

/* A role; or one that is missing, of which the name is known. */
typedef struct MbusRole
{
	Oid			role;			/* of one that is missing: what it was here,
								 * or InvalidOid */
	int32		missing;		/* not 0: it is, for good */
	NameData	name;			/* when it was last looked at */
} MbusRole;

#define DatumGetMbusRole(datum)	((MbusRole *) DatumGetPointer(datum))

extern Oid	mbus_role_live(Datum role);
extern void mbus_role_hold(Oid role);

#endif							/* MBUS_ROLE_H */
