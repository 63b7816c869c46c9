/*
 * check.c
 *		What a database session must be before it relays.
 *
 * database.c runs these steps on every new connection: the extension's check
 * of login and role (that of every frame, or with authentication on that of
 * anonymous ones); the settings that the gateway's configuration asks for; which
 * backend it is, and whether the bus takes publishes (asked for again and again
 * later); relay prepared; and a ping through relay, so that "ready" means that a
 * frame was answered. Settings are made by a query and not at startup, so
 * that a pooler passes them and a fault in one is told as such.
 */
#include "database/check.h"

#include <stdio.h>
#include <string.h>

#include "database/backend.h"
#include "base/log.h"
#include "request/batch.h"

const char	gw_not_installed[] =
"extension \"message_bus\" is not installed in this database";

/* Longest wait of a frame for another transaction. */
#define LOCK_TIMEOUT_MS	500

#define INT8_ARRAY_OID	1016
#define BYTEA_ARRAY_OID	1001

/*
 * $1 is the role of frames without a token, $2 whether clients authenticate.
 * No row: there is no extension, and what bears its functions' names is not
 * to be trusted. Beside the fault it tells whether statements are logged with
 * their parameters, which are frames and tokens, and the gateway cannot keep
 * them out.
 */
static const char *const fault_query =
"SELECT message_bus.gateway_fault($1, $2),"
" pg_catalog.current_setting('log_parameter_max_length')"
" OPERATOR(pg_catalog.<>) '0' AND NOT pg_catalog.has_parameter_privilege("
"'log_parameter_max_length', 'SET') AND ("
"pg_catalog.current_setting('log_statement') OPERATOR(pg_catalog.=) 'all'"
" OR pg_catalog.current_setting('log_min_duration_statement')"
" OPERATOR(pg_catalog.<>) '-1'"
" OR pg_catalog.current_setting('log_min_duration_sample')"
" OPERATOR(pg_catalog.<>) '-1'"
" OR pg_catalog.current_setting('log_transaction_sample_rate')"
" OPERATOR(pg_catalog.<>) '0')"
" FROM pg_catalog.pg_extension"
" WHERE extname OPERATOR(pg_catalog.=) 'message_bus'";

/* $1 is an object of names and values; one of these not every login may set. */
static const char *const settings_query =
"SELECT pg_catalog.set_config(key, value, false)"
" FROM pg_catalog.json_each_text($1::pg_catalog.json)"
" WHERE key OPERATOR(pg_catalog.<>) 'log_parameter_max_length'"
" OR pg_catalog.has_parameter_privilege(key, 'SET')";

/* The backend, and why the bus takes no publishes; NULL: it does. */
const char *const gw_probe_query =
"SELECT pg_catalog.pg_backend_pid(), message_bus.bus_fault()";

/* $1 is how long claims of the same transaction may wait, in ms. */
static const char *const wait_query =
"SELECT pg_catalog.set_config('message_bus.claim_wait_max', $1, true)";

const char *const gw_relay_query =
"SELECT session, frame, request, code, sqlstate, leases"
" FROM message_bus.relay($1, $2)";

static bool send_query(PGconn *conn, const char *query, int count,
					   const char *const *values);
static const char *login_role(const GwConfig *config);
static void add_settings(GwBuffer *json, const GwConfig *config);
static void add_token_settings(GwBuffer *json, const GwConfig *config);
static void check_secrets(const PGresult *result);
static bool add_request(GwBatch *batch, GwRequest *request);
static void add_text(GwBuffer *json, const char *name, const char *value);
static void add_number(GwBuffer *json, const char *name, long value,
					   const char *unit);

/* login_role returns the role that frames without a token run as. */
static const char *
login_role(const GwConfig *config)
{
	return gw_config_authenticates(config) ? config->anon_role : config->role;
}

/*
 * gw_check_send sends the steps but for the ping, each with its own Sync; false
 * if libpq cannot, or there is no memory.
 */
bool
gw_check_send(PGconn *conn, const GwConfig *config)
{
	const Oid	types[2] = {INT8_ARRAY_OID, BYTEA_ARRAY_OID};
	const char *login[2] = {login_role(config),
	gw_config_authenticates(config) ? "t" : "f"};
	const char *values;
	GwBuffer	settings = {0};
	bool		sent;

	add_settings(&settings, config);
	values = (const char *) settings.data;
	sent = !settings.failed && PQsetnonblocking(conn, 1) == 0 &&
		PQenterPipelineMode(conn) == 1 &&
		send_query(conn, fault_query, 2, login) &&
		send_query(conn, settings_query, 1, &values) &&
		send_query(conn, gw_probe_query, 0, NULL) &&
		PQsendPrepare(conn, "wait", wait_query, 1, NULL) == 1 &&
		PQpipelineSync(conn) == 1 &&
		PQsendPrepare(conn, "relay", gw_relay_query, 2, types) == 1 &&
		PQpipelineSync(conn) == 1;
	gw_buffer_free(&settings);
	return sent;
}

/* send_query sends a query with parameters, and a Sync. */
static bool
send_query(PGconn *conn, const char *query, int count,
		   const char *const *values)
{
	return PQsendQueryParams(conn, query, count, NULL, values, NULL, NULL,
							 0) == 1 && PQpipelineSync(conn) == 1;
}

/*
 * add_settings appends the session's settings. Those beside
 * message_bus's own keep one frame from ending the batch of all: a limit of
 * the role for a statement would, and so would serialization failures.
 */
static void
add_settings(GwBuffer *json, const GwConfig *config)
{
	gw_buffer_text(json, "{\"message_bus.relay_role\":");
	gw_buffer_json(json, config->role);
	if (gw_config_authenticates(config))
		add_token_settings(json, config);
	add_text(json, "message_bus.enabled", config->enabled ? "on" : "off");
	add_text(json, "message_bus.verify_on_read",
			 config->checksum ? "on" : "off");
	add_text(json, "message_bus.default_compression", config->compression);
	add_number(json, "message_bus.default_ttl", config->ttl_hours, " hours");
	add_number(json, "message_bus.frame_timeout",
			   config->tool_timeout * 1000, "");
	add_number(json, "message_bus.frame_max", config->max_message, "");
	add_number(json, "message_bus.client_frame_max",
			   config->client_max < config->max_message ? config->client_max :
			   config->max_message, "");
	add_number(json, "message_bus.client_max_payload",
			   config->max_payload_mb * (long) GW_MIB, "");
	/* Only on the connections of the lane "wait" they may: wait_query. */
	add_text(json, "message_bus.claim_wait_max", "0");
	/* Who waits for another transaction holds up the lane. */
	add_number(json, "lock_timeout", LOCK_TIMEOUT_MS, "ms");
	add_text(json, "default_transaction_isolation", "read committed");
	add_text(json, "statement_timeout", "0");
	add_text(json, "client_min_messages", "warning");
	/* Parameters are frames, and may hold tokens. */
	add_text(json, "log_parameter_max_length_on_error", "0");
	add_text(json, "log_parameter_max_length", "0");
	/* So that a backend notices that its gateway is gone. */
	add_text(json, "client_connection_check_interval", "2s");
	gw_buffer_text(json, "}");
	gw_buffer_append(json, "", 1);
}

/* add_token_settings says what a token must be like. */
static void
add_token_settings(GwBuffer *json, const GwConfig *config)
{
	size_t		length = strlen(config->supabase_url);
	char		issuer[1024] = "";

	while (length > 0 && config->supabase_url[length - 1] == '/')
		length--;
	if (length > 0)
		/* the second is that of a project's own keys, anon and service_role */
		(void) snprintf(issuer, sizeof(issuer), "%.*s/auth/v1,supabase",
						(int) length, config->supabase_url);
	add_text(json, "message_bus.token_issuer", issuer);
	add_text(json, "message_bus.token_audience", config->audience);
	add_number(json, "message_bus.token_skew", config->token_skew, "");
	add_text(json, "message_bus.anonymous_role", config->anon_role);
}

/*
 * gw_check_ping encodes a ping as relay's arguments, in an anonymous
 * session of its own if sessions are asked for; false if it cannot.
 */
bool
gw_check_ping(const GwConfig *config, GwBuffer *sessions, GwBuffer *frames)
{
	static const unsigned char ping[] =
	"\001{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"ping\"}";
	GwBatch    *batch = gw_batch_create();
	GwBuffer	message = {0};
	GwIdentity *identity = gw_identity_create(&message);
	bool		opens = gw_config_authenticates(config);
	bool		done;

	gw_buffer_append(&message, ping, sizeof(ping) - 1);
	done = batch != NULL && identity != NULL && !message.failed &&
		(!opens ||
		 add_request(batch, gw_request_open(identity))) &&
		add_request(batch, gw_request_create(identity, &message, 0)) &&
		(!opens ||
		 add_request(batch, gw_request_close(identity, GW_ENDS_ALL))) &&
		gw_batch_encode(batch, sessions, frames);
	gw_buffer_free(&message);
	if (identity != NULL)
		gw_identity_release(identity);
	if (batch != NULL)
		gw_batch_free(batch);
	return done;
}

static bool
add_request(GwBatch *batch, GwRequest *request)
{
	if (request != NULL)
		gw_batch_add(batch, request);
	return request != NULL;
}

/*
 * gw_check_login reads what the extension says of login and role; the call has
 * failed with the SQLSTATE and message unless that is empty.
 */
const char *
gw_check_login(const PGresult *result, const char *sqlstate,
			   const char *message)
{
	/* No schema, no function in it, or no row: see fault_query. */
	if (strcmp(sqlstate, "3F000") == 0 || strcmp(sqlstate, "42883") == 0 ||
		(message[0] == '\0' && PQntuples(result) == 0))
		return gw_not_installed;
	if (message[0] != '\0')
		return message;
	check_secrets(result);
	return PQgetisnull(result, 0, 0) ? NULL : PQgetvalue(result, 0, 0);
}

/*
 * check_secrets warns, once, of a server that logs frames and tokens. The
 * result is that of fault_query.
 */
static void
check_secrets(const PGresult *result)
{
	static bool told;

	if (told || strcmp(PQgetvalue(result, 0, 1), "t") != 0)
		return;
	told = true;
	gw_log_event("warning", "tokens_logged", "the server logs statements with"
				 " their parameters, which are frames and tokens: ALTER ROLE"
				 " (the gateway's login) SET log_parameter_max_length = 0, or"
				 " GRANT SET ON PARAMETER log_parameter_max_length to it");
}

/*
 * gw_check_failed tells why another step has failed. What was prepared on a new
 * connection is not there already, nor gone, unless a pooler lends backends.
 */
const char *
gw_check_failed(const char *sqlstate, const char *message)
{
	return gw_list_has("42P05 26000", sqlstate, strlen(sqlstate)) ?
		gw_backend_fault : message;
}

/* gw_check_reply reads the reply to the ping, the last row; NULL if it is good. */
const char *
gw_check_reply(const PGresult *result)
{
	int			last = PQntuples(result) - 1;
	const char *reply;

	if (last < 0 || PQgetlength(result, last, 1) < 1)
		return "message_bus.relay() does not answer a ping";
	/* libpq ends every value with a zero byte. */
	reply = PQgetvalue(result, last, 1) + 1;
	return strstr(reply, "\"result\"") != NULL ? NULL : reply;
}

/*
 * gw_check_is_asked tells whether a failed call means that extension, role
 * or server are not as they were checked: gone, revoked, read-only.
 */
bool
gw_check_is_asked(const char *sqlstate)
{
	return gw_list_has("42883 3F000 42501 25006 26000 42704 0A000", sqlstate,
					   strlen(sqlstate));
}

static void
add_text(GwBuffer *json, const char *name, const char *value)
{
	gw_buffer_format(json, ",\"%s\":", name);
	gw_buffer_json(json, value);
}

static void
add_number(GwBuffer *json, const char *name, long value, const char *unit)
{
	gw_buffer_format(json, ",\"%s\":\"%ld%s\"", name, value, unit);
}
