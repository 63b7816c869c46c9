/*
 * worker_settings.c
 *		The worker's settings: none of the database's or of a role.
 *
 * A worker that starts has been given what ALTER DATABASE and ALTER ROLE have
 * set for everybody's sessions: another role, a time limit, an isolation level,
 * a tablespace.  Any of that could stop it, or change what its statements mean.
 * So there are three steps:
 *
 *	1. before it connects: what would change its statements gets the one value
 *	   that they are written for, also where the server's configuration has
 *	   another
 *	2. then user and role are those of the server again, whatever "role" and
 *	   "session_authorization" have made of them
 *	3. and whatever else comes from a database or a role goes back to
 *	   PostgreSQL's own default; but for what is logged and counted, and the
 *	   bus's own settings
 *
 * None of it changes later: these values go before a reload's.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

#include "base/compat.h"
#include "worker/worker_settings.h"

static void user_settle(void);
static void settings_reset(void);
static bool setting_stays(const char *name);
static const char *setting_default(const struct config_generic *setting);

/*
 * mbus_worker_settings does the first step; before the worker connects.
 */
void
mbus_worker_settings(void)
{
	static const char *const settings[][2] = {
		{"application_name", "message_bus worker"},
		{"exit_on_error", "off"},
		{"client_encoding", "UTF8"},

		/* what statements mean */
		{"search_path", ""},
		{"row_security", "off"},
		{"standard_conforming_strings", "on"},
		{"array_nulls", "on"},
		{"transform_null_equals", "off"},
		{"quote_all_identifiers", "off"},
		{"bytea_output", "hex"},
		{"DateStyle", "ISO, MDY"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "GMT"},
		{"extra_float_digits", "1"},
		{"plpgsql.variable_conflict", "error"},
		{"plpgsql.extra_errors", "none"},
		{"plpgsql.extra_warnings", "none"},

		/* transactions */
		{"synchronous_commit", "off"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},

		/* how long they may take */
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"idle_session_timeout", "0"},
#if PG_VERSION_NUM >= 170000
		{"transaction_timeout", "0"},
#endif

		/* where and how tables are made */
		{"default_table_access_method", "heap"},
		{"default_tablespace", ""},
		{"temp_tablespaces", ""},

		/* how they are read */
		{"plan_cache_mode", "auto"},
		{"jit", "off"},
		{"max_parallel_workers_per_gather", "0"},

		/* whom DDL calls */
#if PG_VERSION_NUM >= 170000
		{"session_replication_role", "origin"},
#endif
		{MBUS_NO_EVENT_TRIGGERS, MBUS_NO_EVENT_TRIGGERS_VALUE},
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
						PGC_S_OVERRIDE);
}

/*
 * mbus_worker_settle does the others; outside a transaction.
 */
void
mbus_worker_settle(void)
{
	StartTransactionCommand();
	user_settle();
	settings_reset();
	CommitTransactionCommand();
}

/*
 * user_settle makes the worker the user it has begun as.  The names are looked
 * up: in a transaction.
 */
static void
user_settle(void)
{
	SetConfigOption("session_authorization",
					GetUserNameFromId(BOOTSTRAP_SUPERUSERID, false),
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * settings_reset takes back what else was set for databases and roles.  It is
 * no query: that would run under these settings.  A setting that PostgreSQL
 * has no value for is left alone.
 */
static void
settings_reset(void)
{
	struct config_generic **settings;
	int			n;

	settings = MbusSettings(&n);
	for (int i = 0; i < n; i++)
	{
		const struct config_generic *setting = settings[i];
		const char *value;

		if (setting->source < PGC_S_GLOBAL ||
			setting->source > PGC_S_DATABASE_USER ||
			(setting->context != PGC_USERSET &&
			 setting->context != PGC_SUSET) ||
			setting_stays(setting->name))
			continue;
		value = setting_default(setting);
		/* one that is refused stays: no reason to end */
		if (value != NULL)
			(void) set_config_option(setting->name, value, PGC_SUSET,
									 PGC_S_OVERRIDE, GUC_ACTION_SET, true,
									 LOG, false);
	}
}

/* What is logged and counted may be set for a database; and our own. */
static bool
setting_stays(const char *name)
{
	return strncmp(name, "message_bus.", 12) == 0 ||
		strncmp(name, "log_", 4) == 0 || strncmp(name, "track_", 6) == 0 ||
		strcmp(name, "lc_messages") == 0;
}

/* The value that PostgreSQL gives a setting, as text; or NULL. */
static const char *
setting_default(const struct config_generic *setting)
{
	switch (setting->vartype)
	{
		case PGC_BOOL:
			return ((const struct config_bool *) setting)->boot_val ? "on" : "off";
		case PGC_INT:
			return psprintf("%d", ((const struct config_int *) setting)->boot_val);
		case PGC_REAL:
			return psprintf("%.17g",
							((const struct config_real *) setting)->boot_val);
		case PGC_STRING:
			return ((const struct config_string *) setting)->boot_val;
		case PGC_ENUM:
			return config_enum_lookup_by_value((struct config_enum *) unconstify(struct config_generic *, setting),
											   ((const struct config_enum *) setting)->boot_val);
	}
	return NULL;
}
