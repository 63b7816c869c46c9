/*
 * identity.h
 *		Who a connection is, and where that is known. See identity.c.
 */
#ifndef GW_IDENTITY_H
#define GW_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/buffer.h"
#include "base/log.h"
#include "base/metrics.h"
#include "request/frame.h"

/* Frames of a connection that are logged, each, in a second. */
#define GW_LOGS_FAILED		20
#define GW_LOGS_REFUSED		5

struct GwClient;
struct GwRequest;

/* What a session has in one queue: relay/queue.c. */
typedef struct GwTurn
{
	TAILQ_ENTRY(GwTurn) entry;
	TAILQ_HEAD(, GwRequest) requests;	/* oldest first */
	size_t		count;
	uint64_t	at;				/* when it is its turn */
} GwTurn;

typedef struct GwIdentity
{
	int64_t		session;		/* below 2^53 */
	size_t		references;
	struct GwClient *client;	/* NULL once its socket is gone */
	size_t		pending;		/* frames of it not yet answered */
	size_t		claiming;		/* of these, claims that may wait */
	size_t		buffered;		/* bytes of its frames: relay/intake.c */
	bool		stranger;		/* it has shown no token that is good */
	bool		unknown;		/* the database has not told who it is */
	bool		greeted;		/* and is asked */
	bool		leased;			/* it may have leases to be ended */
	GwBuffer	token;			/* secret; empty: anonymous */
	char		role[64];		/* for the log; empty: not known */
	char		subject[128];	/* for the log: plain, hashed, or empty */
	int64_t		failed_ms;		/* when a failed frame was logged first */
	unsigned	failed;			/* failed frames in the second from then on */
	unsigned	left_out;		/* of these, not logged */
	uint32_t	limit;			/* largest frame it asked for; 0: the default */
	GwBuffer	unwritten;		/* leases it has not learnt of: see client.c */
	GwBuffer	written;		/* the newest of those that it has */
	int			close_code;		/* of its socket */
	uint32_t	version;		/* of the token: each fresh one counts */
	bool		refused;		/* the database says no to this token */
	int64_t		since;			/* without a token: when it was opened first,
								 * as the database says; 0: not known */
	int64_t		expires_ms;		/* Unix time; 0: never */
	int64_t		expired_ms;		/* when the client was told; 0: not yet */
	GwTurn		turns[GW_LANES];	/* by queue */

	/* By database connection: the token it was given, and in which life. */
	struct
	{
		uint32_t	generation;
		uint32_t	version;
	}			opened[GW_CONNECTIONS_MAX];
} GwIdentity;

extern void gw_identities_init(const char *log_subjects);
extern GwIdentity *gw_identity_create(GwBuffer *token);
extern void gw_identity_log(const GwIdentity *identity, GwLogLine *line);
extern bool gw_identity_logs_failure(GwIdentity *identity, int64_t now_ms,
									 unsigned most);
extern void gw_identities_tell_left_out(int64_t now_ms);
extern void gw_identity_tell_left_out(GwIdentity *identity, int64_t now_ms);
extern void gw_identity_note_written(GwIdentity *identity,
									 const unsigned char *leases,
									 size_t length);
extern void gw_identity_release(GwIdentity *identity);
extern bool gw_identity_is_open(const GwIdentity *identity,
								size_t connection, uint32_t generation);
extern void gw_identity_mark(GwIdentity *identity, size_t connection,
							 uint32_t generation, uint32_t version);
extern bool gw_identity_take(GwIdentity *identity, size_t connection,
							 uint32_t generation, uint32_t version,
							 GwSpan json);

#endif							/* GW_IDENTITY_H */
