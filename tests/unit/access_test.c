/*
 * access_test.c
 *		Host and Origin lists, and keys.
 */
#include "net/access.h"

#include "tap.h"

static bool
may(const GwConfig *config, const char *host)
{
	return gw_host_may(config, config->host, host);
}

static void
host_tests(void)
{
	GwConfig	config = {.host = "127.0.0.1",.hosts = "",.origins = ""};

	ok(may(&config, "localhost:8765") &&
	   may(&config, "LOCALHOST") &&
	   may(&config, "127.0.0.1:1") && may(&config, "[::1]:1"),
	   "on a loopback address its names are answered, with any port");
	ok(!may(&config, "evil.example:8765") &&
	   !may(&config, "localhost.evil.example") &&
	   !may(&config, "") && !may(&config, ":8765") &&
	   !may(&config, "[::1") && !may(&config, "[::1].example"),
	   "others are not");
	config.host = "127.0.0.9";
	ok(may(&config, "127.0.0.9:80"), "its own number is");
	config.host = "0.0.0.0";
	ok(may(&config, "evil.example"),
	   "beyond loopback any is, unless there is a list");
	config.hosts = "bus.example, other.example:444";
	ok(may(&config, "bus.example:1") &&
	   may(&config, "other.example:444") &&
	   !may(&config, "other.example") &&
	   !may(&config, "other.example:445") &&
	   !may(&config, "localhost"),
	   "a list is all there is, a port in it counts");
	config.hosts = "*";
	ok(may(&config, "whatever") && may(&config, ""),
	   "* is any");
	config.origins = "https://a.example, https://b.example";
	ok(gw_origin_may(&config, "https://b.example") &&
	   !gw_origin_may(&config, "https://b.example.org") &&
	   !gw_origin_may(&config, "") && !gw_origin_may(&config, "null"),
	   "an origin is compared as a whole");
}

static void
key_tests(void)
{
	ok(gw_key_is("secret", "secret"), "a key is itself");
	ok(!gw_key_is("secret", "secre") && !gw_key_is("secret", "secrets") &&
	   !gw_key_is("secret", "") && !gw_key_is("secret", "Secret"),
	   "nothing else is");
}

void
access_tests(void)
{
	host_tests();
	key_tests();
}
