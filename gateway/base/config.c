/*
 * config.c
 *		The gateway's settings: the environment, then a .env file.
 *
 * One table names every setting once; environment, .env, --help and
 * --check-config all come from it. Settings are checked as a whole and every
 * fault is told, so that a wrong configuration is mended in one go. Values of
 * secrets are never printed. A name that begins with MESSAGE_BUS_ and is in
 * no line of the table is a fault: else a misspelt limit would not count, and
 * nobody would know.
 *
 * A .env file holds lines NAME=value; "export " before the name, comments
 * (#), blank lines, single and double quotes are understood; nothing is
 * expanded. Its PG* variables are given to libpq through the environment.
 *
 * A GwConfig's strings point into the environment and into the text of its
 * file, which it owns. The one that the gateway starts with lives as long as
 * the process; SIGHUP reads another one for what it renews.
 */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <arpa/inet.h>

#include "base/buffer.h"

typedef enum SettingType
{
	SETTING_TEXT,
	SETTING_SECRET,
	SETTING_INTEGER,
	SETTING_BOOLEAN,
	SETTING_CHOICE
} SettingType;

typedef struct Setting
{
	const char *name;			/* in the environment and in .env */
	SettingType type;
	size_t		offset;			/* of its member in GwConfig */
	const char *fallback;
	long		lowest;
	long		highest;
	const char *choices;		/* of SETTING_CHOICE, a list */
	const char *help;
} Setting;

#define SETTING(name, type, member, fallback, low, high, choices, help) \
	{name, type, offsetof(GwConfig, member), fallback, low, high, choices, help}
#define TEXT(name, member, fallback, help) \
	SETTING(name, SETTING_TEXT, member, fallback, 0, 0, NULL, help)
#define SECRET(name, member, help) \
	SETTING(name, SETTING_SECRET, member, "", 0, 0, NULL, help)
#define INTEGER(name, member, fallback, low, high, help) \
	SETTING(name, SETTING_INTEGER, member, fallback, low, high, NULL, help)
#define BOOLEAN(name, member, fallback, help) \
	SETTING(name, SETTING_BOOLEAN, member, fallback, 0, 0, NULL, help)
#define CHOICE(name, member, fallback, choices, help) \
	SETTING(name, SETTING_CHOICE, member, fallback, 0, 0, choices, help)

static const Setting settings[] = {
	SECRET("DATABASE_URL", database_url,
		   "where PostgreSQL is; libpq's PG* variables if unset"),
	TEXT("EXAI_WS_HOST", host, "127.0.0.1",
		 "address to listen on; beyond loopback only without role"),
	INTEGER("EXAI_WS_PORT", port, "8765", 0, 65535,
			"port to listen on, 0 for any free one"),
	BOOLEAN("MESSAGE_BUS_REUSE_PORT", reuse_port, "false",
			"true: other gateways of this user may listen on the port too"),
	TEXT("MESSAGE_BUS_ADMIN_HOST", admin_host, "127.0.0.1",
		 "address of the admin port"),
	INTEGER("MESSAGE_BUS_ADMIN_PORT", admin_port, "0", 0, 65535,
			"port for /healthz, /readyz and /metrics alone, any Host; 0: none"),
	BOOLEAN("MESSAGE_BUS_PUBLIC_STATUS", public_status, "true",
			"false: the clients' port does not have them"),
	TEXT("MESSAGE_BUS_PAGES", pages, "",
		 "directory of pages that the admin port shows below /ui/"),
	TEXT("MESSAGE_BUS_HTTP_HOST", http_host, "127.0.0.1",
		 "address of the HTTP door; beyond loopback only without role"),
	INTEGER("MESSAGE_BUS_HTTP_PORT", http_port, "0", 0, 65535,
			"port of the HTTP door, for bodies of messages; 0: none"),
	INTEGER("MESSAGE_BUS_HTTP_DOWNLOADS", http_downloads, "256", 1, 10000,
			"requests of the HTTP door that are answered at a time"),
	INTEGER("MESSAGE_BUS_HTTP_PER_CLIENT", http_per_client, "16", 1, 10000,
			"of these, of one token or, without one, of one address"),
	TEXT("EXAI_WS_TLS_CERT", tls_cert, "",
		 "PEM file of the certificate and its chain; none: no TLS"),
	TEXT("EXAI_WS_TLS_KEY", tls_key, "",
		 "PEM file of the certificate's private key"),
	TEXT("MESSAGE_BUS_ROLE", role, "",
		 "database role every frame runs as; none: clients authenticate"),
	TEXT("MESSAGE_BUS_ANON_ROLE", anon_role, "anon",
		 "role of clients without a token, or whose token names none"),
	TEXT("MESSAGE_BUS_AUDIENCE", audience, "",
		 "audience that tokens must be for, if set"),
	INTEGER("MESSAGE_BUS_TOKEN_SKEW_SECS", token_skew, "30", 0, 300,
			"how far the clock of a token's issuer may be off, seconds"),
	INTEGER("MESSAGE_BUS_EXPIRY_GRACE_SECS", expiry_grace, "30", 0, 3600,
			"seconds an expired session may take to authenticate again"),
	INTEGER("WS_MAX_MSG_BYTES", max_message, "33554432", 1024, 268435456,
			"largest WebSocket message, bytes"),
	INTEGER("MESSAGE_BUS_ANON_MAX_BYTES", anon_max, "1048576", 1024,
			268435456,
			"largest WebSocket message of a client without a token, bytes"),
	INTEGER("MESSAGE_BUS_CLIENT_MAX_BYTES", client_max, "1000000", 1024,
			268435456,
			"largest message that a client is sent unless it asks for more by"
			" max_message_bytes, bytes"),
	INTEGER("TOOL_TIMEOUT_SECS", tool_timeout, "120", 1, 3600,
			"longest one relayed call may take, seconds"),
	INTEGER("HTTP_CLIENT_TIMEOUT_SECS", http_timeout, "10", 1, 600,
			"longest handshake or HTTP request, seconds"),
	BOOLEAN("MESSAGE_BUS_ENABLED", enabled, "true",
			"false: every publish is refused"),
	INTEGER("MESSAGE_BUS_TTL_HOURS", ttl_hours, "48", 1, 87600,
			"default TTL of channels made here, hours"),
	CHOICE("MESSAGE_BUS_COMPRESSION", compression, "lz4",
		   "none, lz4, gzip, zstd",
		   "default compression of channels made here: none, lz4, gzip or"
		   " zstd"),
	INTEGER("MESSAGE_BUS_MAX_PAYLOAD_MB", max_payload_mb, "100", 1, 1023,
			"largest payload, MiB; can only lower the database's limit"),
	BOOLEAN("MESSAGE_BUS_CHECKSUM_ENABLED", checksum, "true",
			"false: reads do not verify (publishing always computes)"),
	INTEGER("CIRCUIT_BREAKER_THRESHOLD", breaker_threshold, "5", 1, 1000,
			"relay calls lost in a row before calls are refused"),
	INTEGER("CIRCUIT_BREAKER_TIMEOUT_SECS", breaker_timeout, "60", 1, 3600,
			"seconds they are refused before one is tried"),
	TEXT("SUPABASE_URL", supabase_url, "",
		 "base address of the token issuer"),
	SECRET("SUPABASE_KEY", supabase_key,
		   "the apikey that clients must present, if set"),
	TEXT("MESSAGE_BUS_ORIGINS", origins, "",
		 "web origins whose pages may connect, comma-separated"),
	TEXT("MESSAGE_BUS_HOSTS", hosts, "",
		 "Host headers that are answered, comma-separated, * for any;"
		 " unset: on a loopback address localhost, 127.0.0.1 and [::1],"
		 " otherwise any"),
	INTEGER("MESSAGE_BUS_MAX_CONNECTIONS", max_connections, "1000", 1, 100000,
			"WebSocket connections at a time"),
	INTEGER("MESSAGE_BUS_MAX_IN_FLIGHT", max_in_flight, "64", 1, 10000,
			"unanswered frames of one connection"),
	INTEGER("MESSAGE_BUS_MAX_BUFFERED_MB", max_buffered_mb, "512", 1, 65536,
			"unanswered frames of all connections together, MiB"),
	INTEGER("MESSAGE_BUS_MAX_UNREAD_MB", max_unread_mb, "512", 1, 65536,
			"replies that clients have not read, of all connections together,"
			" MiB"),
	INTEGER("MESSAGE_BUS_BULK_MB", bulk_mb, "48", 16, 65536,
			"pieces of large bodies on their way, both ways, of all connections"
			" together, MiB"),
	INTEGER("MESSAGE_BUS_SEND_TIMEOUT_SECS", send_timeout, "30", 1, 3600,
			"seconds a client may leave its replies unread; ten times that for"
			" all of one"),
	INTEGER("MESSAGE_BUS_IDLE_TIMEOUT_SECS", idle_timeout, "0", 0, 86400,
			"seconds without a frame before a connection is closed, 0 for"
			" never"),
	INTEGER("MESSAGE_BUS_PING_SECS", ping_secs, "30", 0, 3600,
			"seconds of silence before a client is pinged, and before one"
			" that does not answer is closed; 0 for never"),
	INTEGER("MESSAGE_BUS_WAIT_CONNECTIONS", wait_connections, "4", 1, 16,
			"database connections for claims that wait"),
	INTEGER("MESSAGE_BUS_WAIT_SECS", wait_secs, "10", 1, 600,
			"longest wait of a claim, seconds; less while others queue for"
			" one"),
	CHOICE("MESSAGE_BUS_LOG_LEVEL", log_level, "info", "info, warning, error",
		   "the least that is logged: info, warning or error"),
	BOOLEAN("MESSAGE_BUS_LOG_FRAMES", log_frames, "false",
			"one log line for each frame relayed, some 250 bytes; what fails is"
			" logged in any case"),
	CHOICE("MESSAGE_BUS_LOG_SUBJECTS", log_subjects, "hash",
		   "hash, plain, none",
		   "the sub of tokens in log lines: hash (16 digits of its SHA-256),"
		   " plain or none")
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* What begins so is a setting of the gateway, or a mistake. */
#define OWN_PREFIX		"MESSAGE_BUS_"

/* A .env file of this size or more is not read. */
#define ENV_FILE_MAX	((size_t) 65536)

/* A reading of the sources. */
typedef struct Reading
{
	GwConfigFault tell;			/* who is told of faults, and ... */
	int			faults;			/* ... how many there were */
	const char *given[SETTINGS];	/* the environment wins over the file */
} Reading;

static void fault(Reading *reading, const char *name, const char *format,...)
			__attribute__((format(printf, 3, 4)));
static char *read_env_file(const char *path, Reading *reading);
static void read_env_line(const char *path, int number, char *line,
						  Reading *reading);
static char *env_value(char *value);
static void check_name(const char *name, size_t length, const char *source,
					   Reading *reading);
static bool is_of_service(const char *variable);
static void set_member(GwConfig *config, const Setting *setting,
					   const char *value, Reading *reading);
static void check_whole(const GwConfig *config, const GwConfigChecks *checks,
						Reading *reading);
static bool is_address(const char *host);
static void check_door(const GwConfig *config, Reading *reading);
static void check_listener(const GwConfig *config,
						   const GwConfigChecks *checks, Reading *reading);

/*
 * gw_config_read fills *config and returns the number of faults, each of
 * which it has told. To `show` it prints the settings in force, secrets only
 * as set. The strings in *config live until gw_config_free.
 */
int
gw_config_read(GwConfig *config, const char *env_file,
			   const GwConfigChecks *checks, GwConfigFault tell, FILE *show)
{
	Reading		reading = {tell, 0, {NULL}};
	size_t		i;

	for (i = 0; i < SETTINGS; i++)
		reading.given[i] = getenv(settings[i].name);
	for (i = 0; environ[i] != NULL; i++)
		if (!is_of_service(environ[i]))
			check_name(environ[i], strcspn(environ[i], "="),
					   "the environment", &reading);
	config->file = read_env_file(env_file, &reading);
	for (i = 0; i < SETTINGS; i++)
	{
		const char *value = reading.given[i] != NULL ? reading.given[i] :
		settings[i].fallback;

		set_member(config, &settings[i], value, &reading);
		if (show != NULL)
			(void) fprintf(show, "%s=%s\n", settings[i].name,
						   settings[i].type == SETTING_SECRET &&
						   value[0] != '\0' ? "(set)" : value);
	}
	check_whole(config, checks, &reading);
	return reading.faults;
}

/* gw_config_free frees a configuration's strings, secrets wiped. */
void
gw_config_free(GwConfig *config)
{
	if (config->file != NULL)
		explicit_bzero(config->file, ENV_FILE_MAX);
	free(config->file);
	config->file = NULL;
}

/* gw_config_help prints every setting: meaning, range and default. */
void
gw_config_help(FILE *out)
{
	size_t		i;

	for (i = 0; i < SETTINGS; i++)
	{
		const Setting *setting = &settings[i];

		(void) fprintf(out, "\n  %s\n      %s", setting->name, setting->help);
		if (setting->type == SETTING_INTEGER)
			(void) fprintf(out, "; %ld to %ld", setting->lowest,
						   setting->highest);
		(void) fprintf(out, "%s%s\n",
					   setting->fallback[0] != '\0' ? "; default " : "",
					   setting->fallback);
	}
}

/* gw_config_authenticates tells whether clients must say who they are. */
bool
gw_config_authenticates(const GwConfig *config)
{
	return config->role[0] == '\0';
}

/* gw_host_is_loopback accepts localhost, 127.0.0.0/8 and ::1. */
bool
gw_host_is_loopback(const char *host)
{
	struct in_addr four;
	struct in6_addr six;

	if (strcmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &four) == 1)
		return (ntohl(four.s_addr) >> 24) == 127;
	if (inet_pton(AF_INET6, host, &six) == 1)
		return IN6_IS_ADDR_LOOPBACK(&six) != 0;
	return false;
}

/* gw_list_has looks for an entry of a list separated by commas or spaces. */
bool
gw_list_has(const char *list, const char *item, size_t length)
{
	while (*list != '\0')
	{
		size_t		entry;

		list += strspn(list, ", ");
		entry = strcspn(list, ", ");
		if (entry == length && length > 0 &&
			strncasecmp(list, item, length) == 0)
			return true;
		list += entry;
	}
	return false;
}

static void
fault(Reading *reading, const char *name, const char *format,...)
{
	va_list		arguments;
	char		why[512];

	va_start(arguments, format);
	(void) vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	reading->tell(name, why);
	reading->faults++;
}

/*
 * read_env_file reads `path`, or .env if that is NULL and the file exists,
 * and returns its text, cut into the strings that are given.
 */
static char *
read_env_file(const char *path, Reading *reading)
{
	const char *name = path != NULL ? path : ".env";
	FILE	   *file = fopen(name, "r");
	char	   *text;
	char	   *line;
	char	   *rest;
	int			number = 0;

	if (file == NULL)
	{
		if (path != NULL || errno != ENOENT)
			fault(reading, name, "could not be opened: %s", strerror(errno));
		return NULL;
	}
	text = calloc(1, ENV_FILE_MAX + 1);

	if (text == NULL ||
		fread(text, 1, ENV_FILE_MAX, file) == ENV_FILE_MAX || ferror(file))
		fault(reading, name, "could not be read, or is larger than %zu bytes",
			  ENV_FILE_MAX - 1);
	(void) fclose(file);
	for (rest = text; (line = strsep(&rest, "\n")) != NULL;)
		read_env_line(name, ++number, line, reading);
	return text;
}

static void
read_env_line(const char *path, int number, char *line, Reading *reading)
{
	char	   *value;
	char	   *end;
	size_t		i;

	line += strspn(line, " \t\r");
	if (*line == '\0' || *line == '#')
		return;
	if (strncmp(line, "export ", 7) == 0)
		line += 7 + strspn(line + 7, " ");
	value = strchr(line, '=');
	if (value == NULL || value == line)
	{
		fault(reading, path, "line %d is not NAME=value", number);
		return;
	}
	for (end = value; end > line && isspace((unsigned char) end[-1]);)
		end--;
	*end = '\0';
	value = env_value(value + 1);
	if (value == NULL)
	{
		fault(reading, path, "line %d has no closing quote", number);
		return;
	}
	check_name(line, strlen(line), path, reading);
	for (i = 0; i < SETTINGS; i++)
		if (strcmp(settings[i].name, line) == 0 && reading->given[i] == NULL)
			reading->given[i] = value;
	if (strncmp(line, "PG", 2) == 0 && setenv(line, value, 0) != 0)
		fault(reading, path, "line %d could not be used: %s", number,
			  strerror(errno));
}

/* env_value strips space, quotes and comment; NULL for an open quote. */
static char *
env_value(char *value)
{
	char	   *begin = value + strspn(value, " \t");
	char	   *end;

	if (*begin == '"' || *begin == '\'')
	{
		end = strchr(begin + 1, *begin);
		if (end == NULL)
			return NULL;
		*end = '\0';
		return begin + 1;
	}
	/* A value may be no more than the space before a comment. */
	end = strstr(value, " #");
	if (end == NULL)
		end = value + strlen(value);
	while (end > value && isspace((unsigned char) end[-1]))
		end--;
	*end = '\0';
	return end > begin ? begin : end;
}

/* check_name tells of a name that looks like a setting and is none. */
static void
check_name(const char *name, size_t length, const char *source,
		   Reading *reading)
{
	char		copy[128];
	size_t		i;

	if (strncmp(name, OWN_PREFIX, sizeof(OWN_PREFIX) - 1) != 0)
		return;
	for (i = 0; i < SETTINGS; i++)
		if (strlen(settings[i].name) == length &&
			strncmp(settings[i].name, name, length) == 0)
			return;
	gw_text_copy(copy, length < sizeof(copy) - 1 ? length + 1 : sizeof(copy),
				 name);
	fault(reading, copy, "is no setting, and stands in %s; --help lists them",
		  source);
}

/*
 * is_of_service tells a variable that nobody has set by hand: Kubernetes puts
 * some for every Service into each pod beside it, as container links do, and a
 * Service may well be named message-bus. They are NAME_SERVICE_HOST,
 * NAME_SERVICE_PORT, NAME_SERVICE_PORT_of-a-port, NAME_PORT with a URL, and
 * NAME_PORT_number_TCP with more behind it.
 */
static bool
is_of_service(const char *variable)
{
	static const char *const urls[] = {"=tcp://", "=udp://", "=sctp://"};
	static const char *const kinds[] = {"_TCP", "_UDP", "_SCTP"};
	size_t		length = strcspn(variable, "=");
	const char *at;
	size_t		i;

	at = strstr(variable, "_SERVICE_HOST=");
	if (at != NULL && at < variable + length)
		return true;
	at = strstr(variable, "_SERVICE_PORT");
	if (at != NULL && at < variable + length && (at[13] == '=' || at[13] == '_'))
		return true;
	for (at = strstr(variable, "_PORT"); at != NULL && at < variable + length;
		 at = strstr(at + 1, "_PORT"))
	{
		const char *behind = at + 5;

		for (i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
			if (strncmp(behind, urls[i], strlen(urls[i])) == 0)
				return true;
		if (*behind++ != '_' || !isdigit((unsigned char) *behind))
			continue;
		behind += strspn(behind, "0123456789");
		for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
			if (strncmp(behind, kinds[i], strlen(kinds[i])) == 0)
				return true;
	}
	return false;
}

static void
set_member(GwConfig *config, const Setting *setting, const char *value,
		   Reading *reading)
{
	void	   *member = (char *) config + setting->offset;
	size_t		length = strlen(value);
	long		number;
	char	   *end;

	switch (setting->type)
	{
		case SETTING_INTEGER:
			errno = 0;
			number = strtol(value, &end, 10);
			if (length == 0 || *end != '\0' || errno != 0 ||
				isspace((unsigned char) *value))
				fault(reading, setting->name, "\"%s\" is not a whole number",
					  value);
			else if (number < setting->lowest || number > setting->highest)
				fault(reading, setting->name,
					  "%ld is outside the range %ld to %ld", number,
					  setting->lowest, setting->highest);
			*(long *) member = number;
			break;
		case SETTING_BOOLEAN:
			*(bool *) member = gw_list_has("true on yes 1", value, length);
			if (!*(bool *) member &&
				!gw_list_has("false off no 0", value, length))
				fault(reading, setting->name, "\"%s\" is not true or false",
					  value);
			break;
		case SETTING_CHOICE:
			if (!gw_list_has(setting->choices, value, length))
				fault(reading, setting->name, "\"%s\" is not one of %s",
					  value, setting->choices);
			/* FALLTHROUGH */
		case SETTING_TEXT:
		case SETTING_SECRET:
			*(const char **) member = value;
			break;
	}
}

static void
check_whole(const GwConfig *config, const GwConfigChecks *checks,
			Reading *reading)
{
	char		why[256];

	check_listener(config, checks, reading);
	if (strlen(config->role) > 63)
		fault(reading, "MESSAGE_BUS_ROLE",
			  "is longer than 63 bytes, which no role's name is");
	if (gw_config_authenticates(config) && config->anon_role[0] == '\0')
		fault(reading, "MESSAGE_BUS_ANON_ROLE", "is required where"
			  " MESSAGE_BUS_ROLE is empty: the role of clients without a"
			  " token");
	if (strlen(config->anon_role) > 63)
		fault(reading, "MESSAGE_BUS_ANON_ROLE",
			  "is longer than 63 bytes, which no role's name is");
	if (config->database_url[0] != '\0' &&
		!checks->url(config->database_url, why, sizeof(why)))
		fault(reading, "DATABASE_URL", "%s", why);
	if (config->supabase_url[0] != '\0' &&
		strncmp(config->supabase_url, "http://", 7) != 0 &&
		strncmp(config->supabase_url, "https://", 8) != 0)
		fault(reading, "SUPABASE_URL", "\"%s\" does not begin with http://"
			  " or https://", config->supabase_url);
	if ((size_t) config->max_buffered_mb * GW_MIB / 2 <
		(size_t) config->max_message)
		fault(reading, "MESSAGE_BUS_MAX_BUFFERED_MB",
			  "%ld MiB is less than twice WS_MAX_MSG_BYTES (%ld bytes)",
			  config->max_buffered_mb, config->max_message);
	if ((size_t) config->max_unread_mb * GW_MIB / 2 <
		(size_t) config->max_message)
		fault(reading, "MESSAGE_BUS_MAX_UNREAD_MB",
			  "%ld MiB is less than twice WS_MAX_MSG_BYTES (%ld bytes)",
			  config->max_unread_mb, config->max_message);
}

static bool
is_address(const char *host)
{
	struct in6_addr address;

	return strcmp(host, "localhost") == 0 ||
		inet_pton(AF_INET, host, &address) == 1 ||
		inet_pton(AF_INET6, host, &address) == 1;
}

/* check_door checks where the HTTP door is, and who may reach it. */
static void
check_door(const GwConfig *config, Reading *reading)
{
	if (!is_address(config->http_host))
		fault(reading, "MESSAGE_BUS_HTTP_HOST", "\"%s\" is not an address",
			  config->http_host);
	else if (!gw_config_authenticates(config) &&
			 !gw_host_is_loopback(config->http_host))
		fault(reading, "MESSAGE_BUS_HTTP_HOST", "\"%s\" is not a loopback"
			  " address, which MESSAGE_BUS_ROLE needs: see EXAI_WS_HOST",
			  config->http_host);
	if (config->http_port == config->port ||
		config->http_port == config->admin_port)
		fault(reading, "MESSAGE_BUS_HTTP_PORT", "is %s",
			  config->http_port == config->port ?
			  "the port of clients, EXAI_WS_PORT" :
			  "the admin port, MESSAGE_BUS_ADMIN_PORT");
}

/* check_listener checks address, TLS, and who may reach it. */
static void
check_listener(const GwConfig *config, const GwConfigChecks *checks,
			   Reading *reading)
{
	const char *unfit = NULL;
	char		why[256];

	if (config->admin_port != 0 && !is_address(config->admin_host))
		fault(reading, "MESSAGE_BUS_ADMIN_HOST", "\"%s\" is not an address",
			  config->admin_host);
	if (!is_address(config->host))
		fault(reading, "EXAI_WS_HOST", "\"%s\" is not an address:"
			  " use one of this machine, 0.0.0.0 or ::", config->host);
	else if (!gw_config_authenticates(config) &&
			 !gw_host_is_loopback(config->host))
		fault(reading, "EXAI_WS_HOST", "\"%s\" is not a loopback address:"
			  " with MESSAGE_BUS_ROLE set clients are not authenticated,"
			  " so the gateway listens on 127.0.0.0/8, ::1 or localhost only",
			  config->host);
	if (config->admin_port != 0 && config->admin_port == config->port)
		fault(reading, "MESSAGE_BUS_ADMIN_PORT",
			  "is the port of clients, EXAI_WS_PORT");
	if (config->http_port != 0)
		check_door(config, reading);
	if (config->reuse_port && config->port == 0)
		fault(reading, "MESSAGE_BUS_REUSE_PORT",
			  "needs a port: EXAI_WS_PORT is 0");
	if ((config->tls_cert[0] == '\0') != (config->tls_key[0] == '\0'))
		fault(reading, config->tls_cert[0] == '\0' ? "EXAI_WS_TLS_CERT" :
			  "EXAI_WS_TLS_KEY", "is missing: a certificate and its key are"
			  " set together");
	else if (config->tls_cert[0] != '\0')
		unfit = checks->tls(config->tls_cert, config->tls_key, why,
							sizeof(why));
	if (unfit != NULL)
		fault(reading, unfit == config->tls_cert ? "EXAI_WS_TLS_CERT" :
			  "EXAI_WS_TLS_KEY", "%s", why);
}
