/*
 * config.h
 *		The gateway's settings. See config.c.
 */
#ifndef GW_CONFIG_H
#define GW_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define GW_MIB	((size_t) 1024 * 1024)

typedef struct GwConfig
{
	const char *database_url;	/* empty: libpq's defaults and PG* */
	const char *host;			/* address to listen on */
	long		port;			/* 0: any free one */
	bool		reuse_port;		/* shared with other processes */
	const char *admin_host;		/* of /healthz, /readyz and /metrics ... */
	long		admin_port;		/* ... on a port of their own; 0: none */
	bool		public_status;	/* they are on the clients' port, too */
	const char *http_host;		/* of the HTTP door ... */
	long		http_port;		/* ... 0: it is closed */
	long		http_downloads; /* at a time */
	long		http_per_client;	/* of these, of one token or address */
	const char *pages;			/* directory of /ui/ on the admin port */
	const char *tls_cert;		/* PEM files; empty: no TLS */
	const char *tls_key;
	const char *role;			/* that every frame runs as; empty: each
								 * session's own */
	const char *anon_role;		/* of a session without a role */
	const char *audience;		/* that tokens must have; empty: any */
	long		token_skew;		/* s */
	long		expiry_grace;	/* s that an expired session stays open */
	long		max_message;	/* bytes of one WebSocket message */
	long		anon_max;		/* of one of a client without a token */
	long		client_max;		/* of one that is sent, unless asked for more */
	long		tool_timeout;	/* s, of one relayed call */
	long		http_timeout;	/* s, of a handshake or an HTTP request */
	bool		enabled;
	long		ttl_hours;
	const char *compression;
	long		max_payload_mb;
	bool		checksum;
	long		breaker_threshold;
	long		breaker_timeout;	/* s */
	const char *supabase_url;
	const char *supabase_key;	/* secret */
	const char *origins;		/* comma-separated; empty: no browser */
	const char *hosts;			/* comma-separated; see access.c */
	long		max_connections;
	long		max_in_flight;	/* frames of one socket */
	long		max_buffered_mb;	/* frames of all sockets */
	long		max_unread_mb;	/* replies to all sockets */
	long		bulk_mb;		/* pieces of large bodies: relay/pool.c */
	long		send_timeout;	/* s that a socket may not read */
	long		idle_timeout;	/* s without a frame; 0: any */
	long		ping_secs;		/* s of silence before a ping; 0: none */
	long		wait_connections;	/* for claims that wait */
	long		wait_secs;		/* s that a claim may wait */
	const char *log_level;		/* the least that is logged */
	bool		log_frames;		/* one line for each frame relayed */
	const char *log_subjects;	/* hash, plain or none */
	char	   *file;			/* the text of .env */
} GwConfig;

/*
 * Checks that need a library; each tells why a value is not good, and tls
 * returns which of the two, NULL if both are.
 */
typedef struct GwConfigChecks
{
	bool		(*url) (const char *url, char *why, size_t size);
	const char *(*tls) (const char *cert, const char *key, char *why,
						size_t size);
} GwConfigChecks;

/* Called with each fault: a setting, file or line, and what is wrong. */
typedef void (*GwConfigFault) (const char *name, const char *why);

/* env_file is NULL for .env, if that exists. */
extern int	gw_config_read(GwConfig *config, const char *env_file,
						   const GwConfigChecks *checks, GwConfigFault tell,
						   FILE *show);
extern void gw_config_help(FILE *out);
extern void gw_config_free(GwConfig *config);
extern bool gw_config_authenticates(const GwConfig *config);
extern bool gw_host_is_loopback(const char *host);
extern bool gw_list_has(const char *list, const char *item, size_t length);

#endif							/* GW_CONFIG_H */
