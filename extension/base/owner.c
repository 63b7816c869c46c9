/*
 * owner.c
 *		Statements that run as the owner of the extension's tables.
 *
 * The catalog tables belong to the extension's owner and nobody else may touch
 * them.  A function of the bus checks by itself what its caller may do, and
 * then runs one statement as that owner, as the server's own foreign key
 * triggers do, with a fixed search_path.  An error resets the user with the
 * (sub)transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "base/owner.h"
#include "base/schema.h"

/*
 * mbus_run_as_owner runs one statement as the owner of the extension's tables
 * and returns the rows it touched.  Names in it are qualified.
 */
int
mbus_run_as_owner(Oid schema, const char *command, int nargs, const Oid *types,
				  Datum *values, const char *nulls)
{
	Relation	rel = table_open(mbus_relation(schema, "channel"),
								 RowExclusiveLock);
	Oid			user;
	int			context;
	int			nestlevel = NewGUCNestLevel();
	int			result;
	int			rows;

	/* no operator of the caller's may run with the owner's rights */
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	SPI_connect();
	result = SPI_execute_with_args(command, nargs, (Oid *) types, values,
								   nulls, false, 0);
	if (result < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s",
			 SPI_result_code_string(result));
	rows = (int) SPI_processed;
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(true, nestlevel);
	table_close(rel, NoLock);
	return rows;
}
