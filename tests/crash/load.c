/*-------------------------------------------------------------------------
 *
 * load.c
 *	  Publish random bytes from several connections while a server is killed
 *	  again and again, and afterwards compare what is stored.
 *
 * Usage:	crash_load publish CHANNEL LEDGER CONNECTIONS
 *			crash_load verify CHANNEL LEDGER
 *
 * The server is named by libpq's environment variables.
 *
 * "publish" keeps one call in flight on each connection.  A call publishes
 * one message, or BATCH messages that must be stored all or none.  Every
 * message has a transaction id that is used once.  When the outcome of a call
 * is known, or known to be unknown, each of its messages becomes a line of
 * the ledger:
 *
 *		outcome call transaction_id sha256 size id
 *
 * The outcome is A for acknowledged (the transaction's end was reported
 * without error), E for refused (an error was reported, and the connection
 * lives; the last column is the SQLSTATE) and U for unknown: the connection
 * broke after the call was sent, so the call was in flight when something was
 * killed.  Broken connections are opened again until SIGTERM, upon which the
 * calls in flight are finished.
 *
 * "verify" reads every acknowledged message back and compares its SHA-256,
 * computed here, with the ledger's; looks through the whole channel for
 * messages that were refused, appear twice or were never sent; and counts
 * calls of unknown outcome that are stored in part.  It prints one line of
 * counts, and its exit status is 0 if nothing is wrong.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BATCH 10				/* messages of a call with several */
#define MAX_CONNECTIONS 64
#define MAX_PAYLOAD (256 * 1024)
#define RETRY_MS 20
#define FINISH_MS 10000			/* patience for calls in flight at the end */

#define BYTEAOID 17
#define TEXTOID 25
#define SHA256_HEX 65

typedef enum Outcome
{
	ACKNOWLEDGED = 'A',
	REFUSED = 'E',
	UNKNOWN = 'U'
} Outcome;

typedef enum LinkState
{
	LINK_DOWN,					/* to be opened at retry_at */
	LINK_OPENING,
	LINK_IDLE,
	LINK_BUSY					/* a call is in flight */
} LinkState;

/* one message of a call in flight */
typedef struct Message
{
	char		transaction_id[48];
	char		sha256[SHA256_HEX];
	size_t		size;
	char		id[24];
} Message;

/* one connection and the call in flight on it */
typedef struct Link
{
	PGconn	   *pg;
	LinkState	state;
	short		events;			/* what to poll for while opening */
	int64_t		retry_at;
	uint64_t	call;
	int			count;
	Message		messages[BATCH];
	char		sqlstate[6];	/* of the call's error, or empty */
} Link;

/* a line of the ledger */
typedef struct Entry
{
	char		outcome;
	uint64_t	call;
	char		transaction_id[48];
	char		sha256[SHA256_HEX];
	size_t		size;
	char		id[24];
	bool		found;
} Entry;

/* what "verify" found */
typedef struct Findings
{
	long		acknowledged;
	long		unknown;
	long		unknown_found;
	long		refused;
	long		lost;			/* acknowledged, and not there */
	long		wrong;			/* there with other bytes or another id */
	long		partial;		/* calls stored in part */
	long		strange;		/* there, and refused, doubled or not sent */
} Findings;

static volatile sig_atomic_t stopping = false;
static const char *channel;
static FILE *ledger;
static uint64_t calls = 0;

static void
die(const char *what, const char *why)
{
	fprintf(stderr, "crash_load: %s: %s\n", what, why);
	exit(2);
}

static void
handle_stop(int signo)
{
	(void) signo;
	stopping = true;
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * sha256_hex writes the SHA-256 of data in hexadecimal.
 */
static void
sha256_hex(const void *data, size_t size, char *hex)
{
	unsigned char digest[32];
	int			i;

	if (EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL) != 1)
		die("SHA-256", "not available");
	for (i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/*
 * random_size returns a size: mostly small, sometimes one that is compressed
 * and stored in chunks.
 */
static size_t
random_size(bool several)
{
	if (several)
		return 1 + (size_t) (random() % 1000);
	if (random() % 32 == 0)
		return (size_t) (MAX_PAYLOAD / 4 + random() % (MAX_PAYLOAD * 3 / 4));
	return 1 + (size_t) (random() % 4000);
}

static char *
put_int32(char *to, uint32_t value)
{
	to[0] = (char) (value >> 24);
	to[1] = (char) (value >> 16);
	to[2] = (char) (value >> 8);
	to[3] = (char) value;
	return to + 4;
}

/*
 * message_make makes up a message of a call at "payload" and notes it.
 */
static void
message_make(Link *link, int i, char *payload, size_t size)
{
	Message    *message = &link->messages[i];

	if (RAND_bytes((unsigned char *) payload, (int) size) != 1)
		die("random bytes", "not available");
	snprintf(message->transaction_id, sizeof(message->transaction_id),
			 "%ld-%" PRIu64 "-%d", (long) getpid(), link->call, i);
	message->size = size;
	strcpy(message->id, "-");
	sha256_hex(payload, size, message->sha256);
}

/*
 * send_single sends a call with one message.
 */
static int
send_single(Link *link)
{
	static char payload[MAX_PAYLOAD];
	static const Oid types[3] = {TEXTOID, BYTEAOID, TEXTOID};
	const char *values[3] = {channel, payload, NULL};
	const int	formats[3] = {0, 1, 0};
	int			lengths[3] = {0, 0, 0};
	size_t		size = random_size(false);

	message_make(link, 0, payload, size);
	lengths[1] = (int) size;
	values[2] = link->messages[0].transaction_id;
	return PQsendQueryParams(link->pg,
							 "SELECT message_bus.publish_bytes($1, $2, "
							 "transaction_id => $3)",
							 3, types, values, lengths, formats, 0);
}

/*
 * send_batch sends a call with BATCH messages, as an array of bytea.
 */
static int
send_batch(Link *link)
{
	static char array[20 + BATCH * (4 + 1000)];
	char		ids[BATCH * sizeof(link->messages[0].transaction_id) + 2] = "{";
	static const Oid types[3] = {TEXTOID, 1001, 1009};	/* bytea[], text[] */
	const char *values[3] = {channel, array, ids};
	const int	formats[3] = {0, 1, 0};
	int			lengths[3] = {0, 0, 0};
	char	   *at = array;
	int			i;

	at = put_int32(at, 1);		/* dimensions */
	at = put_int32(at, 0);		/* no NULL */
	at = put_int32(at, BYTEAOID);
	at = put_int32(at, BATCH);
	at = put_int32(at, 1);		/* lower bound */
	for (i = 0; i < BATCH; i++)
	{
		size_t		size = random_size(true);

		at = put_int32(at, (uint32_t) size);
		message_make(link, i, at, size);
		at += size;
		strcat(ids, link->messages[i].transaction_id);
		strcat(ids, i < BATCH - 1 ? "," : "}");
	}
	lengths[1] = (int) (at - array);
	return PQsendQueryParams(link->pg,
							 "SELECT unnest(message_bus.publish_batch_bytes("
							 "$1, $2, transaction_ids => $3))",
							 3, types, values, lengths, formats, 0);
}

/*
 * call_end writes the call in flight to the ledger.
 */
static void
call_end(Link *link, Outcome outcome)
{
	int			i;

	for (i = 0; i < link->count; i++)
	{
		const Message *message = &link->messages[i];

		fprintf(ledger, "%c %" PRIu64 " %s %s %zu %s\n",
				outcome, link->call, message->transaction_id,
				message->sha256, message->size,
				outcome == REFUSED ? link->sqlstate :
				outcome == UNKNOWN ? "-" : message->id);
	}
	if (fflush(ledger) != 0)
		die("ledger", strerror(errno));
	link->state = LINK_IDLE;
}

/*
 * link_down closes a connection that broke.
 */
static void
link_down(Link *link)
{
	if (link->state == LINK_BUSY)
		call_end(link, UNKNOWN);
	PQfinish(link->pg);
	link->pg = NULL;
	link->state = LINK_DOWN;
	link->retry_at = now_ms() + RETRY_MS;
}

/*
 * link_send sends the next call.
 */
static void
link_send(Link *link)
{
	int			sent;

	link->call = ++calls;
	link->count = link->call % 4 == 0 ? BATCH : 1;
	link->sqlstate[0] = '\0';
	sent = link->count == 1 ? send_single(link) : send_batch(link);
	link->state = LINK_BUSY;
	if (!sent)
		link_down(link);
}

/*
 * link_result takes in one result of the call in flight.
 */
static void
link_result(Link *link, PGresult *result)
{
	int			i;

	if (PQresultStatus(result) == PGRES_TUPLES_OK &&
		PQntuples(result) == link->count)
	{
		for (i = 0; i < link->count; i++)
			snprintf(link->messages[i].id, sizeof(link->messages[i].id), "%s",
					 PQgetvalue(result, i, 0));
	}
	else
	{
		const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

		snprintf(link->sqlstate, sizeof(link->sqlstate), "%s",
				 sqlstate ? sqlstate : "?????");
	}
	PQclear(result);
}

/*
 * link_receive reads what has come for the call in flight.  The call ends
 * when libpq returns NULL: the server has said that it is ready for the next
 * query, so the transaction has ended.
 */
static void
link_receive(Link *link)
{
	if (!PQconsumeInput(link->pg))
	{
		link_down(link);
		return;
	}
	while (link->state == LINK_BUSY && !PQisBusy(link->pg))
	{
		PGresult   *result = PQgetResult(link->pg);

		if (result)
			link_result(link, result);
		else if (PQstatus(link->pg) != CONNECTION_OK)
			link_down(link);
		else
			call_end(link, link->sqlstate[0] ? REFUSED : ACKNOWLEDGED);
	}
}

/*
 * ignore_notice leaves out the warnings of servers that are killed.
 */
static void
ignore_notice(void *arg, const char *message)
{
	(void) arg;
	(void) message;
}

/*
 * link_open moves a connection that is down or being opened on.
 */
static void
link_open(Link *link)
{
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	if (link->state == LINK_DOWN)
	{
		link->pg = PQconnectStart("application_name=crash_load");
		PQsetNoticeProcessor(link->pg, ignore_notice, NULL);
		link->state = LINK_OPENING;
		if (PQstatus(link->pg) == CONNECTION_BAD)
			status = PGRES_POLLING_FAILED;
	}
	else
		status = PQconnectPoll(link->pg);

	if (status == PGRES_POLLING_FAILED)
		link_down(link);
	else if (status == PGRES_POLLING_OK)
		link->state = LINK_IDLE;
	else
		link->events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT;
}

/*
 * link_prepare does what can be done at once and returns what to poll for.
 */
static struct pollfd
link_prepare(Link *link)
{
	struct pollfd fd = {-1, 0, 0};

	if (link->state == LINK_DOWN && !stopping && now_ms() >= link->retry_at)
		link_open(link);
	if (link->state == LINK_IDLE && !stopping)
		link_send(link);
	if (link->state == LINK_OPENING)
		fd.events = link->events;
	else if (link->state == LINK_BUSY)
	{
		/* libpq may not have sent all of it; this blocks for a moment only */
		if (PQflush(link->pg) < 0)
		{
			link_down(link);
			return fd;
		}
		fd.events = POLLIN;
	}
	if (fd.events)
		fd.fd = PQsocket(link->pg);
	return fd;
}

static void
publish(int count)
{
	static Link links[MAX_CONNECTIONS];
	struct pollfd fds[MAX_CONNECTIONS];
	int64_t		deadline = 0;
	int			busy = 1;
	int			i;

	while (!stopping || busy > 0)
	{
		if (stopping && deadline == 0)
			deadline = now_ms() + FINISH_MS;
		if (deadline && now_ms() > deadline)
			die("publish", "calls in flight did not end");
		for (i = 0; i < count; i++)
			fds[i] = link_prepare(&links[i]);
		if (poll(fds, (nfds_t) count, RETRY_MS) < 0 && errno != EINTR)
			die("poll", strerror(errno));
		for (busy = 0, i = 0; i < count; i++)
		{
			if (fds[i].fd >= 0 && fds[i].revents)
			{
				if (links[i].state == LINK_BUSY)
					link_receive(&links[i]);
				else if (links[i].state == LINK_OPENING)
					link_open(&links[i]);
			}
			busy += links[i].state == LINK_BUSY;
		}
	}
	for (i = 0; i < count; i++)
		PQfinish(links[i].pg);
}

static int
entry_compare(const void *a, const void *b)
{
	return strcmp(((const Entry *) a)->transaction_id,
				  ((const Entry *) b)->transaction_id);
}

static int
entry_compare_call(const void *a, const void *b)
{
	uint64_t	x = ((const Entry *) a)->call;
	uint64_t	y = ((const Entry *) b)->call;

	return (x > y) - (x < y);
}

/*
 * ledger_read returns the entries of the ledger, sorted by transaction id.
 */
static Entry *
ledger_read(size_t *count)
{
	Entry	   *entries = NULL;
	Entry		entry = {0};
	size_t		space = 0;

	*count = 0;
	while (fscanf(ledger, " %c %" SCNu64 " %47s %64s %zu %23s",
				  &entry.outcome, &entry.call, entry.transaction_id,
				  entry.sha256, &entry.size, entry.id) == 6)
	{
		if (*count == space)
		{
			space = space ? 2 * space : 1024;
			entries = realloc(entries, space * sizeof(Entry));
			if (entries == NULL)
				die("ledger", "out of memory");
		}
		entries[(*count)++] = entry;
	}
	if (!feof(ledger) || entries == NULL)
		die("ledger", "is empty, or a line is not understood");
	qsort(entries, *count, sizeof(Entry), entry_compare);
	return entries;
}

/*
 * entry_bytes_match reads a message's bytes and says whether they are those
 * that were published.
 */
static bool
entry_bytes_match(PGconn *pg, const Entry *entry, const char *id)
{
	PGresult   *result;
	char		sha256[SHA256_HEX];
	bool		match;

	result = PQexecParams(pg, "SELECT message_bus.get_bytes($1)",
						  1, NULL, &id, NULL, NULL, 1);
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		die("get_bytes", PQerrorMessage(pg));
	sha256_hex(PQgetvalue(result, 0, 0), (size_t) PQgetlength(result, 0, 0),
			   sha256);
	match = !PQgetisnull(result, 0, 0) &&
		(size_t) PQgetlength(result, 0, 0) == entry->size &&
		strcmp(sha256, entry->sha256) == 0;
	PQclear(result);
	return match;
}

/*
 * verify_row compares one message of the channel with the ledger.
 */
static void
verify_row(PGconn *pg, Entry *entries, size_t count, PGresult *result,
		   int row, Findings *findings)
{
	const char *id = PQgetvalue(result, row, 0);
	Entry		key = {0};
	Entry	   *entry;

	snprintf(key.transaction_id, sizeof(key.transaction_id), "%s",
			 PQgetvalue(result, row, 1));
	entry = bsearch(&key, entries, count, sizeof(Entry), entry_compare);
	if (entry == NULL || entry->outcome == REFUSED || entry->found)
	{
		findings->strange++;
		return;
	}
	entry->found = true;
	if (entry->outcome == UNKNOWN)
		findings->unknown_found++;
	if ((entry->outcome == ACKNOWLEDGED && strcmp(entry->id, id) != 0) ||
		strcmp(entry->sha256, PQgetvalue(result, row, 2)) != 0 ||
		!entry_bytes_match(pg, entry, id))
		findings->wrong++;
}

/*
 * verify_channel reads the whole channel.
 */
static void
verify_channel(PGconn *pg, Entry *entries, size_t count, Findings *findings)
{
	char		after[24] = "0";
	int			rows;

	do
	{
		const char *values[2] = {channel, after};
		PGresult   *result;
		int			row;

		result = PQexecParams(pg,
							  "SELECT id, transaction_id, "
							  "encode(sha256, 'hex') "
							  "FROM message_bus.peek($1, $2::bigint, 1000)",
							  2, NULL, values, NULL, NULL, 0);
		if (PQresultStatus(result) != PGRES_TUPLES_OK)
			die("peek", PQerrorMessage(pg));
		rows = PQntuples(result);
		for (row = 0; row < rows; row++)
			verify_row(pg, entries, count, result, row, findings);
		if (rows > 0)
			snprintf(after, sizeof(after), "%s",
					 PQgetvalue(result, rows - 1, 0));
		PQclear(result);
	} while (rows > 0);
}

/*
 * verify_calls looks for calls that are stored in part, and for messages
 * that are lost.
 */
static void
verify_calls(Entry *entries, size_t count, Findings *findings)
{
	size_t		first = 0;

	qsort(entries, count, sizeof(Entry), entry_compare_call);
	while (first < count)
	{
		size_t		next = first;
		size_t		found = 0;

		for (; next < count && entries[next].call == entries[first].call;
			 next++)
		{
			const Entry *entry = &entries[next];

			found += entry->found;
			findings->acknowledged += entry->outcome == ACKNOWLEDGED;
			findings->unknown += entry->outcome == UNKNOWN;
			findings->refused += entry->outcome == REFUSED;
			findings->lost += entry->outcome == ACKNOWLEDGED && !entry->found;
		}
		findings->partial += found > 0 && found < next - first;
		first = next;
	}
}

static int
verify(void)
{
	PGconn	   *pg = PQconnectdb("application_name=crash_verify");
	Findings	findings = {0};
	Entry	   *entries;
	size_t		count;

	if (PQstatus(pg) != CONNECTION_OK)
		die("connection", PQerrorMessage(pg));
	entries = ledger_read(&count);
	verify_channel(pg, entries, count, &findings);
	verify_calls(entries, count, &findings);
	printf("acknowledged=%ld unknown=%ld unknown_found=%ld refused=%ld "
		   "lost=%ld wrong=%ld partial=%ld strange=%ld\n",
		   findings.acknowledged, findings.unknown, findings.unknown_found,
		   findings.refused, findings.lost, findings.wrong, findings.partial,
		   findings.strange);
	free(entries);
	PQfinish(pg);
	return findings.lost + findings.wrong + findings.partial +
		findings.strange > 0;
}

int
main(int argc, char **argv)
{
	bool		publishing = argc == 5 && strcmp(argv[1], "publish") == 0;
	bool		verifying = argc == 4 && strcmp(argv[1], "verify") == 0;

	if (!publishing && !verifying)
		die("usage", "publish CHANNEL LEDGER CONNECTIONS | "
			"verify CHANNEL LEDGER");
	channel = argv[2];
	ledger = fopen(argv[3], publishing ? "a" : "r");
	if (ledger == NULL)
		die(argv[3], strerror(errno));
	if (publishing)
	{
		long		count = strtol(argv[4], NULL, 10);

		if (count < 1 || count > MAX_CONNECTIONS)
			die("usage", "CONNECTIONS is out of range");
		srandom((unsigned) (time(NULL) ^ getpid()));
		signal(SIGTERM, handle_stop);
		signal(SIGPIPE, SIG_IGN);
		publish((int) count);
		return 0;
	}
	return verify();
}
