/*-------------------------------------------------------------------------
 *
 * latency.c
 *	  How soon a waiting claim returns, and what waiting costs.
 *
 * Usage:	bench_latency [-n TIMES] wake
 *			bench_latency [-n TIMES] delayed
 *			bench_latency [-c SESSIONS] -o SQL idle
 *
 * The server is named by libpq's environment variables; the channel is
 * "bench".  One session waits in claim_bytes() for one message; when it has
 * got one it acks it, and waits again.
 *
 * wake		TIMES (500) times, in turn and with pauses: a row is inserted into
 *			bench.message, and a message is published.  Prints percentiles in
 *			microseconds: "insert", the round trip of the one; "wake", from
 *			the sending of the other to the return of the claim in the waiting
 *			session; "publish", its own round trip.  All by one clock.
 *
 * delayed	TIMES (20) times: publishes DELAYED messages that are delayed by
 *			200 ms to 1 s, and waits for all.  Prints percentiles of
 *			"lateness": from available_at to the end of the claim, by the
 *			server's clock; the number of messages; and how many came early.
 *
 * idle		Opens SESSIONS (100) sessions that all run the statement, prints
 *			"ready" when they have had time to fall asleep, and goes on until
 *			the end of its input.  It fails if one has returned by then.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calls.h"
#include "client.h"
#include "take.h"

#define PAUSE_NS INT64_C(10000000)
#define SETTLE_NS INT64_C(3000000000)
#define WARM_UP 20
#define DELAYED 10				/* messages at a time */
#define MAX_SESSIONS 1000

#define DELAYED_PUBLISH "SELECT message_bus.publish_bytes('bench', 'delayed'," \
	" delay => $1::float8 * interval '1 ms')"
#define DELAYED_CLAIM "SELECT id, lease," \
	" (extract(epoch FROM clock_timestamp()) * 1000000)::bigint" \
	" FROM message_bus.claim_bytes('bench', wait => '10 s')"
#define DELAYED_DUE \
	"SELECT (extract(epoch FROM available_at) * 1000000)::bigint" \
	" FROM message_bus.message WHERE id = $1"

/* a session that waits for a message */
typedef struct Waiter
{
	pthread_t	thread;
	PGconn	   *pg;
	Taken		taken;
	long		times;
	int64_t		returned;		/* the last claim */
	sem_t		got;
} Waiter;

static int	sessions = 100;
static long times = 0;
static const char *statement = NULL;

static void
report(const char *name, int64_t *values, size_t n)
{
	sort_numbers(values, n);
	printf("%s_p50_us %.1f %s_p99_us %.1f %s_max_us %.1f ",
		   name, percentile_us(values, n, 0.5),
		   name, percentile_us(values, n, 0.99),
		   name, percentile_us(values, n, 1));
}

/* ----------
 * wake
 * ----------
 */

static void *
waiter_main(void *arg)
{
	Waiter	   *waiter = arg;
	const TakeKind *bus = take_kind("bus");
	long		i;

	for (i = 0; i < waiter->times; i++)
	{
		if (take_claim(bus, waiter->pg, "bench", &waiter->taken) != 1)
			die("claim", "waited in vain");
		waiter->returned = now_ns();
		sem_post(&waiter->got);
		take_ack(bus, waiter->pg, &waiter->taken);
	}
	return NULL;
}

static int64_t
timed_call(const CallKind *kind, PGconn *pg, Call *calls, long i)
{
	int64_t		start;

	sleep_ns(PAUSE_NS + random() % PAUSE_NS);
	start = now_ns();
	call_send(kind, pg, calls, i);
	return start;
}

static void
run_wake(void)
{
	const CallKind *insert = call_kind("single-insert");
	const CallKind *publish = call_kind("single-bytes");
	Call	   *inserts = calls_make(insert);
	Call	   *publishes = calls_make(publish);
	PGconn	   *insert_pg = connect_server();
	PGconn	   *publish_pg = connect_server();
	int64_t    *insert_ns = allocate((size_t) times * sizeof(int64_t));
	int64_t    *publish_ns = allocate((size_t) times * sizeof(int64_t));
	int64_t    *wake_ns = allocate((size_t) times * sizeof(int64_t));
	TakeOptions options = {1, 10000, "default", 0, 0};
	Waiter		waiter = {0};
	long		i;

	call_prepare(insert, insert_pg);
	call_prepare(publish, publish_pg);
	waiter.times = times + WARM_UP;
	waiter.pg = connect_server();
	take_prepare(take_kind("bus"), waiter.pg, &options, &waiter.taken);
	sem_init(&waiter.got, 0, 0);
	if (pthread_create(&waiter.thread, NULL, waiter_main, &waiter) != 0)
		die("thread", strerror(errno));
	for (i = -WARM_UP; i < times; i++)
	{
		int64_t		inserted = timed_call(insert, insert_pg, inserts,
										  i + WARM_UP);
		int64_t		insert_end = now_ns();
		int64_t		published = timed_call(publish, publish_pg, publishes,
										   i + WARM_UP);
		int64_t		publish_end = now_ns();

		sem_wait(&waiter.got);
		if (i < 0)
			continue;
		insert_ns[i] = insert_end - inserted;
		publish_ns[i] = publish_end - published;
		wake_ns[i] = waiter.returned - published;
	}
	pthread_join(waiter.thread, NULL);
	report("insert", insert_ns, (size_t) times);
	report("publish", publish_ns, (size_t) times);
	report("wake", wake_ns, (size_t) times);
	printf("samples %ld\n", times);
}

/* ----------
 * delayed
 * ----------
 */

typedef struct Arrival
{
	int64_t		id;
	int64_t		at;				/* by the server's clock, in us */
} Arrival;

static void
publish_delayed(PGconn *pg)
{
	char		delay[16];
	const char *value = delay;

	snprintf(delay, sizeof(delay), "%ld", 200 + random() % 800);
	pg_check(pg, PQexecPrepared(pg, "publish", 1, &value, NULL, NULL, 1),
			 PGRES_TUPLES_OK);
}

static void
claim_delayed(PGconn *pg, Arrival *arrival)
{
	PGresult   *result = PQexecPrepared(pg, "claim", 0, NULL, NULL, NULL, 1);
	const char *value;
	const int	length = 8;
	const int	format = 1;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		die("claim", PQerrorMessage(pg));
	arrival->id = get_int64(PQgetvalue(result, 0, 0));
	arrival->at = get_int64(PQgetvalue(result, 0, 2));
	value = PQgetvalue(result, 0, 1);
	pg_check(pg, PQexecPrepared(pg, "ack", 1, &value, &length, &format, 1),
			 PGRES_TUPLES_OK);
	PQclear(result);
}

/* When the message was due, in microseconds. */
static int64_t
due_at(PGconn *pg, int64_t id)
{
	char		key[8];
	const char *value = key;
	const int	length = 8;
	const int	format = 1;
	PGresult   *result;
	int64_t		due;

	put_int64(key, (uint64_t) id);
	result = PQexecPrepared(pg, "due", 1, &value, &length, &format, 1);
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		die("available_at", PQerrorMessage(pg));
	due = get_int64(PQgetvalue(result, 0, 0));
	PQclear(result);
	return due;
}

static void
run_delayed(void)
{
	const Oid	int8 = INT8OID;
	PGconn	   *pg = connect_server();
	PGconn	   *waiter = connect_server();
	size_t		n = (size_t) times * DELAYED;
	int64_t    *late_ns = allocate(n * sizeof(int64_t));
	Arrival		arrivals[DELAYED];
	long		early = 0;
	long		i;
	int			j;

	pg_check(pg, PQprepare(pg, "publish", DELAYED_PUBLISH, 0, NULL),
			 PGRES_COMMAND_OK);
	pg_check(pg, PQprepare(pg, "due", DELAYED_DUE, 1, &int8),
			 PGRES_COMMAND_OK);
	pg_check(waiter, PQprepare(waiter, "claim", DELAYED_CLAIM, 0, NULL),
			 PGRES_COMMAND_OK);
	pg_check(waiter, PQprepare(waiter, "ack", "SELECT message_bus.ack($1)", 1,
							   &int8), PGRES_COMMAND_OK);
	for (i = 0; i < times; i++)
	{
		for (j = 0; j < DELAYED; j++)
			publish_delayed(pg);
		for (j = 0; j < DELAYED; j++)
			claim_delayed(waiter, &arrivals[j]);
		for (j = 0; j < DELAYED; j++)
		{
			int64_t		late = arrivals[j].at - due_at(pg, arrivals[j].id);

			if (late < 0)
				early++;
			late_ns[i * DELAYED + j] = late * 1000;
		}
	}
	report("lateness", late_ns, n);
	printf("lateness_min_us %.1f samples %zu early %ld\n",
		   (double) late_ns[0] / 1000, n, early);
}

/* ----------
 * idle
 * ----------
 */

static void
run_idle(void)
{
	static PGconn *all[MAX_SESSIONS];
	char		buffer[256];
	int			i;

	for (i = 0; i < sessions; i++)
	{
		all[i] = connect_server();
		if (!PQsendQuery(all[i], statement))
			die(statement, PQerrorMessage(all[i]));
	}
	sleep_ns(SETTLE_NS);
	printf("ready\n");
	fflush(stdout);
	while (read(STDIN_FILENO, buffer, sizeof(buffer)) > 0)
		continue;
	for (i = 0; i < sessions; i++)
	{
		PGcancel   *cancel = PQgetCancel(all[i]);

		if (!PQconsumeInput(all[i]) || !PQisBusy(all[i]))
			die("idle", "a session has not waited");
		if (!PQcancel(cancel, buffer, (int) sizeof(buffer)))
			die("cancel", buffer);
		PQfreeCancel(cancel);
	}
	for (i = 0; i < sessions; i++)
		PQfinish(all[i]);
}

static void
usage(void)
{
	die("usage", "bench_latency [-n TIMES] [-c SESSIONS] [-o SQL]"
		" wake|delayed|idle");
}

int
main(int argc, char **argv)
{
	const char *mode;
	int			option;

	while ((option = getopt(argc, argv, "n:c:o:")) != -1)
	{
		switch (option)
		{
			case 'n':
				times = strtol(optarg, NULL, 10);
				break;
			case 'c':
				sessions = (int) strtol(optarg, NULL, 10);
				break;
			case 'o':
				statement = optarg;
				break;
			default:
				usage();
		}
	}
	if (optind != argc - 1 || times < 0 || sessions < 1 ||
		sessions > MAX_SESSIONS)
		usage();
	mode = argv[optind];
	if (times == 0)
		times = strcmp(mode, "wake") == 0 ? 500 : 20;
	if (strcmp(mode, "wake") == 0)
		run_wake();
	else if (strcmp(mode, "delayed") == 0)
		run_delayed();
	else if (strcmp(mode, "idle") == 0 && statement != NULL)
		run_idle();
	else
		usage();
	return 0;
}
