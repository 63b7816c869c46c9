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
#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/owner.h"
#include "base/schema.h"

static int	statement_run(Oid schema, const char *command, int nargs,
						  const Oid *types, Datum *values,
						  const char *nulls, bool latest);

/*
 * mbus_tables_owner returns who owns the extension's tables.
 */
Oid
mbus_tables_owner(Oid schema)
{
	Relation	rel = table_open(mbus_relation(schema, "channel"),
								 AccessShareLock);
	Oid			owner = rel->rd_rel->relowner;

	table_close(rel, AccessShareLock);
	return owner;
}

/*
 * mbus_run_as_owner runs one statement as the owner of the extension's tables
 * and returns the rows it touched.  Names in it are qualified.
 */
int
mbus_run_as_owner(Oid schema, const char *command, int nargs, const Oid *types,
				  Datum *values, const char *nulls)
{
	return statement_run(schema, command, nargs, types, values, nulls, false);
}

/*
 * mbus_run_as_owner_latest does that to all that is committed by now, whatever
 * the transaction's snapshot is: as a foreign key would.
 */
int
mbus_run_as_owner_latest(Oid schema, const char *command, int nargs,
						 const Oid *types, Datum *values)
{
	return statement_run(schema, command, nargs, types, values, NULL, true);
}

/*
 * statement_run runs a statement as the owner, with a snapshot that is taken
 * now or with that of the transaction, and returns the rows it touched.
 */
static int
statement_run(Oid schema, const char *command, int nargs, const Oid *types,
			  Datum *values, const char *nulls, bool latest)
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
	if (latest)
	{
		SPIPlanPtr	plan = SPI_prepare(command, nargs, (Oid *) types);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s",
				 SPI_result_code_string(SPI_result));
		CommandCounterIncrement();
		result = SPI_execute_snapshot(plan, values, nulls,
									  GetLatestSnapshot(), InvalidSnapshot,
									  false, true, 0);
	}
	else
		result = SPI_execute_with_args(command, nargs, (Oid *) types, values,
									   nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement: %s",
			 SPI_result_code_string(result));
	rows = (int) SPI_processed;
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(true, nestlevel);
	table_close(rel, NoLock);
	return rows;
}
