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
	const char *host;			/* loopback, without authentication */
	long		port;			/* 0: any free one */
	const char *role;			/* of every frame; empty: authentication */
	long		max_message;	/* bytes of one WebSocket message */
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
	long		max_connections;
	long		max_in_flight;	/* frames of one socket */
	long		max_buffered_mb;	/* frames of all sockets */
	long		send_timeout;	/* s that a socket may not read */
	bool		log_frames;		/* one line for each frame relayed */
	const char *anon_role;		/* of a client without a token */
	const char *audience;		/* of tokens; empty: any */
	long		token_skew;		/* s that clocks may differ */
	long		expiry_grace;	/* s to bring a fresh token */
	long		wait_connections;	/* for claims that wait */
	long		wait_secs;		/* s that a claim may wait */
} GwConfig;

typedef enum GwConfigAction
{
	GW_CONFIG_RUN,
	GW_CONFIG_CHECK,
	GW_CONFIG_HELP,
	GW_CONFIG_VERSION
} GwConfigAction;

/* Tells whether libpq can read a connection string, else why not. */
typedef bool (*GwUrlCheck) (const char *url, char *why, size_t size);

extern int	gw_config_read(GwConfig *config, GwConfigAction *action,
						   int argc, char **argv, GwUrlCheck check_url,
						   FILE *faults);
extern void gw_config_help(FILE *out);
extern void gw_config_print(const GwConfig *config, FILE *out);
extern void gw_config_free(void);
extern bool gw_config_authenticates(const GwConfig *config);
extern bool gw_host_is_loopback(const char *host);

#endif							/* GW_CONFIG_H */
