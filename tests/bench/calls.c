/*
 * calls.c
 *		What a call stores: made up beforehand, completed when it is sent.
 *
 * Payloads are JSON texts of PAYLOAD bytes, no two alike among POOL batches.
 * A row of COPY or INSERT lacks only its id and its times until it is sent
 * (in the text format only its id), a message for the bus lacks nothing.
 */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calls.h"
#include "client.h"

#define PAYLOAD 210				/* bytes of a message */
#define ROW_MAX 1024			/* bytes of a message in a call's argument */

#define PG_EPOCH INT64_C(946684800)

#define TABLE_COPY "COPY bench.message FROM STDIN"
#define TABLE_INSERT "INSERT INTO bench.message" \
	" (id, created_at, expires_at, channel_id, size, publisher_id, run," \
	" encoding, sha256, payload, content_type)" \
	" VALUES ($1, $2, $3, 1, 210, 1, 1, 'n', $4, $5," \
	" 'application/octet-stream')"
#define PLAIN_INSERT "INSERT INTO peer.plain (id, at, payload)" \
	" VALUES ($1, $2, $3)"
#define PEER_SEND "SELECT peer.send_batch($1)"

#define QUEUE_INSERT "INSERT INTO bench.queue (payload)" \
	" SELECT unnest($1) RETURNING id"
#define PGQ_INSERT "SELECT pgq.insert_event('bench', 'bench'," \
	" convert_from(payload, 'UTF8')) FROM unnest($1) AS payload"

/* a part of a row that is filled in when it is sent */
typedef struct Hole
{
	size_t		id;
	size_t		created_at;
	size_t		expires_at;
} Hole;

/* a call's argument */
struct Call
{
	char	   *data;
	size_t		size;
	Hole		holes[BATCH];
	const char *payload;		/* of a single message */
	const unsigned char *digest;
};

struct CallKind
{
	const char *name;
	int			messages;		/* of a call */
	void		(*make) (Call *call, int number);	/* NULL: make_bytes() */
	void		(*prepare) (PGconn *pg);
	void		(*send) (PGconn *pg, Call *call);
};

CallOptions call_options = {"bench", INT64_C(86400000000), INT64_C(1) << 28};

static char payloads[POOL * BATCH][PAYLOAD + 1];
static unsigned char digests[POOL * BATCH][32];

/* The time as PostgreSQL counts it, in microseconds. */
static int64_t
timestamp_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ((int64_t) ts.tv_sec - PG_EPOCH) * 1000000 + ts.tv_nsec / 1000;
}

/* ----------
 * Making calls
 * ----------
 */

/*
 * payloads_make makes up the messages: JSON texts, no two alike.
 */
static void
payloads_make(void)
{
	static const char letters[] =
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ";
	int			i;
	int			j;

	for (i = 0; i < POOL * BATCH; i++)
	{
		char	   *payload = payloads[i];

		j = snprintf(payload, PAYLOAD, "{\"number\": %d, \"text\": \"", i);
		while (j < PAYLOAD - 2)
			payload[j++] = letters[random() % (long) (sizeof(letters) - 1)];
		memcpy(payload + j, "\"}", 3);
		if (EVP_Digest(payload, PAYLOAD, digests[i], NULL, EVP_sha256(),
					   NULL) != 1)
			die("SHA-256", "not available");
	}
}

/* A field of the binary COPY format. */
static char *
put_field(char *to, const void *value, size_t size)
{
	to = put_int32(to, (uint32_t) size);
	memcpy(to, value, size);
	return to + size;
}

static char *
put_text(char *to, const char *text)
{
	return put_field(to, text, strlen(text));
}

/* Leaves eight bytes to be filled in. */
static char *
put_hole(char *to, const Call *call, size_t *hole)
{
	to = put_int32(to, 8);
	*hole = (size_t) (to - call->data);
	return to + 8;
}

static char *
put_null(char *to)
{
	return put_int32(to, UINT32_MAX);
}

/* an array in its binary format; each element begins with that prefix */
static void
make_array(Call *call, int number, int messages, uint32_t type,
		   const char *prefix)
{
	size_t		length = strlen(prefix);
	char	   *at = call->data;
	int			i;

	at = put_int32(at, 1);		/* dimensions */
	at = put_int32(at, 0);		/* no NULL */
	at = put_int32(at, type);
	at = put_int32(at, (uint32_t) messages);
	at = put_int32(at, 1);		/* lower bound */
	for (i = 0; i < messages; i++)
	{
		at = put_int32(at, (uint32_t) (length + PAYLOAD));
		at = mempcpy(at, prefix, length);
		memcpy(at, payloads[(number * BATCH + i) % (POOL * BATCH)],
			   PAYLOAD);
		at += PAYLOAD;
	}
	call->size = (size_t) (at - call->data);
}

static void
make_bytes(Call *call, int number, int messages)
{
	make_array(call, number, messages, BYTEAOID, "");
}

/* jsonb has the version of its binary format before it */
static void
make_jsonb(Call *call, int number)
{
	make_array(call, number, BATCH, JSONBOID, "\1");
}

/* an array of publish_batch() */
static void
make_json(Call *call, int number)
{
	char	   *at = call->data;
	int			i;

	for (i = 0; i < BATCH; i++)
		at += sprintf(at, "%s{\"payload\":%s}", i == 0 ? "[" : ",",
					  payloads[number * BATCH + i]);
	strcpy(at, "]");
	call->size = (size_t) (at + 1 - call->data);
}

/* rows of COPY in the binary format, with its header and trailer */
static void
make_copy_binary(Call *call, int number)
{
	char	   *at = call->data;
	int			i;

	memcpy(at, "PGCOPY\n\377\r\n", 11);
	at = put_int32(at + 11, 0);
	at = put_int32(at, 0);
	for (i = 0; i < BATCH; i++)
	{
		int			message = number * BATCH + i;
		Hole	   *hole = &call->holes[i];
		char		four[4];
		int			null;

		at = put_int16(at, 19);
		at = put_hole(at, call, &hole->id);
		at = put_hole(at, call, &hole->created_at);
		at = put_hole(at, call, &hole->expires_at);
		put_int32(four, 1);
		at = put_field(at, four, 4);	/* channel_id */
		put_int32(four, PAYLOAD);
		at = put_field(at, four, 4);	/* size */
		put_int32(four, 1);
		at = put_field(at, four, 4);	/* publisher_id */
		put_int16(four, i == 0 ? BATCH : 0);
		at = put_field(at, four, 2);	/* run */
		at = put_text(at, "n"); /* encoding */
		at = put_field(at, digests[message], 32);
		at = put_field(at, payloads[message], PAYLOAD);
		at = put_text(at, "application/octet-stream");
		/* session, subject, key, key_hash, available_at, ... */
		for (null = 0; null < 8; null++)
			at = put_null(at);
	}
	at = put_int16(at, UINT16_MAX);
	call->size = (size_t) (at - call->data);
}

static char *
put_hex(char *to, const void *value, size_t size)
{
	static const char digit[] = "0123456789abcdef";
	const unsigned char *from = value;

	to = stpcpy(to, "\\\\x");
	while (size-- > 0)
	{
		*to++ = digit[*from >> 4];
		*to++ = digit[*from++ & 15];
	}
	return to;
}

/*
 * rows of COPY in the text format.  The id is of fixed width, so that it can
 * be filled in; the times are those of when the call was made.
 */
static void
make_copy_text(Call *call, int number)
{
	char	   *at = call->data;
	char		created[64];
	char		expires[64];
	time_t		now = time(NULL);
	time_t		later = now + (time_t) (call_options.ttl_us / 1000000);
	struct tm	tm;
	int			i;

	strftime(created, sizeof(created), "%F %T.123456+00", gmtime_r(&now, &tm));
	strftime(expires, sizeof(expires), "%F %T.123456+00",
			 gmtime_r(&later, &tm));
	for (i = 0; i < BATCH; i++)
	{
		int			message = number * BATCH + i;

		call->holes[i].id = (size_t) (at - call->data);
		at += sprintf(at, "%016d\t%s\t%s\t1\t%d\t1\t%d\tn\t", 0, created,
					  expires, PAYLOAD, i == 0 ? BATCH : 0);
		at = put_hex(at, digests[message], 32);
		*at++ = '\t';
		at = put_hex(at, payloads[message], PAYLOAD);
		at = stpcpy(at, "\tapplication/octet-stream\t\\N\t\\N\t\\N\t\\N"
					"\t\\N\t\\N\t\\N\t\\N\n");
	}
	call->size = (size_t) (at - call->data);
}

static void
make_single(Call *call, int number)
{
	call->payload = payloads[number * BATCH];
	call->digest = digests[number * BATCH];
}

/* ----------
 * Calling
 * ----------
 */

/*
 * Prepares a call of a publish function with one parameter, and what else is
 * said behind it.
 */
static void
prepare_function(PGconn *pg, const char *function, Oid type, const char *more)
{
	char		query[1024];
	const char *channel = call_options.channel;
	char	   *quoted = PQescapeLiteral(pg, channel, strlen(channel));

	if (quoted == NULL)
		die(channel, PQerrorMessage(pg));
	snprintf(query, sizeof(query), "SELECT message_bus.%s(%s, $1%s)",
			 function, quoted, more);
	PQfreemem(quoted);
	pg_check(pg, PQprepare(pg, "call", query, 1, &type),
			 PGRES_COMMAND_OK);
}

static void
prepare_array(PGconn *pg)
{
	prepare_function(pg, "publish_batch_bytes", BYTEAARRAYOID, "");
}

static void
prepare_json(PGconn *pg)
{
	prepare_function(pg, "publish_batch", JSONOID, "");
}

static void
prepare_publish(PGconn *pg)
{
	prepare_function(pg, "publish_bytes", BYTEAOID, "");
}

static void
prepare_content(PGconn *pg)
{
	prepare_function(pg, "publish_batch_bytes", BYTEAARRAYOID,
					 ", 'application/json'");
}

static void
prepare_single_content(PGconn *pg)
{
	prepare_function(pg, "publish_bytes", BYTEAOID, ", 'application/json'");
}

static void
prepare_peer(PGconn *pg)
{
	const Oid	type = JSONBARRAYOID;

	pg_check(pg, PQprepare(pg, "call", PEER_SEND, 1, &type),
			 PGRES_COMMAND_OK);
}

static void
prepare_plain(PGconn *pg)
{
	static const Oid types[3] = {INT8OID, TIMESTAMPTZOID, BYTEAOID};

	pg_check(pg, PQprepare(pg, "call", PLAIN_INSERT, 3, types),
			 PGRES_COMMAND_OK);
}

static void
prepare_queue(PGconn *pg)
{
	const Oid	type = BYTEAARRAYOID;

	pg_check(pg, PQprepare(pg, "call", QUEUE_INSERT, 1, &type),
			 PGRES_COMMAND_OK);
}

static void
prepare_pgq(PGconn *pg)
{
	const Oid	type = BYTEAARRAYOID;

	pg_check(pg, PQprepare(pg, "call", PGQ_INSERT, 1, &type),
			 PGRES_COMMAND_OK);
	pg_check(pg, PQprepare(pg, "tick", "SELECT pgq.ticker('bench')", 0, NULL),
			 PGRES_COMMAND_OK);
}

static void
prepare_insert(PGconn *pg)
{
	static const Oid types[5] = {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	BYTEAOID, BYTEAOID};

	pg_check(pg, PQprepare(pg, "call", TABLE_INSERT, 5, types),
			 PGRES_COMMAND_OK);
}

static void
prepare_nothing(PGconn *pg)
{
	(void) pg;
}

/* Returns the first of n ids that no other connection uses. */
static int64_t
take_ids(int n)
{
	return __atomic_fetch_add(&call_options.next_id, n, __ATOMIC_RELAXED);
}

/* Calls the prepared statement with one binary parameter. */
static void
call_one(PGconn *pg, const char *value, size_t size)
{
	const int	length = (int) size;
	const int	format = 1;

	pg_check(pg,
			 PQexecPrepared(pg, "call", 1, &value, &length, &format, 1),
			 PGRES_TUPLES_OK);
}

static void
send_argument(PGconn *pg, Call *call)
{
	call_one(pg, call->data, call->size);
}

/* Events of one transaction are never parted by a tick. */
static void
send_pgq(PGconn *pg, Call *call)
{
	send_argument(pg, call);
	pg_check(pg, PQexecPrepared(pg, "tick", 0, NULL, NULL, NULL, 1),
			 PGRES_TUPLES_OK);
}

static void
send_publish(PGconn *pg, Call *call)
{
	call_one(pg, call->payload, PAYLOAD);
}

static void
send_insert(PGconn *pg, Call *call)
{
	char		id[8];
	char		created_at[8];
	char		expires_at[8];
	const char *values[5] = {id, created_at, expires_at,
	(const char *) call->digest, call->payload};
	const int	lengths[5] = {8, 8, 8, 32, PAYLOAD};
	const int	formats[5] = {1, 1, 1, 1, 1};
	int64_t		now = timestamp_now();

	put_int64(id, take_ids(1));
	put_int64(created_at, now);
	put_int64(expires_at, now + call_options.ttl_us);
	pg_check(pg,
			 PQexecPrepared(pg, "call", 5, values, lengths, formats, 1),
			 PGRES_COMMAND_OK);
}

static void
send_plain(PGconn *pg, Call *call)
{
	char		id[8];
	char		at[8];
	const char *values[3] = {id, at, call->payload};
	const int	lengths[3] = {8, 8, PAYLOAD};
	const int	formats[3] = {1, 1, 1};

	put_int64(id, take_ids(1));
	put_int64(at, timestamp_now());
	pg_check(pg,
			 PQexecPrepared(pg, "call", 3, values, lengths, formats, 1),
			 PGRES_COMMAND_OK);
}

static void
send_copy(PGconn *pg, const char *query, const Call *call)
{
	pg_check(pg, PQexec(pg, query), PGRES_COPY_IN);
	if (PQputCopyData(pg, call->data, (int) call->size) != 1 ||
		PQputCopyEnd(pg, NULL) != 1)
		die("COPY", PQerrorMessage(pg));
	pg_check(pg, PQgetResult(pg), PGRES_COMMAND_OK);
	if (PQgetResult(pg) != NULL)
		die("COPY", "more than one result");
}

static void
send_copy_binary(PGconn *pg, Call *call)
{
	int64_t		now = timestamp_now();
	int64_t		id = take_ids(BATCH);
	int			i;

	for (i = 0; i < BATCH; i++)
	{
		const Hole *hole = &call->holes[i];

		put_int64(call->data + hole->id, id + i);
		put_int64(call->data + hole->created_at, now);
		put_int64(call->data + hole->expires_at, now + call_options.ttl_us);
	}
	send_copy(pg, TABLE_COPY " (FORMAT binary)", call);
}

static void
send_copy_text(PGconn *pg, Call *call)
{
	int64_t		id = take_ids(BATCH);
	int			i;

	for (i = 0; i < BATCH; i++)
	{
		char	   *digit = call->data + call->holes[i].id + 16;
		int64_t		left = id + i;

		while (left > 0)
		{
			*--digit = (char) ('0' + left % 10);
			left /= 10;
		}
	}
	send_copy(pg, TABLE_COPY, call);
}

static const CallKind kinds[] = {
	{"batch-bytes", BATCH, NULL, prepare_array, send_argument},
	{"batch-content", BATCH, NULL, prepare_content, send_argument},
	{"batch-large", LARGE_BATCH, NULL, prepare_array, send_argument},
	{"batch-json", BATCH, make_json, prepare_json, send_argument},
	{"copy-binary", BATCH, make_copy_binary, prepare_nothing, send_copy_binary},
	{"copy-text", BATCH, make_copy_text, prepare_nothing, send_copy_text},
	{"single-bytes", 1, make_single, prepare_publish, send_publish},
	{"single-content", 1, make_single, prepare_single_content, send_publish},
	{"single-insert", 1, make_single, prepare_insert, send_insert},
	{"queue-batch", BATCH, NULL, prepare_queue, send_argument},
	{"peer-batch", BATCH, make_jsonb, prepare_peer, send_argument},
	{"plain-insert", 1, make_single, prepare_plain, send_plain},
	{"pgq-batch", BATCH, NULL, prepare_pgq, send_pgq},
	{NULL}
};

/* ----------
 * What load.c uses
 * ----------
 */

/*
 * call_kind returns the kind of that name, or NULL.
 */
const CallKind *
call_kind(const char *name)
{
	const CallKind *kind;

	for (kind = kinds; kind->name; kind++)
	{
		if (strcmp(kind->name, name) == 0)
			return kind;
	}
	return NULL;
}

/*
 * call_messages returns how many messages a call of that kind stores.
 */
int
call_messages(const CallKind *kind)
{
	return kind->messages;
}

/*
 * calls_make returns POOL calls; one thread uses them.
 */
Call *
calls_make(const CallKind *kind)
{
	Call	   *calls = allocate(POOL * sizeof(Call));
	int			i;

	if (payloads[0][0] == '\0')
		payloads_make();
	for (i = 0; i < POOL; i++)
	{
		if (kind->messages > 1)
			calls[i].data = allocate((size_t) kind->messages * ROW_MAX);
		if (kind->make)
			kind->make(&calls[i], i);
		else
			make_bytes(&calls[i], i, kind->messages);
	}
	return calls;
}

/*
 * call_prepare prepares a connection for calls of a kind.
 */
void
call_prepare(const CallKind *kind, PGconn *pg)
{
	kind->prepare(pg);
}

/*
 * call_send makes the call with that number and waits for its end.
 */
void
call_send(const CallKind *kind, PGconn *pg, Call *calls, long number)
{
	kind->send(pg, &calls[number % POOL]);
}
