/*
 * database_internal.h
 *		What the files of one connection share: database.c has its states and
 *		what goes over it, checking.c what must hold before it is READY, and
 *		goes on to hold.
 */
#ifndef GW_DATABASE_INTERNAL_H
#define GW_DATABASE_INTERNAL_H

#include "database/database.h"

#include <libpq-fe.h>

#include "database/probe.h"
#include "database/resolve.h"
#include "net/loop.h"

#define CONNECT_MS			10000	/* what an attempt, and the checks, may
									 * take */
#define FIELD_MAX			256

/* What clients are told of libpq's faults, which name hosts and logins. */
#define NO_LINK			"there is no connection to the database"

typedef enum State
{
	AWAY,
	RESOLVING,
	CONNECTING,
	CHECKING,
	READY
} State;

/* What is kept of an error. */
enum
{
	SQLSTATE,
	MESSAGE,
	FIELDS
};

struct GwDatabase
{
	const GwConfig *config;
	const char *name;
	const GwDatabaseEvents *events;
	void	   *owner;
	State		state;
	PGconn	   *conn;
	GwWatch    *watch;
	GwTimer    *timer;			/* retry in AWAY, time limit before READY */
	GwResolve  *resolve;
	unsigned	failures;		/* in a row */
	int64_t		connect_ms;		/* what an attempt may take */
	size_t		syncs;			/* sent and not come back */
	int			step;			/* of CHECKING */
	PGresult   *result;			/* of the oldest batch, until its Sync */
	bool		failed;			/* the oldest batch */
	bool		unknown;
	bool		alone;			/* its commit is perhaps on no other server */
	bool		recheck;		/* the extension is not as it was */
	GwProbe		probe;
	int64_t		prove_until;
	char		error[FIELDS][FIELD_MAX];	/* of the oldest batch; empty:
											 * none */
	char		reason[512];	/* why it is not READY */
	const char *told;			/* what clients are told of that, a literal */
};

/* database.c */
extern void gw_database_move(GwDatabase *database, State state);
extern void gw_database_lose(GwDatabase *database, const char *reason);
extern void gw_database_lose_as(GwDatabase *database, const char *reason,
								const char *told);
extern void gw_database_flush(GwDatabase *database);
extern void gw_database_forget(GwDatabase *database);

/* checking.c */
extern void gw_checking_begin(GwDatabase *database);
extern void gw_checking_step(GwDatabase *database);
extern void gw_checking_probe(GwDatabase *database);
extern void gw_checking_probed(GwDatabase *database);

#endif							/* GW_DATABASE_INTERNAL_H */
