/*
 * options.c
 *		The connection string, and what the gateway adds to it.
 */
#include "database/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void scan_options(const PQconninfoOption *option, const char **hosts,
						 const char **ports, bool *lookup);

/* gw_options_check_url tells whether libpq can read a connection string. */
bool
gw_options_check_url(const char *url, char *why, size_t size)
{
	PQconninfoOption *options;
	char	   *message = NULL;

	options = PQconninfoParse(url, &message);
	/* libpq's message may quote parts of the string: it is not repeated. */
	if (options == NULL)
		(void) snprintf(why, size, "is not a connection string of libpq;"
						" use postgresql://user@host:port/database");
	PQfreemem(message);
	PQconninfoFree(options);
	return options != NULL;
}

/*
 * gw_options_hosts finds the hosts to look up, and their ports: what the URL
 * says, else what libpq takes from the environment. It returns false where
 * that is not ours to do.
 */
bool
gw_options_hosts(const char *url, GwBuffer *hosts, GwBuffer *ports)
{
	PQconninfoOption *sources[] = {PQconndefaults(), PQconninfoParse(url, NULL)};
	const char *host = "";
	const char *port = "";
	bool		lookup = true;
	int			i;

	for (i = 0; i < 2; i++)
		scan_options(sources[i], &host, &port, &lookup);
	gw_buffer_append(hosts, host, strlen(host) + 1);
	gw_buffer_append(ports, port, strlen(port) + 1);
	lookup = lookup && host[0] != '\0' && !hosts->failed && !ports->failed;
	for (i = 0; i < 2; i++)
		PQconninfoFree(sources[i]);
	return lookup;
}

/*
 * gw_options_connect begins to connect, to these hosts unless they are NULL.
 * The connection string goes before what stands to its left, and after what
 * stands to its right.
 */
PGconn *
gw_options_connect(const char *url, const char *hosts, const char *addresses,
				   const char *ports)
{
	/* A host that vanished is noticed within a quarter of a minute. */
	const char *const names[] = {"application_name", "gssencmode",
		"keepalives_idle", "keepalives_interval", "keepalives_count",
		"tcp_user_timeout", "target_session_attrs", "dbname", "host",
	"hostaddr", "port", "client_encoding", NULL};
	const char *const values[] = {"message-bus-gateway", "disable", "5", "5",
		"2", "15000",
		getenv("PGTARGETSESSIONATTRS") == NULL ? "read-write" : NULL,
	url, hosts, addresses, ports, "UTF8", NULL};

	return PQconnectStartParams(names, values, 1);
}

/* scan_options finds the hosts to look up, if that is ours to do. */
static void
scan_options(const PQconninfoOption *option, const char **hosts,
			 const char **ports, bool *lookup)
{
	for (; option != NULL && option->keyword != NULL; option++)
	{
		if (option->val == NULL || option->val[0] == '\0')
			continue;
		if (strcmp(option->keyword, "host") == 0)
			*hosts = option->val;
		else if (strcmp(option->keyword, "port") == 0)
			*ports = option->val;
		else if (strcmp(option->keyword, "hostaddr") == 0 ||
				 strcmp(option->keyword, "service") == 0)
			*lookup = false;
	}
}
