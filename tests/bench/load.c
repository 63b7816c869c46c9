/*-------------------------------------------------------------------------
 *
 * load.c
 *	  Store messages as fast as one machine can, through the bus or past it.
 *
 * Usage:	bench_load [-c CONNECTIONS] [-s SECONDS] [-n CALLS] [-b CHANNEL]
 *				[-i FIRST_ID] [-t TTL_SECONDS] [-o SQL [-p SQL]] MODE
 *
 * The server is named by libpq's environment variables.  MODE says what a
 * call is:
 *
 *	batch-bytes		publish_batch_bytes() of BATCH messages, binary
 *	batch-content	the same of content type application/json, which is checked
 *	batch-large		batch-bytes of LARGE_BATCH messages
 *	batch-json		publish_batch() of the same messages
 *	copy-binary		COPY of BATCH rows in the binary format
 *	copy-text		COPY of BATCH rows in the text format
 *	single-bytes	publish_bytes() of one message, prepared, binary
 *	single-content	the same of content type application/json
 *	single-insert	INSERT of one row, prepared, binary
 *	peer-batch		peer.send_batch() of BATCH messages, binary
 *	plain-insert	INSERT of one row into peer.plain, prepared, binary
 *	queue-batch		INSERT of BATCH rows into bench.queue
 *	pgq-batch		pgq.insert_event() of BATCH events, then pgq.ticker()
 *
 * Those that publish do so to CHANNEL ("bench"); copy-... and single-insert
 * write rows from FIRST_ID on to the table bench.message, which has the
 * columns of message_bus.message.  Each call is a transaction.  Every
 * connection has a thread and one call in flight.
 *
 * Payloads, checksums, rows and arrays are made up before the clock starts;
 * a row of COPY or INSERT lacks only its id and its times then.  So what the
 * table costs is the server's work and as little as can be of ours.
 *
 * It ends after SECONDS or CALLS calls a connection, and prints names and
 * values: calls, messages, seconds, rate (messages a second), and the p50,
 * p99 and longest latency of a call in microseconds.
 *
 * With -o a further connection runs that statement half a second after the
 * start, and then the one of -p.  The calls go on until SECONDS after the
 * start of the first or until the end of the last, whichever is later, and
 * only calls that end in that window are counted.  Added are the first value
 * ("result") and the duration ("op_ms") of the one, the time from its start
 * to the end of the other ("all_ms"), and the rate, p99 and longest latency
 * of the calls that were in flight or began in that time ("op_rate",
 * "op_p99_us", "op_max_us").
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "client.h"

#define WARM_UP 10				/* calls before the clock starts */
#define OP_DELAY_NS INT64_C(500000000)
#define MAX_CONNECTIONS 64

/* one connection */
typedef struct Worker
{
	pthread_t	thread;
	PGconn	   *pg;
	Call	   *calls;			/* its own */
	Sample	   *samples;
	size_t		nsamples;
	size_t		room;
} Worker;

/* What the calls of a span of time were like. */
typedef struct Summary
{
	size_t		calls;
	double		rate;
	double		p50_us;
	double		p99_us;
	double		max_us;
} Summary;

static const CallKind *kind;
static int	connections = 1;
static double seconds = 10;
static long max_calls = 0;		/* of a connection; 0: any number */
static const char *op = NULL;
static const char *op_then = NULL;
static int64_t deadline = INT64_MAX;	/* atomic */
static int64_t started;
static int64_t op_started = 0;
static int64_t op_ended = 0;
static int64_t all_ended = 0;
static char op_result[64] = "";
static pthread_barrier_t barrier;

/* ----------
 * Connections
 * ----------
 */

static void
worker_open(Worker *worker)
{
	worker->pg = connect_server();
	worker->calls = calls_make(kind);
	call_prepare(kind, worker->pg);
}

static void
worker_note(Worker *worker, int64_t start, int64_t end)
{
	if (worker->nsamples == worker->room)
	{
		worker->room = worker->room ? 2 * worker->room : 65536;
		worker->samples = enlarge(worker->samples,
								  worker->room * sizeof(Sample));
	}
	worker->samples[worker->nsamples].end = end;
	worker->samples[worker->nsamples].latency = end - start;
	worker->nsamples++;
}

/*
 * worker_main is a connection's thread.  The two barriers are between the
 * warm-up and the calls that count.
 */
static void *
worker_main(void *arg)
{
	Worker	   *worker = arg;
	long		i;

	for (i = 0; i < WARM_UP && max_calls == 0; i++)
		call_send(kind, worker->pg, worker->calls, i);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	for (i = 0; max_calls == 0 || i < max_calls; i++)
	{
		int64_t		start = now_ns();

		if (start >= __atomic_load_n(&deadline, __ATOMIC_RELAXED))
			break;
		call_send(kind, worker->pg, worker->calls, i);
		worker_note(worker, start, now_ns());
	}
	return NULL;
}

/*
 * op_one runs a statement, keeps its first value, and returns when it ended.
 */
static int64_t
op_one(PGconn *pg, const char *statement, char *value, size_t size)
{
	PGresult   *result = PQexec(pg, statement);
	int64_t		end = now_ns();

	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
		snprintf(value, size, "%s", PQgetvalue(result, 0, 0));
	else if (PQresultStatus(result) == PGRES_COMMAND_OK)
		snprintf(value, size, "%s", PQcmdTuples(result));
	else
		die(statement, PQerrorMessage(pg));
	PQclear(result);
	return end;
}

/*
 * op_run runs the statements of -o and -p amid the calls.
 */
static void
op_run(PGconn *pg)
{
	char		ignored[64];

	sleep_ns(OP_DELAY_NS);
	op_started = now_ns();
	op_ended = op_one(pg, op, op_result, sizeof(op_result));
	all_ended = op_ended;
	if (op_then)
		all_ended = op_one(pg, op_then, ignored, sizeof(ignored));
}

/* ----------
 * Figures
 * ----------
 */

/*
 * summarize tells of the calls that ended from "from" on, and not after "to"
 * or, with "in_flight", were sent by then.
 */
static Summary
summarize(const Worker *workers, int64_t from, int64_t to, bool in_flight)
{
	Summary		summary = {0};
	size_t		total = 0;
	size_t		ended = 0;
	size_t		n = 0;
	int64_t    *latencies;
	int			w;
	size_t		i;

	for (w = 0; w < connections; w++)
		total += workers[w].nsamples;
	latencies = allocate((total + 1) * sizeof(int64_t));
	for (w = 0; w < connections; w++)
	{
		for (i = 0; i < workers[w].nsamples; i++)
		{
			const Sample *sample = &workers[w].samples[i];

			if (sample->end < from)
				continue;
			if (sample->end <= to)
				ended++;
			else if (!in_flight || sample->end - sample->latency > to)
				continue;
			latencies[n++] = sample->latency;
		}
	}
	sort_numbers(latencies, n);
	summary.calls = ended;
	summary.rate = (double) ended * call_messages(kind) / ((double) (to - from) / 1e9);
	summary.p50_us = percentile_us(latencies, n, 0.5);
	summary.p99_us = percentile_us(latencies, n, 0.99);
	summary.max_us = percentile_us(latencies, n, 1);
	free(latencies);
	return summary;
}

static void
report(const Worker *workers)
{
	int64_t		from = op ? op_started : started;
	int64_t		to = from;
	Summary		all;
	Summary		during;
	int			w;

	for (w = 0; w < connections; w++)
	{
		if (workers[w].nsamples > 0 &&
			workers[w].samples[workers[w].nsamples - 1].end > to)
			to = workers[w].samples[workers[w].nsamples - 1].end;
	}
	if (to <= from)
		die("calls", "no call has ended");
	all = summarize(workers, from, to, false);
	printf("calls %zu messages %zu seconds %.6f rate %.1f"
		   " p50_us %.1f p99_us %.1f max_us %.1f",
		   all.calls, all.calls * (size_t) call_messages(kind),
		   (double) (to - from) / 1e9, all.rate,
		   all.p50_us, all.p99_us, all.max_us);
	if (op)
	{
		during = summarize(workers, op_started, all_ended, true);
		printf(" result %s op_ms %.3f all_ms %.3f op_rate %.1f op_p99_us %.1f"
			   " op_max_us %.1f", op_result,
			   (double) (op_ended - op_started) / 1e6,
			   (double) (all_ended - op_started) / 1e6,
			   during.rate, during.p99_us, during.max_us);
	}
	printf("\n");
}

static void
usage(void)
{
	die("usage", "bench_load [-c CONNECTIONS] [-s SECONDS] [-n CALLS]"
		" [-b CHANNEL] [-i FIRST_ID] [-t TTL_SECONDS] [-o SQL [-p SQL]] MODE");
}

static void
read_options(int argc, char **argv)
{
	int			option;

	while ((option = getopt(argc, argv, "b:c:s:n:i:t:o:p:")) != -1)
	{
		switch (option)
		{
			case 'b':
				call_options.channel = optarg;
				break;
			case 'c':
				connections = (int) strtol(optarg, NULL, 10);
				break;
			case 's':
				seconds = strtod(optarg, NULL);
				break;
			case 'n':
				max_calls = strtol(optarg, NULL, 10);
				break;
			case 'i':
				call_options.next_id = strtoll(optarg, NULL, 10);
				break;
			case 't':
				call_options.ttl_us = (int64_t) (strtod(optarg, NULL) * 1e6);
				break;
			case 'o':
				op = optarg;
				break;
			case 'p':
				op_then = optarg;
				break;
			default:
				usage();
		}
	}
	if (optind != argc - 1 || connections < 1 ||
		connections > MAX_CONNECTIONS || seconds <= 0 || max_calls < 0)
		usage();
	kind = call_kind(argv[optind]);
	if (kind == NULL)
		usage();
}

int
main(int argc, char **argv)
{
	static Worker workers[MAX_CONNECTIONS];
	PGconn	   *op_connection = NULL;
	int64_t		end;
	int			w;

	read_options(argc, argv);
	if (op)
		op_connection = connect_server();
	if (pthread_barrier_init(&barrier, NULL, (unsigned) connections + 1) != 0)
		die("barrier", strerror(errno));
	for (w = 0; w < connections; w++)
	{
		worker_open(&workers[w]);
		if (pthread_create(&workers[w].thread, NULL, worker_main,
						   &workers[w]) != 0)
			die("thread", strerror(errno));
	}

	pthread_barrier_wait(&barrier);
	started = now_ns();
	if (!op && max_calls == 0)
		deadline = started + (int64_t) (seconds * 1e9);
	pthread_barrier_wait(&barrier);
	if (op)
	{
		op_run(op_connection);
		end = op_started + (int64_t) (seconds * 1e9);
		__atomic_store_n(&deadline, end, __ATOMIC_RELAXED);
	}
	for (w = 0; w < connections; w++)
		pthread_join(workers[w].thread, NULL);
	report(workers);
	return 0;
}
