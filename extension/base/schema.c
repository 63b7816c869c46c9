/*
 * schema.c
 *		The extension's schema and what is in it, by name.
 *
 * Nothing is kept here: the server's own caches answer.  Who has no extension,
 * or half of one, gets 55000 with a hint.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/lsyscache.h"

#include "base/schema.h"

/*
 * mbus_schema returns the schema message_bus, 55000 if there is none.
 */
Oid
mbus_schema(void)
{
	Oid			schema = get_namespace_oid("message_bus", true);

	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension message_bus does not exist in this database"),
				 errhint("Run CREATE EXTENSION message_bus.")));
	return schema;
}

/*
 * mbus_relation returns a table or index of the extension by its name.
 */
Oid
mbus_relation(Oid schema, const char *name)
{
	Oid			relid = get_relname_relid(name, schema);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"message_bus.%s\" does not exist", name),
				 errhint("Drop extension message_bus and create it again.")));
	return relid;
}
