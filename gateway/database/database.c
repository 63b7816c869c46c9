/*
 * database.c
 *		One asynchronous connection to PostgreSQL.
 *
 * A connection goes round these states, and gw_database_move alone moves it:
 *
 *	AWAY		waiting for the next attempt, with backoff and jitter
 *	RESOLVING	looking up the hosts, anew at each attempt (resolve.c)
 *	CONNECTING	PQconnectPoll, driven by the loop; each attempt begins at the
 *				next host, since one that does not answer takes all its time
 *	CHECKING	login, extension and role are checked, the session's settings
 *				made, relay prepared and called once with a ping; behind a
 *				pooler, it is seen whether the backend is its own (backend.c)
 *	READY		batches are pipelined, and once a second a probe between them:
 *				which backend, and whether the bus takes publishes
 *
 * Nothing here blocks: libpq is in non-blocking and pipeline mode, results
 * are fetched only where PQisBusy says that PQgetResult will not wait, and
 * nothing is ever cancelled on a pipelined connection. Any failure leads
 * through gw_database_lose back to AWAY; its reason is kept for callers.
 *
 * Each batch has its own Sync, and therefore its own transaction. libpq
 * hands out a batch's result before the commit that follows it, so the
 * result is only kept until PGRES_PIPELINE_SYNC arrives; an error in
 * between is the commit's. A WARNING of SyncRepWaitForLSN says that the
 * commit is on this server but perhaps on no other: outcome unknown.
 *
 * The loop closes descriptors that it watches, so it is given a dup() of
 * libpq's socket, and a new one whenever libpq has another socket, which
 * may have the same number: the inode tells (see gw_watch_is_on).
 */
#include "database/database_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "database/check.h"
#include "database/options.h"
#include "database/outcome.h"
#include "database/resolve.h"
#include "net/loop.h"

#define FIRST_RETRY_MS		50
#define LAST_RETRY_MS		1500
#define CONNECT_SEVERAL_MS	3000
#define LOUD_FAILURES		10

static void database_disconnect(GwDatabase *database);
static void database_retry(void *owner);
static void database_resolved(void *owner, bool ok, const GwBuffer *hosts,
							  const GwBuffer *addresses,
							  const GwBuffer *ports);
static void database_connect(GwDatabase *database, const char *hosts,
							 const char *addresses, const char *ports);
static void database_poll_connect(GwDatabase *database);
static void database_watch(GwDatabase *database);
static void database_io(void *owner);
static void database_drain(GwDatabase *database);
static void database_take_result(GwDatabase *database, PGresult *result);
static void database_take_sync(GwDatabase *database);
static void notice(void *owner, const PGresult *result);
static void copy_field(char *to, const PGresult *result, int field);
static const char *field_or_null(const char *field);

/*
 * gw_database_open makes a connection object and begins to connect. It
 * returns NULL if out of memory.
 */
GwDatabase *
gw_database_open(const GwConfig *config, const char *name,
				 const GwDatabaseEvents *events, void *owner)
{
	GwDatabase *database = calloc(1, sizeof(GwDatabase));

	if (database == NULL)
		return NULL;
	database->config = config;
	database->name = name;
	database->events = events;
	database->owner = owner;
	gw_text_copy(database->reason, sizeof(database->reason), "connecting");
	database->told = "connecting";
	database->timer = gw_timer_create(database_retry, database);
	if (database->timer == NULL)
	{
		free(database);
		return NULL;
	}
	gw_timer_start(database->timer, 0);
	return database;
}

bool
gw_database_is_ready(const GwDatabase *database)
{
	return database->state == READY;
}

/* gw_database_is_new tells that the first attempt to connect is under way. */
bool
gw_database_is_new(const GwDatabase *database)
{
	return database->state != READY && database->failures == 0;
}

/*
 * gw_database_reason tells why a connection is not ready: what the operator
 * needs, with the names of hosts, logins and roles.
 */
const char *
gw_database_reason(const GwDatabase *database)
{
	return database->reason;
}

/* gw_database_told tells as much of that as a stranger may know. */
const char *
gw_database_told(const GwDatabase *database)
{
	return database->told;
}

/*
 * gw_database_bus tells why the bus takes no publishes; NULL if it does, or
 * nothing is known.
 */
const char *
gw_database_bus(const GwDatabase *database)
{
	return database->state == READY ? gw_probe_bus(&database->probe) : NULL;
}

/* gw_database_took: a publish has been taken. */
void
gw_database_took(GwDatabase *database)
{
	database->probe.bus[0] = '\0';
}

/*
 * gw_database_send sends one batch on a connection that is ready. Its claims
 * may wait for messages for wait_ms; 0: not at all. Whatever happens is told
 * by an event.
 */
void
gw_database_send(GwDatabase *database, const GwBuffer *sessions,
				 const GwBuffer *frames, long wait_ms)
{
	const char *const values[2] = {(const char *) sessions->data,
	(const char *) frames->data};
	const int	lengths[2] = {(int) sessions->length, (int) frames->length};
	const int	formats[2] = {1, 1};
	char		wait[24];
	const char *wait_value = wait;

	(void) snprintf(wait, sizeof(wait), "%ld", wait_ms);
	database->syncs++;
	if ((wait_ms > 0 &&
		 PQsendQueryPrepared(database->conn, "wait", 1, &wait_value, NULL,
							 NULL, 0) != 1) ||
		PQsendQueryPrepared(database->conn, "relay", 2, values, lengths,
							formats, 1) != 1 ||
		PQpipelineSync(database->conn) != 1)
	{
		gw_database_lose_as(database, PQerrorMessage(database->conn), NO_LINK);
		return;
	}
	gw_database_flush(database);
}

/*
 * gw_database_drop gives a connection up, and with it what was sent. The
 * reason is a literal.
 */
void
gw_database_drop(GwDatabase *database, const char *reason)
{
	if (database->state != AWAY)
		gw_database_lose(database, reason);
}

/* gw_database_free closes a connection; no event is told. */
void
gw_database_free(GwDatabase *database)
{
	database_disconnect(database);
	gw_timer_free(database->timer);
	free(database);
}

static void
database_disconnect(GwDatabase *database)
{
	gw_watch_free(database->watch);
	database->watch = NULL;
	gw_resolve_free(database->resolve);
	database->resolve = NULL;
	gw_database_forget(database);
	PQfinish(database->conn);
	database->conn = NULL;
	database->syncs = 0;
	gw_probe_forget(&database->probe);
}

/* gw_database_move is the only function that changes the state. */
void
gw_database_move(GwDatabase *database, State state)
{
	GwLogLine	line;

	database->state = state;
	/* A long absence does not fill the log. */
	if (state != READY &&
		(state != AWAY || (database->failures > LOUD_FAILURES &&
						   database->failures % LOUD_FAILURES != 0)))
		return;
	gw_log_begin(&line, state == AWAY ? "warning" : "info", "database");
	gw_log_text(&line, "lane", database->name);
	gw_log_text(&line, "state", state == AWAY ? "away" : "ready");
	if (state == AWAY)
	{
		gw_log_text(&line, "reason", database->reason);
		gw_log_number(&line, "failures", database->failures);
	}
	gw_log_end(&line);
}

/* gw_database_lose is for reasons of our own, literals that clients are told. */
void
gw_database_lose(GwDatabase *database, const char *reason)
{
	gw_database_lose_as(database, reason, reason);
}

/*
 * gw_database_lose_as closes the connection, tells its owner if it was ready, and
 * plans the next attempt: soon at first, then twice as late each time, with
 * jitter so that many gateways do not come back at the same moment.
 */
void
gw_database_lose_as(GwDatabase *database, const char *reason, const char *told)
{
	bool		was_ready = database->state == READY;
	char		string[sizeof(database->reason)];
	int64_t		delay = LAST_RETRY_MS;

	gw_text_copy(string, sizeof(string), reason);
	memcpy(database->reason, string, sizeof(string));
	database->told = told;
	database_disconnect(database);
	if (database->failures < 5)
		delay = FIRST_RETRY_MS << database->failures;
	delay = delay / 2 + random() % (delay / 2 + 1);
	database->failures++;
	gw_database_move(database, AWAY);
	gw_timer_start(database->timer, delay);
	if (was_ready)
	{
		gw_counters.database_losses++;
		database->events->lost(database->owner, database->told);
	}
}

/*
 * database_retry is the timer: a new attempt, or the end of a slow one; a probe
 * of a connection that is ready, or has its backend to prove.
 */
static void
database_retry(void *owner)
{
	GwDatabase *database = owner;
	GwBuffer	hosts = {0};
	GwBuffer	ports = {0};

	if (database->state == READY ||
		(database->state == CHECKING && database->step == GW_STEPS &&
		 database->syncs == 0 && gw_now_ms() < database->prove_until))
	{
		gw_checking_probe(database);
		return;
	}
	if (database->state != AWAY)
	{
		gw_database_lose(database, "could not connect in time");
		return;
	}
	gw_database_move(database, RESOLVING);
	database->connect_ms = CONNECT_MS;
	if (!gw_options_hosts(database->config->database_url, &hosts, &ports))
		database_connect(database, NULL, NULL, NULL);
	else
	{
		if (strchr((char *) hosts.data, ',') != NULL)
			database->connect_ms = CONNECT_SEVERAL_MS;
		database->resolve = gw_resolve_start((char *) hosts.data,
											 (char *) ports.data,
											 database->failures,
											 database_resolved, database);
		if (database->resolve == NULL)
			gw_database_lose(database, "could not look up the host");
	}
	gw_buffer_free(&hosts);
	gw_buffer_free(&ports);
}

static void
database_resolved(void *owner, bool ok, const GwBuffer *hosts,
				  const GwBuffer *addresses, const GwBuffer *ports)
{
	GwDatabase *database = owner;

	database->resolve = NULL;
	if (ok)
		database_connect(database, (const char *) hosts->data,
						 (const char *) addresses->data,
						 (const char *) ports->data);
	else
		gw_database_lose(database, "could not look up the host");
}

/* database_connect begins to connect, to these hosts where they are given. */
static void
database_connect(GwDatabase *database, const char *hosts,
				 const char *addresses, const char *ports)
{
	database->conn = gw_options_connect(database->config->database_url, hosts,
										addresses, ports);
	if (database->conn == NULL || PQstatus(database->conn) == CONNECTION_BAD)
	{
		gw_database_lose_as(database, database->conn == NULL ? "out of memory" :
							PQerrorMessage(database->conn), NO_LINK);
		return;
	}
	PQsetNoticeReceiver(database->conn, notice, database);
	gw_database_move(database, CONNECTING);
	gw_timer_start(database->timer, database->connect_ms);
	database_watch(database);
	if (database->watch != NULL)
		gw_watch_want_write(database->watch, true);
}

static void
database_poll_connect(GwDatabase *database)
{
	PostgresPollingStatusType status = PQconnectPoll(database->conn);

	if (status == PGRES_POLLING_FAILED)
	{
		gw_database_lose_as(database, PQerrorMessage(database->conn), NO_LINK);
		return;
	}
	database_watch(database);
	if (database->watch == NULL)
		return;
	gw_watch_want_write(database->watch, status == PGRES_POLLING_WRITING);
	if (status == PGRES_POLLING_OK)
		gw_checking_begin(database);
}

/* database_watch makes the loop watch libpq's present socket. */
static void
database_watch(GwDatabase *database)
{
	int			descriptor = PQsocket(database->conn);

	if (database->watch != NULL &&
		gw_watch_is_on(database->watch, descriptor))
		return;
	gw_watch_free(database->watch);
	database->watch = gw_watch_create(descriptor, database_io, database);
	if (database->watch == NULL)
		gw_database_lose(database, "could not watch the connection's socket");
}

/* database_io is called when the socket can be read, written, or is gone. */
static void
database_io(void *owner)
{
	GwDatabase *database = owner;
	bool		alive;

	if (database->state == CONNECTING)
	{
		database_poll_connect(database);
		return;
	}
	if (database->state != CHECKING && database->state != READY)
		return;
	alive = PQconsumeInput(database->conn) == 1;
	/* Even when the connection is lost, what came before that counts. */
	database_drain(database);
	if (database->conn == NULL)
		return;
	if (!alive || PQstatus(database->conn) == CONNECTION_BAD)
		gw_database_lose_as(database, PQerrorMessage(database->conn), NO_LINK);
	else if (database->recheck)
		gw_database_lose(database, "the extension is being checked again");
	else
		gw_database_flush(database);
}

void
gw_database_flush(GwDatabase *database)
{
	int			left = PQflush(database->conn);

	/* A failure to write shows when reading: the reason may yet come. */
	gw_watch_want_write(database->watch, left > 0);
}

/* database_drain takes every result that can be had without waiting. */
static void
database_drain(GwDatabase *database)
{
	int			nothing = 0;

	while (database->conn != NULL && database->syncs > 0 && nothing < 3 &&
		   !PQisBusy(database->conn))
	{
		PGresult   *result = PQgetResult(database->conn);

		if (result == NULL)
		{
			nothing++;
			continue;
		}
		nothing = 0;
		if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
		{
			PQclear(result);
			database->syncs--;
			database_take_sync(database);
		}
		else
			database_take_result(database, result);
	}
}

/* database_take_result keeps a result, or the error in its place. */
static void
database_take_result(GwDatabase *database, PGresult *result)
{
	static const int fields[FIELDS] = {PG_DIAG_SQLSTATE,
	PG_DIAG_MESSAGE_PRIMARY};
	ExecStatusType status = PQresultStatus(result);
	const char *severity;
	int			i;

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
	{
		PQclear(database->result);
		database->result = result;
		return;
	}
	severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	/* Only an ERROR says that the transaction was rolled back. */
	if (severity == NULL || strcmp(severity, "ERROR") != 0)
		database->unknown = true;
	if (!database->failed && status != PGRES_PIPELINE_ABORTED)
	{
		database->failed = true;
		for (i = 0; i < FIELDS; i++)
			copy_field(database->error[i], result, fields[i]);
	}
	PQclear(result);
}

/* database_take_sync ends a step of CHECKING, or the oldest batch. */
static void
database_take_sync(GwDatabase *database)
{
	GwError		error = {GW_ERROR_INTERNAL, NULL, NULL, NULL, NULL};
	GwOutcome	outcome = {false, false, &error, 0, NULL};
	bool		fits;

	if (database->state == CHECKING)
	{
		gw_checking_step(database);
		return;
	}
	if (gw_probe_is_back(&database->probe))
	{
		gw_checking_probed(database);
		return;
	}
	fits = !database->failed && gw_outcome_fits(database->result);
	if (!database->failed && !database->unknown && !fits)
	{
		database->unknown = true;
		gw_log_event("error", "database_notice",
					 "relay returned something else than it should");
	}
	outcome.failed = database->failed || database->unknown;
	outcome.unknown = database->unknown;
	if (outcome.unknown)
		error = gw_error_unknown(database->alone ?
								 "the wait for synchronous replication was"
								 " interrupted" : NO_LINK);
	else if (outcome.failed)
	{
		bool		read_only = strcmp(database->error[SQLSTATE],
									   "25006") == 0;

		/* It is about the whole call, not about what a client has sent. */
		gw_log_event("warning", "database_notice", database->error[MESSAGE]);
		if (read_only)
			error.code = GW_ERROR_DATABASE_AWAY;
		error.message = read_only ? "the database is read-only" :
			"the call failed in the database";
		error.detail = "Nothing of it was stored.";
		database->recheck = gw_check_is_asked(database->error[SQLSTATE]);
	}
	error.sqlstate = field_or_null(database->error[SQLSTATE]);
	outcome.result = database->result;
	if (fits)
		outcome.rows = (size_t) PQntuples(database->result);
	database->events->done(database->owner, &outcome);
	gw_database_forget(database);
}

void
gw_database_forget(GwDatabase *database)
{
	PQclear(database->result);
	database->result = NULL;
	database->failed = false;
	database->unknown = false;
	database->alone = false;
	memset(database->error, 0, sizeof(database->error));
}

/*
 * notice logs what the server warns of. A warning of the wait for
 * synchronous replication is about the commit of the oldest batch: it comes
 * after that batch's result and before its Sync.
 */
static void
notice(void *owner, const PGresult *result)
{
	GwDatabase *database = owner;
	const char *function = PQresultErrorField(result,
											  PG_DIAG_SOURCE_FUNCTION);
	char		string[sizeof(database->error[MESSAGE])];

	copy_field(string, result, PG_DIAG_MESSAGE_PRIMARY);
	if (database->state == READY && function != NULL &&
		strcmp(function, "SyncRepWaitForLSN") == 0)
	{
		database->unknown = true;
		database->alone = true;
	}
	gw_log_event("warning", "database_notice", string);
}

static void
copy_field(char *to, const PGresult *result, int field)
{
	const char *value = PQresultErrorField(result, field);

	if (value == NULL && field == PG_DIAG_MESSAGE_PRIMARY)
		value = PQresultErrorMessage(result);
	gw_text_copy(to, FIELD_MAX, value != NULL ? value : "");
}

static const char *
field_or_null(const char *field)
{
	return field[0] != '\0' ? field : NULL;
}
