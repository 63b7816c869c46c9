/*
 * settings.c
 *		The extension's settings: definition, checks, and the list of
 *		databases that are served.
 *
 * Every room reads the variables; only the server writes them.  The node and
 * the sizes of shared memory can be set only where the library is preloaded:
 * there is none otherwise.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "base/ids.h"
#include "base/payload.h"
#include "base/settings.h"

char	   *mbus_databases = NULL;
uint64		mbus_databases_version = 0;
int			mbus_clock_jump = 300;
int			mbus_worker_interval = 1000;
int			mbus_segment_max_rows = MBUS_ROWS_LIMIT;
int			mbus_segment_max_mb = 4096;
int			mbus_segment_interval = 600;
int			mbus_node = 0;
int			mbus_max_subscriptions = 4096;
int			mbus_max_leases = 65536;
int			mbus_max_channel_metrics = 4096;
int			mbus_database_share = 75;
int			mbus_subscription_share = 50;
int			mbus_channel_share = 75;
int			mbus_holder_share = 40;
int			mbus_session_share = 50;
int			mbus_leases_per_epoch = MBUS_LEASES_LIMIT;
int			mbus_facts_per_chunk = 1024 * 1024;
int			mbus_acked_idle = 600;
int			mbus_disk_reserve = 64;
int			mbus_own_body_min = 64;
int			mbus_max_own_stores = 4096;
int			mbus_store_max_mb = 4096;
int			mbus_upload_ttl = 86400;
int			mbus_max_body = 1024;
int			mbus_max_uploads = 64;
int			mbus_max_upload_mb = 16384;
int			mbus_upload_slice = 2000;
char	   *mbus_body_tablespace = NULL;
int			mbus_scrub_rate = 1024;
int			mbus_scrub_interval = 86400;
bool		mbus_log_enabled = true;
int			mbus_log_interval = 10000;
int			mbus_log_keep = 0;
int			mbus_log_action_ttl = 31536000;
char	   *mbus_log_origin = NULL;
bool		mbus_enabled = true;
char	   *mbus_default_channel = NULL;
char	   *mbus_default_ttl = NULL;
char	   *mbus_default_compression = NULL;
int			mbus_inline_max = 1024 * 1024;
int			mbus_max_payload = 100 * 1024 * 1024;
int			mbus_max_channels_per_role = 10000;
int			mbus_max_subscriptions_per_role = 1000;
int			mbus_client_max_payload = 0;
bool		mbus_verify_on_read = true;
char	   *mbus_body_url_prefix = NULL;
int			mbus_body_url_max = 604800;
char	   *mbus_relay_role = NULL;
char	   *mbus_token_issuer = NULL;
char	   *mbus_token_audience = NULL;
int			mbus_token_skew = 30;
bool		mbus_token_must_expire = false;
int			mbus_token_max_age = 0;
char	   *mbus_anonymous_role = NULL;
int			mbus_frame_timeout = 120000;
int			mbus_frame_max = 32 * 1024 * 1024;
int			mbus_client_frame_max = 0;
int			mbus_claim_wait_max = -1;

static void define_server_settings(void);
static void define_share_settings(void);
static void define_body_settings(void);
static void define_scrub_settings(void);
static void define_log_settings(void);
static void define_start_settings(void);
static void define_session_settings(void);
static void define_relay_settings(void);
static void define_token_settings(void);
static bool check_databases(char **newval, void **extra, GucSource source);
static void assign_databases(const char *newval, void *extra);
static bool check_log_origin(char **newval, void **extra, GucSource source);
static bool check_url_prefix(char **newval, void **extra, GucSource source);
static bool check_ttl(char **newval, void **extra, GucSource source);
static bool check_compression(char **newval, void **extra, GucSource source);

/*
 * mbus_settings_init defines the settings; called from _PG_init.
 */
void
mbus_settings_init(void)
{
	define_server_settings();
	define_share_settings();
	define_body_settings();
	define_scrub_settings();
	define_log_settings();
	if (process_shared_preload_libraries_in_progress)
		define_start_settings();
	define_session_settings();
	define_relay_settings();
	define_token_settings();
	MarkGUCPrefixReserved("message_bus");
}

/* Settings of the server: postgresql.conf, and a reload. */
static void
define_server_settings(void)
{
	DefineCustomStringVariable("message_bus.databases",
							   "Databases that message_bus serves, separated by commas.",
							   "Each gets a background worker once it has the extension.",
							   &mbus_databases, "",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_databases, assign_databases, NULL);
	DefineCustomIntVariable("message_bus.worker_interval",
							"Longest time between two passes of a database's worker.",
							NULL, &mbus_worker_interval, 1000, 10, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.clock_jump",
							"How far the server's clock may jump forward and be believed.",
							"Beyond that nothing expires until message_bus.clock_accept() is called or an hour has passed.",
							&mbus_clock_jump, 300, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.segment_max_rows",
							"Messages that one segment may hold.",
							"A segment that is nearly full is followed by a new one.",
							&mbus_segment_max_rows, MBUS_ROWS_LIMIT, 16,
							MBUS_ROWS_LIMIT,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.segment_max_size",
							"Payload that one segment holds before the next one is opened.",
							NULL, &mbus_segment_max_mb, 4096, 1, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.segment_interval",
							"Shortest time that a segment stays open unless it is full.",
							"So that segment numbers last; longer where many are open.",
							&mbus_segment_interval, 600, 0, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.acked_idle",
							"How long an idle channel with retention acked keeps its segment.",
							"Then it is closed, if all in it is acknowledged.",
							&mbus_acked_idle, 600, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.disk_reserve",
							"Space that each database's worker keeps on its disk, to drop what has expired when that is full.",
							"Nothing is published while there is no room for it; 0 keeps none.",
							&mbus_disk_reserve, 64, 0, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.leases_per_epoch",
							"Lease numbers until the worker begins a new epoch.",
							"To test what happens then.",
							&mbus_leases_per_epoch, MBUS_LEASES_LIMIT, 16,
							MBUS_LEASES_LIMIT,
							PGC_SIGHUP, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.facts_per_chunk",
							"Numbers of facts that a transaction takes at once at most.",
							"To test what happens when they are used up.",
							&mbus_facts_per_chunk, 1024 * 1024, 1,
							1024 * 1024,
							PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

/* How much one may have: delivery/quota.c, channel/owned.c. */
static void
define_share_settings(void)
{
	DefineCustomIntVariable("message_bus.database_share",
							"Percentage that one database may hold of what the others leave of max_leases and max_subscriptions.",
							"A little of them is kept for each database besides.",
							&mbus_database_share, 75, 1, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.subscription_share",
							"Percentage that one subscription may hold of what the others of its database leave of the database's share of max_leases.",
							"A little of it is kept for each subscription besides.",
							&mbus_subscription_share, 50, 1, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.channel_share",
							"Percentage that all subscriptions of one channel may hold of what the other channels of its database leave of the database's share of max_leases.",
							NULL, &mbus_channel_share, 75, 1, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.holder_share",
							"Percentage that one role, or one subject of it, may hold of what the others leave of the database's share of max_leases.",
							"All sessions without a token that have one role are one.",
							&mbus_holder_share, 40, 1, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.session_share",
							"Percentage that one session may hold of what the other sessions of its role and subject leave of their share of max_leases.",
							NULL, &mbus_session_share, 50, 1, 100,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_channels_per_role",
							"Channels that one role may own in a database, unless it is a superuser.",
							NULL, &mbus_max_channels_per_role, 10000, 0,
							INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_subscriptions_per_role",
							"Subscriptions that one role may own in a database, unless it is a superuser.",
							"Those that are called default belong to the channel's owner.",
							&mbus_max_subscriptions_per_role, 1000, 0,
							INT_MAX, PGC_SUSET, 0, NULL, NULL, NULL);
}

/* Settings of large bodies, likewise. */
static void
define_body_settings(void)
{
	DefineCustomIntVariable("message_bus.own_body_min",
							"Size from which on a body has a store of its own.",
							"Its space comes back with it, not with its neighbours'.",
							&mbus_own_body_min, 64, 1, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_own_stores",
							"Stores of one body each that a database may have.",
							NULL, &mbus_max_own_stores, 4096, 0, 1024 * 1024,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.store_max_size",
							"Bodies that one store holds before the next one is opened.",
							NULL, &mbus_store_max_mb, 4096, 1, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.upload_ttl",
							"For how long an upload may go on after its last part.",
							"It ends 30 days after its begin at the latest.",
							&mbus_upload_ttl, 86400, 1, 30 * 86400,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_body",
							"Largest body that may be uploaded.",
							NULL, &mbus_max_body, 1024, 1, 1024 * 1024,
							PGC_SUSET, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_uploads",
							"Uploads that one role, or one subject of it, may have open.",
							NULL, &mbus_max_uploads, 64, 0, 1000000,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_upload_bytes",
							"Space that one role, or one subject of it, may have reserved for uploads.",
							"What was given up counts until its space is returned.",
							&mbus_max_upload_mb, 16384, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.upload_slice",
							"Longest time for which one upload_commit() hashes what did not come in order.",
							"A quarter of it in a frame of message_bus.relay(), where others wait.",
							&mbus_upload_slice, 2000, 0, 60000,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("message_bus.body_tablespace",
							   "Tablespace in which stores of large bodies are made.",
							   "Empty: the database's own.",
							   &mbus_body_tablespace, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* Settings of the scrubber, likewise. */
static void
define_scrub_settings(void)
{
	DefineCustomIntVariable("message_bus.scrub_rate",
							"Payload that the worker reads again each second, to see whether it is as it was published.",
							"0 reads only what somebody has found damaged.",
							&mbus_scrub_rate, 1024, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.scrub_interval",
							"Shortest time between the beginnings of two readings of all messages.",
							NULL, &mbus_scrub_interval, 86400, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
}

/* Settings of the log, likewise. */
static void
define_log_settings(void)
{
	DefineCustomBoolVariable("message_bus.log",
							 "Logs all messages and what happens to them in a tree of hashes.",
							 "Turned off, segments are dropped unlogged.",
							 &mbus_log_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.log_interval",
							"Time between two checkpoints of the log.",
							"A checkpoint is the signed root of the tree.",
							&mbus_log_interval, 10000, 10, 3600000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.log_keep",
							"For how long the log keeps what it has of a segment after that was dropped.",
							"The hashes above, 0.4 %, stay for good.",
							&mbus_log_keep, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.log_action_ttl",
							"For how long it is kept who changed channels, grants, subscriptions and keys, and when segments were dropped.",
							NULL,
							&mbus_log_action_ttl, 31536000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("message_bus.log_origin",
							   "What the log's name in checkpoints begins with.",
							   "A slash and a random id follow. Empty: message_bus.",
							   &mbus_log_origin, "",
							   PGC_SIGHUP, 0, check_log_origin, NULL, NULL);
}

/*
 * What stays as the server has started with it: the node, and the sizes of
 * shared memory.  There is none if the library is loaded later.
 */
static void
define_start_settings(void)
{
	DefineCustomIntVariable("message_bus.node",
							"Number of this server, which its ids and leases tell.",
							"It cannot be changed once a database has given out ids.",
							&mbus_node, 0, 0, MBUS_NODES - 1,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_subscriptions",
							"Subscriptions that can be claimed from, in all databases.",
							NULL, &mbus_max_subscriptions, 4096, 16, 65536,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_leases",
							"Messages that can be claimed at one time, in all databases.",
							"A claim beyond that is refused.",
							&mbus_max_leases, 65536, 16, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_channel_metrics",
							"Channels of which it is counted what happens in them, in all databases.",
							"All others are counted together.",
							&mbus_max_channel_metrics, 4096, 64, 1024 * 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

/*
 * Settings that a session may have of its own; max_payload only by a
 * superuser.
 */
static void
define_session_settings(void)
{
	DefineCustomBoolVariable("message_bus.enabled",
							 "Allows publishing; if off, every publish is refused.",
							 NULL, &mbus_enabled, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("message_bus.default_channel",
							   "Channel of store_message() and of the view message_bus.message_bus.",
							   NULL, &mbus_default_channel, "default",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("message_bus.default_ttl",
							   "Time to live of a channel that is created with none.",
							   NULL, &mbus_default_ttl, "48 hours",
							   PGC_USERSET, 0, check_ttl, NULL, NULL);
	DefineCustomStringVariable("message_bus.default_compression",
							   "Compression of a channel that is created with none: lz4, zstd, gzip or none.",
							   NULL, &mbus_default_compression, "lz4",
							   PGC_USERSET, 0, check_compression, NULL, NULL);
	DefineCustomIntVariable("message_bus.inline_max",
							"Largest payload that is delivered inline; a larger one travels by reference.",
							NULL, &mbus_inline_max, 1024 * 1024, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.max_payload",
							"Largest payload that may be published.",
							NULL, &mbus_max_payload, 100 * 1024 * 1024, 1,
							MBUS_PAYLOAD_MAX,
							PGC_SUSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.client_max_payload",
							"Lowers message_bus.max_payload for this session; 0 leaves it.",
							NULL, &mbus_client_max_payload, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomBoolVariable("message_bus.verify_on_read",
							 "Compares the checksum of every payload that is read.",
							 NULL, &mbus_verify_on_read, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("message_bus.body_url_prefix",
							   "What links to messages begin with: scheme, host and path of the HTTP door.",
							   "Such as https://bus.example.com; empty: they begin with /v1/.",
							   &mbus_body_url_prefix, "",
							   PGC_USERSET, 0, check_url_prefix, NULL, NULL);
	DefineCustomIntVariable("message_bus.body_url_max",
							"How long a link to a message may be good.",
							NULL, &mbus_body_url_max, 604800, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
}

/* What a gateway tells its session of itself. */
static void
define_relay_settings(void)
{
	DefineCustomStringVariable("message_bus.relay_role",
							   "Role that every frame of message_bus.relay() runs as; if empty, each runs as its session's.",
							   "The session's login role must be a member of it.",
							   &mbus_relay_role, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.frame_timeout",
							"Longest time one frame of message_bus.relay() may take; 0 is no limit.",
							NULL, &mbus_frame_timeout, 120000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.frame_max",
							"Largest frame that message_bus.relay() may return.",
							NULL, &mbus_frame_max, 32 * 1024 * 1024, 1024,
							1024 * 1024 * 1024 - 1024,
							PGC_USERSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.client_frame_max",
							"Largest frame that message_bus.relay() returns to a client that has asked for no other; 0: frame_max.",
							NULL, &mbus_client_frame_max, 0, 0,
							1024 * 1024 * 1024 - 1024,
							PGC_USERSET, GUC_UNIT_BYTE, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.claim_wait_max",
							"Longest time a claim waits for messages, whatever it asks for; -1 is no limit.",
							NULL, &mbus_claim_wait_max, -1, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* What open_session() and a gateway's control frames expect of a token. */
static void
define_token_settings(void)
{
	DefineCustomStringVariable("message_bus.token_issuer",
							   "Issuer that a token must name as its claim \"iss\"; empty is any.",
							   NULL, &mbus_token_issuer, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("message_bus.token_audience",
							   "Audience that a token must name in its claim \"aud\"; empty is any.",
							   NULL, &mbus_token_audience, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("message_bus.token_must_expire",
							 "Refuses tokens without an end (exp).",
							 NULL, &mbus_token_must_expire, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.token_max_age",
							"Refuses tokens that were issued (iat) longer ago, or do not say when; 0 is no limit.",
							NULL, &mbus_token_max_age, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("message_bus.token_skew",
							"How far clocks may differ where a token's times are checked.",
							NULL, &mbus_token_skew, 30, 0, 300,
							PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("message_bus.anonymous_role",
							   "Role of a session without a token, or whose token names none; empty refuses these.",
							   NULL, &mbus_anonymous_role, "anon",
							   PGC_USERSET, 0, NULL, NULL, NULL);
}

/* A list of names, no more than there are slots for. */
static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;
	bool		ok;

	ok = SplitIdentifierString(copy, ',', &names);
	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	else if (list_length(names) > MBUS_MAX_DATABASES)
	{
		ok = false;
		GUC_check_errdetail("At most %d databases can be listed.",
							MBUS_MAX_DATABASES);
	}
	list_free(names);
	pfree(copy);
	return ok;
}

static void
assign_databases(const char *newval, void *extra)
{
	mbus_databases_version++;
}

/* A name of signed notes: no spaces, and no plus. */
static bool
check_log_origin(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) > 200)
	{
		GUC_check_errdetail("It is at most 200 bytes long.");
		return false;
	}
	for (const char *c = *newval; *c != '\0'; c++)
	{
		if (*c > 0x20 && *c < 0x7f && *c != '+')
			continue;
		GUC_check_errdetail("It has ASCII letters, digits and signs, but no space and no plus.");
		return false;
	}
	return true;
}

/* A URL without query, fragment and slash at its end; or nothing. */
static bool
check_url_prefix(char **newval, void **extra, GucSource source)
{
	const char *prefix = *newval;
	size_t		len = strlen(prefix);

	if (len == 0)
		return true;
	for (const char *c = prefix; *c; c++)
	{
		if (*c <= 0x20 || *c >= 0x7F || strchr("\"<>\\^`{|}?#", *c))
		{
			GUC_check_errdetail("It has a character that is not for it.");
			return false;
		}
	}
	if (strncmp(prefix, "https://", 8) == 0 ||
		strncmp(prefix, "http://", 7) == 0)
	{
		if (prefix[len - 1] != '/' &&
			(len < 3 || strcmp(prefix + len - 3, "/v1") != 0))
			return true;
		GUC_check_errdetail("It ends with a slash or with /v1, which links have behind it.");
		return false;
	}
	GUC_check_errdetail("It does not begin with https:// or http://.");
	return false;
}

/* The text is parsed where it is used; here only what would be no TTL. */
static bool
check_ttl(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0' || strlen(*newval) > 100)
	{
		GUC_check_errdetail("A time to live is an interval, such as \"48 hours\".");
		return false;
	}
	return true;
}

static bool
check_compression(char **newval, void **extra, GucSource source)
{
	if (!mbus_compression_known(*newval))
	{
		GUC_check_errdetail("Compression is lz4, zstd, gzip or none.");
		return false;
	}
	return true;
}

/*
 * mbus_listed_databases returns the names in message_bus.databases as a list
 * of palloc'd strings.
 */
List *
mbus_listed_databases(void)
{
	List	   *names = NIL;

	if (!SplitIdentifierString(pstrdup(mbus_databases), ',', &names))
		return NIL;				/* check_databases refuses that */
	return names;
}

/*
 * mbus_database_listed tells whether message_bus.databases has the name.
 */
bool
mbus_database_listed(const char *name)
{
	ListCell   *cell;

	foreach(cell, mbus_listed_databases())
	{
		if (strcmp((const char *) lfirst(cell), name) == 0)
			return true;
	}
	return false;
}
