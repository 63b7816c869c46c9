/*
 * access_test.c
 *		Host and Origin lists, keys, and what an address may do.
 */
#include "access.h"
#include "address.h"

#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>

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

static GwAdmission
admit(const char *text, long limit, long rate, int64_t now,
	  GwAddress **address)
{
	struct sockaddr_in four = {.sin_family = AF_INET};
	struct sockaddr_in6 six = {.sin6_family = AF_INET6};

	if (inet_pton(AF_INET, text, &four.sin_addr) == 1)
		return gw_address_admit((struct sockaddr *) &four, limit, rate, now,
								address);
	(void) inet_pton(AF_INET6, text, &six.sin6_addr);
	return gw_address_admit((struct sockaddr *) &six, limit, rate, now,
							address);
}

static void
address_tests(void)
{
	GwAddress  *one;
	GwAddress  *two;
	GwAddress  *three;
	char		string[64];
	int			i;
	int			taken = 0;

	ok(admit("192.0.2.1", 2, 0, 0, &one) == GW_ADMITTED &&
	   admit("::ffff:192.0.2.1", 2, 0, 0, &two) == GW_ADMITTED &&
	   admit("192.0.2.1", 2, 0, 0, &three) == GW_ADDRESS_FULL &&
	   admit("192.0.2.2", 2, 0, 0, &three) == GW_ADMITTED && one == two,
	   "connections are counted for each address");
	gw_address_text(one, string, sizeof(string));
	ok(strcmp(string, "192.0.2.1") == 0, "an address has a text");
	gw_address_release(three);
	gw_address_release(two);
	ok(admit("192.0.2.1", 2, 0, 0, &two) == GW_ADMITTED,
	   "one that is gone leaves its place");
	gw_address_release(one);
	gw_address_release(two);
	ok(admit("2001:db8::1", 1, 0, 0, &one) == GW_ADMITTED &&
	   admit("2001:db8::ffff", 1, 0, 0, &two) == GW_ADDRESS_FULL &&
	   admit("2001:db8:0:1::1", 1, 0, 0, &two) == GW_ADMITTED,
	   "in IPv6 a /64 is one address");
	gw_address_release(one);
	gw_address_release(two);
	for (i = 0; i < 20; i++)
		if (admit("192.0.2.7", 0, 5, 1000, &one) == GW_ADMITTED)
		{
			taken++;
			gw_address_release(one);
		}
	ok(taken == 5, "a second's worth may come at once");
	ok(admit("192.0.2.7", 0, 5, 1199, &one) == GW_ADDRESS_FAST &&
	   admit("192.0.2.7", 0, 5, 1200, &one) == GW_ADMITTED &&
	   admit("192.0.2.7", 0, 5, 1201, &two) == GW_ADDRESS_FAST,
	   "then as many as the rate says");
	gw_address_release(one);
	for (i = 0; i < 100000; i++)
	{
		(void) snprintf(string, sizeof(string), "10.%d.%d.%d", i >> 16,
						i >> 8 & 255, i & 255);
		(void) admit(string, 0, 5, 2000, &one);
		gw_address_release(one);
	}
	ok(gw_addresses_known() <= 4096, "idle addresses are bounded");
}

void
access_tests(void)
{
	host_tests();
	key_tests();
	address_tests();
}
