/*
 * take.c
 *		How messages are claimed and acked: from the bus or from a base.
 *
 * A claim and an ack are a round trip and a transaction each, prepared, with
 * binary results.
 *
 *	bus		claim_bytes() and ack() of its lease
 *	bus-ack	claim_bytes() that acks the lease of the one before
 *	queue	a queue table (queue.sql): lock rows that are visible, skipping
 *			locked ones, and move their visibility time; DELETE them by id.
 *			A claim that a crash undoes is only a redelivery, so its commit
 *			need not wait for the disk, and does not; that of the DELETE does
 *	indexed	the usual queue table: with an index on the visibility time, rows
 *			joined by id, and commits that wait for the disk
 *	peer	the queue table of peer.sql, by its functions: read() and remove()
 *	plain	no claim and no ack, but the least that they can be as statements:
 *			a SELECT of the reader's next rows by primary key, and an INSERT
 *			of one row into a table without an index
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
#define QUERY_SIZE 1024

/* What a statement's parameters are. */
typedef enum Parameters
{
	NOTHING,
	CHANNEL,
	CHANNEL_LEASE,				/* the lease of the claim before, or NULL */
	LEASE,
	IDS,
	RANGE						/* two ids */
} Parameters;

struct TakeKind
{
	const char *name;
	const char *claim;			/* {batch}, {wait}, {reader} are replaced */
	const char *ack;
	Parameters	claim_by;
	Parameters	ack_by;
	int			lease;			/* columns; -1: none */
	int			payload;		/* -1: not looked at, it is jsonb */
};

#define NOT_SYNCED \
	"(SELECT set_config('synchronous_commit', 'off', true)) = 'off'"

#define QUEUE_CLAIM(key, and) \
	"UPDATE bench.queue SET visible_at = now() + '30 seconds'," \
	" attempts = attempts + 1" \
	" WHERE " key " = ANY (ARRAY(SELECT " key " FROM bench.queue" \
	" WHERE visible_at <= now() ORDER BY id LIMIT {batch}" \
	" FOR UPDATE SKIP LOCKED))" and \
	" RETURNING id, attempts, payload"
#define QUEUE_ACK "DELETE FROM bench.queue WHERE id = ANY ($1)"

static const TakeKind kinds[] = {
	{"bus",
		"SELECT id, lease, payload FROM message_bus.claim_bytes($1,"
		" '{reader}', batch => {batch}, wait => '{wait} ms')",
	"SELECT message_bus.ack($1)", CHANNEL, LEASE, 1, 2},
	{"bus-ack",
		"SELECT id, lease, payload FROM message_bus.claim_bytes($1,"
		" '{reader}', batch => {batch}, wait => '{wait} ms', ack => $2)",
	"SELECT message_bus.ack($1)", CHANNEL_LEASE, LEASE, 1, 2},
	{"queue",
		QUEUE_CLAIM("ctid", " AND " NOT_SYNCED),
	QUEUE_ACK, NOTHING, IDS, -1, 2},
	{"indexed",
		QUEUE_CLAIM("id", ""),
	QUEUE_ACK, NOTHING, IDS, -1, 2},
	{"peer",
		"SELECT msg_id, read_ct, message FROM peer.read(30, {batch})",
	"SELECT count(*)::int4 FROM peer.remove($1)", NOTHING, IDS, -1, -1},
	{"plain",
		"SELECT id, attempts, payload FROM bench.queue"
		" WHERE id > $1 AND id <= $2 ORDER BY id LIMIT {batch}",
	"INSERT INTO bench.done (lo, hi) VALUES ($1, $2)", RANGE, RANGE, -1, 2},
	{"pgq",
		"SELECT e.ev_id, b.id, e.ev_data FROM"
		" (SELECT pgq.next_batch('bench', '{reader}') AS id) AS b,"
		" LATERAL pgq.get_batch_events(b.id) AS e"
		" WHERE b.id IS NOT NULL AND " NOT_SYNCED,
	"SELECT pgq.finish_batch($1)", NOTHING, LEASE, 1, 2},
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

/* Writes a query with its words in braces replaced. */
static void
make_query(char *to, const char *query, const TakeOptions *options)
{
	size_t		n = 0;

	while (*query)
	{
		char		value[32] = "";
		size_t		length;

		if (strncmp(query, "{batch}", 7) == 0)
			snprintf(value, sizeof(value), "%d", options->batch);
		else if (strncmp(query, "{wait}", 6) == 0)
			snprintf(value, sizeof(value), "%d", options->wait_ms);
		else if (strncmp(query, "{reader}", 8) == 0)
			snprintf(value, sizeof(value), "%s", options->reader);
		else
			value[0] = *query;
		length = strlen(value);
		if (n + length >= QUERY_SIZE)
			die("query", "too long");
		memcpy(to + n, value, length);
		n += length;
		query = *query == '{' ? strchr(query, '}') + 1 : query + 1;
	}
	to[n] = '\0';
}

/* How many parameters these are. */
static int
count(Parameters by)
{
	return by == NOTHING ? 0 : by == RANGE || by == CHANNEL_LEASE ? 2 : 1;
}

static void
prepare(PGconn *pg, const char *name, const char *query, Parameters by)
{
	Oid			types[] = {INT8OID, INT8OID};

	if (by == CHANNEL || by == CHANNEL_LEASE)
		types[0] = TEXTOID;
	if (by == IDS)
		types[0] = INT8ARRAYOID;
	pg_check(pg, PQprepare(pg, name, query, count(by), types),
			 PGRES_COMMAND_OK);
}

/*
 * take_prepare prepares a connection for claims of a batch, that wait as long
 * for a message where the kind can.
 */
void
take_prepare(const TakeKind *kind, PGconn *pg, const TakeOptions *options,
			 Taken *taken)
{
	char		query[QUERY_SIZE];

	/* tables whose statistics are of another time mislead the planner */
	pg_run(pg, "SET enable_seqscan = off; SET enable_bitmapscan = off");
	make_query(query, kind->claim, options);
	prepare(pg, "claim", query, kind->claim_by);
	prepare(pg, "ack", kind->ack, kind->ack_by);
	taken->last = options->first;
	taken->end = options->end;
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

/* Runs a prepared statement. */
static PGresult *
run(const char *name, Parameters by, PGconn *pg, const char *channel,
	const Taken *taken, int64_t from, int64_t to)
{
	char		numbers[2][8];
	const char *values[] = {numbers[0], numbers[1]};
	int			lengths[] = {8, 8};
	const int	formats[] = {1, 1};

	put_int64(numbers[0], (uint64_t) from);
	put_int64(numbers[1], (uint64_t) to);
	if (by == CHANNEL || by == CHANNEL_LEASE)
	{
		values[0] = channel;
		lengths[0] = (int) strlen(channel);
	}
	if (by == CHANNEL_LEASE)
	{
		put_int64(numbers[1], (uint64_t) taken->lease);
		if (taken->lease == 0)
			values[1] = NULL;
	}
	else if (by == IDS)
	{
		values[0] = taken->array;
		lengths[0] = taken->array_size;
	}
	return PQexecPrepared(pg, name, count(by), values, lengths, formats, 1);
}

/*
 * take_joined tells whether a claim also acks what the one before has got.
 */
bool
take_joined(const TakeKind *kind)
{
	return kind->claim_by == CHANNEL_LEASE;
}

/*
 * take_claim claims and returns how many messages came.
 */
int
take_claim(const TakeKind *kind, PGconn *pg, const char *channel,
		   Taken *taken)
{
	PGresult   *result = run("claim", kind->claim_by, pg, channel, taken,
							 taken->last, taken->end);
	int			i;

	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		die("claim failed", PQerrorMessage(pg));
	taken->n = PQntuples(result);
	taken_room(taken, taken->n);
	for (i = 0; i < taken->n; i++)
	{
		taken->ids[i] = get_int64(PQgetvalue(result, i, 0));
		if (kind->payload >= 0 &&
			PQgetlength(result, i, kind->payload) != PAYLOAD)
			die("claim", "a payload has the wrong size");
	}
	if (take_joined(kind))
		taken->lease = 0;
	if (kind->lease >= 0 && taken->n > 0)
		taken->lease = get_int64(PQgetvalue(result, 0, kind->lease));
	PQclear(result);
	return taken->n;
}

/* Makes a bigint[] of the ids. */
static void
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
	taken->array_size = (int) (at - taken->array);
}

/*
 * take_ack acks all that the claim has got, and ends the program if the
 * server says it was another number of messages.
 */
void
take_ack(const TakeKind *kind, PGconn *pg, Taken *taken)
{
	bool		counts = kind->ack_by != RANGE && strcmp(kind->name, "pgq") != 0;
	int64_t		from = kind->ack_by == RANGE ? taken->last : taken->lease;
	PGresult   *result;
	int			n;

	if (kind->ack_by == IDS)
		make_ids(taken);
	if (kind->claim_by == RANGE)
		taken->last = taken->ids[taken->n - 1];
	result = run("ack", kind->ack_by, pg, "", taken, from, taken->last);
	if (PQresultStatus(result) == PGRES_COMMAND_OK)
		n = atoi(PQcmdTuples(result));
	else if (PQresultStatus(result) == PGRES_TUPLES_OK)
		n = get_int32(PQgetvalue(result, 0, 0));
	else
		die("ack failed", PQerrorMessage(pg));
	PQclear(result);
	/* some return 1, whatever was acked */
	if (n != (counts ? taken->n : 1))
		die("ack", "another number of messages than was claimed");
}
