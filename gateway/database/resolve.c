/*
 * resolve.c
 *		Host names to addresses, without blocking.
 *
 * libpq looks names up with a blocking getaddrinfo(). The gateway looks them
 * up itself before every attempt to connect, through getaddrinfo_a(), and
 * hands libpq addresses: "host" stays the name, for certificates, and
 * "hostaddr" is the address. A name with three addresses becomes three
 * entries. Paths of Unix sockets are passed on as they are.
 *
 * The C library may be writing into the requests until they are done, so a
 * GwResolve that is freed early is only marked, and frees itself later.
 */
#include "database/resolve.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/loop.h"

#define HOSTS_MAX	16
#define POLL_MS		20

/* The lists that libpq takes. */
enum
{
	HOSTS,
	ADDRESSES,
	PORTS,
	LISTS
};

struct GwResolve
{
	char	   *hosts;			/* cut into names */
	char	   *ports;
	const char *host[HOSTS_MAX];
	const char *port[HOSTS_MAX];
	size_t		count;
	size_t		first;			/* the host that the lists begin with */
	struct gaicb requests[HOSTS_MAX];
	struct gaicb *pointers[HOSTS_MAX];	/* NULL: it is no name */
	GwBuffer	lists[LISTS];	/* each entry ends with a comma */
	GwTimer    *timer;
	GwResolved	done;
	void	   *owner;
	bool		abandoned;
};

static size_t cut_list(char *list, const char **items);
static void ask(GwResolve *resolve);
static void resolve_poll(void *owner);
static void add_host(GwResolve *resolve, size_t host);
static void add_entry(GwResolve *resolve, size_t host, const char *address);
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

	if (resolve == NULL)
		return NULL;
	resolve->hosts = strdup(hosts);
	resolve->ports = strdup(ports);
	resolve->first = first;
	resolve->done = done;
	resolve->owner = owner;
	resolve->timer = gw_timer_create(resolve_poll, resolve);
	if (resolve->hosts == NULL || resolve->ports == NULL ||
		resolve->timer == NULL)
	{
		resolve_destroy(resolve);
		return NULL;
	}
	ask(resolve);
	gw_timer_start(resolve->timer, 1);
	return resolve;
}

/* gw_resolve_free forgets a lookup, if there is one; `done` is not called any more. */
void
gw_resolve_free(GwResolve *resolve)
{
	if (resolve != NULL)
		resolve->abandoned = true;
}

/* ask asks for all that is not nothing or a path, addresses too. */
static void
ask(GwResolve *resolve)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	size_t		given = cut_list(resolve->ports, resolve->port);
	size_t		i;

	resolve->count = cut_list(resolve->hosts, resolve->host);
	for (i = 0; i < resolve->count; i++)
	{
		if (i >= given)
			resolve->port[i] = given == 1 ? resolve->port[0] : "";
		if (resolve->host[i][0] == '\0' || resolve->host[i][0] == '/' ||
			resolve->host[i][0] == '@')
			continue;
		resolve->requests[i].ar_name = resolve->host[i];
		resolve->requests[i].ar_request = &hints;
		resolve->pointers[i] = &resolve->requests[i];
	}
	/* If that fails some may have begun; what has not is without a result. */
	(void) getaddrinfo_a(GAI_NOWAIT, resolve->pointers, (int) resolve->count,
						 NULL);
}

/* cut_list cuts a list at its commas and returns the number of items. */
static size_t
cut_list(char *list, const char **items)
{
	size_t		count = 0;

	while (list != NULL && count < HOSTS_MAX)
		items[count++] = strsep(&list, ",");
	return count;
}

static void
resolve_poll(void *owner)
{
	GwResolve  *resolve = owner;
	GwBuffer   *lists = resolve->lists;
	bool		ok = true;
	size_t		i;

	for (i = 0; i < resolve->count; i++)
		if (resolve->pointers[i] != NULL &&
			gai_error(resolve->pointers[i]) == EAI_INPROGRESS)
		{
			gw_timer_start(resolve->timer, POLL_MS);
			return;
		}
	for (i = 0; i < resolve->count; i++)
		add_host(resolve, (resolve->first + i) % resolve->count);
	for (i = 0; i < LISTS; i++)
		if (lists[i].failed || lists[i].length == 0)
			ok = false;
		else
			lists[i].data[lists[i].length - 1] = '\0';
	if (!resolve->abandoned)
		resolve->done(resolve->owner, ok, &lists[HOSTS], &lists[ADDRESSES],
					  &lists[PORTS]);
	resolve_destroy(resolve);
}

/* add_host adds an entry for each address, none if there is no such name. */
static void
add_host(GwResolve *resolve, size_t host)
{
	const struct addrinfo *at = resolve->requests[host].ar_result;
	char		address[NI_MAXHOST];

	if (resolve->pointers[host] == NULL)
		add_entry(resolve, host, "");
	for (; at != NULL; at = at->ai_next)
		if (getnameinfo(at->ai_addr, at->ai_addrlen, address, sizeof(address),
						NULL, 0, NI_NUMERICHOST) == 0)
			add_entry(resolve, host, address);
}

static void
add_entry(GwResolve *resolve, size_t host, const char *address)
{
	const char *const strings[LISTS] = {resolve->host[host], address,
	resolve->port[host]};
	int			i;

	for (i = 0; i < LISTS; i++)
	{
		gw_buffer_text(&resolve->lists[i], strings[i]);
		gw_buffer_text(&resolve->lists[i], ",");
	}
}

static void
resolve_destroy(GwResolve *resolve)
{
	size_t		i;

	for (i = 0; i < resolve->count; i++)
		if (resolve->requests[i].ar_result != NULL)
			freeaddrinfo(resolve->requests[i].ar_result);
	for (i = 0; i < LISTS; i++)
		gw_buffer_free(&resolve->lists[i]);
	if (resolve->timer != NULL)
		gw_timer_free(resolve->timer);
	free(resolve->hosts);
	free(resolve->ports);
	free(resolve);
}
