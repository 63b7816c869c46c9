/*
 * address.c
 *		What each client's address holds and may still do.
 *
 * An address is one of IPv4, or a /64 of IPv6, which is what one host is
 * given. It has a number of connections and a bucket of tokens: each new
 * connection takes one, and `rate` of them come back in a second, up to
 * `rate`.
 *
 * Addresses with a connection are in the table as long as they have it, so
 * there are no more of them than sockets. Those without are kept for their
 * buckets' sake, at most IDLE_MAX of them: the one that was idle longest
 * makes room. It is forgotten and begins with a full bucket again, so whoever
 * has more than IDLE_MAX addresses is not slowed down by this, but bounded by
 * the number of connections all the same.
 */
#include "address.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

#define BUCKETS		1024
#define IDLE_MAX	4096

/* Tokens are counted in thousandths, which are what a millisecond brings. */
#define TOKEN		1000

struct GwAddress
{
	GwAddress  *next_hash;
	GwAddress  *older;			/* among the idle ones */
	GwAddress  *newer;
	unsigned char key[16];		/* as IPv6, without the host's half */
	long		connections;
	int64_t		tokens;
	int64_t		filled_ms;		/* when `tokens` was right */
};

static GwAddress *table[BUCKETS];
static GwAddress *oldest;		/* of those without a connection */
static GwAddress *newest;
static size_t idle_count;
static size_t known;

static void make_key(const struct sockaddr *peer, unsigned char *key);
static GwAddress **find_slot(const unsigned char *key);
static GwAddress *address_create(const unsigned char *key, long rate,
								 int64_t now_ms);
static bool take_token(GwAddress *address, long rate, int64_t now_ms);
static void idle_add(GwAddress *address);
static void idle_remove(GwAddress *address);
static void address_forget(GwAddress *address);

/*
 * gw_address_admit counts a new connection of an address, or says why it may
 * have none. A limit of 0 is none. What it puts into *address is given back
 * with gw_address_release when the connection is gone; of one that is not
 * admitted it is good for gw_address_text only, and only at once.
 */
GwAdmission
gw_address_admit(const struct sockaddr *peer, long max_connections,
				 long rate, int64_t now_ms, GwAddress **address)
{
	unsigned char key[16];
	GwAddress  *found;

	make_key(peer, key);
	found = *find_slot(key);
	if (found == NULL)
		found = address_create(key, rate, now_ms);
	if (found == NULL)
		return GW_ADDRESS_NO_MEMORY;
	*address = found;
	if (max_connections > 0 && found->connections >= max_connections)
		return GW_ADDRESS_FULL;
	if (rate > 0 && !take_token(found, rate, now_ms))
		return GW_ADDRESS_FAST;
	if (found->connections++ == 0)
		idle_remove(found);
	return GW_ADMITTED;
}

/* gw_address_release counts a connection that is gone. */
void
gw_address_release(GwAddress *address)
{
	if (--address->connections == 0)
		idle_add(address);
}

/* gw_address_text writes an address as text, at most 45 bytes and a zero. */
void
gw_address_text(const GwAddress *address, char *to, size_t size)
{
	struct in6_addr six;
	const char *done;

	memcpy(&six, address->key, sizeof(six));
	if (IN6_IS_ADDR_V4MAPPED(&six))
		done = inet_ntop(AF_INET, address->key + 12, to, (socklen_t) size);
	else
		done = inet_ntop(AF_INET6, &six, to, (socklen_t) size);
	if (done == NULL && size > 0)
		to[0] = '\0';
}

/* gw_addresses_known returns how many addresses the table holds. */
size_t
gw_addresses_known(void)
{
	return known;
}

/* make_key makes an address of either family comparable. */
static void
make_key(const struct sockaddr *peer, unsigned char *key)
{
	struct sockaddr_in four;
	struct sockaddr_in6 six;

	memset(key, 0, 16);
	if (peer->sa_family == AF_INET6)
	{
		memcpy(&six, peer, sizeof(six));
		memcpy(key, &six.sin6_addr, 16);
		if (!IN6_IS_ADDR_V4MAPPED(&six.sin6_addr) &&
			!IN6_IS_ADDR_LOOPBACK(&six.sin6_addr))
			memset(key + 8, 0, 8);
	}
	else if (peer->sa_family == AF_INET)
	{
		memcpy(&four, peer, sizeof(four));
		memset(key + 10, 0xFF, 2);
		memcpy(key + 12, &four.sin_addr, 4);
	}
}

/* find_slot returns the pointer to an address, or to where it belongs. */
static GwAddress **
find_slot(const unsigned char *key)
{
	GwAddress **at;
	uint32_t	hash = 2166136261u;
	int			i;

	for (i = 0; i < 16; i++)
		hash = (hash ^ key[i]) * 16777619u;
	at = &table[(hash ^ hash >> 16) % BUCKETS];
	while (*at != NULL && memcmp((*at)->key, key, 16) != 0)
		at = &(*at)->next_hash;
	return at;
}

/* address_create makes an address without connections, its bucket full. */
static GwAddress *
address_create(const unsigned char *key, long rate, int64_t now_ms)
{
	GwAddress  *address;

	if (idle_count >= IDLE_MAX)
		address_forget(oldest);
	address = calloc(1, sizeof(GwAddress));
	if (address == NULL)
		return NULL;
	memcpy(address->key, key, 16);
	address->tokens = rate * TOKEN;
	address->filled_ms = now_ms;
	*find_slot(key) = address;
	known++;
	idle_add(address);
	return address;
}

static bool
take_token(GwAddress *address, long rate, int64_t now_ms)
{
	int64_t		full = rate * TOKEN;
	int64_t		passed = now_ms - address->filled_ms;

	/* A bucket is full after a second, whatever it held. */
	if (passed >= 1000 || address->tokens + passed * rate > full)
		address->tokens = full;
	else
		address->tokens += passed * rate;
	address->filled_ms = now_ms;
	if (address->tokens < TOKEN)
		return false;
	address->tokens -= TOKEN;
	return true;
}

static void
idle_add(GwAddress *address)
{
	address->older = newest;
	address->newer = NULL;
	if (newest != NULL)
		newest->newer = address;
	else
		oldest = address;
	newest = address;
	idle_count++;
}

static void
idle_remove(GwAddress *address)
{
	if (address->older != NULL)
		address->older->newer = address->newer;
	else
		oldest = address->newer;
	if (address->newer != NULL)
		address->newer->older = address->older;
	else
		newest = address->older;
	idle_count--;
}

/* address_forget frees an idle address. */
static void
address_forget(GwAddress *address)
{
	GwAddress **at = find_slot(address->key);

	*at = address->next_hash;
	idle_remove(address);
	known--;
	free(address);
}
