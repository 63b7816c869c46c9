/*
 * take.c
 *		How messages are claimed and acked: from the bus or from a base.
 *
 * A claim and an ack are a round trip and a transaction each, prepared, with
 * binary results.
 *
 *	bus		claim_bytes() and ack() of its lease
 *	queue	a queue table (queue.sql): lock rows that are visible, skipping
 *			locked ones, and move their visibility time; DELETE them by id.
 *			A claim that a crash undoes is only a redelivery, so its commit
 *			need not wait for the disk, and does not; that of the DELETE does
 *	pgq		next_batch() and get_batch_events() in one statement;
 *			finish_batch().  Its claim does not wait for the disk either
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "take.h"

#define PAYLOAD 210				/* bytes of every message; see calls.c */

struct TakeKind
{
	const char *name;
	const char *claim;			/* with the batch size and the time to wait */
	const char *ack;
	bool		by_channel;		/* the claim's parameter */
	bool		by_ids;			/* the ack's parameter; else the lease */
	int			lease;			/* columns; -1: none */
	int			payload;
};

#define NOT_SYNCED \
	"(SELECT set_config('synchronous_commit', 'off', true)) = 'off'"

static const TakeKind kinds[] = {
	{"bus",
		"SELECT id, lease, payload FROM message_bus.claim_bytes($1,"
		" batch => %d, wait => '%d ms')",
	"SELECT message_bus.ack($1)", true, false, 1, 2},
	{"queue",
		"UPDATE bench.queue SET visible_at = now() + '30 seconds',"
		" attempts = attempts + 1"
		" WHERE ctid = ANY (ARRAY(SELECT ctid FROM bench.queue"
		" WHERE visible_at <= now() ORDER BY id LIMIT %d"
		" FOR UPDATE SKIP LOCKED)) AND " NOT_SYNCED
		" RETURNING id, attempts, payload",
	"DELETE FROM bench.queue WHERE id = ANY ($1)", false, true, -1, 2},
	{"pgq",
		"SELECT e.ev_id, b.id, e.ev_data FROM"
		" (SELECT pgq.next_batch('bench', 'bench') AS id) AS b,"
		" LATERAL pgq.get_batch_events(b.id) AS e"
		" WHERE b.id IS NOT NULL AND " NOT_SYNCED,
	"SELECT pgq.finish_batch($1)", false, false, 1, 2},
	{NULL}
};

/*
 * take_kind returns the kind of that name, or NULL.
 */
const TakeKind *
take_kind(const char *name)
{
	const TakeKind *kind;

	for (kind = kinds; kind->name; kind++)
	{
		if (strcmp(kind->name, name) == 0)
			return kind;
	}
	return NULL;
}

/*
 * take_prepare prepares a connection for claims of a batch, that wait as long
 * for a message where the kind can.
 */
void
take_prepare(const TakeKind *kind, PGconn *pg, int batch, int wait_ms)
{
	const Oid	channel = TEXTOID;
	const Oid	key = kind->by_ids ? INT8ARRAYOID : INT8OID;
	char		query[1024];

	/* tables whose statistics are of another time mislead the planner */
	pg_run(pg, "SET enable_seqscan = off; SET enable_bitmapscan = off");
	snprintf(query, sizeof(query), kind->claim, batch, wait_ms);
	pg_check(pg, PQprepare(pg, "claim", query, kind->by_channel, &channel),
			 PGRES_COMMAND_OK);
	pg_check(pg, PQprepare(pg, "ack", kind->ack, 1, &key), PGRES_COMMAND_OK);
}

static void
taken_room(Taken *taken, int n)
{
	if (n <= taken->room)
		return;
	taken->room = n;
	taken->ids = enlarge(taken->ids, (size_t) n * sizeof(int64_t));
	taken->array = enlarge(taken->array, 20 + (size_t) n * 12);
}

/*
 * take_claim claims and returns how many messages came.
 */
int
take_claim(const TakeKind *kind, PGconn *pg, const char *channel,
		   Taken *taken)
{
	PGresult   *result = PQexecPrepared(pg, "claim", kind->by_channel,
										&channel, NULL, NULL, 1);
	int			i;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("claim failed", PQerrorMessage(pg));
	taken->n = PQntuples(result);
	taken_room(taken, taken->n);
	for (i = 0; i < taken->n; i++)
	{
		taken->ids[i] = get_int64(PQgetvalue(result, i, 0));
		if (PQgetlength(result, i, kind->payload) != PAYLOAD)
			die("claim", "a payload has the wrong size");
	}
	if (kind->lease >= 0 && taken->n > 0)
		taken->lease = get_int64(PQgetvalue(result, 0, kind->lease));
	PQclear(result);
	return taken->n;
}

/* Makes a bigint[] of the ids and returns its size. */
static int
make_ids(Taken *taken)
{
	char	   *at = taken->array;
	int			i;

	at = put_int32(at, 1);		/* dimensions */
	at = put_int32(at, 0);		/* no NULL */
	at = put_int32(at, INT8OID);
	at = put_int32(at, (uint32_t) taken->n);
	at = put_int32(at, 1);		/* lower bound */
	for (i = 0; i < taken->n; i++)
		at = put_int64(put_int32(at, 8), (uint64_t) taken->ids[i]);
	return (int) (at - taken->array);
}

/*
 * take_ack acks all that the claim has got, and ends the program if the
 * server says it was another number of messages.
 */
void
take_ack(const TakeKind *kind, PGconn *pg, Taken *taken)
{
	char		lease[8];
	const char *value = kind->by_ids ? taken->array : lease;
	int			length = 8;
	const int	format = 1;
	int			n;
	PGresult   *result;

	if (kind->by_ids)
		length = make_ids(taken);
	else
		put_int64(lease, (uint64_t) taken->lease);
	result = PQexecPrepared(pg, "ack", 1, &value, &length, &format, 1);
	if (PQresultStatus(result) == PGRES_COMMAND_OK)
		n = atoi(PQcmdTuples(result));
	else if (PQresultStatus(result) == PGRES_TUPLES_OK)
		n = get_int32(PQgetvalue(result, 0, 0));
	else
		die("ack failed", PQerrorMessage(pg));
	PQclear(result);
	/* finish_batch() returns 1 for a batch of any size */
	if (n != taken->n && !(strcmp(kind->name, "pgq") == 0 && n == 1))
		die("ack", "another number of messages than was claimed");
}
