/*
 * backend.c
 *		Whether a connection has a backend of its own.
 *
 * A pooler in transaction mode lends a backend for one transaction at a time.
 * What the gateway keeps in a backend (settings, the relay prepared, sessions)
 * is then in another one the next time, or somebody else's. It may go well for
 * a while, as long as nobody else is about, so it is found out before a
 * connection is used:
 *
 *	- the process id that the server told at the start is not that of the
 *	  backend: there is a pooler, in whatever mode. A direct connection has
 *	  nothing to prove
 *	- such a connection asks for the process id again and again, and so do the
 *	  others. If it ever changes, or another connection has the same one, the
 *	  backend is not its own
 *	- when it has been seen, and others in between, some times it is taken for
 *	  its own. It is asked for as long as the connection lives
 *
 * Two connections that ask one after the other get the same backend of a
 * pooler that lends the one that was given back last. One that asks twice in a
 * row, as every second time here, gets two of a pooler that lends them in turn.
 */
#include "database/backend.h"

#include <stddef.h>

/* How often it is asked for, and others in between, until it is believed. */
#define OWN_SIGHTINGS	4
#define OTHER_SIGHTINGS	2

const char *const gw_backend_fault =
"the connection goes through a pooler in transaction mode, and must have a"
" backend of its own: connect directly, or through a pooler in session mode";

static LIST_HEAD(, GwBackend) backends = LIST_HEAD_INITIALIZER(backends);
static uint64_t sightings;		/* of pooled ones */

/*
 * gw_backend_saw takes note of the process id of a connection's backend, told
 * as this at its start. It returns false if the backend is not its own.
 */
bool
gw_backend_saw(GwBackend *backend, int pid, int told)
{
	GwBackend  *other;

	if (backend->pid == 0)
	{
		backend->pooled = pid != told;
		backend->first = sightings;
		LIST_INSERT_HEAD(&backends, backend, entry);
	}
	else if (backend->pid != pid)
		backend->shared = true;
	backend->pid = pid;
	if (!backend->pooled)
		return !backend->shared;
	sightings++;
	backend->own++;
	LIST_FOREACH(other, &backends, entry)
		if (other != backend && other->pooled && other->pid == pid)
		other->shared = backend->shared = true;
	return !backend->shared;
}

/* gw_backend_is_proven tells whether a connection may be used. */
bool
gw_backend_is_proven(const GwBackend *backend)
{
	return backend->pid != 0 && !backend->shared &&
		(!backend->pooled ||
		 (backend->own >= OWN_SIGHTINGS &&
		  sightings - backend->first - backend->own >= OTHER_SIGHTINGS));
}

/* gw_backend_forget: the connection is gone. */
void
gw_backend_forget(GwBackend *backend)
{
	static const GwBackend none;

	if (backend->pid != 0)
		LIST_REMOVE(backend, entry);
	*backend = none;
}
