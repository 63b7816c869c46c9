/*
 * resolve.c
 *		Host names to addresses, without blocking.
 *
 * libpq looks names up with a blocking getaddrinfo(). The gateway looks them
 * up itself before every attempt to connect, through getaddrinfo_a(), and
 * hands libpq addresses: "host" stays the name, for certificates, and
 * "hostaddr" is the address. A name with three addresses becomes three
 * entries. Paths of Unix sockets and addresses are passed on as they are.
 *
 * The C library may be writing into the requests until they are done, so a
 * GwResolve that is freed early is only marked, and frees itself later.
 */
#include "resolve.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>

#include "socket.h"

#define HOSTS_MAX	16
#define POLL_MS		20

struct GwResolve
{
	char	   *hosts;			/* cut into names */
	char	   *ports;
	const char *host[HOSTS_MAX];
	const char *port[HOSTS_MAX];
	size_t		count;
	size_t		first;			/* the host that the lists begin with */
	struct addrinfo hints;
	struct gaicb requests[HOSTS_MAX];
	struct gaicb *pointers[HOSTS_MAX];
	size_t		asked;
	GwTimer    *timer;
	GwResolved	done;
	void	   *owner;
	bool		abandoned;
};

static size_t cut_list(char *list, const char **items);
static bool host_is_name(const char *host);
static void resolve_poll(void *owner);
static void resolve_finish(GwResolve *resolve);
static void add_entry(GwBuffer *list, const char *string, size_t entry);
static void resolve_destroy(GwResolve *resolve);

/*
 * gw_resolve_start begins to look up comma-separated hosts; ports are one
 * for all or one for each. The lists begin at the host `first`, counted
 * round and round. It returns NULL if it cannot; `done` is called from the
 * loop, never from here.
 */
GwResolve *
gw_resolve_start(const char *hosts, const char *ports, size_t first,
				 GwResolved done, void *owner)
{
	GwResolve  *resolve = calloc(1, sizeof(GwResolve));
	size_t		given;
	size_t		i;

	if (resolve == NULL)
		return NULL;
	resolve->done = done;
	resolve->owner = owner;
	resolve->hosts = strdup(hosts);
	resolve->ports = strdup(ports);
	resolve->timer = gw_timer_create(resolve_poll, resolve);
	if (resolve->hosts == NULL || resolve->ports == NULL ||
		resolve->timer == NULL)
	{
		resolve_destroy(resolve);
		return NULL;
	}
	resolve->count = cut_list(resolve->hosts, resolve->host);
	resolve->first = first % resolve->count;
	given = cut_list(resolve->ports, resolve->port);
	resolve->hints.ai_socktype = SOCK_STREAM;
	for (i = 0; i < resolve->count; i++)
	{
		if (i >= given)
			resolve->port[i] = given == 1 ? resolve->port[0] : "";
		if (!host_is_name(resolve->host[i]))
			continue;
		resolve->requests[i].ar_name = resolve->host[i];
		resolve->requests[i].ar_request = &resolve->hints;
		resolve->pointers[resolve->asked++] = &resolve->requests[i];
	}
	if (resolve->asked > 0 &&
		getaddrinfo_a(GAI_NOWAIT, resolve->pointers, (int) resolve->asked,
					  NULL) != 0)
	{
		resolve_destroy(resolve);
		return NULL;
	}
	gw_timer_start(resolve->timer, resolve->asked > 0 ? POLL_MS : 0);
	return resolve;
}

/* gw_resolve_free forgets a lookup; `done` is not called any more. */
void
gw_resolve_free(GwResolve *resolve)
{
	resolve->abandoned = true;
}

/* cut_list cuts a list at its commas and returns the number of items. */
static size_t
cut_list(char *list, const char **items)
{
	size_t		count = 0;

	while (list != NULL && count < HOSTS_MAX)
	{
		char	   *comma = strchr(list, ',');

		if (comma != NULL)
			*comma++ = '\0';
		items[count++] = list;
		list = comma;
	}
	return count;
}

/* host_is_name tells a name from nothing, a path and an address. */
static bool
host_is_name(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];

	return host[0] != '\0' && host[0] != '/' && host[0] != '@' &&
		inet_pton(AF_INET, host, address) != 1 &&
		inet_pton(AF_INET6, host, address) != 1;
}

static void
resolve_poll(void *owner)
{
	GwResolve  *resolve = owner;
	size_t		i;

	for (i = 0; i < resolve->asked; i++)
		if (gai_error(resolve->pointers[i]) == EAI_INPROGRESS)
		{
			gw_timer_start(resolve->timer, POLL_MS);
			return;
		}
	if (!resolve->abandoned)
		resolve_finish(resolve);
	resolve_destroy(resolve);
}

static void
resolve_finish(GwResolve *resolve)
{
	GwBuffer	hosts = {0};
	GwBuffer	addresses = {0};
	GwBuffer	ports = {0};
	size_t		entries = 0;
	size_t		i;

	for (i = 0; i < resolve->count; i++)
	{
		size_t		host = (resolve->first + i) % resolve->count;
		const struct addrinfo *at = resolve->requests[host].ar_result;
		bool		name = resolve->requests[host].ar_name != NULL;
		char		address[INET6_ADDRSTRLEN] = "";

		do
		{
			if (name && (at == NULL ||
						 getnameinfo(at->ai_addr, at->ai_addrlen, address,
									 sizeof(address), NULL, 0,
									 NI_NUMERICHOST) != 0))
				break;
			add_entry(&hosts, resolve->host[host], entries);
			add_entry(&addresses, address, entries);
			add_entry(&ports, resolve->port[host], entries);
			entries++;
			at = name ? at->ai_next : NULL;
		} while (at != NULL);
	}
	gw_buffer_append(&hosts, "", 1);
	gw_buffer_append(&addresses, "", 1);
	gw_buffer_append(&ports, "", 1);
	resolve->done(resolve->owner,
				  entries > 0 && !hosts.failed && !addresses.failed &&
				  !ports.failed, &hosts, &addresses, &ports);
	gw_buffer_free(&hosts);
	gw_buffer_free(&addresses);
	gw_buffer_free(&ports);
}

static void
add_entry(GwBuffer *list, const char *string, size_t entry)
{
	if (entry > 0)
		gw_buffer_text(list, ",");
	gw_buffer_text(list, string);
}

static void
resolve_destroy(GwResolve *resolve)
{
	size_t		i;

	for (i = 0; i < resolve->asked; i++)
		if (resolve->pointers[i]->ar_result != NULL)
			freeaddrinfo(resolve->pointers[i]->ar_result);
	if (resolve->timer != NULL)
		gw_timer_free(resolve->timer);
	free(resolve->hosts);
	free(resolve->ports);
	free(resolve);
}
