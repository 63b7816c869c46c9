/*
 * take.h
 *		How messages are claimed and acked: from the bus or from a base.
 */
#ifndef BENCH_TAKE_H
#define BENCH_TAKE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct TakeKind TakeKind;

typedef struct TakeOptions
{
	int			batch;
	int			wait_ms;		/* of a claim that finds nothing */
	const char *reader;			/* the subscription, or PgQ's consumer */
	int64_t		first;			/* kind "plain": it reads ids above this */
	int64_t		end;			/* and up to this */
} TakeOptions;

/* What one claim has got; reused by the next. */
typedef struct Taken
{
	int			n;
	int			room;
	int64_t    *ids;
	int64_t		lease;			/* the bus: of the claim; PgQ: the batch */
	char	   *array;			/* the ids as a bigint[] */
	int			array_size;
	int64_t		last;			/* kind "plain": how far it has read */
	int64_t		end;			/* and how far it will */
} Taken;

extern const TakeKind *take_kind(const char *name);
extern void take_prepare(const TakeKind *kind, PGconn *pg,
						 const TakeOptions *options, Taken *taken);
extern bool take_joined(const TakeKind *kind);
extern int	take_claim(const TakeKind *kind, PGconn *pg, const char *channel,
					   Taken *taken);
extern void take_ack(const TakeKind *kind, PGconn *pg, Taken *taken);

#endif							/* BENCH_TAKE_H */
