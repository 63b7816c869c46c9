/*
 * access_test.c
 *		Host and Origin lists, and keys.
 */
#include "net/access.h"

#include "tap.h"

static void
host_tests(void)
{
	GwConfig	config = {.host = "127.0.0.1",.hosts = "",.origins = ""};

	ok(gw_host_may(&config, "localhost:8765") &&
	   gw_host_may(&config, "LOCALHOST") &&
	   gw_host_may(&config, "127.0.0.1:1") && gw_host_may(&config, "[::1]:1"),
	   "on a loopback address its names are answered, with any port");
	ok(!gw_host_may(&config, "evil.example:8765") &&
	   !gw_host_may(&config, "localhost.evil.example") &&
	   !gw_host_may(&config, "") && !gw_host_may(&config, ":8765") &&
	   !gw_host_may(&config, "[::1") && !gw_host_may(&config, "[::1].example"),
	   "others are not");
	config.host = "127.0.0.9";
	ok(gw_host_may(&config, "127.0.0.9:80"), "its own number is");
	config.host = "0.0.0.0";
	ok(gw_host_may(&config, "evil.example"),
	   "beyond loopback any is, unless there is a list");
	config.hosts = "bus.example, other.example:444";
	ok(gw_host_may(&config, "bus.example:1") &&
	   gw_host_may(&config, "other.example:444") &&
	   !gw_host_may(&config, "other.example") &&
	   !gw_host_may(&config, "other.example:445") &&
	   !gw_host_may(&config, "localhost"),
	   "a list is all there is, a port in it counts");
	config.hosts = "*";
	ok(gw_host_may(&config, "whatever") && gw_host_may(&config, ""),
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
