/*
 * config.c
 *		The gateway's settings: the environment, then a .env file.
 *
 * One table names every setting once; environment, .env, --help and
 * --check-config all come from it. Settings are checked as a whole and every
 * fault is told, so that a wrong configuration is mended in one go. Values of
 * secrets are never printed.
 *
 * A .env file holds lines NAME=value; "export " before the name, comments
 * (#), blank lines, single and double quotes are understood; nothing is
 * expanded. Its PG* variables are given to libpq through the environment.
 *
 * Each GwConfig owns its strings. The one that the gateway starts with lives
 * as long as the process; SIGHUP reads another one for what it renews.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <arpa/inet.h>

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
	const char *choices;		/* of SETTING_CHOICE, separated by | */
	const char *help;
} Setting;

#define AT(member) offsetof(GwConfig, member)

static const Setting settings[] = {
	{"DATABASE_URL", SETTING_SECRET, AT(database_url), "",
	0, 0, NULL, "where PostgreSQL is; libpq's PG* variables if unset"},
	{"EXAI_WS_HOST", SETTING_TEXT, AT(host), "127.0.0.1",
	0, 0, NULL, "address to listen on; beyond loopback only without role"},
	{"EXAI_WS_PORT", SETTING_INTEGER, AT(port), "8765",
	0, 65535, NULL, "port to listen on, 0 for any free one"},
	{"MESSAGE_BUS_REUSE_PORT", SETTING_BOOLEAN, AT(reuse_port),
		"false", 0, 0, NULL,
	"true: other gateways of this user may listen on the port too"},
	{"EXAI_WS_TLS_CERT", SETTING_TEXT, AT(tls_cert), "",
	0, 0, NULL, "PEM file of the certificate and its chain; none: no TLS"},
	{"EXAI_WS_TLS_KEY", SETTING_TEXT, AT(tls_key), "",
	0, 0, NULL, "PEM file of the certificate's private key"},
	{"MESSAGE_BUS_ROLE", SETTING_TEXT, AT(role), "",
		0, 0, NULL,
	"database role every frame runs as; none: clients authenticate"},
	{"MESSAGE_BUS_ANON_ROLE", SETTING_TEXT, AT(anon_role),
		"anon", 0, 0, NULL,
	"role of clients without a token, or whose token names none"},
	{"MESSAGE_BUS_AUDIENCE", SETTING_TEXT, AT(audience), "",
	0, 0, NULL, "audience that tokens must be for, if set"},
	{"MESSAGE_BUS_TOKEN_SKEW_SECS", SETTING_INTEGER,
		AT(token_skew), "30", 0, 300, NULL,
	"how far the clock of a token's issuer may be off, seconds"},
	{"MESSAGE_BUS_EXPIRY_GRACE_SECS", SETTING_INTEGER,
		AT(expiry_grace), "30", 0, 3600, NULL,
	"seconds an expired session may take to authenticate again"},
	{"WS_MAX_MSG_BYTES", SETTING_INTEGER,
		AT(max_message), "33554432", 1024, 268435456, NULL,
	"largest WebSocket message, bytes"},
	{"TOOL_TIMEOUT_SECS", SETTING_INTEGER, AT(tool_timeout),
	"120", 1, 3600, NULL, "longest one relayed call may take, seconds"},
	{"HTTP_CLIENT_TIMEOUT_SECS", SETTING_INTEGER,
		AT(http_timeout), "10", 1, 600, NULL,
	"longest handshake or HTTP request, seconds"},
	{"MESSAGE_BUS_ENABLED", SETTING_BOOLEAN, AT(enabled), "true",
	0, 0, NULL, "false: every publish is refused"},
	{"MESSAGE_BUS_TTL_HOURS", SETTING_INTEGER, AT(ttl_hours),
	"48", 1, 87600, NULL, "default TTL of channels made here, hours"},
	{"MESSAGE_BUS_COMPRESSION", SETTING_CHOICE,
		AT(compression), "lz4", 0, 0, "none|lz4|gzip|zstd",
	"default compression of channels made here: none, lz4, gzip or zstd"},
	{"MESSAGE_BUS_MAX_PAYLOAD_MB", SETTING_INTEGER,
		AT(max_payload_mb), "100", 1, 1023, NULL,
	"largest payload, MiB; can only lower the database's limit"},
	{"MESSAGE_BUS_CHECKSUM_ENABLED", SETTING_BOOLEAN,
		AT(checksum), "true", 0, 0, NULL,
	"false: reads do not verify (publishing always computes)"},
	{"CIRCUIT_BREAKER_THRESHOLD", SETTING_INTEGER,
		AT(breaker_threshold), "5", 1, 1000, NULL,
	"relay calls lost in a row before calls are refused"},
	{"CIRCUIT_BREAKER_TIMEOUT_SECS", SETTING_INTEGER,
		AT(breaker_timeout), "60", 1, 3600, NULL,
	"seconds they are refused before one is tried"},
	{"SUPABASE_URL", SETTING_TEXT, AT(supabase_url), "",
	0, 0, NULL, "base address of the token issuer"},
	{"SUPABASE_KEY", SETTING_SECRET, AT(supabase_key), "",
	0, 0, NULL, "the apikey that clients must present, if set"},
	{"MESSAGE_BUS_ORIGINS", SETTING_TEXT, AT(origins), "",
		0, 0, NULL,
	"web origins whose pages may connect, comma-separated"},
	{"MESSAGE_BUS_HOSTS", SETTING_TEXT, AT(hosts), "",
		0, 0, NULL, "Host headers that are answered, comma-separated, * for"
		" any; unset: on a loopback address localhost, 127.0.0.1 and [::1],"
	" otherwise any"},
	{"MESSAGE_BUS_MAX_CONNECTIONS", SETTING_INTEGER,
		AT(max_connections), "1000", 1, 100000, NULL,
	"WebSocket connections at a time"},
	{"MESSAGE_BUS_MAX_CONNECTIONS_PER_ADDRESS", SETTING_INTEGER, AT(max_per_address),
		"0", 0, 100000, NULL,
	"connections of one address at a time, 0 for any number"},
	{"MESSAGE_BUS_CONNECT_RATE", SETTING_INTEGER,
		AT(connect_rate), "0", 0, 100000, NULL,
	"new connections of one address a second, 0 for any number"},
	{"MESSAGE_BUS_MAX_IN_FLIGHT", SETTING_INTEGER,
		AT(max_in_flight), "64", 1, 10000, NULL,
	"unanswered frames of one connection"},
	{"MESSAGE_BUS_MAX_BUFFERED_MB", SETTING_INTEGER,
		AT(max_buffered_mb), "512", 1, 65536, NULL,
	"unanswered frames of all connections together, MiB"},
	{"MESSAGE_BUS_IDLE_TIMEOUT_SECS", SETTING_INTEGER,
		AT(idle_timeout), "0", 0, 86400, NULL,
	"seconds without a frame before a connection is closed, 0 for never"},
	{"MESSAGE_BUS_PING_SECS", SETTING_INTEGER, AT(ping_secs), "30",
		0, 3600, NULL, "seconds of silence before a client is pinged, and"
	" before one that does not answer is closed; 0 for never"},
	{"MESSAGE_BUS_WAIT_CONNECTIONS", SETTING_INTEGER,
		AT(wait_connections), "4", 1, 16, NULL,
	"database connections for claims that wait"},
	{"MESSAGE_BUS_WAIT_SECS", SETTING_INTEGER, AT(wait_secs), "10",
		1, 600, NULL,
	"longest wait of a claim, seconds; less while others queue for one"},
	{"MESSAGE_BUS_LOG_LEVEL", SETTING_CHOICE, AT(log_level),
		"info", 0, 0, "info|warning|error",
	"the least that is logged: info, warning or error"},
	{"MESSAGE_BUS_LOG_FRAMES", SETTING_BOOLEAN, AT(log_frames),
	"true", 0, 0, NULL, "one log line for each frame relayed"},
	{"MESSAGE_BUS_SEND_TIMEOUT_SECS", SETTING_INTEGER,
		AT(send_timeout), "30", 1, 3600, NULL,
	"seconds a client may leave its replies unread"}
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

static const char *const default_env_file = ".env";

/* A .env file of this size or more is not read. */
#define ENV_FILE_MAX	((size_t) 65536)

/* What was given for each setting: the environment wins over the file. */
static const char *given[SETTINGS];

/* The .env file's text, cut into strings; values point into it. */
static char *env_file_text;

/* Who is told of faults, and how many there were. */
typedef struct Faults
{
	GwConfigFault tell;
	int			count;
} Faults;

static void fault(Faults *faults, const char *name, const char *format,...)
			__attribute__((format(printf, 3, 4)));
static void read_sources(GwConfig *config, const char *env_file,
						 Faults *faults);
static void read_environment(void);
static void read_env_file(const char *path, Faults *faults);
static void read_env_line(const char *path, int number, char *line,
						  Faults *faults);
static char *env_value(char *value);
static void set_member(GwConfig *config, const Setting *setting,
					   const char *value, Faults *faults);
static void set_text(const char **member, const char *value, Faults *faults);
static bool setting_is_text(const Setting *setting);
static void check_whole(const GwConfig *config, const GwConfigChecks *checks,
						Faults *faults);
static void check_listener(const GwConfig *config,
						   const GwConfigChecks *checks, Faults *faults);
static const Setting *find_setting(const char *name);
static bool choice_is_known(const char *choices, const char *value);

/*
 * gw_config_read fills *config and returns the number of faults, each of
 * which it has told. The strings in *config live until gw_config_free.
 */
int
gw_config_read(GwConfig *config, const char *env_file,
			   const GwConfigChecks *checks, GwConfigFault tell)
{
	Faults		faults = {tell, 0};

	read_sources(config, env_file, &faults);
	check_whole(config, checks, &faults);
	return faults.count;
}

/* gw_config_help prints every setting with its meaning and default. */
void
gw_config_help(FILE *out)
{
	size_t		i;

	for (i = 0; i < SETTINGS; i++)
		(void) fprintf(out, "\n  %s\n      %s%s%s\n", settings[i].name,
					   settings[i].help,
					   settings[i].fallback[0] != '\0' ? "; default " : "",
					   settings[i].fallback);
}

/* gw_config_print prints the settings in force; secrets only as set. */
void
gw_config_print(const GwConfig *config, FILE *out)
{
	size_t		i;

	for (i = 0; i < SETTINGS; i++)
	{
		const char *member = (const char *) config + settings[i].offset;

		if (settings[i].type == SETTING_INTEGER)
			(void) fprintf(out, "%s=%ld\n", settings[i].name,
						   *(const long *) member);
		else if (settings[i].type == SETTING_BOOLEAN)
			(void) fprintf(out, "%s=%s\n", settings[i].name,
						   *(const bool *) member ? "true" : "false");
		else if (settings[i].type == SETTING_SECRET)
			(void) fprintf(out, "%s=%s\n", settings[i].name,
						   **(const char *const *) member != '\0' ?
						   "(set)" : "");
		else
			(void) fprintf(out, "%s=%s\n", settings[i].name,
						   *(const char *const *) member);
	}
}

/* gw_config_free frees a configuration's strings, secrets wiped. */
void
gw_config_free(GwConfig *config)
{
	size_t		i;

	for (i = 0; i < SETTINGS; i++)
	{
		char	  **member = (char **) ((char *) config + settings[i].offset);

		if (!setting_is_text(&settings[i]))
			continue;
		if (settings[i].type == SETTING_SECRET && *member != NULL)
			explicit_bzero(*member, strlen(*member));
		free(*member);
		*member = NULL;
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

static void
fault(Faults *faults, const char *name, const char *format,...)
{
	va_list		arguments;
	char		why[512];

	va_start(arguments, format);
	(void) vsnprintf(why, sizeof(why), format, arguments);
	va_end(arguments);
	faults->tell(name, why);
	faults->count++;
}

/* read_sources fills *config from environment and file. */
static void
read_sources(GwConfig *config, const char *env_file, Faults *faults)
{
	size_t		i;

	memset(config, 0, sizeof(*config));
	memset(given, 0, sizeof(given));
	read_environment();
	read_env_file(env_file, faults);
	for (i = 0; i < SETTINGS; i++)
		set_member(config, &settings[i],
				   given[i] != NULL ? given[i] : settings[i].fallback,
				   faults);
	memset(given, 0, sizeof(given));
	if (env_file_text != NULL)
		explicit_bzero(env_file_text, ENV_FILE_MAX);
	free(env_file_text);
	env_file_text = NULL;
}

static void
read_environment(void)
{
	size_t		i;

	for (i = 0; i < SETTINGS; i++)
		given[i] = getenv(settings[i].name);
}

/* read_env_file reads `path`, or .env if that is NULL and the file exists. */
static void
read_env_file(const char *path, Faults *faults)
{
	const char *name = path != NULL ? path : default_env_file;
	FILE	   *file = fopen(name, "r");
	size_t		size = 0;
	char	   *line;
	int			number = 1;

	if (file == NULL)
	{
		if (path != NULL || errno != ENOENT)
			fault(faults, name, "could not be opened: %s", strerror(errno));
		return;
	}
	env_file_text = calloc(1, ENV_FILE_MAX + 1);
	if (env_file_text != NULL)
		size = fread(env_file_text, 1, ENV_FILE_MAX, file);
	if (env_file_text == NULL || size == ENV_FILE_MAX || ferror(file))
	{
		fault(faults, name, "could not be read, or is larger than %zu bytes",
			  ENV_FILE_MAX - 1);
		size = 0;
	}
	(void) fclose(file);
	if (env_file_text == NULL)
		return;
	env_file_text[size] = '\0';
	for (line = env_file_text; line != NULL; number++)
	{
		char	   *next = strchr(line, '\n');

		if (next != NULL)
			*next++ = '\0';
		read_env_line(name, number, line, faults);
		line = next;
	}
}

static void
read_env_line(const char *path, int number, char *line, Faults *faults)
{
	const Setting *setting;
	char	   *value;
	char	   *end;

	while (isspace((unsigned char) *line))
		line++;
	if (*line == '\0' || *line == '#')
		return;
	if (strncmp(line, "export ", 7) == 0)
		line += 7;
	while (*line == ' ')
		line++;
	value = strchr(line, '=');
	if (value == NULL || value == line)
	{
		fault(faults, path, "line %d is not NAME=value", number);
		return;
	}
	for (end = value; end > line && isspace((unsigned char) end[-1]);)
		end--;
	*end = '\0';
	value = env_value(value + 1);
	if (value == NULL)
	{
		fault(faults, path, "line %d has no closing quote", number);
		return;
	}
	setting = find_setting(line);
	if (setting != NULL && given[setting - settings] == NULL)
		given[setting - settings] = value;
	else if (setting == NULL && strncmp(line, "PG", 2) == 0 &&
			 setenv(line, value, 0) != 0)
		fault(faults, path, "line %d could not be used: %s", number,
			  strerror(errno));
}

/* env_value strips space, quotes and comment; NULL for an open quote. */
static char *
env_value(char *value)
{
	char	   *end;

	while (*value == ' ' || *value == '\t')
		value++;
	if (*value == '"' || *value == '\'')
	{
		end = strchr(value + 1, *value);
		if (end == NULL)
			return NULL;
		*end = '\0';
		return value + 1;
	}
	end = strstr(value, " #");
	if (end == NULL)
		end = value + strlen(value);
	while (end > value && isspace((unsigned char) end[-1]))
		end--;
	*end = '\0';
	return value;
}

static void
set_member(GwConfig *config, const Setting *setting, const char *value,
		   Faults *faults)
{
	char	   *member = (char *) config + setting->offset;
	char	   *end;
	long		number;

	switch (setting->type)
	{
		case SETTING_INTEGER:
			errno = 0;
			number = strtol(value, &end, 10);
			if (*value == '\0' || *end != '\0' || errno != 0 ||
				isspace((unsigned char) *value))
				fault(faults, setting->name, "\"%s\" is not a whole number",
					  value);
			else if (number < setting->lowest || number > setting->highest)
				fault(faults, setting->name,
					  "%ld is outside the range %ld to %ld", number,
					  setting->lowest, setting->highest);
			*(long *) member = number;
			break;
		case SETTING_BOOLEAN:
			*(bool *) member = choice_is_known("true|on|yes|1", value);
			if (!choice_is_known("true|on|yes|1|false|off|no|0", value))
				fault(faults, setting->name, "\"%s\" is not true or false",
					  value);
			break;
		case SETTING_CHOICE:
			if (!choice_is_known(setting->choices, value))
				fault(faults, setting->name, "\"%s\" is not one of %s",
					  value, setting->choices);
			set_text((const char **) member, value, faults);
			break;
		case SETTING_TEXT:
		case SETTING_SECRET:
			set_text((const char **) member, value, faults);
			break;
	}
}

static void
set_text(const char **member, const char *value, Faults *faults)
{
	*member = strdup(value);
	if (*member == NULL)
		fault(faults, "settings", "could not be kept: out of memory");
}

static bool
setting_is_text(const Setting *setting)
{
	return setting->type != SETTING_INTEGER &&
		setting->type != SETTING_BOOLEAN;
}

static void
check_whole(const GwConfig *config, const GwConfigChecks *checks,
			Faults *faults)
{
	char		why[256];

	check_listener(config, checks, faults);
	if (strlen(config->role) > 63)
		fault(faults, "MESSAGE_BUS_ROLE",
			  "is longer than 63 bytes, which no role's name is");
	if (gw_config_authenticates(config) && config->anon_role[0] == '\0')
		fault(faults, "MESSAGE_BUS_ANON_ROLE", "is required where"
			  " MESSAGE_BUS_ROLE is empty: the role of clients without a"
			  " token");
	if (strlen(config->anon_role) > 63)
		fault(faults, "MESSAGE_BUS_ANON_ROLE",
			  "is longer than 63 bytes, which no role's name is");
	if (config->database_url[0] != '\0' &&
		!checks->url(config->database_url, why, sizeof(why)))
		fault(faults, "DATABASE_URL", "%s", why);
	if (config->supabase_url[0] != '\0' &&
		strncmp(config->supabase_url, "http://", 7) != 0 &&
		strncmp(config->supabase_url, "https://", 8) != 0)
		fault(faults, "SUPABASE_URL", "\"%s\" does not begin with http://"
			  " or https://", config->supabase_url);
	if ((size_t) config->max_buffered_mb * GW_MIB / 2 <
		(size_t) config->max_message)
		fault(faults, "MESSAGE_BUS_MAX_BUFFERED_MB",
			  "%ld MiB is less than twice WS_MAX_MSG_BYTES (%ld bytes)",
			  config->max_buffered_mb, config->max_message);
}

/* check_listener checks address, TLS, and who may reach it. */
static void
check_listener(const GwConfig *config, const GwConfigChecks *checks,
			   Faults *faults)
{
	struct in6_addr address;
	char		why[256];

	if (strcmp(config->host, "localhost") != 0 &&
		inet_pton(AF_INET, config->host, &address) != 1 &&
		inet_pton(AF_INET6, config->host, &address) != 1)
		fault(faults, "EXAI_WS_HOST", "\"%s\" is not an address:"
			  " use one of this machine, 0.0.0.0 or ::", config->host);
	else if (!gw_config_authenticates(config) &&
			 !gw_host_is_loopback(config->host))
		fault(faults, "EXAI_WS_HOST", "\"%s\" is not a loopback address:"
			  " with MESSAGE_BUS_ROLE set clients are not authenticated,"
			  " so the gateway listens on 127.0.0.0/8, ::1 or localhost only",
			  config->host);
	if (config->reuse_port && config->port == 0)
		fault(faults, "MESSAGE_BUS_REUSE_PORT",
			  "needs a port: EXAI_WS_PORT is 0");
	if ((config->tls_cert[0] == '\0') != (config->tls_key[0] == '\0'))
		fault(faults, config->tls_cert[0] == '\0' ? "EXAI_WS_TLS_CERT" :
			  "EXAI_WS_TLS_KEY", "is missing: a certificate and its key are"
			  " set together");
	else if (config->tls_cert[0] != '\0' &&
			 !checks->tls(config->tls_cert, config->tls_key, why,
						  sizeof(why)))
		fault(faults, "EXAI_WS_TLS_CERT", "%s", why);
}

static const Setting *
find_setting(const char *name)
{
	size_t		i;

	for (i = 0; i < SETTINGS; i++)
		if (strcmp(settings[i].name, name) == 0)
			return &settings[i];
	return NULL;
}

static bool
choice_is_known(const char *choices, const char *value)
{
	size_t		length = strlen(value);
	const char *at = choices;

	while (at != NULL)
	{
		if (strcspn(at, "|") == length && length > 0 &&
			strncasecmp(at, value, length) == 0)
			return true;
		at = strchr(at, '|');
		if (at != NULL)
			at++;
	}
	return false;
}
