/*
 * calls.h
 *		The calls that store messages.
 */
#ifndef BENCH_CALLS_H
#define BENCH_CALLS_H

#include <libpq-fe.h>
#include <stddef.h>
#include <stdint.h>

#define BATCH 100				/* messages of a call with several */
#define LARGE_BATCH 1000
#define POOL 32					/* different calls */

typedef struct Call Call;
typedef struct CallKind CallKind;

typedef struct CallOptions
{
	const char *channel;
	int64_t		ttl_us;			/* of a row */
	int64_t		next_id;		/* of a row; atomic */
} CallOptions;

extern CallOptions call_options;

/* calls.c */
extern const CallKind *call_kind(const char *name);
extern int	call_messages(const CallKind *kind);
extern Call *calls_make(const CallKind *kind);
extern void call_prepare(const CallKind *kind, PGconn *pg);
extern void call_send(const CallKind *kind, PGconn *pg, Call *calls,
					  long number);

#endif							/* BENCH_CALLS_H */
