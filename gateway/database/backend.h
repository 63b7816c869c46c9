/*
 * backend.h
 *		Whether a connection has a backend of its own. See backend.c.
 */
#ifndef GW_BACKEND_H
#define GW_BACKEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

/* What is known of the backend that serves a connection. */
typedef struct GwBackend
{
	LIST_ENTRY(GwBackend) entry;
	int			pid;			/* 0: not seen yet, and on no list */
	bool		pooled;			/* the server's pid is not the one it told */
	bool		shared;			/* it was another one's, too */
	uint64_t	own;			/* sightings of it */
	uint64_t	first;			/* which one the first was, of all */
} GwBackend;

extern const char *const gw_backend_fault;

extern bool gw_backend_saw(GwBackend *backend, int pid, int told);
extern bool gw_backend_is_proven(const GwBackend *backend);
extern void gw_backend_forget(GwBackend *backend);

#endif							/* GW_BACKEND_H */
