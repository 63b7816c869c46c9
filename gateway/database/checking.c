/*
 * checking.c
 *		What must hold before a connection relays, and goes on to hold: the
 *		steps of CHECKING, and the probe of a connection that is READY.
 */
#include "database/database_internal.h"

#include <stdlib.h>

#include "base/metrics.h"
#include "database/backend.h"
#include "database/check.h"

#define PROVE_MS			50

/* gw_checking_begin sends all steps of CHECKING, each with its own Sync. */
void
gw_checking_begin(GwDatabase *database)
{
	GwBuffer	sessions = {0};
	GwBuffer	frames = {0};

	gw_database_move(database, CHECKING);
	database->step = 0;
	database->recheck = false;
	database->prove_until = gw_now_ms() + CONNECT_MS;
	if (!gw_check_ping(database->config, &sessions, &frames))
		gw_database_lose(database, "out of memory");
	else if (!gw_check_send(database->conn, database->config))
		gw_database_lose_as(database, PQerrorMessage(database->conn), NO_LINK);
	else
	{
		database->syncs = GW_STEPS - 1;
		gw_database_send(database, &sessions, &frames, 0);
	}
	gw_buffer_free(&sessions);
	gw_buffer_free(&frames);
}

/*
 * gw_checking_step ends a step of CHECKING; after the last one it is READY, when its
 * backend is proven.
 */
void
gw_checking_step(GwDatabase *database)
{
	const char *fault = NULL;

	if (database->step == GW_STEP_FAULT)
		fault = gw_check_login(database->result, database->error[SQLSTATE],
							   database->error[MESSAGE]);
	else if (database->failed || database->unknown)
		fault = gw_check_failed(database->error[SQLSTATE],
								database->error[MESSAGE]);
	else if (database->step == GW_STEP_PING)
		fault = gw_check_reply(database->result);
	else if (database->step == GW_STEP_PROBE || database->step == GW_STEPS)
		fault = gw_probe_take(&database->probe, database->result,
							  PQbackendPID(database->conn));
	if (fault != NULL)
	{
		bool		ours = fault == gw_not_installed ||
		fault == gw_backend_fault;

		gw_database_lose_as(database, fault, ours ? fault :
							"the database does not let the gateway relay");
	}
	else
		gw_database_forget(database);
	if (fault != NULL ||
		(database->step < GW_STEPS && ++database->step < GW_STEPS))
		return;
	if (!gw_backend_is_proven(&database->probe.backend))
	{
		gw_timer_start(database->timer, database->probe.backend.own % 2 == 1 ?
					   0 : PROVE_MS + random() % PROVE_MS);
		return;
	}
	gw_timer_start(database->timer, GW_PROBE_MS);
	database->failures = 0;
	database->reason[0] = '\0';
	gw_counters.database_connects++;
	gw_database_move(database, READY);
}

/* gw_checking_probe sends a probe, behind what is in flight; one at a time. */
void
gw_checking_probe(GwDatabase *database)
{
	bool		ready = database->state == READY;

	gw_timer_start(database->timer, ready ? GW_PROBE_MS :
				   database->prove_until - gw_now_ms());
	if (database->probe.away > 0)
		return;
	database->syncs++;
	/* In CHECKING it is a step. */
	if (gw_probe_send(&database->probe, database->conn,
					  ready ? database->syncs : 0))
		gw_database_flush(database);
	else
		gw_database_lose_as(database, PQerrorMessage(database->conn), NO_LINK);
}

/* gw_checking_probed ends a probe of a connection that is READY. */
void
gw_checking_probed(GwDatabase *database)
{
	const char *fault = NULL;

	if (database->failed || database->unknown)
		database->recheck = gw_check_is_asked(database->error[SQLSTATE]);
	else
		fault = gw_probe_take(&database->probe, database->result,
							  PQbackendPID(database->conn));
	gw_database_forget(database);
	if (fault != NULL)
		gw_database_lose(database, fault);
}
