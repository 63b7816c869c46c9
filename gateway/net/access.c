/*
 * access.c
 *		Who may open a WebSocket, and who may ask over HTTP.
 *
 * Browsers let any page open a WebSocket to any address, a loopback one too,
 * but they say which page it is: a handshake with an Origin that is not
 * listed is refused. A page can also have its own name resolve to 127.0.0.1
 * (DNS rebinding) and then is of the same origin as what it talks to, but
 * its name still stands in Host: on a loopback address only the names of the
 * machine itself are answered, unless MESSAGE_BUS_HOSTS lists others.
 */
#include "net/access.h"

#include <string.h>
#include <strings.h>

/* What a Host header may name on a loopback address by default. */
static const char *const loopback_hosts = "localhost,127.0.0.1,[::1]";

/*
 * gw_host_may tells whether a Host header is answered, of who came by a
 * listener of this address. An entry of the list matches with any port, unless
 * it has a port itself; * matches any.
 */
bool
gw_host_may(const GwConfig *config, const char *listens, const char *host)
{
	const char *list = config->hosts;
	const char *bracket = host[0] == '[' ? strchr(host, ']') : NULL;
	size_t		length = strlen(host);
	size_t		name = bracket != NULL ? (size_t) (bracket - host) + 1 :
	strcspn(host, ":");

	if (host[name] != '\0' && host[name] != ':')
		name = length;
	if (list[0] == '\0')
	{
		if (!gw_host_is_loopback(listens))
			return true;
		/* Another address of 127.0.0.0/8 goes by its number. */
		if (name == strlen(listens) && strncasecmp(host, listens, name) == 0)
			return true;
		list = loopback_hosts;
	}
	return gw_list_has(list, "*", 1) || gw_list_has(list, host, length) ||
		gw_list_has(list, host, name);
}

/* gw_origin_may tells whether pages of an origin may connect. */
bool
gw_origin_may(const GwConfig *config, const char *origin)
{
	return gw_list_has(config->origins, origin, strlen(origin));
}

/*
 * gw_key_is compares a key with what was presented, in a time that does not
 * tell how much of it is right.
 */
bool
gw_key_is(const char *key, const char *presented)
{
	size_t		length = strlen(key);
	unsigned char differs = strlen(presented) != length;
	size_t		i;

	for (i = 0; presented[i] != '\0'; i++)
		differs |= (unsigned char) (presented[i] ^ key[i % (length + 1)]);
	return differs == 0;
}
