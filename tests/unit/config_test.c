/*
 * config_test.c
 *		Settings from environment and .env, and their faults.
 */
#include "base/config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

static char fault_text[8192];
static char env_path[] = "/tmp/gw_config_test_XXXXXX";

static bool
url_is_good(const char *url, char *why, size_t size)
{
	(void) snprintf(why, size, "bad");
	return strncmp(url, "postgresql://", 13) == 0;
}

static const char *
pair_fault(const char *cert, const char *key, char *why, size_t size)
{
	(void) snprintf(why, size, "no pair");
	return strcmp(cert, "cert") != 0 ? cert :
		strcmp(key, "key") != 0 ? key : NULL;
}

static const GwConfigChecks checks = {url_is_good, pair_fault};

static void
note_fault(const char *name, const char *why)
{
	size_t		length = strlen(fault_text);

	(void) snprintf(fault_text + length, sizeof(fault_text) - length,
					"%s: %s\n", name, why);
}

static FILE *show;

/*
 * read_with reads a configuration from a file, and an environment given as
 * one list of names and values.
 */
static int
read_with(GwConfig *config, const char *env_file, const char **settings)
{
	const char **at;
	int			count;

	for (at = settings; *at != NULL; at += 2)
		(void) setenv(at[0], at[1], 1);
	fault_text[0] = '\0';
	count = gw_config_read(config, env_file, &checks, note_fault, show);
	for (at = settings; *at != NULL; at += 2)
		(void) unsetenv(at[0]);
	return count;
}

static void
write_env(const char *string)
{
	FILE	   *file = fopen(env_path, "w");

	(void) fputs(string, file);
	(void) fclose(file);
}

static void
default_tests(void)
{
	const char *settings[] = {"MESSAGE_BUS_ROLE", "r", NULL};
	GwConfig	config;

	ok(read_with(&config, NULL, settings) == 0,
	   "a role is all that must be set");
	ok(strcmp(config.host, "127.0.0.1") == 0 && config.port == 8765 &&
	   config.max_message == 33554432 && config.tool_timeout == 120 &&
	   config.http_timeout == 10 && config.enabled &&
	   config.ttl_hours == 48 && strcmp(config.compression, "lz4") == 0 &&
	   config.max_payload_mb == 100 && config.checksum &&
	   config.breaker_threshold == 5 && config.breaker_timeout == 60,
	   "the defaults are those of the design");
	gw_config_free(&config);
}

static void
order_tests(void)
{
	const char *environment[] = {"TOOL_TIMEOUT_SECS", "8", NULL};
	const char *value;
	GwConfig	config;

	write_env("EXAI_WS_PORT=3333\n"
			  "export MESSAGE_BUS_ROLE = 'quoted # role'   # comment\n"
			  "\n# a comment\n"
			  "TOOL_TIMEOUT_SECS=7 # seconds\n"
			  "MESSAGE_BUS_ENABLED=\"off\"\n"
			  "SUPABASE_URL= # none\n"
			  "MESSAGE_BUS_ORIGINS=   # none\n"
			  "MESSAGE_BUS_AUDIENCE=#1\n"
			  "MESSAGE_BUS_HOSTS=  \n"
			  "PGAPPNAME_OF_TEST=from file\n");
	ok(read_with(&config, env_path, environment) == 0 && config.port == 3333,
	   "both sources are read");
	ok(config.tool_timeout == 8, "the environment wins over .env");
	ok(strcmp(config.role, "quoted # role") == 0 && !config.enabled,
	   ".env may quote, export and comment");
	ok(config.supabase_url[0] == '\0' && config.origins[0] == '\0' &&
	   config.hosts[0] == '\0' && strcmp(config.audience, "#1") == 0,
	   "a comment in place of a value leaves it empty");
	value = getenv("PGAPPNAME_OF_TEST");
	ok(value != NULL && strcmp(value, "from file") == 0,
	   "libpq's variables in .env reach the environment");
	gw_config_free(&config);
}

static void
fault_tests(void)
{
	const char *settings[] = {
		"EXAI_WS_PORT", "70000", "EXAI_WS_HOST", "0.0.0.0",
		"MESSAGE_BUS_ENABLED", "perhaps", "MESSAGE_BUS_COMPRESSION", "rar",
		"TOOL_TIMEOUT_SECS", "12s", "DATABASE_URL", "secretstring",
		"SUPABASE_URL", "ftp://x", "MESSAGE_BUS_MAX_BUFFERED_MB", "1",
		"MESSAGE_BUS_ROLE", "of_which_the_name_is_longer_than"
		"_any_name_of_a_role_can_be_in_sql", "EXAI_WS_TLS_CERT", "cert",
		"MESSAGE_BUS_REUSE_PORT", "yes", "MESSAGE_BUS_TOKEN_SKEW_SECS", "301",
		NULL
	};
	const char *wanted[] = {
		"EXAI_WS_PORT", "EXAI_WS_HOST", "MESSAGE_BUS_ENABLED",
		"MESSAGE_BUS_COMPRESSION", "TOOL_TIMEOUT_SECS", "DATABASE_URL",
		"SUPABASE_URL", "MESSAGE_BUS_MAX_BUFFERED_MB",
		"MESSAGE_BUS_ROLE", "EXAI_WS_TLS_KEY", "MESSAGE_BUS_TOKEN_SKEW_SECS"
	};
	GwConfig	config;
	bool		all = true;
	size_t		i;

	ok(read_with(&config, NULL, settings) >= 11, "every fault is counted");
	for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		all = all && strstr(fault_text, wanted[i]) != NULL;
	ok(all, "every fault is named");
	ok(strstr(fault_text, "secretstring") == NULL,
	   "a secret is not repeated in its fault");
	gw_config_free(&config);
}

static void
authentication_tests(void)
{
	const char *open[] = {"EXAI_WS_HOST", "0.0.0.0", NULL};
	const char *shut[] = {"EXAI_WS_HOST", "0.0.0.0", "MESSAGE_BUS_ROLE", "r",
	NULL};
	const char *nobody[] = {"MESSAGE_BUS_ANON_ROLE", "", NULL};
	GwConfig	config;

	ok(read_with(&config, NULL, open) == 0 &&
	   gw_config_authenticates(&config) &&
	   strcmp(config.anon_role, "anon") == 0,
	   "without a role clients authenticate, and any host is allowed");
	gw_config_free(&config);
	ok(read_with(&config, NULL, shut) == 1 &&
	   strstr(fault_text, "EXAI_WS_HOST") != NULL &&
	   !gw_config_authenticates(&config),
	   "with one they do not, and only loopback is");
	gw_config_free(&config);
	ok(read_with(&config, NULL, nobody) == 1 &&
	   strstr(fault_text, "MESSAGE_BUS_ANON_ROLE") != NULL,
	   "a client without a token needs a role");
	gw_config_free(&config);
}

static void
file_fault_tests(void)
{
	const char *role[] = {"MESSAGE_BUS_ROLE", "r", NULL};
	GwConfig	config;

	write_env("no equals sign\nEXAI_WS_PORT='1\n");
	ok(read_with(&config, env_path, role) == 2 &&
	   strstr(fault_text, "line 1") != NULL &&
	   strstr(fault_text, "line 2") != NULL,
	   "faults of .env are told with their lines");
	gw_config_free(&config);
	ok(read_with(&config, "/nowhere/.env", role) == 1,
	   "a .env file that was named must exist");
	gw_config_free(&config);
}

static void
print_tests(void)
{
	const char *settings[] = {"MESSAGE_BUS_ROLE", "r", "SUPABASE_KEY", "hush",
	"DATABASE_URL", "postgresql://u:hush@h/d", NULL};
	char		string[8192];
	FILE	   *out = fmemopen(string, sizeof(string), "w");
	GwConfig	config;

	show = out;
	(void) read_with(&config, NULL, settings);
	show = NULL;
	(void) fclose(out);
	ok(strstr(string, "hush") == NULL && strstr(string, "SUPABASE_KEY=(set)"),
	   "secrets are printed as set only");
	gw_config_free(&config);
}

static void
listener_tests(void)
{
	const char *open[] = {"EXAI_WS_HOST", "0.0.0.0", "EXAI_WS_TLS_CERT", "cert",
	"EXAI_WS_TLS_KEY", "key", NULL};
	const char *named[] = {"EXAI_WS_HOST", "example.org", NULL};
	const char *pair[] = {"EXAI_WS_TLS_CERT", "cert", "EXAI_WS_TLS_KEY", "other", NULL};
	const char *any_port[] = {"MESSAGE_BUS_REUSE_PORT", "on", "EXAI_WS_PORT", "0", NULL};
	GwConfig	config;

	ok(read_with(&config, NULL, open) == 0,
	   "without a role any address may be listened on");
	gw_config_free(&config);
	ok(read_with(&config, NULL, named) == 1,
	   "a name other than localhost may not");
	gw_config_free(&config);
	ok(read_with(&config, NULL, pair) == 1 &&
	   strstr(fault_text, "EXAI_WS_TLS_KEY: no pair") != NULL,
	   "a key that does not fit its certificate is a fault of the key");
	gw_config_free(&config);
	ok(read_with(&config, NULL, any_port) == 1 &&
	   strstr(fault_text, "MESSAGE_BUS_REUSE_PORT") != NULL,
	   "a port that is shared must be named");
	gw_config_free(&config);
}

static void
loopback_tests(void)
{
	ok(gw_host_is_loopback("127.0.0.1") && gw_host_is_loopback("127.9.9.9") &&
	   gw_host_is_loopback("::1") && gw_host_is_loopback("localhost"),
	   "loopback addresses are loopback");
	ok(!gw_host_is_loopback("0.0.0.0") && !gw_host_is_loopback("::") &&
	   !gw_host_is_loopback("") && !gw_host_is_loopback("example.org") &&
	   !gw_host_is_loopback("10.0.0.1") && !gw_host_is_loopback("127.0.0.1x"),
	   "others are not");
}

void
config_tests(void)
{
	int			file = mkstemp(env_path);

	if (file >= 0)
		(void) close(file);
	default_tests();
	order_tests();
	fault_tests();
	authentication_tests();
	file_fault_tests();
	print_tests();
	listener_tests();
	loopback_tests();
	(void) unlink(env_path);
}
